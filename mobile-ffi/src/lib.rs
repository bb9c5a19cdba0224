//! The phone library for Kotlin and Swift: `sync-core`'s engine behind one object, plain records, and a few foreign traits.
//!
//! - No rule of the domain lives here: each call converts, asks `sync-core`, converts back.
//! - Every method that waits is `async` and runs on the library's own threads; only [`DispatchClient::open`] blocks.
//! - Foreign code (tokens, secure storage, log, observers) is called off the engine's threads. What it throws is an error; a
//!   call that never returns costs its thread and nothing else.
//! - A panic never unwinds into Kotlin or Swift: UniFFI catches it and throws its internal error. An error that an app can
//!   do something about is a [`PhoneError`].
//!
//! Rooms, in reading order: `client` (the object), `host` (what the app gives), `observe`, `threads`, `log`, `records`, `convert`, `error`.
//!
//! `scripts/generate-bindings` writes the bindings; `uniffi.toml` at the top of the workspace names their packages.

mod client;
mod convert;
mod error;
mod host;
mod log;
mod observe;
mod records;
mod threads;

pub use client::DispatchClient;
pub use error::{Hindrance, PhoneError};
pub use host::{
    GoneVisitObserver, HostError, LogLevel, LogSink, NoticeObserver, SecureStorage, SyncStatusObserver, TokenProvider,
    VisitListObserver, VisitObserver,
};
pub use observe::Subscription;
pub use records::{
    Action, ActionTaken, ChecklistAnswer, ChecklistLine, ClientOptions, ConnectionProblem, ConnectionState, Encryption,
    GoneReason, GoneVisit, Notice, OpenNotice, ParkedAction, PartLine, PositionFix, ProposedWindow, RulingOutcome,
    SignedIn, SignedOut, SyncReport, SyncStatus, TimeLine, Urgency, VisitDetails, VisitFilter, VisitStage,
    VisitSummary,
};

uniffi::setup_scaffolding!();
