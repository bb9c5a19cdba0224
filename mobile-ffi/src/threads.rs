//! The library's threads: the engine's, and others for calls into the app.

use crate::error::PhoneError;
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};

/// Threads that drive connections and timers; the disk and the app have others.
const ENGINE_THREADS: usize = 2;
/// Most threads that wait for the disk.
const DISK_THREADS_MAX: usize = 8;
/// Most calls into the app that are under way at once; those that never return stay among them.
const HOST_THREADS_MAX: usize = 48;
/// A thread that was not needed for this long ends.
const THREAD_KEPT: Duration = Duration::from_secs(10);

/// A runtime that waits for nothing when it is dropped: foreign code may let go of the client on any thread, also on one of the
/// runtime's, and a call into the app that never returns must not hold up the app.
#[derive(Debug)]
pub(crate) struct Threads(Option<Runtime>);

impl Threads {
    /// The engine's. `logs` is this client's log, not the process's: every thread has it for as long as it lives.
    pub(crate) fn for_engine(logs: Option<tracing::Dispatch>) -> Result<Self, PhoneError> {
        let mut builder = Builder::new_multi_thread();
        builder.worker_threads(ENGINE_THREADS).max_blocking_threads(DISK_THREADS_MAX).enable_io().enable_time();
        if let Some(logs) = logs {
            builder.on_thread_start(move || std::mem::forget(tracing::dispatcher::set_default(&logs)));
        }
        Self::build(builder.thread_name("crm-dispatch"))
    }

    /// For calls into the app; only its blocking threads are used.
    pub(crate) fn for_host() -> Result<Self, PhoneError> {
        Self::build(
            Builder::new_current_thread().max_blocking_threads(HOST_THREADS_MAX).thread_name("crm-dispatch-app"),
        )
    }

    fn build(builder: &mut Builder) -> Result<Self, PhoneError> {
        let failed = |error| PhoneError::StoreFailed { reason: format!("no thread can be started: {error}") };
        Ok(Self(Some(builder.thread_keep_alive(THREAD_KEPT).build().map_err(failed)?)))
    }

    /// To start work on. There until this is dropped.
    pub(crate) fn handle(&self) -> Result<&Handle, PhoneError> {
        self.0.as_ref().map(Runtime::handle).ok_or(PhoneError::Closed)
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
