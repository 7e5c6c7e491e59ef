//! The guard's lock: `tests/schedules` compiles the guard with another such module, under which every order
//! of the threads' steps can be tried.

pub(crate) use std::sync::{Mutex, MutexGuard};
