//! A device on a thread of its own: bounded queue, deadlines, sessions that heal, a watch over calls that hang.

mod thread;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::{Algorithm, Backend, Error, Info, KeyLocator, Opener, PublicKey, Signature};

/// How a [`Worker`] treats its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How many requests may wait. One more is refused at once.
    pub queue: usize,
    /// After how much idle time the session is kept alive and checked. YubiHSM sessions expire after 30 s.
    pub keep_alive: Duration,
    /// How long one call into the device may take before the device counts as hung. The slowest honest call, an
    /// Ed25519 signature over 2 kB in a YubiHSM2, takes well under a second.
    pub hang: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            queue: 128,
            keep_alive: Duration::from_secs(10),
            hang: Duration::from_secs(2),
        }
    }
}

/// The state of a device, as its worker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A session is being opened, for the first time or after the last one was lost. Requests wait for it.
    Connecting,
    /// A session is open.
    Ready,
    /// No session could be opened; tried again every two seconds at least. Requests are refused at once.
    Failed,
    /// A call into a PKCS#11 module does not return. Requests are refused at once until it does.
    Hung,
    /// The worker was stopped.
    Stopped,
}

impl State {
    /// The name in metrics and logs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Ready => "ready",
            Self::Failed => "failed",
            Self::Hung => "hung",
            Self::Stopped => "stopped",
        }
    }
}

/// What is known of a device at the moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// The worker's name, from the configuration.
    pub name: String,
    /// The kind of device.
    pub backend: Backend,
    /// The state of its session.
    pub state: State,
    /// What the device last said of itself; `None` until it was first reached.
    pub info: Option<Info>,
    /// How many requests wait.
    pub waiting: usize,
    /// The last error that cost a session or kept one from being opened, also if it has healed since.
    pub last_fault: Option<Error>,
}

/// A handle to a device's thread. Clones share it; when the last one is dropped, the thread stops.
#[derive(Clone)]
pub struct Worker {
    shared: Arc<Shared>,
    _stop: Arc<StopOnDrop>,
}

impl Worker {
    /// Starts the device's thread, which opens a session at once and for as long as it takes.
    ///
    /// # Errors
    /// Only where the operating system gives no thread; a device that cannot be opened shows in [`Self::status`].
    pub fn start(
        name: impl Into<String>,
        opener: Opener,
        options: Options,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            name: name.into(),
            opener,
            options,
            inner: Mutex::new(Inner::default()),
            work: Condvar::new(),
            watch: Condvar::new(),
        });
        let stop = Arc::new(StopOnDrop(Arc::clone(&shared)));
        thread::start(&shared, 0)?;
        thread::start_watch(&shared)?;
        Ok(Self {
            shared,
            _stop: stop,
        })
    }

    /// Reads a public key from the device.
    ///
    /// # Errors
    /// As [`crate::Device::public_key`], or as a request fails in a queue: [`Error::Timeout`] at the deadline at the
    /// latest, [`Error::Overloaded`], [`Error::Hung`], or why the device cannot be opened.
    pub async fn public_key(
        &self,
        locator: impl Into<Arc<KeyLocator>>,
        deadline: tokio::time::Instant,
    ) -> Result<PublicKey, Error> {
        match self
            .request(Call::PublicKey(locator.into()), deadline)
            .await?
        {
            Answer::PublicKey(key) => Ok(key),
            Answer::Signature(_) => Err(Error::Fault("answer to another question".into())),
        }
    }

    /// Has the device sign `message`, the canonical sign bytes. The signature is not verified here.
    ///
    /// A session that turns out to be lost is opened again and the same message tried once more, if the deadline
    /// allows: the device may then sign the same bytes twice.
    ///
    /// # Errors
    /// As [`crate::Device::sign`], and as [`Self::public_key`].
    pub async fn sign(
        &self,
        locator: impl Into<Arc<KeyLocator>>,
        message: impl Into<Arc<[u8]>>,
        deadline: tokio::time::Instant,
    ) -> Result<Signature, Error> {
        let (locator, message) = (locator.into(), message.into());
        match self.request(Call::Sign(locator, message), deadline).await? {
            Answer::Signature(signature) => Ok(signature),
            Answer::PublicKey(_) => Err(Error::Fault("answer to another question".into())),
        }
    }

    /// The state of the device. Never waits for it.
    pub fn status(&self) -> Status {
        let inner = self.shared.lock();
        Status {
            name: self.shared.name.clone(),
            backend: self.shared.opener.backend(),
            state: inner.state(),
            info: inner.info.clone(),
            waiting: inner.queue.len(),
            last_fault: inner.last_fault.clone(),
        }
    }

    /// As [`Backend::message_limit`]: the longest message in bytes that this device signs, `None` if any.
    pub fn message_limit(&self, algorithm: Algorithm) -> Option<usize> {
        self.shared.opener.backend().message_limit(algorithm)
    }

    /// Refuses what waits and ends the thread after the call that is under way. Does not wait for that.
    pub fn stop(&self) {
        self.shared.stop();
    }

    async fn request(&self, call: Call, deadline: tokio::time::Instant) -> Result<Answer, Error> {
        let (reply, answer) = oneshot::channel();
        self.shared.enqueue(Request {
            call,
            reply,
            deadline: deadline.into_std(),
            retry: true,
        })?;
        match tokio::time::timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Error::Fault("the request was dropped".into())),
            Err(_) => Err(Error::Timeout {
                device: self.shared.name.clone(),
            }),
        }
    }
}

struct StopOnDrop(Arc<Shared>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// What a caller wants of the device. Cheap to clone.
#[derive(Clone)]
enum Call {
    PublicKey(Arc<KeyLocator>),
    Sign(Arc<KeyLocator>, Arc<[u8]>),
}

enum Answer {
    PublicKey(PublicKey),
    Signature(Signature),
}

type Reply = oneshot::Sender<Result<Answer, Error>>;

struct Request {
    call: Call,
    reply: Reply,
    deadline: Instant,
    /// Whether it may be tried once more in a new session.
    retry: bool,
}

/// A call into the device that has not returned.
struct Running {
    since: Instant,
    /// The request it serves; opening and keeping alive serve none.
    request: Option<Request>,
}

#[derive(Default)]
enum Session {
    #[default]
    Connecting,
    Ready,
    Failed(Error),
    Stopped,
}

#[derive(Default)]
struct Inner {
    session: Session,
    queue: VecDeque<Request>,
    running: Option<Running>,
    /// Set while the running call takes too long and cannot be abandoned.
    hung: bool,
    /// Which thread serves the queue. One that finds another number here was abandoned, and ends.
    generation: u64,
    /// How many abandoned threads have not ended.
    abandoned: usize,
    info: Option<Info>,
    last_fault: Option<Error>,
}

impl Inner {
    fn state(&self) -> State {
        match self.session {
            Session::Stopped => State::Stopped,
            _ if self.hung => State::Hung,
            Session::Connecting => State::Connecting,
            Session::Ready => State::Ready,
            Session::Failed(_) => State::Failed,
        }
    }

    fn refuse_waiting(&mut self, error: &Error) {
        for request in self.queue.drain(..) {
            // A caller that has gone needs no answer.
            let _ = request.reply.send(Err(error.clone()));
        }
    }
}

/// What callers, the device's thread and the watch share.
struct Shared {
    name: String,
    opener: Opener,
    options: Options,
    inner: Mutex<Inner>,
    /// Wakes the device's thread.
    work: Condvar,
    /// Wakes the watch, to stop it.
    watch: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change under the lock is complete, so a panic elsewhere leaves nothing half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hung(&self) -> Error {
        Error::Hung {
            device: self.name.clone(),
            after: self.options.hang,
        }
    }

    fn enqueue(&self, request: Request) -> Result<(), Error> {
        if let Call::Sign(locator, message) = &request.call {
            let (backend, algorithm) = (self.opener.backend(), locator.algorithm);
            if let Some(limit) = backend
                .message_limit(algorithm)
                .filter(|l| message.len() > *l)
            {
                let length = message.len();
                return Err(Error::MessageTooLong {
                    length,
                    limit,
                    backend,
                    algorithm,
                });
            }
        }
        let mut inner = self.lock();
        match &inner.session {
            Session::Stopped => {
                return Err(Error::Stopped {
                    device: self.name.clone(),
                });
            }
            _ if inner.hung => return Err(self.hung()),
            Session::Failed(error) => return Err(error.clone()),
            Session::Connecting | Session::Ready => {}
        }
        if inner.queue.len() >= self.options.queue {
            let waiting = inner.queue.len();
            return Err(Error::Overloaded {
                device: self.name.clone(),
                waiting,
            });
        }
        inner.queue.push_back(request);
        drop(inner);
        self.work.notify_all();
        Ok(())
    }

    fn stop(&self) {
        let mut inner = self.lock();
        inner.session = Session::Stopped;
        inner.refuse_waiting(&Error::Stopped {
            device: self.name.clone(),
        });
        drop(inner);
        self.work.notify_all();
        self.watch.notify_all();
    }
}

#[cfg(test)]
mod tests;
