//! The service's stories, on the embedded store: what a dispatcher, a technician and the systems around them live through.

mod calendar;
mod conflicts;
mod consumed;
mod day;
mod gaps;
mod limits;
mod rights;
mod world;
