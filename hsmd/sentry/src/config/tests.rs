use super::*;

const GOOD: &str = r#"
[tls]
certificate = "sentry.pem"
private_key = "/etc/hsm-sentry/sentry.key"
ca = "ca.pem"
[metrics]
listen = "127.0.0.1:9470"
[log]
format = "json"
[[chain]]
chain_id = "cosmoshub-4"
cometbft = "0.38"
node = "unix:///var/lib/gaia/privval.sock"
key = "cosmoshub"
[[chain.signer]]
address = "127.0.0.1:26690"
server_name = "hsmd.example.org"
"#;

fn parse(text: &str) -> Result<Config, Error> {
    Config::parse(Path::new("/etc/hsm-sentry/hsm-sentry.toml"), text)
}

/// The one problem of [`GOOD`] with a part of it replaced.
fn problem(part: &str, replacement: &str) -> Problem {
    assert!(GOOD.contains(part), "{part}");
    let mut problems = parse(&GOOD.replace(part, replacement))
        .unwrap_err()
        .problems;
    assert_eq!(problems.len(), 1, "{problems:?}");
    problems.remove(0)
}

#[test]
fn a_whole_configuration_is_read_with_its_defaults_and_absolute_paths() {
    let config = parse(GOOD).unwrap();
    assert_eq!(
        config.tls.certificate,
        Path::new("/etc/hsm-sentry/sentry.pem")
    );
    assert_eq!(
        config.tls.private_key,
        Path::new("/etc/hsm-sentry/sentry.key")
    );
    assert_eq!(config.metrics.unwrap().port(), 9470);
    assert_eq!(config.log, LogFormat::Json);
    let [chain] = config.chains.as_slice() else {
        panic!("{:?}", config.chains);
    };
    assert_eq!(
        (chain.line, chain.deadline),
        (Line::V0_38, Duration::from_secs(3))
    );
    assert_eq!(
        chain.node,
        NodeAddress::Unix("/var/lib/gaia/privval.sock".into())
    );
    assert_eq!(chain.signers[0].server_name.to_str(), "hsmd.example.org");
}

#[test]
fn every_line_of_cometbft_can_be_named_and_no_other() {
    for line in ["0.34", "0.37", "0.38", "0.39", "1.0"] {
        let config = parse(&GOOD.replace("\"0.38\"", &format!("{line:?}"))).unwrap();
        assert_eq!(config.chains[0].line.to_string(), line);
    }
    let problem = problem("\"0.38\"", "\"0.36\"");
    assert!(
        problem.fault.contains("0.36") && problem.fault.contains("0.37"),
        "{problem}"
    );
}

#[test]
fn an_unknown_field_anywhere_is_refused_with_its_line_and_name() {
    for (before, line) in [
        ("[tls]", 3),
        ("[metrics]", 7),
        ("[log]", 9),
        ("[[chain]]", 11),
        ("[[chain.signer]]", 16),
    ] {
        let problem = problem(before, &format!("{before}\nkeyy = 1"));
        assert_eq!(problem.key, format!("line {line}"));
        assert!(problem.fault.contains("unknown field `keyy`"), "{problem}");
    }
}

#[test]
fn a_faulty_value_is_refused_with_key_value_and_remedy() {
    #[rustfmt::skip]
    let cases = [
        ("\"cosmoshub-4\"", "\"\"", "chain[0].chain_id", "has 0 bytes"),
        ("\"cosmoshub\"", "\"\"", "chain[0].key", "is empty"),
        ("node = ", "deadline_ms = 5000\nnode = ", "chain[0].deadline_ms", "out of range"),
        ("node = ", "deadline_ms = 0\nnode = ", "chain[0].deadline_ms", "out of range"),
        ("node = ", "allow_remote_node = true\nnode = ", "chain[0].allow_remote_node", "contradicts"),
        ("unix:///var", "/var", "chain[0].node", "neither unix:"),
        ("unix:///var/lib/gaia/privval.sock", "tcp://localhost", "chain[0].node", "neither unix:"),
        ("127.0.0.1:26690", "127.0.0.1", "chain[0].signer[0].address", "not HOST:PORT"),
        ("\"hsmd.example.org\"", "\"not a name\"", "chain[0].signer[0].server_name", "neither a DNS name"),
        ("127.0.0.1:9470", "0.0.0.0:9470", "metrics.listen", "not a loopback"),
        ("127.0.0.1:9470", "9470", "metrics.listen", "not IP:PORT"),
    ];
    for (part, replacement, key, fault) in cases {
        let problem = problem(part, replacement);
        assert_eq!(problem.key, key);
        assert!(problem.fault.contains(fault), "{problem}");
        assert!(
            problem.value.is_some() && !problem.remedy.is_empty(),
            "{problem}"
        );
    }
}

#[test]
fn tcp_to_another_host_is_refused_with_the_reason_unless_it_is_forced() {
    let tcp = |address: &str, more: &str| {
        parse(&GOOD.replace(
            "node = \"unix:///var/lib/gaia/privval.sock\"",
            &format!("node = \"tcp://{address}\"\n{more}"),
        ))
    };
    for loopback in [
        "127.0.0.1:26659",
        "localhost:26659",
        "[::1]:26659",
        "127.8.9.10:1",
    ] {
        assert!(tcp(loopback, "").is_ok(), "{loopback}");
    }
    for remote in [
        "10.0.0.1:26659",
        "[2001:db8::1]:26659",
        "node.example.org:26659",
        "localhost.evil:1",
    ] {
        let refused = tcp(remote, "").unwrap_err();
        assert!(
            refused
                .to_string()
                .contains("new key for its tcp:// listener"),
            "{refused}"
        );
        assert!(tcp(remote, "allow_remote_node = true").is_ok(), "{remote}");
    }
}

const LEDGER: &str = "0123456789abcdef0123456789abcdef";

fn with_second(address: &str) -> String {
    format!("{GOOD}[[chain.signer]]\naddress = {address:?}\nserver_name = \"two.example.org\"\n")
}

fn with_ledger(text: &str, id: &str) -> String {
    text.replace("node = ", &format!("ledger_id = {id:?}\nnode = "))
}

#[test]
fn several_signers_are_taken_in_order_with_the_ledger_that_they_share() {
    let config = parse(&with_ledger(&with_second("10.0.0.2:26690"), LEDGER)).unwrap();
    let chain = &config.chains[0];
    assert_eq!(chain.ledger_id.as_deref(), Some(LEDGER));
    let signers: Vec<_> = chain.signers.iter().map(|it| it.address.as_str()).collect();
    assert_eq!(signers, ["127.0.0.1:26690", "10.0.0.2:26690"]);
    // One may be held to a ledger too.
    let config = parse(&with_ledger(GOOD, LEDGER)).unwrap();
    assert_eq!(config.chains[0].ledger_id.as_deref(), Some(LEDGER));
}

#[test]
fn a_second_signer_without_a_ledger_is_refused_because_the_two_could_sign_twice() {
    let refused = parse(&with_second("10.0.0.2:26690")).unwrap_err();
    assert_eq!(refused.problems[0].key, "chain[0].ledger_id");
    assert!(refused.to_string().contains("sign twice"), "{refused}");
}

#[test]
fn a_signer_named_twice_and_what_is_no_ledger_id_are_refused() {
    let twice = with_ledger(&with_second("127.0.0.1:26690"), LEDGER);
    let problems = parse(&twice).unwrap_err().problems;
    assert_eq!(problems[0].key, "chain[0].signer[1].address");
    for id in [
        "",
        "0123",
        &LEDGER.to_uppercase(),
        &LEDGER.replace('0', "g"),
        &format!("{LEDGER}0"),
    ] {
        let problems = parse(&with_ledger(GOOD, id)).unwrap_err().problems;
        assert_eq!(problems[0].key, "chain[0].ledger_id", "{id}");
    }
}

#[test]
fn a_chain_without_a_signer_and_a_file_without_a_chain_are_refused() {
    let (without_signer, _) = GOOD.split_once("[[chain.signer]]").unwrap();
    assert_eq!(
        parse(without_signer).unwrap_err().problems[0].key,
        "chain[0].signer"
    );
    let (without_chain, _) = GOOD.split_once("[[chain]]").unwrap();
    assert_eq!(parse(without_chain).unwrap_err().problems[0].key, "chain");
}

#[test]
fn two_chains_with_the_same_node_are_refused_and_all_problems_are_told_at_once() {
    let (head, chain) = GOOD.split_once("[[chain]]").unwrap();
    let text = format!(
        "{head}[[chain]]{chain}[[chain]]{chain}[[chain]]{}",
        chain.replace("cosmoshub-4", "")
    );
    let problems = parse(&text).unwrap_err().problems;
    let keys: Vec<_> = problems
        .iter()
        .map(|problem| problem.key.as_str())
        .collect();
    assert_eq!(keys, ["chain[1].node", "chain[2].chain_id"]);
}

#[test]
fn a_missing_file_is_refused_with_its_name() {
    let refused = Config::load(Path::new("/nonexistent/sentry.toml")).unwrap_err();
    assert!(
        refused.to_string().contains("/nonexistent/sentry.toml"),
        "{refused}"
    );
}

#[test]
fn a_line_that_is_no_toml_is_named_without_its_text() {
    let refused = parse("[tls]\nprivate_key = -----BEGIN SECRET\n")
        .unwrap_err()
        .to_string();
    assert!(refused.contains("line 2"), "{refused}");
    assert!(!refused.contains("SECRET"), "{refused}");
}
