//! Documents that do not count: each has a reason of its own, is journaled, and leaves the policy as it was.

use std::time::{Duration, SystemTime};

use hsm_tests::authority::uri;
use hsm_tests::daemon::{ALL_KINDS, grant};
use hsm_tests::officers::Officers;
use hsm_tests::validator::{CHAIN, KEY, SENTRY};

use crate::deployment::{Deployment, expiring};

#[test]
fn a_policy_signed_by_nobody_who_is_an_officer_is_refused() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let elsewhere = deployment.path("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let strangers = Officers::new(&elsewhere, &["mallory", "ada"]).unwrap();
    let signed = strangers.sign("policy", &deployment.newer(), &["mallory", "ada"]);
    deployment.assert_refused(&signed, "NOT_AN_OFFICER", "no officer's key");
}

#[test]
fn a_policy_signed_by_too_few_is_refused() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let signed = deployment.signed(&deployment.newer(), &["ada"]);
    deployment.assert_refused(
        &signed,
        "TOO_FEW_OFFICERS",
        "signed by 1 of 3 officers, and 2 are needed",
    );
}

#[test]
fn a_policy_signed_twice_by_one_officer_is_refused() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let mut signed = deployment.signed(&deployment.newer(), &["ada"]);
    let again = signed[2..].to_vec();
    signed.extend(again);
    deployment.assert_refused(&signed, "OFFICER_TWICE", "ada signed twice");
}

#[test]
fn a_policy_signed_with_a_security_key_that_nobody_touched_is_refused() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let document = deployment.newer();
    let ada = deployment.signed(&document, &["ada"]);
    let cleo = deployment
        .cleo
        .sign("policy@hsmd", document.as_bytes(), 0, 7);
    let signed = deployment.with_signature(ada, &cleo);
    deployment.assert_refused(&signed, "SECURITY_KEY_UNTOUCHED", "not touched");
}

#[test]
fn an_older_policy_is_refused_and_so_is_the_one_in_force() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let second = deployment.newer();
    let signed = deployment.signed(&second, &["ada", "bob"]);
    deployment.load_with(&signed).expect("version 2");
    deployment.assert_refused(&signed, "POLICY_NOT_NEWER", "version 2 was loaded already");
    let first = second.replace("version = 2", "version = 1");
    let signed = deployment.signed(&first, &["ada", "bob"]);
    deployment.assert_refused(&signed, "POLICY_NOT_NEWER", "versions only rise");
}

#[test]
fn a_policy_of_which_a_byte_was_changed_is_refused() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let document = deployment.newer();
    let signed = deployment.signed(&document, &["ada", "bob"]);
    std::fs::write(&signed[1], document.replace("version = 2", "version = 3")).unwrap();
    deployment.assert_refused(&signed, "SIGNATURE_OF_ANOTHER_DOCUMENT", "does not verify");
}

#[test]
fn an_officers_signature_of_another_policy_is_not_taken_again() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let second = deployment.newer();
    let ada_before = deployment.signed(&second, &["ada"])[3].clone();
    let ada_before = std::fs::read_to_string(ada_before).unwrap();
    deployment
        .load(&second, &["ada", "bob"])
        .expect("version 2");
    let third = deployment.newer();
    let bob = deployment.signed(&third, &["bob"]);
    let signed = deployment.with_signature(bob, &ada_before);
    deployment.assert_refused(
        &signed,
        "SIGNATURE_OF_ANOTHER_DOCUMENT",
        "by ada, does not verify",
    );
}

#[test]
fn a_policy_with_an_unknown_field_is_refused_although_officers_signed_it() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let document = deployment
        .newer()
        .replace("[[grant]]", "[[grant]]\nmax_hight = 5");
    let signed = deployment.signed(&document, &["ada", "bob"]);
    deployment.assert_refused(&signed, "DOCUMENT_MALFORMED", "max_hight");
}

#[test]
fn a_draft_is_refused_although_officers_signed_it() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let draft = grant(&uri("sentry", SENTRY), KEY, CHAIN, &ALL_KINDS);
    let signed = deployment.signed(&draft, &["ada", "bob"]);
    deployment.assert_refused(&signed, "POLICY_IS_A_DRAFT", "sign-request");
}

#[test]
fn a_policy_for_another_deployment_is_refused() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let document = deployment.newer();
    let line = document
        .lines()
        .find(|line| line.starts_with("deployment"))
        .unwrap();
    let other = format!("deployment = \"{}\"", "0f".repeat(16));
    let signed = deployment.signed(&document.replace(line, &other), &["ada", "bob"]);
    deployment.assert_refused(&signed, "OTHER_DEPLOYMENT", "is for deployment");
}

#[test]
fn a_policy_signed_under_another_namespace_is_refused() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let signed = deployment
        .officers
        .sign("set-officers", &deployment.newer(), &["ada", "bob"]);
    deployment.assert_refused(&signed, "OTHER_NAMESPACE", "is signed with -n policy@hsmd");
}

#[test]
fn a_policy_that_expired_before_it_was_loaded_is_refused() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let document = expiring(
        &deployment.newer(),
        SystemTime::now() - Duration::from_secs(2),
    );
    let signed = deployment.signed(&document, &["ada", "bob"]);
    deployment.assert_refused(&signed, "DOCUMENT_EXPIRED", "expired at");
}

#[test]
fn a_policy_that_names_a_key_which_is_not_there_is_refused_whole() {
    let Some(deployment) = Deployment::start() else {
        return;
    };
    let document =
        deployment.newer() + &grant(&uri("sentry", SENTRY), "no-key", CHAIN, &["prevote"]);
    let signed = deployment.signed(&document, &["ada", "bob"]);
    deployment.assert_refused(&signed, "STATEMENT_DOES_NOT_FIT", "names key no-key");
}
