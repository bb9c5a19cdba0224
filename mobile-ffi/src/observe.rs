//! Subscriptions: a task each, which reads anew after a change and tells the app when what it reads is different.

use crate::error::PhoneError;
use crate::host::{HostError, deliver};
use std::sync::Arc;
use sync_core::client::{Engine, Event};
use sync_core::store::StoreError;
use tokio::runtime::Handle;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::task::AbortHandle;

/// An observer's life: it hears nothing more once this was cancelled, or the last reference to it is gone.
#[derive(Debug, uniffi::Object)]
pub struct Subscription {
    task: AbortHandle,
}

#[uniffi::export]
impl Subscription {
    /// Ends it. A call that is under way on another thread ends in its own time; none follows it.
    pub fn cancel(&self) {
        self.task.abort();
    }

    /// False once it was cancelled, or the client was shut down.
    pub fn is_active(&self) -> bool {
        !self.task.is_finished()
    }
}

impl Subscription {
    pub(crate) fn new(task: AbortHandle) -> Arc<Self> {
        Arc::new(Self { task })
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Tells what `read` answers: at once, and after each event that concerns it, when it is different. Events that come while
/// the app is busy are summed up.
pub(crate) async fn follow<T: Clone + PartialEq + Send + 'static>(
    engine: Arc<Engine>,
    threads: Handle,
    concerns: impl Fn(&Event) -> bool + Send,
    read: impl Fn(&Engine) -> Result<T, PhoneError> + Clone + Send + 'static,
    tell: impl Fn(T) -> Result<(), HostError> + Clone + Send + 'static,
) {
    let mut events = engine.events();
    let mut status = engine.status();
    let mut last = None;
    loop {
        let (engine, reading) = (Arc::clone(&engine), read.clone());
        match tokio::task::spawn_blocking(move || reading(&engine)).await {
            Ok(Ok(now)) if last.as_ref() != Some(&now) => {
                last = Some(now.clone());
                let tell = tell.clone();
                deliver(&threads, move || tell(now)).await;
            }
            // Asleep: it reads again when the phone wakes up.
            Ok(Ok(_) | Err(PhoneError::Closed)) => {}
            Ok(Err(error)) => tracing::warn!(%error, "an observer could not read"),
            Err(lost) => tracing::warn!(%lost, "an observer's reading was lost"),
        }
        loop {
            let heard = tokio::select! {
                event = events.recv() => event,
                changed = status.changed() => match changed {
                    Ok(()) => Ok(Event::CaughtUp),
                    Err(_) => return,
                },
            };
            match heard {
                Ok(event) if concerns(&event) => break,
                Err(RecvError::Lagged(_)) => break,
                Ok(_) => {}
                Err(RecvError::Closed) => return,
            }
        }
        // What has come meanwhile is seen by the same reading.
        while !matches!(events.try_recv(), Err(TryRecvError::Empty | TryRecvError::Closed)) {}
    }
}

/// Reads the store.
pub(crate) fn reading<T, E: Into<PhoneError>>(result: Result<T, E>) -> Result<T, PhoneError> {
    result.map_err(Into::into)
}

/// `None` where the phone does not hold it.
pub(crate) fn held<T>(result: Result<T, StoreError>) -> Result<Option<T>, PhoneError> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(StoreError::NotFound(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}
