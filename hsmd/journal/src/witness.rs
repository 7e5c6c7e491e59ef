//! Asking a witness for its cosignature: [c2sp.org/tlog-witness](https://c2sp.org/tlog-witness), over HTTP/1.1.
//!
//! Plain HTTP only. Nothing that is sent is secret, and a cosignature counts because it verifies, not because of
//! where it came from; for a witness behind HTTPS a TLS proxy on this host does.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::note::{self, Algorithm, Note, Verifier};
use crate::tree::Hash;

/// A longer answer is not read.
const MAX_ANSWER: usize = 64 << 10;

/// A witness: where it is, and what its cosignatures are checked with.
#[derive(Clone, Debug)]
pub struct Witness {
    uri: Uri,
    verifier: Verifier,
}

/// Why there is no cosignature.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The URL or the key is not one of a witness.
    #[error("{0}")]
    Malformed(String),
    /// It cannot be reached, or gave no answer in time.
    #[error("witness {name} ({uri}): {cause}")]
    Unreachable {
        /// The witness's name.
        name: String,
        /// Where it was looked for.
        uri: String,
        /// What happened.
        cause: String,
    },
    /// It refuses, or its answer is not of the protocol.
    #[error("witness {name} answers {status}: {message}")]
    Refused {
        /// The witness's name.
        name: String,
        /// The HTTP status.
        status: u16,
        /// What it says, and what that means.
        message: String,
    },
}

/// What a witness says to a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It cosigned, and the note has its cosignature.
    Cosigned,
    /// The last checkpoint that it cosigned has this size: the proof must begin there.
    Knows(u64),
}

impl Witness {
    /// A witness by its submission prefix, such as `http://witness.example:7380`, and its verifier key.
    ///
    /// # Errors
    /// [`Error::Malformed`]: not an `http` URL, or not a key for cosignatures.
    pub fn new(prefix: &str, verifier: Verifier) -> Result<Self, Error> {
        let malformed = |what: &str| Error::Malformed(format!("{prefix}: {what}"));
        if verifier.algorithm() != Algorithm::Cosignature {
            return Err(malformed(
                "its key is not one of a witness (cosignature/v1)",
            ));
        }
        let uri = format!("{}/add-checkpoint", prefix.trim_end_matches('/'));
        let uri: Uri = uri.parse().map_err(|_| malformed("not a URL"))?;
        if uri.scheme_str() != Some("http") || uri.host().is_none() || uri.query().is_some() {
            return Err(malformed(
                "not an http:// URL; for a witness behind https:// name a TLS proxy on this host",
            ));
        }
        Ok(Self { uri, verifier })
    }

    /// What its cosignatures are checked with.
    #[must_use]
    pub fn verifier(&self) -> &Verifier {
        &self.verifier
    }

    /// Sends the checkpoint with the proof that its tree begins with that of the `old` entries which the
    /// witness cosigned last. A cosignature that holds is added to the note.
    ///
    /// # Errors
    /// [`Error::Unreachable`], [`Error::Refused`]. The note is as it was then.
    pub async fn add_checkpoint(
        &self,
        old: u64,
        proof: &[Hash],
        note: &mut Note,
        patience: Duration,
    ) -> Result<Answer, Error> {
        let hashes: String = proof
            .iter()
            .map(|hash| note::to_base64(hash) + "\n")
            .collect();
        let body = format!("old {old}\n{hashes}\n{note}");
        let answered = tokio::time::timeout(patience, self.post(body)).await;
        let answered = answered.unwrap_or_else(|_| Err("it gave no answer in time".to_owned()));
        let (status, body) = answered.map_err(|cause| Error::Unreachable {
            name: self.verifier.name().to_owned(),
            uri: self.uri.to_string(),
            cause,
        })?;
        let known = note::number(body.trim_end());
        match (status, known) {
            (StatusCode::OK, _) => match note.add(&body, std::slice::from_ref(&self.verifier)) {
                0 => Err(self.refused(status, "without a cosignature by its key that holds")),
                _ => Ok(Answer::Cosigned),
            },
            (StatusCode::CONFLICT, Some(size)) if size != old => Ok(Answer::Knows(size)),
            _ => Err(self.refused(status, meaning(status))),
        }
    }

    async fn post(&self, body: String) -> Result<(StatusCode, String), String> {
        let host = self.uri.host().unwrap_or_default();
        let port = self.uri.port_u16().unwrap_or(80);
        let address = (host.trim_matches(['[', ']']), port);
        let stream = TcpStream::connect(address).await.map_err(text)?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(text)?;
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let authority = self
            .uri
            .authority()
            .map_or(host, |authority| authority.as_str());
        let request = Request::post(path)
            .header(HOST, authority)
            .body(Full::new(Bytes::from(body)))
            .map_err(text)?;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(text)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        tokio::pin!(connection, exchange);
        tokio::select! {
            biased;
            done = &mut exchange => done,
            ended = &mut connection => {
                ended.map_err(text)?;
                exchange.await
            }
        }
    }

    fn refused(&self, status: StatusCode, message: &str) -> Error {
        Error::Refused {
            name: self.verifier.name().to_owned(),
            status: status.as_u16(),
            message: message.to_owned(),
        }
    }
}

fn meaning(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "it does not know this log: have its operator add the origin",
        StatusCode::FORBIDDEN => {
            "it does not know this log or not its key: have its operator add them"
        }
        StatusCode::CONFLICT => {
            "it cosigned another tree of this size: somebody forged this log, or it went back"
        }
        StatusCode::UNPROCESSABLE_ENTITY => {
            "what it cosigned before is not the beginning of this tree: the log went back"
        }
        _ => "that is not of c2sp.org/tlog-witness",
    }
}

fn text(error: impl std::error::Error) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::thread;

    use ed25519_dalek::{Signer as _, SigningKey};

    use super::*;
    use crate::note::Checkpoint;

    fn verifier(name: &str, algorithm: Algorithm) -> Verifier {
        let key = SigningKey::from_bytes(&[7; 32]).verifying_key();
        Verifier::new(name, algorithm, key.as_bytes()).unwrap()
    }

    fn note() -> Note {
        let checkpoint = Checkpoint {
            origin: "log".to_owned(),
            size: 1,
            root: [1; 32],
            extensions: Vec::new(),
        };
        let signature = SigningKey::from_bytes(&[7; 32]).sign(checkpoint.text().as_bytes());
        let verifier = verifier("log", Algorithm::Ed25519);
        checkpoint.sign(&verifier, &signature.to_bytes()).unwrap()
    }

    /// A witness that says this to anything: the URL.
    fn saying(answer: String) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            let _ = stream.write_all(answer.as_bytes());
        });
        format!("http://{address}")
    }

    fn ask(answer: &str) -> (Result<Answer, Error>, Note) {
        let witness = Witness::new(
            &saying(answer.to_owned()),
            verifier("witness", Algorithm::Cosignature),
        );
        let mut note = note();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let patience = Duration::from_secs(5);
        let asked = runtime.unwrap().block_on(async {
            let witness = witness.unwrap();
            witness.add_checkpoint(0, &[], &mut note, patience).await
        });
        (asked, note)
    }

    #[test]
    fn an_answer_that_is_not_a_cosignature_that_holds_adds_nothing() {
        let line = verifier("witness", Algorithm::Cosignature).line(&[1; 72]);
        let forged = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{line}",
            line.len()
        );
        let endless = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat(MAX_ANSWER + 1));
        for answer in [
            &*forged,
            &*endless,
            "",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 409 Conflict\r\nContent-Length: 2\r\n\r\n0\n",
            "SSH-2.0-OpenSSH\r\n",
        ] {
            let (asked, after) = ask(answer);
            assert!(asked.is_err(), "{answer}: {asked:?}");
            assert_eq!(after, note());
        }
        let (asked, _) = ask("HTTP/1.1 409 Conflict\r\nContent-Length: 3\r\n\r\n12\n");
        assert_eq!(asked.unwrap(), Answer::Knows(12));
    }

    #[test]
    fn only_an_http_url_and_a_witness_key_make_a_witness() {
        let key = || verifier("witness", Algorithm::Cosignature);
        assert!(Witness::new("http://[::1]:7380/prefix/", key()).is_ok());
        for url in [
            "https://w.example",
            "w.example",
            "http://",
            "http://w.example?x=y",
        ] {
            assert!(Witness::new(url, key()).is_err(), "{url}");
        }
        let log = verifier("log", Algorithm::Ed25519);
        assert!(Witness::new("http://w.example", log).is_err());
    }
}
