//! The stories of the embedded database, told again on PostgreSQL: phones, dispatchers and other systems notice no difference.
//! (`support` makes the database by the name of this file.)

#![allow(clippy::duplicate_mod, reason = "each story file has its own helpers, as when it is a crate of its own")]

#[path = "bad_input.rs"]
mod bad_input;
#[path = "conflicts.rs"]
mod conflicts;
#[path = "day.rs"]
mod day;
#[path = "liveness.rs"]
mod liveness;
