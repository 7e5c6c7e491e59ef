//! A device on a thread of its own: bounded queue, deadlines, sessions that heal, a watch over calls that hang.

mod attempts;
mod thread;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::{
    Algorithm, AuditLog, AuditOptions, Backend, DataObject, Error, Identity, Info, KeyLocator,
    Opener, PublicKey, Signature,
};

pub use self::attempts::Asked;
use self::attempts::Attempts;

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

/// A device's own audit log, and what this worker asked of the device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditReading {
    /// The log. Every call that was answered before is in it, if the device records it.
    pub log: AuditLog,
    /// The signatures asked for, up to then.
    pub asked: Asked,
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
            _ => Err(another_question()),
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
            _ => Err(another_question()),
        }
    }

    /// Reads the device's own audit log, before anything that waits; `None` where it keeps none.
    ///
    /// # Errors
    /// As [`crate::Device::audit_log`], and as [`Self::public_key`].
    pub async fn audit_log(
        &self,
        deadline: tokio::time::Instant,
    ) -> Result<Option<AuditReading>, Error> {
        match self.request(Call::AuditLog, deadline).await? {
            Answer::AuditLog(reading) => Ok(reading),
            _ => Err(another_question()),
        }
    }

    /// The signatures that the device was asked for. Never waits for it.
    pub fn asked(&self) -> Asked {
        self.shared.lock().attempts.asked(Instant::now())
    }

    /// Frees the entries of the device's audit log up to and with this number, before anything that waits.
    ///
    /// # Errors
    /// As [`crate::Device::free_audit_log`], and as [`Self::public_key`].
    pub async fn free_audit_log(
        &self,
        number: u16,
        deadline: tokio::time::Instant,
    ) -> Result<(), Error> {
        match self.request(Call::FreeAuditLog(number), deadline).await? {
            Answer::Done => Ok(()),
            _ => Err(another_question()),
        }
    }

    /// What the device is told to record; `None` where it keeps no audit log.
    ///
    /// # Errors
    /// As [`crate::Device::audit_options`], and as [`Self::public_key`].
    pub async fn audit_options(
        &self,
        deadline: tokio::time::Instant,
    ) -> Result<Option<AuditOptions>, Error> {
        match self.request(Call::AuditOptions, deadline).await? {
            Answer::AuditOptions(options) => Ok(options),
            _ => Err(another_question()),
        }
    }

    /// Reads the data objects with this label.
    ///
    /// # Errors
    /// As [`crate::Device::data`], and as [`Self::public_key`].
    pub async fn data(
        &self,
        label: &'static str,
        deadline: tokio::time::Instant,
    ) -> Result<Vec<DataObject>, Error> {
        match self.request(Call::Data(label), deadline).await? {
            Answer::Data(objects) => Ok(objects),
            _ => Err(another_question()),
        }
    }

    /// Puts a data object into the device. After an error it may be there, also twice.
    ///
    /// # Errors
    /// As [`crate::Device::put_data`], and as [`Self::public_key`].
    pub async fn put_data(
        &self,
        label: &'static str,
        content: impl Into<Arc<[u8]>>,
        deadline: tokio::time::Instant,
    ) -> Result<(), Error> {
        let call = Call::PutData(label, content.into());
        match self.request(call, deadline).await? {
            Answer::Done => Ok(()),
            _ => Err(another_question()),
        }
    }

    /// Deletes a data object.
    ///
    /// # Errors
    /// As [`crate::Device::delete_data`], and as [`Self::public_key`].
    pub async fn delete_data(
        &self,
        number: u16,
        deadline: tokio::time::Instant,
    ) -> Result<(), Error> {
        match self.request(Call::DeleteData(number), deadline).await? {
            Answer::Done => Ok(()),
            _ => Err(another_question()),
        }
    }

    /// From now on no other device than this one is used: a session with another is given up, and its requests are
    /// refused with [`Error::Replaced`].
    pub fn pin(&self, identity: Identity) {
        self.shared.lock().pinned = Some(identity);
        self.shared.work.notify_all();
    }

    /// Who the device is that was reached last, be it the pinned one or not.
    pub fn shown(&self) -> Option<Identity> {
        let inner = self.shared.lock();
        if let (Session::Failed(Error::Replaced { shown, .. }), _)
        | (_, Some(Error::Replaced { shown, .. })) = (&inner.session, &inner.last_fault)
            && !matches!(inner.session, Session::Ready)
        {
            return Some((**shown).clone());
        }
        inner.info.as_ref().map(Info::identity)
    }

    /// The device that this worker is pinned to.
    pub fn pinned(&self) -> Option<Identity> {
        self.shared.lock().pinned.clone()
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
    AuditLog,
    FreeAuditLog(u16),
    AuditOptions,
    Data(&'static str),
    PutData(&'static str, Arc<[u8]>),
    DeleteData(u16),
}

impl Call {
    /// Whether it goes before what waits: a full audit log may stop everything else.
    fn is_urgent(&self) -> bool {
        matches!(self, Self::AuditLog | Self::FreeAuditLog(_))
    }
}

enum Answer {
    PublicKey(PublicKey),
    Signature(Signature),
    AuditLog(Option<AuditReading>),
    AuditOptions(Option<AuditOptions>),
    Data(Vec<DataObject>),
    Done,
}

fn another_question() -> Error {
    Error::Fault("answer to another question".into())
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
    pinned: Option<Identity>,
    attempts: Attempts,
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

    /// Refuses another device than the pinned one.
    fn admit(&self, inner: &Inner, shown: &Info) -> Result<(), Error> {
        let shown = shown.identity();
        match &inner.pinned {
            Some(pinned) if !pinned.admits(&shown) => Err(Error::Replaced {
                device: self.name.clone(),
                pinned: Box::new(pinned.clone()),
                shown: Box::new(shown),
            }),
            _ => Ok(()),
        }
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
        let urgent = request.call.is_urgent();
        if inner.queue.len() >= self.options.queue && !urgent {
            let waiting = inner.queue.len();
            return Err(Error::Overloaded {
                device: self.name.clone(),
                waiting,
            });
        }
        if urgent {
            inner.queue.push_front(request);
        } else {
            inner.queue.push_back(request);
        }
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
