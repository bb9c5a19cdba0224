//! The conflict rules, all in one place: what the server decides when facts and plans disagree.
//!
//! Every function is pure: it takes what is known and answers what shall be.

pub mod facts;
pub mod office;
pub mod sequence;
pub mod sla;
