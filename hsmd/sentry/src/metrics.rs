//! Prometheus metrics; names begin with `hsm_sentry_`.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::net::TcpListener;

use crate::config;
use crate::privval::Kind;

/// A scraper that sends no request in this time is cut off.
const HEADERS: Duration = Duration::from_secs(5);

/// From 100 us to 5 s, when the node gives up.
const BUCKETS: [f64; 15] = [
    0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    5.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Signer {
    signer: String,
}

/// A signer in its place among those of a node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Seat {
    chain: String,
    node: String,
    signer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Node {
    chain: Arc<str>,
    node: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    chain: Arc<str>,
    kind: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    chain: Arc<str>,
    kind: &'static str,
}

#[derive(Clone)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(BUCKETS)
    }
}

/// All metrics of the process.
pub(crate) struct Metrics {
    registry: Registry,
    node_connected: Family<Node, Gauge>,
    node_connections: Family<Node, Counter>,
    signer_connected: Family<Signer, Gauge>,
    signer_connections: Family<Signer, Counter>,
    signer_usable: Family<Seat, Gauge>,
    signer_requests: Family<Seat, Counter>,
    signer_failovers: Family<Seat, Counter>,
    requests: Family<Answered, Counter>,
    duration: Family<Asked, Histogram, Buckets>,
    not_after: Gauge<f64, AtomicU64>,
    unusable: Counter,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("hsm_sentry"),
            node_connected: Family::default(),
            node_connections: Family::default(),
            signer_connected: Family::default(),
            signer_connections: Family::default(),
            signer_usable: Family::default(),
            signer_requests: Family::default(),
            signer_failovers: Family::default(),
            requests: Family::default(),
            duration: Family::new_with_constructor(Buckets),
            not_after: Gauge::default(),
            unusable: Counter::default(),
        };
        let registry = &mut metrics.registry;
        registry.register(
            "build",
            "The version that runs",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        registry.register(
            "node_connected",
            "1 while the node's privval socket is connected",
            metrics.node_connected.clone(),
        );
        registry.register(
            "node_connections",
            "Connections made to the node",
            metrics.node_connections.clone(),
        );
        registry.register(
            "signer_connected",
            "1 while hsmd is connected",
            metrics.signer_connected.clone(),
        );
        registry.register(
            "signer_connections",
            "Connections made to hsmd",
            metrics.signer_connections.clone(),
        );
        registry.register(
            "signer_usable",
            "1 while hsmd is connected and, where a ledger is pinned, reports it and the chain's public key",
            metrics.signer_usable.clone(),
        );
        registry.register(
            "signer_requests",
            "Requests put to hsmd, repeated ones too",
            metrics.signer_requests.clone(),
        );
        registry.register(
            "signer_failovers",
            "Requests put to the next hsmd because this one failed or was silent for too long",
            metrics.signer_failovers.clone(),
        );
        registry.register(
            "requests",
            "Requests of the node by kind and result: ok, or the reason of the refusal",
            metrics.requests.clone(),
        );
        registry.register_with_unit(
            "request_duration",
            "Time from a request's arrival to its answer",
            Unit::Seconds,
            metrics.duration.clone(),
        );
        registry.register_with_unit(
            "certificate_not_after_timestamp",
            "End of validity of our TLS certificate, since 1970",
            Unit::Seconds,
            metrics.not_after.clone(),
        );
        registry.register(
            "certificate_unusable",
            "Times that the changed certificate files could not be used",
            metrics.unusable.clone(),
        );
        metrics
    }

    /// `at` is seconds since 1970.
    #[allow(clippy::cast_precision_loss)] // exact for the next 200 million years
    pub(crate) fn certificate(&self, not_after: i64) {
        self.not_after.set(not_after as f64);
    }

    pub(crate) fn certificate_unusable(&self) {
        self.unusable.inc();
    }

    pub(crate) fn signer_connected(&self, address: &str, connected: bool) {
        let labels = Signer {
            signer: address.to_owned(),
        };
        if connected {
            self.signer_connections.get_or_create(&labels).inc();
        }
        self.signer_connected
            .get_or_create(&labels)
            .set(connected.into());
    }

    /// What is counted of one of a chain's signers.
    pub(crate) fn signer(&self, chain: &config::Chain, address: &str) -> SignerMetrics {
        let seat = Seat {
            chain: chain.chain_id.clone(),
            node: chain.node.to_string(),
            signer: address.to_owned(),
        };
        SignerMetrics {
            usable: self.signer_usable.get_or_create(&seat).clone(),
            requests: self.signer_requests.get_or_create(&seat).clone(),
            failovers: self.signer_failovers.get_or_create(&seat).clone(),
        }
    }

    /// Answers `GET /metrics` and nothing else.
    pub(crate) async fn serve(self: Arc<Self>, listener: TcpListener) {
        loop {
            let stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "the metrics listener cannot accept");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                    continue;
                }
            };
            let metrics = Arc::clone(&self);
            tokio::spawn(async move {
                let service = service_fn(|request| {
                    let response = metrics.respond(&request);
                    async { Ok::<_, Infallible>(response) }
                });
                let served = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADERS)
                    .keep_alive(false)
                    .serve_connection(TokioIo::new(stream), service);
                if let Err(error) = served.await {
                    tracing::debug!(%error, "a scraper's connection broke");
                }
            });
        }
    }

    fn respond(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let mut body = String::new();
        let mut response = Response::new(Full::default());
        if request.method() != Method::GET || request.uri().path() != "/metrics" {
            *response.status_mut() = StatusCode::NOT_FOUND;
        } else if text::encode(&mut body, &self.registry).is_err() {
            *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
        } else {
            *response.body_mut() = Full::from(body);
            response.headers_mut().insert(
                CONTENT_TYPE,
                hyper::header::HeaderValue::from_static(
                    "application/openmetrics-text; version=1.0.0; charset=utf-8",
                ),
            );
        }
        response
    }
}

/// One signer's share, in its place among those of a chain.
#[derive(Clone)]
pub(crate) struct SignerMetrics {
    pub(crate) usable: Gauge,
    pub(crate) requests: Counter,
    pub(crate) failovers: Counter,
}

/// One chain's share.
pub(crate) struct ChainMetrics {
    metrics: Arc<Metrics>,
    node: Node,
}

impl ChainMetrics {
    pub(crate) fn new(metrics: Arc<Metrics>, chain: &config::Chain) -> Self {
        let node = Node {
            chain: chain.chain_id.as_str().into(),
            node: chain.node.to_string().into(),
        };
        metrics.node_connected.get_or_create(&node).set(0);
        Self { metrics, node }
    }

    pub(crate) fn node_connected(&self, connected: bool) {
        if connected {
            self.metrics
                .node_connections
                .get_or_create(&self.node)
                .inc();
        }
        self.metrics
            .node_connected
            .get_or_create(&self.node)
            .set(connected.into());
    }

    pub(crate) fn answered(&self, kind: Kind, result: &'static str, took: Duration) {
        let (chain, kind) = (&self.node.chain, kind.name());
        let answered = Answered {
            chain: Arc::clone(chain),
            kind,
            result,
        };
        self.metrics.requests.get_or_create(&answered).inc();
        let asked = Asked {
            chain: Arc::clone(chain),
            kind,
        };
        self.metrics
            .duration
            .get_or_create(&asked)
            .observe(took.as_secs_f64());
    }
}
