//! What Prometheus sees: names begin with `hsmd_enroll_`. Labels are constants.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use hsm_proto::v1::Reason;
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

/// Prometheus needs one; the rest is for a person with curl.
const MAX_CONNECTIONS: usize = 8;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// All metrics of one server. Clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Shared>);

struct Shared {
    registry: Registry,
    issued: Family<KindLabel, Counter>,
    refusals: Family<ReasonLabel, Counter>,
    authority_failures: Counter,
    sequence: Gauge<u64, AtomicU64>,
    journal_fault: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("hsmd_enroll");
        let shared = Shared {
            issued: Family::default(),
            refusals: Family::default(),
            authority_failures: Counter::default(),
            sequence: Gauge::default(),
            journal_fault: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register(
            "certificates_issued",
            "Certificates issued",
            shared.issued.clone(),
        );
        registry.register(
            "refusals",
            "Calls refused, by reason",
            shared.refusals.clone(),
        );
        registry.register(
            "authority_failures",
            "Signatures that the CA's device did not make",
            shared.authority_failures.clone(),
        );
        registry.register(
            "revocation_sequence",
            "Sequence of the list of revocations",
            shared.sequence.clone(),
        );
        registry.register(
            "journal_fault",
            "1 while the journal cannot be written",
            shared.journal_fault.clone(),
        );
        for kind in ["grant", "client", "server"] {
            let _ = shared.issued.get_or_create_owned(&KindLabel { kind });
        }
        Self(Arc::new(Shared { registry, ..shared }))
    }
}

impl Metrics {
    pub(crate) fn issued(&self, kind: &'static str) {
        self.0.issued.get_or_create(&KindLabel { kind }).inc();
    }

    pub(crate) fn refused(&self, reason: Reason) {
        let reason = reason.name();
        self.0.refusals.get_or_create(&ReasonLabel { reason }).inc();
    }

    pub(crate) fn authority_failed(&self) {
        self.0.authority_failures.inc();
    }

    pub(crate) fn revocations(&self, sequence: u64) {
        self.0.sequence.set(sequence);
    }

    pub(crate) fn journal_fault(&self, faulty: bool) {
        self.0.journal_fault.set(i64::from(faulty));
    }
}

/// Serves `GET /metrics` until `done` is ready.
pub async fn serve(listener: TcpListener, metrics: Metrics, done: impl Future<Output = ()>) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut done = std::pin::pin!(done);
    loop {
        let accepting = async {
            let permit = permits.clone().acquire_owned().await.ok()?;
            listener
                .accept()
                .await
                .ok()
                .map(|(stream, _)| (stream, permit))
        };
        let accepted = tokio::select! {
            () = &mut done => return,
            accepted = accepting => accepted,
        };
        let Some((stream, permit)) = accepted else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let metrics = metrics.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&request, &metrics);
                async move { Ok::<_, Infallible>(answer) }
            });
            let _ = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            drop(permit);
        });
    }
}

fn answer(request: &Request<Incoming>, metrics: &Metrics) -> Response<Full<Bytes>> {
    let mut body = String::new();
    let status = if request.uri().path() != "/metrics" {
        StatusCode::NOT_FOUND
    } else if request.method() != Method::GET {
        StatusCode::METHOD_NOT_ALLOWED
    } else if text::encode(&mut body, &metrics.0.registry).is_err() {
        StatusCode::INTERNAL_SERVER_ERROR
    } else {
        StatusCode::OK
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    response.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static(kind),
    );
    response
}
