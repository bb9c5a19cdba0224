//! Every small world there is: two technicians, one office, in every order, with every merge order of what
//! comes of them. Each conflict rule is covered by construction, and what it comes to is a table for dispatchers.
//!
//! The worlds of a scene are the words over its alphabet (`scene`, `step`): each prefix of a word is a world too, so that a
//! search forward from the morning (`search`) plays every program of every actor and every interleaving with the phones'
//! exchanges. A step that phone or server refuses changes nothing, and is not followed; words that are the same world are played
//! once (`reduce`). Each world is settled (everybody gets a network, in every order in which unsent work can arrive), and then
//! compared with an oracle that knows the rules by their wording (`model`, `clause`, `check`). `merge` merges its document in
//! every order. `played` counts, `outcomes` tells.
//!
//! What is counted: an *action* is what a technician does, what the office orders or another system tells it, the passing of the
//! deadline, or a clock set back; a world has up to six. An *exchange* is a phone connecting in between, and is no action: up to
//! two in a world, anywhere. At the end all phones connect, in every order; that is one *ending* each.
//!
//! What acts is the shipped code: the service with its decisions, the documents, `legal_next` and the fold. The store is the one
//! in memory; the phones' file is left to the simulated days and to `sealed`, which plays rule 10 on it.

mod act;
mod check;
mod clause;
mod command;
mod exchange;
mod merge;
mod model;
mod office;
mod outcomes;
mod played;
mod reduce;
mod scene;
mod sealed;
mod search;
mod stage;
mod step;
mod wording;
mod world;

pub use command::Command;
pub use played::Played;
pub use search::{check, compare};
