//! What threads share and wait with, in one place: `tests/schedules` compiles this crate with another such
//! module, under which every order of the threads' steps can be tried.

pub(crate) use std::sync::atomic::AtomicBool;
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard};
pub(crate) use std::thread;
pub(crate) use std::time::Instant;
