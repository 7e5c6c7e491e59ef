//! `crate::sync` of hsm-journal and hsmd, under shuttle: each of these calls is a point at which another
//! thread may go on.

use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LockResult, PoisonError};
use std::time::Duration;

pub use shuttle::sync::atomic::AtomicBool;

/// Like std's.
#[derive(Default)]
pub struct Mutex<T>(shuttle::sync::Mutex<T>);

/// Like std's; it knows its lock, so that a wait can take it again.
pub struct MutexGuard<'a, T> {
    mutex: &'a Mutex<T>,
    inner: shuttle::sync::MutexGuard<'a, T>,
}

impl<T> Mutex<T> {
    pub fn new(value: T) -> Self {
        Self(shuttle::sync::Mutex::new(value))
    }

    pub fn lock(&self) -> LockResult<MutexGuard<'_, T>> {
        let guard = |inner| MutexGuard { mutex: self, inner };
        self.0
            .lock()
            .map(guard)
            .map_err(|poisoned| PoisonError::new(guard(poisoned.into_inner())))
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

/// Like std's, with one waiter. A timed wait always ends: after any steps of the others, however few.
pub struct Condvar(shuttle::sync::Condvar);

impl Condvar {
    pub fn new() -> Self {
        Self(shuttle::sync::Condvar::new())
    }

    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> LockResult<MutexGuard<'a, T>> {
        let MutexGuard { mutex, inner } = guard;
        let guard = |inner| MutexGuard { mutex, inner };
        self.0
            .wait(inner)
            .map(guard)
            .map_err(|poisoned| PoisonError::new(guard(poisoned.into_inner())))
    }

    pub fn wait_timeout<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        at_most: Duration,
    ) -> LockResult<(MutexGuard<'a, T>, ())> {
        let mutex = guard.mutex;
        drop(guard);
        shuttle::thread::yield_now();
        let nanoseconds = u64::try_from(at_most.as_nanos()).unwrap();
        CLOCK.fetch_add(nanoseconds, Ordering::Relaxed);
        mutex
            .lock()
            .map(|guard| (guard, ()))
            .map_err(|poisoned| PoisonError::new((poisoned.into_inner(), ())))
    }
}

/// Nanoseconds, which pass in timed waits only.
static CLOCK: AtomicU64 = AtomicU64::new(0);

/// A moment of [`CLOCK`].
#[derive(Clone, Copy)]
pub struct Instant(u64);

impl Instant {
    pub fn now() -> Self {
        Self(CLOCK.load(Ordering::Relaxed))
    }

    pub fn elapsed(self) -> Duration {
        Duration::from_nanos(CLOCK.load(Ordering::Relaxed) - self.0)
    }
}

/// Like std's, and with the `is_finished` that shuttle's threads lack.
pub mod thread {
    use std::io;
    use std::sync::Arc;

    use shuttle::sync::atomic::{AtomicBool, Ordering};

    pub struct Builder(shuttle::thread::Builder);

    pub struct JoinHandle<T> {
        inner: shuttle::thread::JoinHandle<T>,
        finished: Arc<AtomicBool>,
    }

    impl Builder {
        pub fn new() -> Self {
            Self(shuttle::thread::Builder::new())
        }

        pub fn name(self, name: String) -> Self {
            Self(self.0.name(name))
        }

        pub fn spawn<T: Send + 'static>(
            self,
            work: impl FnOnce() -> T + Send + 'static,
        ) -> io::Result<JoinHandle<T>> {
            let finished = Arc::new(AtomicBool::new(false));
            let done = Arc::clone(&finished);
            let inner = self.0.spawn(move || {
                let outcome = work();
                done.store(true, Ordering::Release);
                outcome
            })?;
            Ok(JoinHandle { inner, finished })
        }
    }

    impl<T> JoinHandle<T> {
        pub fn is_finished(&self) -> bool {
            self.finished.load(Ordering::Acquire)
        }

        pub fn join(self) -> std::thread::Result<T> {
            self.inner.join()
        }
    }
}
