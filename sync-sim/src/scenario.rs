//! What happens in a simulated day: a plain list of events, drawn from a seed, that can be shortened and kept as a file.

use rand::rngs::SmallRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use std::ops::RangeInclusive;

pub(crate) const SECOND: i64 = 1_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;
pub(crate) const HOUR: i64 = 60 * MINUTE;
/// The day's length; the faults end with it.
pub(crate) const DAY_MS: i64 = 9 * HOUR;

/// A day to be played.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scenario {
    /// Of everything that the events do not fix: latencies, ids, jitter.
    pub seed: u64,
    /// Each has one phone.
    pub technicians: u8,
    /// Server nodes on one store.
    pub nodes: u8,
    /// On the shipped SQLite store instead of the one in memory.
    #[serde(default)]
    pub sqlite: bool,
    /// What happens, by time.
    pub events: Vec<Event>,
}

/// One thing that happens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds from the start of the day.
    pub at_ms: i64,
    /// Fixes the event's own choices, whatever happened before it.
    pub salt: u64,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// The kinds of events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
#[allow(missing_docs, reason = "the fields say what they are: which phone or node, for how long, after how many steps")]
pub enum What {
    /// The technician does something.
    Act { phone: u8 },
    /// The phone's process dies, at that many writes to its disk from now; with the power, what was not synced is lost.
    KillPhone { phone: u8, after_io: u32, power: bool, restart_ms: i64 },
    /// The phone's disk takes no more after that many writes.
    DiskFull { phone: u8, after_io: u32, for_ms: i64 },
    /// Somebody sets the phone's clock.
    ClockJump { phone: u8, by_ms: i64 },
    /// The phone's clock runs at another speed, parts per million.
    Drift { phone: u8, ppm: i32 },
    /// The phone is switched off and on.
    Reboot { phone: u8, for_ms: i64 },
    /// The app is replaced by its next version.
    Update { phone: u8 },
    /// Somebody else logs in, and the technician again after a while.
    SwitchUser { phone: u8, for_ms: i64 },
    /// Old receipts are removed.
    PrunePhone { phone: u8 },
    /// The connection breaks, with what is under way on it.
    Cut { phone: u8 },
    /// There is no network.
    Partition { phone: u8, for_ms: i64 },
    /// The socket stays open and carries nothing any more.
    HalfOpen { phone: u8, up: bool, down: bool },
    /// Something between phone and server delivers frames twice, and out of their order.
    Scramble { phone: u8, for_ms: i64 },
    /// The network is slow.
    Slow { phone: u8, latency_ms: i64, for_ms: i64 },
    /// Tokens cannot be had.
    TokenOutage { phone: u8, for_ms: i64 },
    /// The token ends.
    TokenEnds { phone: u8 },
    /// The office revokes the device; the technician signs in again after a while.
    Revoke { phone: u8, sign_in_ms: i64 },
    /// A server process dies: now, or before or after that many commits.
    KillNode { node: u8, commits: u8, after: bool, restart_ms: i64 },
    /// A server process dies at that call to its store, whatever the call is.
    KillNodeAt { node: u8, call: u32, restart_ms: i64 },
    /// The store fails some calls; a commit may have been written all the same.
    StoreFault { node: u8, calls: u8, written: bool },
    /// Somebody makes a backup of the database.
    Backup,
    /// The database comes back from the backup.
    Restore { restart_ms: i64 },
    /// The office does something.
    Office { op: Office },
}

/// What the office does; to which visit, the salt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Office {
    /// Requests a visit.
    Create,
    /// Assigns or re-assigns.
    Assign,
    /// Assigns with a crew.
    AssignCrew,
    /// Takes back.
    Unassign,
    /// Cancels, or asks to stop.
    Cancel,
    /// Takes a cancellation back.
    Reinstate,
    /// Ends a request to stop.
    EndStopWork,
    /// Moves the visit, or its window.
    Reschedule,
    /// Another priority.
    Priority,
    /// Settles an exception.
    Resolve,
    /// The technician confirms through REST.
    Confirm,
    /// The technician rejects through REST.
    Reject,
    /// The order behind it is cancelled by an event, which comes twice.
    OrderCancelled,
}

/// How much happens in a day, at most; `acts` are bursts of one to three.
struct Bustle {
    technicians: u8,
    visits: i64,
    acts: RangeInclusive<u32>,
    office: u32,
    faults: u32,
}

/// Half of the days are quiet. What goes wrong between two neighbours is not covered up there by what comes after, and the same
/// time plays twice as many of them: per second, they find more of what is broken on purpose. What takes many to go wrong is left
/// for the busy ones.
const QUIET: Bustle = Bustle { technicians: 2, visits: 2, acts: 2..=8, office: 4, faults: 6 };
const USUAL: Bustle = Bustle { technicians: 3, visits: 3, acts: 3..=12, office: 5, faults: 7 };
const BUSY: Bustle = Bustle { technicians: 3, visits: 4, acts: 6..=22, office: 7, faults: 7 };

/// Draws a day.
#[must_use]
pub fn draw(seed: u64) -> Scenario {
    let mut rng = SmallRng::seed_from_u64(seed ^ 0x5eed_0fda_15a5_0b0e);
    let bustle = match rng.random_range(0..4) {
        0..=1 => QUIET,
        2 => USUAL,
        _ => BUSY,
    };
    let technicians = rng.random_range(1..=bustle.technicians);
    let nodes = if rng.random_bool(0.25) { 2 } else { 1 };
    let mut events = Vec::new();
    let mut add = |rng: &mut SmallRng, at_ms: i64, what| events.push(Event { at_ms, salt: rng.random(), what });
    // The morning's plan.
    let visits = rng.random_range(1..=bustle.visits);
    for turn in 0..visits {
        add(&mut rng, turn * SECOND, What::Office { op: Office::Create });
        let op = if rng.random_bool(0.25) { Office::AssignCrew } else { Office::Assign };
        add(&mut rng, turn * SECOND + 500, What::Office { op });
    }
    let acts = rng.random_range(bustle.acts);
    for _ in 0..acts {
        let at = moment(&mut rng);
        let phone = rng.random_range(0..technicians);
        // People do several things in a row.
        for turn in 0..rng.random_range(1..=3_i64) {
            let later = turn * rng.random_range(200..20_000_i64);
            add(&mut rng, at + later, What::Act { phone });
        }
    }
    for _ in 0..rng.random_range(1..=bustle.office) {
        let op = *[
            Office::Create,
            Office::Assign,
            Office::Assign,
            Office::Assign,
            Office::AssignCrew,
            Office::Unassign,
            Office::Cancel,
            Office::Cancel,
            Office::Reinstate,
            Office::EndStopWork,
            Office::Reschedule,
            Office::Reschedule,
            Office::Priority,
            Office::Resolve,
            Office::Confirm,
            Office::Reject,
            Office::OrderCancelled,
        ]
        .choose(&mut rng)
        .unwrap_or(&Office::Assign);
        let at = moment(&mut rng);
        add(&mut rng, at, What::Office { op });
    }
    for _ in 0..rng.random_range(0..=bustle.faults) {
        let what = fault(&mut rng, technicians, nodes);
        let at = moment(&mut rng);
        add(&mut rng, at, what);
    }
    if rng.random_bool(0.08) {
        let backup = rng.random_range(0..DAY_MS / 2);
        let restore = rng.random_range(backup..DAY_MS);
        let restart_ms = rng.random_range(SECOND..5 * MINUTE);
        add(&mut rng, backup, What::Backup);
        add(&mut rng, restore, What::Restore { restart_ms });
    }
    events.sort_by_key(|event| event.at_ms);
    Scenario { seed, technicians, nodes, sqlite: false, events }
}

/// Some time of the day; often close to other things, since most conflicts are between neighbours.
fn moment(rng: &mut SmallRng) -> i64 {
    let hour = rng.random_range(0..4_i64) * 2 * HOUR;
    if rng.random_bool(0.7) { hour + rng.random_range(0..15 * MINUTE) } else { rng.random_range(0..DAY_MS) }
}

fn fault(rng: &mut SmallRng, technicians: u8, nodes: u8) -> What {
    let phone = rng.random_range(0..technicians);
    let node = rng.random_range(0..nodes);
    let long = rng.random_range(10 * SECOND..2 * HOUR);
    let short = rng.random_range(SECOND..3 * MINUTE);
    match rng.random_range(0..29) {
        0..=3 => What::KillPhone {
            phone,
            after_io: if rng.random_bool(0.2) { 0 } else { rng.random_range(1..60) },
            power: rng.random_bool(0.6),
            restart_ms: short,
        },
        4 => What::DiskFull { phone, after_io: rng.random_range(0..30), for_ms: long },
        5 => {
            let by_ms = *[-26 * HOUR, -HOUR, -5 * MINUTE, 3 * MINUTE, HOUR, 40 * HOUR].choose(rng).unwrap_or(&HOUR);
            What::ClockJump { phone, by_ms }
        }
        6 => What::Drift { phone, ppm: rng.random_range(-200..=200) },
        7 => What::Reboot { phone, for_ms: short },
        8 => What::Update { phone },
        9 => What::SwitchUser { phone, for_ms: long },
        10 => What::PrunePhone { phone },
        11..=13 => What::Cut { phone },
        14..=15 => What::Partition { phone, for_ms: long },
        16 => What::HalfOpen { phone, up: rng.random(), down: rng.random() },
        17 => What::Slow { phone, latency_ms: rng.random_range(500..20_000), for_ms: long },
        18 => What::TokenOutage { phone, for_ms: long },
        19 => What::TokenEnds { phone },
        20 => What::Revoke { phone, sign_in_ms: long },
        21..=23 => What::KillNode {
            node,
            commits: rng.random_range(0..4),
            after: rng.random(),
            restart_ms: rng.random_range(SECOND..2 * MINUTE),
        },
        24 => What::Scramble { phone, for_ms: long },
        25..=26 => {
            What::KillNodeAt { node, call: rng.random_range(0..40), restart_ms: rng.random_range(SECOND..2 * MINUTE) }
        }
        _ => What::StoreFault { node, calls: rng.random_range(1..6), written: rng.random() },
    }
}
