//! The phone library for Kotlin and Swift: `sync-core`'s store behind a few objects and plain records.
//!
//! Here today: open a store, list a day's visits, look into one, act on it, see why a visit is gone, and how much the office
//! does not know yet. The live connection (`sync-core`'s client), photos and observers follow on the same [`Phone`].
//!
//! - No rule of the domain lives here: each call converts, asks `sync-core`, converts back.
//! - Every call blocks on the phone's disk: make it off the main thread.
//! - Time, boot id and position are the app's to give, because only the operating system's own interface knows them well.
//! - A panic never unwinds into Kotlin or Swift: UniFFI catches it and throws its internal error. An error that an app can
//!   do something about is a [`PhoneError`].
//!
//! `scripts/generate-bindings` writes the bindings; `uniffi.toml` at the top of the workspace names their packages.

mod convert;
mod error;
mod phone;
mod records;

pub use error::{Hindrance, PhoneError};
pub use phone::Phone;
pub use records::{
    Action, ActionTaken, ChecklistAnswer, ChecklistLine, DeviceClock, GoneReason, GoneVisit, OpenNotice, PositionFix,
    SyncStatus, Urgency, VisitDetails, VisitStage, VisitSummary,
};

uniffi::setup_scaffolding!();
