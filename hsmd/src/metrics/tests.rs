use std::time::{Duration, UNIX_EPOCH};

use hsm_device::{Backend, State, Status};
use hsm_proto::v1::Reason;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{LedgerOperation, Metrics, Stage, serve};

fn metrics() -> Metrics {
    Metrics::new(true, UNIX_EPOCH + Duration::from_secs(1_800_000_000))
}

fn holds(metrics: &Metrics, line: &str) -> bool {
    metrics.encode().unwrap().lines().any(|found| found == line)
}

#[test]
fn signatures_refusals_and_failures_are_counted_apart() {
    let metrics = metrics();
    metrics.signed("hub-1", "prevote", "hub", 41);
    metrics.signed("hub-1", "prevote", "hub", 42);
    metrics.refused("hub-1", "precommit", Reason::DoubleSign);
    metrics.refused("", "proposal", Reason::ChainNotGranted);
    metrics.refused("hub-1", "prevote", Reason::DeviceUnavailable);
    for line in [
        r#"hsmd_requests_total{chain="hub-1",kind="prevote",result="signed"} 2"#,
        r#"hsmd_requests_total{chain="hub-1",kind="precommit",result="refused"} 1"#,
        r#"hsmd_requests_total{chain="",kind="proposal",result="refused"} 1"#,
        r#"hsmd_requests_total{chain="hub-1",kind="prevote",result="failed"} 1"#,
        r#"hsmd_refusals_total{reason="DOUBLE_SIGN"} 1"#,
        r#"hsmd_refusals_total{reason="DEVICE_UNAVAILABLE"} 1"#,
        r#"hsmd_refusals_total{reason="REGRESSION"} 0"#,
        r#"hsmd_double_sign_refusals_total{chain="hub-1"} 1"#,
        r#"hsmd_last_signed_height{chain="hub-1",key="hub"} 42"#,
    ] {
        assert!(
            holds(&metrics, line),
            "{line} is not in\n{}",
            metrics.encode().unwrap()
        );
    }
}

#[test]
fn every_metric_of_a_fresh_daemon_has_its_documented_name() {
    let metrics = metrics();
    metrics.stage(Stage::Reserve, Duration::from_micros(400));
    metrics.device_error("a", "timeout");
    metrics.device(&Status {
        name: "a".to_owned(),
        backend: Backend::Mock,
        state: State::Ready,
        info: None,
        waiting: 0,
        last_fault: None,
    });
    metrics.handshake_failed("no_certificate");
    metrics.certificate_reload_failed();
    metrics.unreadable_request();
    metrics.ledger_answer(LedgerOperation::Swap, Duration::from_millis(2), 77);
    metrics.ledger_error(LedgerOperation::Read);
    metrics.ledger_conflict();
    metrics.ledger_mismatch("k", "c", true);
    let version = env!("CARGO_PKG_VERSION");
    for line in [
        &format!("hsmd_build_info{{version=\"{version}\"}} 1"),
        "hsmd_mock 1",
        "hsmd_certificate_expiry_timestamp_seconds 1800000000",
        "hsmd_certificate_reload_failures_total 1",
        "hsmd_unreadable_requests_total 1",
        "hsmd_handshake_failures_total{cause=\"no_certificate\"} 1",
        "hsmd_stage_duration_seconds_bucket{le=\"0.00025\",stage=\"reserve\"} 0",
        "hsmd_stage_duration_seconds_bucket{le=\"0.0005\",stage=\"reserve\"} 1",
        "hsmd_stage_duration_seconds_count{stage=\"reply\"} 0",
        "hsmd_device_errors_total{device=\"a\",kind=\"timeout\"} 1",
        "hsmd_device_state{device=\"a\",state=\"ready\"} 1",
        "hsmd_device_state{device=\"a\",state=\"failed\"} 0",
        "hsmd_sentry_connections 0",
        "hsmd_ledger_duration_seconds_count{operation=\"swap\"} 1",
        "hsmd_ledger_duration_seconds_count{operation=\"read\"} 0",
        "hsmd_ledger_errors_total{operation=\"read\"} 1",
        "hsmd_ledger_conflicts_total 1",
        "hsmd_ledger_revision 77",
        "hsmd_ledger_mismatch{chain=\"c\",key=\"k\"} 1",
    ] {
        assert!(
            holds(&metrics, line),
            "{line} is not in\n{}",
            metrics.encode().unwrap()
        );
    }
}

#[test]
fn a_sentry_is_counted_while_it_is_connected() {
    let metrics = metrics();
    let first = metrics.sentry_connected();
    let second = metrics.sentry_connected();
    assert!(holds(&metrics, "hsmd_sentry_connections 2"));
    drop(first);
    assert!(holds(&metrics, "hsmd_sentry_connections 1"));
    drop(second);
    assert!(holds(&metrics, "hsmd_sentry_connections 0"));
}

/// Sends a request and reads the whole answer.
async fn ask(listener: &std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(listener).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn metrics_are_served_at_one_path_and_to_get_only() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = tokio::spawn(serve(listener, metrics(), async {
        let _ = stopped.await;
    }));
    let answer = ask(&address, "GET /metrics").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(
        answer.contains("content-type: application/openmetrics-text; version=1.0.0"),
        "{answer}"
    );
    assert!(
        answer.contains("\nhsmd_mock 1\n") && answer.ends_with("# EOF\n"),
        "{answer}"
    );
    assert!(ask(&address, "GET /").await.starts_with("HTTP/1.1 404 "));
    assert!(
        ask(&address, "POST /metrics")
            .await
            .starts_with("HTTP/1.1 405 ")
    );
    stop.send(()).unwrap();
    served.await.unwrap();
    TcpStream::connect(address).await.unwrap_err();
}
