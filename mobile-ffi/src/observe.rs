//! Subscriptions: a task each, which reads anew after a change and tells the app when what it reads is different.

use crate::convert::notice;
use crate::error::PhoneError;
use crate::host::{HostError, NoticeObserver, deliver};
use std::sync::Arc;
use sync_core::client::{Engine, Event};
use sync_core::store::StoreError;
use tokio::runtime::Handle;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{broadcast, mpsc};
use tokio::task::AbortHandle;

/// Notices that wait for a slow observer; those that come after them are dropped.
const NOTICES_MAX: usize = 256;

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

/// Tells each notice among `events`, in order. A state may be summed up, a notice may not: they wait while the app is busy, apart
/// from the many events that are none.
pub(crate) async fn tell_notices(
    mut events: broadcast::Receiver<Event>,
    threads: Handle,
    observer: Arc<dyn NoticeObserver>,
) {
    let (queue, mut waiting) = mpsc::channel(NOTICES_MAX);
    let hear = async move {
        loop {
            match events.recv().await {
                Ok(event) => {
                    if let Some(notice) = notice(event)
                        && queue.try_send(notice).is_err()
                    {
                        tracing::warn!("a notice was dropped: its observer is too slow");
                    }
                }
                Err(RecvError::Lagged(missed)) => tracing::warn!(missed, "events were missed, perhaps notices"),
                Err(RecvError::Closed) => return,
            }
        }
    };
    let tell = async move {
        while let Some(notice) = waiting.recv().await {
            let observer = Arc::clone(&observer);
            deliver(&threads, move || observer.on_notice(notice)).await;
        }
    };
    tokio::join!(hear, tell);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::records::Notice;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::sync::{Mutex, PoisonError};
    use sync_core::client::Revoked;

    /// An app that looks at each notice for as long as the test wants.
    struct Slow {
        go_on: Mutex<Receiver<()>>,
        seen: Sender<Notice>,
    }

    impl NoticeObserver for Slow {
        fn on_notice(&self, notice: Notice) -> Result<(), HostError> {
            self.seen.send(notice).unwrap();
            let _ = self.go_on.lock().unwrap_or_else(PoisonError::into_inner).recv();
            Ok(())
        }
    }

    /// More news of visits than anybody keeps for an observer must not cost it the word that the phone was revoked.
    #[tokio::test]
    async fn a_slow_observer_is_told_every_notice_among_many_events() {
        let (events, heard) = broadcast::channel(8);
        let (go, go_on) = channel();
        let (seen, notices) = channel();
        let observer = Arc::new(Slow { go_on: Mutex::new(go_on), seen });
        let telling = tokio::spawn(tell_notices(heard, Handle::current(), observer));
        let replaced = |requeued| Event::ServerReplaced { requeued };
        for requeued in 0..100 {
            for event in [Event::CaughtUp, replaced(requeued), Event::VisitsChanged(Vec::new())] {
                events.send(event).unwrap();
                // As on a phone, where a round trip lies between two of them.
                tokio::task::yield_now().await;
            }
        }
        events.send(Event::Revoked(Revoked::default())).unwrap();
        drop(events);
        for _ in 0..101 {
            go.send(()).unwrap();
        }
        telling.await.unwrap();
        let told: Vec<_> = notices.try_iter().collect();
        assert_eq!(told.len(), 101);
        assert!(matches!(told[7], Notice::ServerReplaced { requeued: 7 }));
        assert!(matches!(told[100], Notice::Revoked { .. }));
    }
}
