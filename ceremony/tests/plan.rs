//! A spec is checked as a whole, and a step that cannot follow the ones before it does not load.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

use hsm_ceremony::plan::{Disorder, Error, Fact, Plan, Spec, SpecError, Step};

const EXAMPLE: &str = include_str!("../example.toml");

fn example() -> (Spec, Plan) {
    let spec = Spec::parse(EXAMPLE).unwrap();
    let plan = Plan::new(&spec).unwrap();
    (spec, plan)
}

/// The plan's JSON with its steps rearranged.
fn rearranged(change: impl FnOnce(&mut Vec<serde_json::Value>)) -> Result<Plan, Error> {
    let json = example().1.to_json().unwrap();
    let mut json: serde_json::Value = serde_json::from_str(&json).unwrap();
    change(json["steps"].as_array_mut().unwrap());
    Plan::parse(json.to_string().as_bytes())
}

fn disorder(plan: Result<Plan, Error>) -> Disorder {
    match plan.unwrap_err() {
        Error::Disorder(disorder) => disorder,
        other => panic!("{other}"),
    }
}

#[test]
fn a_plan_is_what_the_spec_needs_and_loads_again() {
    let (_, plan) = example();
    let steps: Vec<String> = plan.steps().map(|(_, step)| step.to_string()).collect();
    assert_eq!(
        steps,
        [
            "Assemble",
            "Show the software",
            "Reset device A",
            "Verify device A",
            "Add the authentication keys to device A",
            "Remove the factory's key from device A",
            "Set the audit log of device A",
            "Reset device B",
            "Verify device B",
            "Add the authentication keys to device B",
            "Remove the factory's key from device B",
            "Set the audit log of device B",
            "Make the wrap key",
            "Put the wrap key into device A",
            "Put the wrap key into device B",
            "Generate key cosmoshub in device A",
            "Export key cosmoshub",
            "Split the wrap key",
            "Hand out share 1.1 of Edith Clarke",
            "Hand out share 1.2 of Hedy Lamarr",
            "Hand out share 1.3 of Mary Jackson",
            "Hand out share 2.1 of Escrow Ltd",
            "Read back share 1.1 of Edith Clarke",
            "Read back share 1.2 of Hedy Lamarr",
            "Read back share 1.3 of Mary Jackson",
            "Read back share 2.1 of Escrow Ltd",
            "Rehearse the recovery",
            "Restore into device B",
            "Compare device B",
            "Wipe the wrap key from memory",
            "Close the transcript",
        ]
    );
    assert_eq!(
        Plan::parse(plan.to_json().unwrap().as_bytes()).unwrap(),
        plan
    );
    let block: Vec<u32> = plan
        .steps()
        .map(|(number, _)| number)
        .filter(|number| plan.in_block(*number))
        .collect();
    assert_eq!(block, (13..=30).collect::<Vec<u32>>());
}

#[test]
fn no_step_loads_before_what_it_needs() {
    let (_, plan) = example();
    let loads = |from: usize, to: usize| {
        let moved = rearranged(|steps| {
            let step = steps.remove(from);
            steps.insert(to, step);
        });
        moved.is_ok()
    };
    let count = plan.steps().count();
    // The first steps, and those that end the block, have one place only.
    for last in [count - 1, count - 2, count - 3, count - 4, count - 5] {
        for to in 0..last {
            assert!(!loads(last, to), "step {} at {}", last + 1, to + 1);
        }
    }
    for to in [0, 1] {
        for from in to + 1..count {
            assert!(!loads(from, to), "step {} at {}", from + 1, to + 1);
        }
    }
    // Device B may be made ready before device A.
    assert!(rearranged(|steps| steps[2..12].rotate_left(5)).is_ok());
}

#[test]
fn no_step_of_a_plan_can_be_left_out() {
    let (_, plan) = example();
    for (number, step) in plan.steps() {
        let index = usize::try_from(number).unwrap() - 1;
        let loaded = rearranged(|steps| drop(steps.remove(index)));
        assert!(loaded.is_err(), "without step {number}, {step}");
    }
}

#[test]
fn a_share_that_is_not_read_back_stops_the_rehearsal() {
    let found = disorder(rearranged(|steps| drop(steps.remove(24))));
    let Disorder::TooEarly {
        step: Step::Rehearse,
        needed: Fact::ReadBack(share),
        ..
    } = found
    else {
        panic!("{found}")
    };
    assert_eq!(share.custodian, "Mary Jackson");
}

#[test]
fn a_step_is_there_once_and_nothing_follows_the_end() {
    let twice = disorder(rearranged(|steps| steps.insert(4, steps[3].clone())));
    assert!(
        matches!(twice, Disorder::Twice { number: 5, .. }),
        "{twice}"
    );
    let after = disorder(rearranged(|steps| {
        steps.push(serde_json::json!({"do": "reset", "device": "C"}))
    }));
    assert!(matches!(after, Disorder::AfterTheEnd { .. }), "{after}");
    // A third device, made ready like the others, gets the wrap key when there is none any more.
    let wiped = disorder(rearranged(|steps| {
        let mut third: Vec<serde_json::Value> = steps[2..7].to_vec();
        for step in &mut third {
            step["device"] = "C".into();
        }
        steps.insert(30, serde_json::json!({"do": "put-wrap-key", "device": "C"}));
        steps.splice(12..12, third);
    }));
    assert!(
        matches!(wiped, Disorder::AfterTheWipe { number: 36, .. }),
        "{wiped}"
    );
}

#[test]
fn an_unknown_step_or_field_does_not_load() {
    for wrong in [
        serde_json::json!({"do": "drink"}),
        serde_json::json!({"do": "assemble", "or": "not"}),
    ] {
        let loaded = rearranged(|steps| steps[0] = wrong);
        assert!(matches!(loaded, Err(Error::Malformed(_))));
    }
}

#[test]
fn the_script_has_every_step_and_fits_its_width() {
    let (spec, plan) = example();
    let script = plan.script(&spec).unwrap();
    for (number, step) in plan.steps() {
        assert!(
            script.contains(&format!("Step {number}: {step}")),
            "{script}"
        );
    }
    for line in script.lines() {
        assert!(line.chars().count() <= 78, "{line}");
    }
    let other = Spec::parse(&EXAMPLE.replace("Ada Lovelace", "Ida Rhodes")).unwrap();
    assert!(matches!(plan.script(&other), Err(Error::OtherSpec { .. })));
}

#[test]
fn every_wrong_value_of_a_spec_is_refused_by_name() {
    let cases = [
        ("initials = \"GH\"", "initials = \"AL\"", "role.initials"),
        (
            "serial = \"0012345679\"",
            "serial = \"0012345678\"",
            "device.serial",
        ),
        (
            "serial = \"0012345678\"",
            "serial = \"12345678\"",
            "device.serial",
        ),
        (
            "http://127.0.0.1:12346",
            "http://10.0.0.1:12346",
            "device.connector",
        ),
        (
            "http://127.0.0.1:12346",
            "https://127.0.0.1:12346",
            "device.connector",
        ),
        ("use = \"restore\"", "use = \"generate\"", "device.use"),
        (
            "purpose = \"administer\"",
            "purpose = \"audit\"",
            "authentication key administration",
        ),
        (
            "\"sign-eddsa\", \"get-log-entries\"",
            "\"sign-eddsa\", \"export-wrapped\"",
            "authentication key hsmd",
        ),
        (
            "\"sign-eddsa\", \"get-log-entries\"",
            "\"sign-ecdsa\", \"get-log-entries\"",
            "authentication key hsmd",
        ),
        (
            "\"sign-eddsa\", \"exportable-under-wrap\"]\n\n[wrap]",
            "\"sign-eddsa\", \"exportable-under-wrap\", \"sign-attestation-certificate\"]\n\n[wrap]",
            "key cosmoshub",
        ),
        (
            "\"sign-eddsa\", \"exportable-under-wrap\"]\n\n[wrap]",
            "\"sign-eddsa\"]\n\n[wrap]",
            "key cosmoshub",
        ),
        ("id = 100", "id = 1", "cosmoshub"),
        ("id = 100", "id = 10", "cosmoshub"),
        (
            "id = 200\ndomains = [1]",
            "id = 200\ndomains = [2]",
            "key cosmoshub",
        ),
        (
            "id = 200\ndomains = [1]",
            "id = 200\ndomains = [17]",
            "key cosmoshub",
        ),
        ("generation = 1", "generation = 0", "wrap.generation"),
        ("group_threshold = 2", "group_threshold = 3", "wrap"),
        ("group_threshold = 2", "group_threshold = 1", "wrap"),
        (
            "name = \"Hedy Lamarr\"",
            "name = \"Edith Clarke\"",
            "custodian.name",
        ),
        ("\"B0003\"", "\"B0001\"", "custodian.bags"),
        (
            "recipient = \"age1",
            "recipient = \"ssh-ed25519 ",
            "custodian",
        ),
        (
            "threshold = 2\n\n[[wrap.group.custodian]]",
            "threshold = 4\n\n[[wrap.group.custodian]]",
            "wrap",
        ),
        ("title = \"Cosmos", "title = \"\\u001b[2JCosmos", "title"),
    ];
    for (right, wrong, place) in cases {
        assert!(EXAMPLE.contains(right), "{right}");
        let error = Spec::parse(&EXAMPLE.replacen(right, wrong, 1)).unwrap_err();
        assert!(
            !matches!(error, SpecError::Malformed(_)),
            "{wrong}: {error}"
        );
        assert!(error.to_string().starts_with(place), "{wrong}: {error}");
    }
    for (right, wrong) in [
        ("title = ", "titel = "),
        ("algorithm = \"ed25519\"", "algorithm = \"rsa\""),
        ("id = 100", "id = 70000"),
    ] {
        let error = Spec::parse(&EXAMPLE.replacen(right, wrong, 1)).unwrap_err();
        assert!(matches!(error, SpecError::Malformed(_)), "{error}");
    }
}
