//! What an app can observe.

use crate::domain::{DispatchId, Timestamp};
use crate::protocol::FactVerdict;

/// Where the engine stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Status {
    /// The connection.
    pub phase: Phase,
    /// Everything is exchanged as of the last message.
    pub caught_up: bool,
    /// Unacknowledged changes.
    pub pending: u32,
    /// When the oldest of them was made, the phone's wall time.
    pub oldest_pending: Option<Timestamp>,
    /// Refused changes that wait for a person.
    pub parked: u32,
    /// When everything was last exchanged, the phone's wall time.
    pub last_sync: Option<Timestamp>,
    /// Why the last connection failed or ended, until the next one succeeds.
    pub error: Option<ConnectionError>,
}

impl Status {
    pub(super) fn set_stopped(&mut self) {
        self.caught_up = false;
        // A revoked phone stays one until somebody signs in and starts again.
        if self.phase != Phase::Revoked {
            self.phase = Phase::Stopped;
        }
    }
}

/// Why a connection ended, and when: for diagnostics.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incident {
    /// The phone's wall time.
    pub at: Timestamp,
    /// Why.
    pub error: ConnectionError,
}

/// The connection's phase.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Phase {
    /// Not yet tried.
    #[default]
    Starting,
    /// The operating system says that there is no network.
    NoNetwork,
    /// Waiting before the next try.
    Waiting,
    /// Fetching a token, connecting, greeting.
    Connecting,
    /// Connected and greeted.
    Connected,
    /// The technician must sign in again; nothing is tried until [`super::Client::sync_soon`].
    SignInNeeded,
    /// The device was revoked and wiped; unsent work is sealed. Stays so while the server has not heard of it.
    Revoked,
    /// Stopped.
    Stopped,
}

/// Why a connection failed or ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// The URL cannot be used; nothing will help but another one.
    #[error("the server's address cannot be used: {0}")]
    Address(String),
    /// The server cannot be reached.
    #[error("the server cannot be reached: {0}")]
    Unreachable(String),
    /// TLS failed: the certificate is not trusted, or not for this host.
    #[error("no secure connection: {0}")]
    Tls(String),
    /// The server did not take the token.
    #[error("the server did not take the token")]
    Unauthorized,
    /// The token is good, but not for a phone's sync.
    #[error("the token does not allow this")]
    Forbidden,
    /// The server answered with something else than a WebSocket.
    #[error("the server answered {0}")]
    Refused(u16),
    /// No token could be had.
    #[error(transparent)]
    Token(super::TokenError),
    /// The connection broke, or was half open.
    #[error("the connection was lost: {0}")]
    Lost(String),
    /// The server closed, with a reason.
    #[error("the server closed the connection: {0}")]
    Closed(String),
    /// This release and the server's no longer understand each other: update the app.
    #[error("the app must be updated: {0}")]
    Version(String),
    /// The phone's own store failed.
    #[error("the phone's store failed: {0}")]
    Store(String),
}

/// What happened, for those who show it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// These visits came, changed or left.
    VisitsChanged(Vec<DispatchId>),
    /// The server ruled otherwise than accepted-in-order.
    Ruled {
        /// Which visit.
        dispatch: DispatchId,
        /// The ruling.
        verdict: FactVerdict,
    },
    /// Everything is exchanged.
    CaughtUp,
    /// The server came back from an older copy, or is another one: this many acknowledged changes are given again.
    ServerReplaced {
        /// How many.
        requeued: u32,
    },
    /// Somebody else is signed in, nobody, or the phone woke up: read everything anew.
    Refreshed,
    /// The device was revoked, and its visits are gone from the phone. Comes again where more could be done later: the
    /// connection had broken before the server had what was unsent and the proof.
    Revoked(Revoked),
}

/// What became of a revoked phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Revoked {
    /// Unsent changes that the server has now, in quarantine for the office.
    pub handed_over: u32,
    /// Unsent changes that could not be handed over: sealed on the phone, until their technician signs in again.
    pub sealed: u32,
    /// The file and its key are destroyed. Never while something is sealed, nor before the server has heard of the wipe.
    pub erased: bool,
}
