use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::client::WebPkiServerVerifier;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_stream::StreamExt;
use tonic::transport::server::Connected;

use super::certificates::Look;
use super::{Certificates, Connection, Error, IdentityError, Listener, Peer};
use crate::config::Listen;
use crate::metrics::Metrics;

const SENTRY: &str = "spiffe://example.org/sentry/alpha";
const HOUR: Duration = Duration::from_secs(3600);

struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

struct Issued {
    certificate: rcgen::Certificate,
    key: KeyPair,
}

fn authority() -> Authority {
    authority_named("our CA")
}

fn authority_named(name: &str) -> Authority {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    let key = KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap();
    Authority {
        issuer: Issuer::new(params, key),
        certificate,
    }
}

impl Authority {
    fn issue(&self, params: CertificateParams) -> Issued {
        let key = KeyPair::generate().unwrap();
        Issued {
            certificate: params.signed_by(&key, &self.issuer).unwrap(),
            key,
        }
    }

    fn server(&self) -> Issued {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue(params)
    }

    fn sentry(&self) -> Issued {
        self.issue(client(&[SENTRY]))
    }
}

/// A client certificate of the last and the next hour.
fn client(uris: &[&str]) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, SENTRY);
    params.not_before = (SystemTime::now() - HOUR).into();
    params.not_after = (SystemTime::now() + HOUR).into();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let uri = |uri: &&str| SanType::URI((*uri).try_into().unwrap());
    params.subject_alt_names = uris.iter().map(uri).collect();
    params
}

/// Certificate files in a directory, and the CA behind them.
struct Files {
    directory: TempDir,
    authority: Authority,
}

impl Files {
    fn new() -> Self {
        let files = Self {
            directory: tempfile::tempdir().unwrap(),
            authority: authority(),
        };
        files.write("ca.pem", &files.authority.certificate.pem());
        files.write_server(&files.authority.server());
        files
    }

    fn write_server(&self, server: &Issued) {
        self.write("server.pem", &server.certificate.pem());
        self.write("server.key", &server.key.serialize_pem());
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    }

    fn listen(&self) -> Listen {
        let path = |name| self.directory.path().join(name);
        Listen {
            address: "127.0.0.1:0".parse().unwrap(),
            certificate: path("server.pem"),
            private_key: path("server.key"),
            client_ca: path("ca.pem"),
            trust_domain: "example.org".parse().unwrap(),
            reflection: false,
        }
    }

    fn load(&self) -> Result<Certificates, Error> {
        Certificates::load(&self.listen())
    }

    /// Connects as `client`, or without a certificate.
    async fn connect(
        &self,
        address: SocketAddr,
        client: Option<&Issued>,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.authority.certificate.der().clone()).unwrap();
        let verifier =
            WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build();
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_webpki_verifier(verifier.unwrap());
        let config = match client {
            Some(client) => {
                let key = PrivateKeyDer::try_from(client.key.serialize_der()).unwrap();
                let chain = vec![client.certificate.der().clone()];
                config.with_client_auth_cert(chain, key).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        let stream = TcpStream::connect(address).await?;
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }
}

/// A listener over `files` and its connections.
async fn listen(
    files: &Files,
) -> (
    SocketAddr,
    Certificates,
    impl StreamExt<Item = std::io::Result<Connection>> + Unpin,
) {
    let certificates = files.load().unwrap();
    let metrics = Metrics::new(false, certificates.expires());
    let address = files.listen().address;
    let listener = Listener::bind(address, certificates.clone(), &metrics)
        .await
        .unwrap();
    (listener.address(), certificates, listener.incoming())
}

/// The server's side of a handshake with `client`.
async fn turned_away(files: &Files, client: Option<&Issued>) -> &'static str {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let server = files.load().unwrap().server().into();
    let accept = async {
        let (stream, _) = listener.accept().await.unwrap();
        super::listener::shake_hands(&server, stream, HOUR)
            .await
            .err()
            .map_or("admitted", |(cause, _)| cause)
    };
    // With TLS 1.3 the client learns of the refusal when it first reads.
    let connect = async {
        if let Ok(mut stream) = files.connect(address, client).await {
            stream.read_u8().await.unwrap_err();
        }
    };
    tokio::join!(accept, connect).0
}

async fn echo(client: &mut TlsStream<TcpStream>, server: &mut Connection) {
    client.write_all(b"ping").await.unwrap();
    let mut received = [0; 4];
    server.read_exact(&mut received).await.unwrap();
    assert_eq!(&received, b"ping");
}

#[tokio::test]
async fn a_client_of_our_ca_is_the_caller_that_its_certificate_names() {
    let files = Files::new();
    let (address, _, mut incoming) = listen(&files).await;
    let sentry = files.authority.sentry();
    let mut client = files.connect(address, Some(&sentry)).await.unwrap();
    let mut connection = incoming.next().await.unwrap().unwrap();
    echo(&mut client, &mut connection).await;
    let peer = connection.connect_info();
    assert_eq!(
        peer.caller_at(SystemTime::now()).unwrap().to_string(),
        SENTRY
    );
    assert_eq!(peer.caller_name(), SENTRY);
    assert_eq!(peer.address(), client.get_ref().0.local_addr().unwrap());
    assert_eq!(
        client.get_ref().1.protocol_version(),
        Some(rustls::ProtocolVersion::TLSv1_3)
    );
}

#[tokio::test]
async fn a_client_without_a_valid_certificate_of_our_ca_is_turned_away() {
    let files = Files::new();
    let mut expired = client(&[SENTRY]);
    expired.not_after = (SystemTime::now() - Duration::from_secs(5)).into();
    let mut early = client(&[SENTRY]);
    early.not_before = (SystemTime::now() + Duration::from_secs(600)).into();
    let mut server_only = client(&[SENTRY]);
    server_only.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    let cases = [
        ("no_certificate", None),
        (
            "unknown_issuer",
            Some(authority_named("another CA").sentry()),
        ),
        ("unknown_issuer", Some(authority_named("our CA").sentry())),
        ("expired", Some(files.authority.issue(expired))),
        ("not_yet_valid", Some(files.authority.issue(early))),
        (
            "invalid_certificate",
            Some(files.authority.issue(server_only)),
        ),
    ];
    for (cause, client) in &cases {
        assert_eq!(turned_away(&files, client.as_ref()).await, *cause);
    }
}

#[test]
fn a_certificate_that_does_not_name_one_caller_of_our_trust_domain_names_nobody() {
    let authority = authority();
    let address = "127.0.0.1:1".parse().unwrap();
    let trust_domain = "example.org".parse().unwrap();
    let second = "spiffe://example.org/sentry/beta";
    for (uris, expected) in [
        (&[SENTRY, second][..], "2 URI SANs"),
        (&[], "no URI SAN"),
        (
            &["spiffe://example.com/sentry/alpha"],
            "not lie in the trust domain example.org",
        ),
        (
            &["https://example.org/sentry/alpha"],
            "must begin with \"spiffe://\"",
        ),
        (&["spiffe://example.org/root/alpha"], "the role must be"),
    ] {
        let issued = authority.issue(client(uris));
        let peer = Peer::new(address, issued.certificate.der(), &trust_domain);
        match peer.caller_at(SystemTime::now()) {
            Err(IdentityError::Unrecognised { why }) => assert!(why.contains(expected), "{why}"),
            other => panic!("{uris:?}: {other:?}"),
        }
        assert!(peer.caller_name().starts_with("certificate sha256:"));
    }
    let peer = Peer::new(address, b"no certificate", &trust_domain);
    assert!(matches!(
        peer.caller_at(SystemTime::now()),
        Err(IdentityError::Unrecognised { .. })
    ));
}

#[test]
fn dns_names_beside_the_uri_do_not_matter() {
    let mut params = client(&[SENTRY]);
    params
        .subject_alt_names
        .push(SanType::DnsName("host.example.org".try_into().unwrap()));
    let issued = authority().issue(params);
    let peer = Peer::new(
        "127.0.0.1:1".parse().unwrap(),
        issued.certificate.der(),
        &"example.org".parse().unwrap(),
    );
    assert_eq!(peer.caller_at(SystemTime::now()).unwrap().name(), "alpha");
}

#[tokio::test]
async fn validity_is_judged_at_each_request_of_an_open_connection() {
    let files = Files::new();
    let (address, _, mut incoming) = listen(&files).await;
    let sentry = files.authority.sentry();
    let mut client = files.connect(address, Some(&sentry)).await.unwrap();
    let mut connection = incoming.next().await.unwrap().unwrap();
    let peer = connection.connect_info();
    let now = SystemTime::now();
    assert!(peer.caller_at(now).is_ok());
    let late = peer.caller_at(now + HOUR + Duration::from_secs(2));
    assert!(
        matches!(late, Err(IdentityError::Expired { .. })),
        "{late:?}"
    );
    let early = peer.caller_at(now - HOUR - Duration::from_secs(2));
    assert!(
        matches!(early, Err(IdentityError::NotYetValid { .. })),
        "{early:?}"
    );
    echo(&mut client, &mut connection).await;
}

#[tokio::test]
async fn a_client_that_speaks_no_tls_1_3_is_turned_away() {
    // RFC 5246 section 7.4.1.2: version 1.2, one suite, and no extension `supported_versions`.
    let mut hello = vec![0x03, 0x03];
    hello.extend([7; 32]); // random
    hello.push(0); // no session
    hello.extend([0, 2, 0xc0, 0x2b]); // TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
    hello.extend([1, 0]); // no compression
    hello.extend([0, 16]); // extensions:
    hello.extend([0, 10, 0, 4, 0, 2, 0, 23]); // supported_groups: secp256r1
    hello.extend([0, 13, 0, 4, 0, 2, 4, 3]); // signature_algorithms: ecdsa_secp256r1_sha256
    let length = u8::try_from(hello.len()).unwrap();
    let mut record = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    record.extend(hello);

    let files = Files::new();
    let (address, _, _incoming) = listen(&files).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&record).await.unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    // A record of type alert, two bytes long: fatal, protocol_version (RFC 5246 section 7.2).
    assert_eq!((answer[0], &answer[3..]), (21, &[0, 2, 2, 70][..]));
}

#[tokio::test]
async fn a_client_that_never_finishes_its_handshake_is_turned_away() {
    let files = Files::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let _silent = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let server = files.load().unwrap().server().into();
    let limit = Duration::from_millis(20);
    let shaken = super::listener::shake_hands(&server, stream, limit).await;
    assert_eq!(shaken.err().map(|(cause, _)| cause), Some("timeout"));
}

#[tokio::test]
async fn a_client_that_speaks_no_http_2_after_its_handshake_is_cut_off_and_another_is_not() {
    const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let files = Files::new();
    let sentry = files.authority.sentry();
    let ends = async |sent: usize| {
        let (address, _, mut connections) = listen(&files).await;
        let (client, server) =
            tokio::join!(files.connect(address, Some(&sentry)), connections.next());
        let (mut client, mut server) = (client.unwrap(), server.unwrap().unwrap());
        client.write_all(&PREFACE[..sent]).await.unwrap();
        server.read_exact(&mut vec![0; sent]).await.unwrap();
        let longer = super::connection::PREFACE_TIMEOUT + Duration::from_millis(500);
        let read = tokio::time::timeout(longer, server.read_u8()).await;
        read.ok().map(|read| read.map_err(|error| error.kind()))
    };
    let cut_off = Some(Err(std::io::ErrorKind::TimedOut));
    let (nothing, little, all) = tokio::join!(ends(0), ends(23), ends(24));
    assert_eq!((nothing, little, all), (cut_off, cut_off, None));
}

fn shown(client: &TlsStream<TcpStream>) -> CertificateDer<'static> {
    client.get_ref().1.peer_certificates().unwrap()[0].clone()
}

/// Changed files are taken into use when they were seen twice without another change. The listener's own watch
/// may have looked meanwhile, so that what each of these looks finds is not certain; that they suffice is.
fn take_changed(certificates: &Certificates) {
    for _ in 0..2 {
        assert!(!matches!(certificates.look(), Look::Failed(_)));
    }
}

#[tokio::test]
async fn new_certificates_are_used_without_dropping_a_connection() {
    let files = Files::new();
    let (address, certificates, mut incoming) = listen(&files).await;
    let sentry = files.authority.sentry();
    let mut first = files.connect(address, Some(&sentry)).await.unwrap();
    let mut first_served = incoming.next().await.unwrap().unwrap();

    let renewed = files.authority.server();
    files.write_server(&renewed);
    take_changed(&certificates);
    let second = files.connect(address, Some(&sentry)).await.unwrap();
    incoming.next().await.unwrap().unwrap();
    assert_eq!(shown(&second), *renewed.certificate.der());
    assert_ne!(shown(&first), *renewed.certificate.der());
    echo(&mut first, &mut first_served).await;

    files.write("ca.pem", &authority().certificate.pem());
    take_changed(&certificates);
    assert_eq!(turned_away(&files, Some(&sentry)).await, "unknown_issuer");
    echo(&mut first, &mut first_served).await;
}

#[tokio::test]
async fn files_that_cannot_be_used_leave_the_old_ones_in_use() {
    let files = Files::new();
    let (address, certificates, mut incoming) = listen(&files).await;
    let before = certificates.expires();
    files.write("server.pem", "no certificate");
    assert!(matches!(certificates.look(), Look::Unchanged));
    let Look::Failed(error) = certificates.look() else {
        panic!("files that cannot be used")
    };
    let error = error.to_string();
    assert!(
        error.contains("listen.certificate") && error.contains("server.pem"),
        "{error}"
    );
    assert_eq!(certificates.expires(), before);
    let sentry = files.authority.sentry();
    files.connect(address, Some(&sentry)).await.unwrap();
    incoming.next().await.unwrap().unwrap();
}

#[test]
fn changed_files_are_taken_once_they_are_at_rest_and_a_fault_is_told_once() {
    let files = Files::new();
    let certificates = files.load().unwrap();
    assert!(matches!(certificates.look(), Look::Unchanged));

    let renewed = files.authority.server();
    files.write("server.pem", &renewed.certificate.pem());
    assert!(
        matches!(certificates.look(), Look::Unchanged),
        "the key may yet follow"
    );
    files.write("server.key", &renewed.key.serialize_pem());
    assert!(
        matches!(certificates.look(), Look::Unchanged),
        "it changed since the last look"
    );
    assert!(matches!(certificates.look(), Look::Reloaded));
    assert!(matches!(certificates.look(), Look::Unchanged));

    files.write("ca.pem", "");
    assert!(matches!(certificates.look(), Look::Unchanged));
    assert!(matches!(
        certificates.look(),
        Look::Failed(Error::File {
            key: "listen.client_ca",
            ..
        })
    ));
    assert!(matches!(certificates.look(), Look::Unchanged));
}

#[test]
fn certificate_and_ca_are_checked_where_the_key_cannot_be_seen() {
    let files = Files::new();
    let unseen = Listen {
        private_key: "/run/credentials/hsmd.service/server.key".into(),
        ..files.listen()
    };
    Certificates::check_without_key(&unseen).unwrap();
    files.write("ca.pem", "");
    let error = Certificates::check_without_key(&unseen).unwrap_err();
    assert!(error.to_string().contains("listen.client_ca"), "{error}");
}

#[test]
fn files_that_do_not_fit_together_are_refused_with_the_file_and_the_reason() {
    let with = |spoil: &dyn Fn(&Files)| {
        let files = Files::new();
        spoil(&files);
        files
            .load()
            .err()
            .map(|error| error.to_string())
            .unwrap_or_default()
    };
    let mut expired = CertificateParams::new(["localhost".to_owned()]).unwrap();
    expired.not_after = (SystemTime::now() - Duration::from_secs(5)).into();
    for (error, parts) in [
        (
            with(&|files| files.write("server.key", &KeyPair::generate().unwrap().serialize_pem())),
            ["listen.certificate", "is listen.private_key its key?"],
        ),
        (
            with(&|files| files.write_server(&files.authority.issue(expired.clone()))),
            ["listen.certificate", "expired at"],
        ),
        (
            with(&|files| {
                let path = files.directory.path().join("server.key");
                std::fs::set_permissions(path, PermissionsExt::from_mode(0o640)).unwrap();
            }),
            ["listen.private_key", "chmod 0600"],
        ),
        (
            with(&|files| files.write("server.key", "-----BEGIN SECRET-----")),
            ["listen.private_key", "holds no private key"],
        ),
        (
            with(&|files| files.write("ca.pem", "")),
            ["listen.client_ca", "holds no certificate"],
        ),
    ] {
        for part in parts {
            assert!(error.contains(part), "{part:?} is not in {error:?}");
        }
    }
}

#[tokio::test]
async fn a_certificate_that_is_revoked_is_refused_on_a_connection_that_was_opened_before() {
    use hsm_policy::revocation::{Revocations, Scope};

    let files = Files::new();
    let (address, certificates, mut incoming) = listen(&files).await;
    let sentry = files.authority.sentry();
    let mut client = files.connect(address, Some(&sentry)).await.unwrap();
    let mut connection = incoming.next().await.unwrap().unwrap();
    let peer = connection.connect_info();
    let now = SystemTime::now();
    peer.caller_at(now).unwrap();
    let none = Revocations::none("example.org".parse().unwrap());
    let moment = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap()
        .as_secs()
        + 1;
    let others = none.and(&Scope::Node("beta".to_owned()), moment).unwrap();
    certificates.revoked().put(&others).unwrap();
    peer.caller_at(now).unwrap();
    let ours = others
        .and(&Scope::Node("alpha".to_owned()), moment)
        .unwrap();
    certificates.revoked().put(&ours).unwrap();
    assert!(matches!(
        peer.caller_at(now),
        Err(IdentityError::Revoked { .. })
    ));
    // An older list does not bring it back, and what is not asked about stays open.
    certificates.revoked().put(&others).unwrap_err();
    assert!(peer.caller_at(now).is_err());
    echo(&mut client, &mut connection).await;
}

#[test]
fn a_granting_certificate_and_one_with_a_common_name_only_make_no_caller() {
    let authority = authority();
    let address = "127.0.0.1:1".parse().unwrap();
    let trust_domain = "example.org".parse().unwrap();
    let peer = |params| {
        Peer::new(
            address,
            authority.issue(params).certificate.der(),
            &trust_domain,
        )
    };
    let granting = peer(client(&["spiffe://example.org/grant/alpha"]));
    assert!(matches!(
        granting.caller_at(SystemTime::now()),
        Err(IdentityError::Granting { .. })
    ));
    let mut named = client(&[]);
    named
        .distinguished_name
        .push(rcgen::DnType::CommonName, SENTRY);
    assert!(matches!(
        peer(named).caller_at(SystemTime::now()),
        Err(IdentityError::Unrecognised { .. })
    ));
}
