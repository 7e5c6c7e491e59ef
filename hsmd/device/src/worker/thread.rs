//! The two threads of a worker: one that calls the device, and one that watches whether calls return.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, MutexGuard};
use std::time::{Duration, Instant};

use super::{Answer, AuditReading, Call, Inner, Reply, Request, Running, Session, Shared};
use crate::{Device, Error, Info};

/// How many hung threads may be left behind at a time; the YubiHSM client's calls end by themselves after 20 to 30 s.
const MAX_ABANDONED: usize = 16;

/// Starts a thread that serves the queue for as long as `generation` is the current one.
pub(super) fn start(shared: &Arc<Shared>, generation: u64) -> std::io::Result<()> {
    let shared = Arc::clone(shared);
    let builder = std::thread::Builder::new().name(format!("device-{}", shared.name));
    builder
        .spawn(move || {
            Thread {
                shared,
                generation,
                failures: 0,
            }
            .run()
        })
        .map(drop)
}

/// Starts the thread that watches over the device's thread.
pub(super) fn start_watch(shared: &Arc<Shared>) -> std::io::Result<()> {
    let shared = Arc::clone(shared);
    let builder = std::thread::Builder::new().name(format!("watch-{}", shared.name));
    builder.spawn(move || watch(&shared)).map(drop)
}

struct Thread {
    shared: Arc<Shared>,
    generation: u64,
    /// Faults in a row, without a successful call between them.
    failures: u32,
}

enum Next {
    Call(Call),
    KeepAlive,
    GiveUp(Error),
    Exit,
}

impl Thread {
    fn run(mut self) {
        while let Some(mut device) = self.connect() {
            self.serve(device.as_mut());
            self.close(device);
        }
        let mut inner = self.shared.lock();
        if inner.generation != self.generation {
            inner.abandoned = inner.abandoned.saturating_sub(1);
        }
    }

    /// Opens a session, however long it takes. `None` when this thread has to end.
    fn connect(&mut self) -> Option<Box<dyn Device>> {
        loop {
            self.pause()?;
            self.begin()?;
            let opened = guarded(|| {
                let mut device = self.shared.opener.open()?;
                let info = device.info()?;
                Ok((device, info))
            });
            self.end()?;
            let admitted = opened.and_then(|(device, info)| {
                self.shared.admit(&self.shared.lock(), &info)?;
                Ok((device, info))
            });
            match admitted {
                Ok((device, info)) => {
                    self.ready(info)?;
                    return Some(device);
                }
                Err(error) => {
                    self.failures = self.failures.saturating_add(1);
                    self.failed(error);
                }
            }
        }
    }

    /// Closes a session: a call into the device like any other, which may hang or panic.
    fn close(&self, device: Box<dyn Device>) {
        let watched = self.begin();
        if let Err(error) = guarded(|| {
            drop(device);
            Ok(())
        }) {
            tracing::warn!(device = %self.shared.name, %error, "closing a session failed");
        }
        if watched.is_some() {
            self.end();
        }
    }

    /// Serves requests until the session is lost or this thread has to end.
    fn serve(&mut self, device: &mut dyn Device) {
        loop {
            let error = match self.next() {
                Next::Exit => return,
                Next::GiveUp(error) => return self.lost(error),
                Next::KeepAlive => {
                    let alive = guarded(|| device.keep_alive());
                    if self.end().is_none() {
                        return;
                    }
                    alive.err()
                }
                Next::Call(call) => {
                    let answer = self.perform(device, &call);
                    let Some(request) = self.end() else { return };
                    self.answer(request, answer)
                }
            };
            match error {
                Some(error) if error.ends_session() => {
                    self.failures = self.failures.saturating_add(1);
                    return self.lost(error);
                }
                // A device that says no works.
                _ => self.failures = 0,
            }
        }
    }

    /// Makes a call. One that asks for a signature is counted from before the device can know of it.
    fn perform(&self, device: &mut dyn Device, call: &Call) -> Result<Answer, Error> {
        match call {
            Call::Sign(locator, message) => {
                let object = guarded(|| device.object_number(locator))?;
                let attempt = object.map(|object| self.shared.lock().attempts.begin(object));
                let signed = guarded(|| device.sign(locator, message));
                if let Some(attempt) = attempt {
                    let mut inner = self.shared.lock();
                    let error = signed.as_ref().err();
                    inner.attempts.end(&attempt, error, Instant::now());
                }
                signed.map(Answer::Signature)
            }
            Call::PublicKey(locator) => {
                guarded(|| device.public_key(locator)).map(Answer::PublicKey)
            }
            Call::AuditLog => {
                let log = guarded(|| device.audit_log())?;
                let reading = log.map(|log| AuditReading {
                    log,
                    asked: self.shared.lock().attempts.asked(Instant::now()),
                });
                Ok(Answer::AuditLog(reading))
            }
            Call::FreeAuditLog(number) => {
                guarded(|| device.free_audit_log(*number)).map(|()| Answer::Done)
            }
            Call::AuditOptions => guarded(|| device.audit_options()).map(Answer::AuditOptions),
            Call::Data(label) => guarded(|| device.data(label)).map(Answer::Data),
            Call::PutData(label, content) => {
                self.shared.lock().attempts.change_data();
                guarded(|| device.put_data(label, content)).map(|()| Answer::Done)
            }
            Call::DeleteData(number) => {
                self.shared.lock().attempts.change_data();
                guarded(|| device.delete_data(*number)).map(|()| Answer::Done)
            }
        }
    }

    /// Waits before the next attempt to open a session. `None` when this thread has to end.
    fn pause(&self) -> Option<()> {
        let until = Instant::now() + backoff(self.failures);
        let mut inner = self.shared.lock();
        loop {
            self.check(&inner)?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Some(());
            }
            inner = wait(&self.shared.work, inner, left);
        }
    }

    /// Waits for a request, or until the session has to be kept alive, and marks the call as begun.
    fn next(&self) -> Next {
        let idle_until = Instant::now() + self.shared.options.keep_alive;
        let mut inner = self.shared.lock();
        loop {
            if self.check(&inner).is_none() {
                return Next::Exit;
            }
            if let Some(Err(error)) = inner
                .info
                .as_ref()
                .map(|info| self.shared.admit(&inner, info))
            {
                return Next::GiveUp(error);
            }
            let now = Instant::now();
            while let Some(request) = inner.queue.pop_front() {
                if request.deadline <= now || request.reply.is_closed() {
                    refuse(
                        request.reply,
                        Error::Timeout {
                            device: self.shared.name.clone(),
                        },
                    );
                    continue;
                }
                let call = request.call.clone();
                inner.running = Some(Running {
                    since: now,
                    request: Some(request),
                });
                return Next::Call(call);
            }
            let left = idle_until.saturating_duration_since(now);
            if left.is_zero() {
                inner.running = Some(Running {
                    since: now,
                    request: None,
                });
                return Next::KeepAlive;
            }
            inner = wait(&self.shared.work, inner, left);
        }
    }

    /// Marks a call that serves no request as begun. `None` when this thread has to end.
    fn begin(&self) -> Option<()> {
        let mut inner = self.shared.lock();
        self.check(&inner)?;
        inner.running = Some(Running {
            since: Instant::now(),
            request: None,
        });
        Some(())
    }

    /// Marks the call as returned and takes its request back: none where it served none, or the watch has answered it.
    /// `None` when this thread was abandoned meanwhile.
    fn end(&self) -> Option<Option<Request>> {
        let mut inner = self.shared.lock();
        if inner.generation != self.generation {
            return None;
        }
        if std::mem::take(&mut inner.hung) {
            tracing::info!(device = %self.shared.name, "the call that hung has returned");
        }
        Some(inner.running.take().and_then(|running| running.request))
    }

    /// Passes an answer on, or puts the request back for a second try. Returns the error, if there was one.
    fn answer(&self, request: Option<Request>, answer: Result<Answer, Error>) -> Option<Error> {
        let error = answer.as_ref().err().cloned();
        let Some(mut request) = request else {
            return error;
        };
        let again = error.as_ref().is_some_and(Error::ends_session) && request.retry;
        if again && Instant::now() < request.deadline {
            request.retry = false;
            self.shared.lock().queue.push_front(request);
        } else {
            // A caller that has gone needs no answer.
            let _ = request.reply.send(answer);
        }
        error
    }

    fn ready(&self, info: Info) -> Option<()> {
        let mut inner = self.shared.lock();
        self.check(&inner)?;
        let (model, serial, firmware) = (&info.model, &info.serial, &info.firmware);
        tracing::info!(device = %self.shared.name, model, serial, firmware, "device ready");
        inner.session = Session::Ready;
        inner.info = Some(info);
        Some(())
    }

    fn lost(&self, error: Error) {
        let mut inner = self.shared.lock();
        if self.check(&inner).is_some() {
            tracing::warn!(device = %self.shared.name, %error, "session lost");
            inner.session = Session::Connecting;
            inner.last_fault = Some(error);
        }
    }

    fn failed(&self, error: Error) {
        let mut inner = self.shared.lock();
        if self.check(&inner).is_some() {
            let known = matches!(&inner.session, Session::Failed(before) if *before == error);
            if !known {
                tracing::warn!(device = %self.shared.name, %error, "cannot open the device");
            }
            fail(&mut inner, error);
        }
    }

    /// `None` when this thread has to end: the worker was stopped, or another thread serves the queue.
    fn check(&self, inner: &Inner) -> Option<()> {
        let current = inner.generation == self.generation;
        (current && !matches!(inner.session, Session::Stopped)).then_some(())
    }
}

/// Turns a panic of a device library into a fault: the session is given up, the process goes on.
fn guarded<T>(call: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|_| Err(Error::Fault("the device library panicked".into())))
}

/// The pause after so many faults in a row: none after the first, so that a lost session costs a vote nothing, then
/// from 100 ms to 2 s, so that a YubiHSM's 16 sessions, which expire after 30 s, outlast a flapping connector.
fn backoff(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        n => Duration::from_millis(100 << (n - 2).min(5)).min(Duration::from_secs(2)),
    }
}

fn fail(inner: &mut Inner, error: Error) {
    inner.refuse_waiting(&error);
    inner.last_fault = Some(error.clone());
    inner.session = Session::Failed(error);
}

fn refuse(reply: Reply, error: Error) {
    // A caller that has gone needs no answer.
    let _ = reply.send(Err(error));
}

fn wait<'a>(
    condition: &Condvar,
    inner: MutexGuard<'a, Inner>,
    left: Duration,
) -> MutexGuard<'a, Inner> {
    match condition.wait_timeout(inner, left) {
        Ok((inner, _)) => inner,
        Err(poisoned) => poisoned.into_inner().0,
    }
}

/// Looks, until the worker is stopped, whether a call takes too long.
fn watch(shared: &Arc<Shared>) {
    let tick = (shared.options.hang / 8).max(Duration::from_millis(1));
    let mut inner = shared.lock();
    while !matches!(inner.session, Session::Stopped) {
        let over = |running: &Running| running.since.elapsed() >= shared.options.hang;
        if !inner.hung && inner.running.as_ref().is_some_and(over) {
            hang(shared, &mut inner);
        }
        inner = wait(&shared.watch, inner, tick);
    }
}

/// Answers the caller of a call that hangs, and either leaves the call to its thread and goes on with another, or
/// refuses all requests until it returns.
fn hang(shared: &Arc<Shared>, inner: &mut Inner) {
    let error = shared.hung();
    tracing::warn!(device = %shared.name, %error, "device hung");
    if let Some(request) = inner
        .running
        .as_mut()
        .and_then(|running| running.request.take())
    {
        refuse(request.reply, error.clone());
    }
    inner.last_fault = Some(error.clone());
    if !shared.opener.may_abandon() || inner.abandoned >= MAX_ABANDONED {
        inner.hung = true;
        inner.refuse_waiting(&error);
        return;
    }
    let generation = inner.generation + 1;
    if let Err(cause) = start(shared, generation) {
        inner.hung = true;
        inner.refuse_waiting(&Error::Fault(format!(
            "no thread for a new session: {cause}"
        )));
        return;
    }
    inner.generation = generation;
    inner.abandoned += 1;
    inner.running = None;
    match inner.session {
        Session::Ready => inner.session = Session::Connecting,
        _ => fail(inner, error),
    }
}
