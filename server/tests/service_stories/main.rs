//! The service's stories, on the embedded store: what a dispatcher, a technician and the systems around them live through.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a story that cannot go on fails")]

mod calendar;
mod conflicts;
mod consumed;
mod day;
mod gaps;
mod limits;
mod nodes;
mod rights;
mod world;
