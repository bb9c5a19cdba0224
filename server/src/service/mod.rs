//! The dispatch service: loads, decides by the pure rules, commits, then tells.

pub mod commit;
pub mod model;
