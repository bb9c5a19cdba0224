//! A technician's day, end to end, offline and back.
pub mod board;
pub mod script;
pub mod technician;
pub mod world;
