//! The conflict rules as a dispatcher would tell them: one story each, played against the pure rules alone.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod cancellation;
mod crew_clocks_parts;
mod gaps;
mod ordinary_day;
mod reassignment;
mod stage;
mod trust;
mod windows_and_deadlines;
