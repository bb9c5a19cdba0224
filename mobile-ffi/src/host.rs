//! What the app gives: tokens, a safe place for the key, a log, observers. All of it is foreign code, so each call is off
//! the engine's threads: one that throws is an error, one that never returns costs a thread of its own and nothing else.

use crate::records::{GoneVisit, Notice, SyncStatus, VisitDetails, VisitSummary};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;
use sync_core::client::{BoxFuture, KeyVault, TokenError, TokenNeed, VaultError};
use zeroize::Zeroizing;

/// A token that has not come after this long does not come: a refresh over a bad network takes some seconds.
const TOKEN_PATIENCE: Duration = Duration::from_secs(30);
/// Secure storage that has not answered after this long does not answer: it asks a chip, not a network.
const STORAGE_PATIENCE: Duration = Duration::from_secs(10);

/// What an app's own code answers when it cannot do what the library asks. Whatever else it throws becomes
/// [`HostError::Failed`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum HostError {
    /// Not now: no network, a locked keychain. The library tries again.
    #[error("not now: {reason}")]
    Unavailable {
        /// For the log; never a secret.
        reason: String,
    },
    /// The technician must sign in again. The library waits for it, and keeps what is unsent.
    #[error("the technician must sign in again: {reason}")]
    SignInNeeded {
        /// For the log; never a secret.
        reason: String,
    },
    /// Anything else.
    #[error("the app's code failed: {reason}")]
    Failed {
        /// For the log; never a secret.
        reason: String,
    },
}

impl From<uniffi::UnexpectedUniFFICallbackError> for HostError {
    fn from(error: uniffi::UnexpectedUniFFICallbackError) -> Self {
        Self::Failed { reason: error.reason }
    }
}

/// Where bearer tokens come from: the app's own sign-in.
#[uniffi::export(foreign)]
#[async_trait::async_trait]
pub trait TokenProvider: Send + Sync {
    /// A token for the server. With `rejected` the server has just refused the last one: a cached one will not do. Answer
    /// within 30 seconds.
    async fn fetch_token(&self, rejected: bool) -> Result<String, HostError>;
}

/// A safe place for the database key: Android's Keystore, iOS's Keychain (accessible after the first unlock, this device
/// only). What it answers must survive a restart of the phone.
#[uniffi::export(foreign)]
pub trait SecureStorage: Send + Sync {
    /// What was put under `name`; `None` when nothing was, or it was removed.
    fn get(&self, name: String) -> Result<Option<Vec<u8>>, HostError>;
    /// Keeps `value` under `name`, in place of what was there. Durable when it returns.
    fn put(&self, name: String, value: Vec<u8>) -> Result<(), HostError>;
    /// Forgets what is under `name`; nothing being there is fine.
    fn remove(&self, name: String) -> Result<(), HostError>;
}

/// How important a line of the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, uniffi::Enum)]
pub enum LogLevel {
    /// Something is lost or broken.
    Error,
    /// Something is not as it should be, and goes on.
    Warn,
    /// What happens, seldom.
    Info,
    /// Every step.
    Debug,
}

/// Where the library's log goes. No line holds a token, a key, or a word of a customer's.
#[uniffi::export(foreign)]
pub trait LogSink: Send + Sync {
    /// One line. Called from one thread, in order; lines are dropped while it does not keep up.
    fn log(&self, level: LogLevel, message: String) -> Result<(), HostError>;
}

/// Hears a list of visits: at once, and after each change of it.
#[uniffi::export(foreign)]
pub trait VisitListObserver: Send + Sync {
    /// The list as it is now. While it has not returned, changes are summed up to one.
    fn on_visits(&self, visits: Vec<VisitSummary>) -> Result<(), HostError>;
}

/// Hears one visit: at once, and after each change of it.
#[uniffi::export(foreign)]
pub trait VisitObserver: Send + Sync {
    /// The visit as it is now; `None` when the phone does not hold it.
    fn on_visit(&self, visit: Option<VisitDetails>) -> Result<(), HostError>;
}

/// Hears of visits that left: at once, and after each change.
#[uniffi::export(foreign)]
pub trait GoneVisitObserver: Send + Sync {
    /// Those that the technician has not seen leave, newest first.
    fn on_gone_visits(&self, visits: Vec<GoneVisit>) -> Result<(), HostError>;
}

/// Hears the state of the sync: at once, and after each change.
#[uniffi::export(foreign)]
pub trait SyncStatusObserver: Send + Sync {
    /// As it is now.
    fn on_sync_status(&self, status: SyncStatus) -> Result<(), HostError>;
}

/// Hears what the technician should be told.
#[uniffi::export(foreign)]
pub trait NoticeObserver: Send + Sync {
    /// Once each.
    fn on_notice(&self, notice: Notice) -> Result<(), HostError>;
}

/// Calls `deliver` on a thread of the app's. An error is for the log: an observer that fails hears of the next change.
pub(crate) async fn deliver(
    threads: &tokio::runtime::Handle,
    deliver: impl FnOnce() -> Result<(), HostError> + Send + 'static,
) {
    match threads.spawn_blocking(deliver).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(%error, "an observer failed"),
        Err(lost) => tracing::warn!(%lost, "an observer was lost"),
    }
}

/// The app's secure storage, as the engine wants it.
pub(crate) struct Vault {
    pub(crate) storage: Arc<dyn SecureStorage>,
    pub(crate) threads: tokio::runtime::Handle,
}

impl Vault {
    /// Calls the app on a thread of its own, and gives up on one that does not return.
    fn ask<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn SecureStorage) -> Result<T, HostError> + Send + 'static,
    ) -> Result<T, VaultError> {
        let (answer, answered) = std::sync::mpsc::sync_channel(1);
        let storage = Arc::clone(&self.storage);
        self.threads.spawn_blocking(move || {
            // Nobody waits for an answer that comes too late.
            let _ = answer.send(call(&*storage));
        });
        match answered.recv_timeout(STORAGE_PATIENCE) {
            Ok(result) => result.map_err(|error| VaultError(error.to_string())),
            Err(RecvTimeoutError::Timeout) => Err(VaultError("the app's secure storage does not answer".into())),
            Err(RecvTimeoutError::Disconnected) => Err(VaultError("the app's secure storage failed".into())),
        }
    }
}

impl KeyVault for Vault {
    fn get(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, VaultError> {
        let name = name.to_owned();
        self.ask(move |storage| Ok(storage.get(name)?.map(Zeroizing::new)))
    }

    fn put(&self, name: &str, value: &[u8]) -> Result<(), VaultError> {
        let (name, value) = (name.to_owned(), value.to_vec());
        self.ask(move |storage| storage.put(name, value))
    }

    fn remove(&self, name: &str) -> Result<(), VaultError> {
        let name = name.to_owned();
        self.ask(move |storage| storage.remove(name))
    }
}

/// The app's token provider, as the engine wants it.
pub(crate) struct Tokens(pub(crate) Arc<dyn TokenProvider>);

impl Tokens {
    async fn ask(&self, rejected: bool, patience: Duration) -> Result<String, TokenError> {
        match tokio::time::timeout(patience, self.0.fetch_token(rejected)).await {
            Ok(Ok(token)) => Ok(token),
            Ok(Err(HostError::SignInNeeded { reason })) => Err(TokenError::SignInNeeded(reason)),
            Ok(Err(HostError::Unavailable { reason } | HostError::Failed { reason })) => {
                Err(TokenError::Unavailable(reason))
            }
            Err(_) => Err(TokenError::Unavailable("the app's token provider does not answer".into())),
        }
    }
}

impl sync_core::client::TokenProvider for Tokens {
    fn token(&self, need: TokenNeed) -> BoxFuture<'_, Result<String, TokenError>> {
        Box::pin(self.ask(need == TokenNeed::Rejected, TOKEN_PATIENCE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Silent;

    #[async_trait::async_trait]
    impl TokenProvider for Silent {
        async fn fetch_token(&self, _: bool) -> Result<String, HostError> {
            std::future::pending().await
        }
    }

    #[tokio::test]
    async fn a_sign_in_that_never_answers_is_given_up_on_and_tried_again_later() {
        let answer = Tokens(Arc::new(Silent)).ask(false, Duration::from_millis(1)).await;
        assert!(matches!(answer, Err(TokenError::Unavailable(reason)) if reason.contains("does not answer")));
    }
}
