//! What a run came to: how many days, which faults and which checks, in a table for people or as JSON for machines.

use crate::world::{ATTEMPTS_TO_REST, Outcome, REST_MS};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;

/// What a count is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// What people and programs did.
    Work,
    /// What went wrong on purpose.
    Fault,
    /// What was checked.
    Oracle,
}

/// How often what happened.
pub type Counts = BTreeMap<(Group, &'static str), u64>;

/// How a day came to rest after its last fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rest {
    /// How long it took, in steps of 15 simulated seconds.
    pub seconds: u64,
    /// How many connections the phone needed that needed most.
    pub connections: u32,
}

/// Days added up.
#[derive(Debug, Clone, Default)]
pub struct Report {
    first_seed: u64,
    days: u64,
    on_sqlite: u64,
    seconds: f64,
    counts: Counts,
    rest_seconds: u64,
    worst: Rest,
}

impl Report {
    /// Of no day yet; the first has this seed.
    #[must_use]
    pub fn new(first_seed: u64) -> Self {
        Self { first_seed, ..Self::default() }
    }

    /// Adds a day.
    pub fn add(&mut self, outcome: &Outcome, sqlite: bool) {
        self.days += 1;
        self.on_sqlite += u64::from(sqlite);
        for (what, count) in &outcome.counts {
            *self.counts.entry(*what).or_default() += count;
        }
        self.rest_seconds += outcome.rest.seconds;
        self.worst.seconds = self.worst.seconds.max(outcome.rest.seconds);
        self.worst.connections = self.worst.connections.max(outcome.rest.connections);
    }

    /// How long all of it took, in real seconds.
    pub fn took(&mut self, seconds: f64) {
        self.seconds = seconds;
    }

    fn of(&self, group: Group) -> impl Iterator<Item = (&'static str, u64)> {
        self.counts.iter().filter(move |((of, _), _)| *of == group).map(|((_, what), count)| (*what, *count))
    }

    fn days_a_second(&self) -> f64 {
        self.days as f64 / self.seconds.max(0.001)
    }

    fn mean_rest(&self) -> f64 {
        self.rest_seconds as f64 / self.days.max(1) as f64
    }

    /// For machines.
    #[must_use]
    pub fn json(&self) -> Value {
        let group = |group| {
            self.of(group).map(|(what, count)| (what.to_owned(), count.into())).collect::<serde_json::Map<_, _>>()
        };
        json!({
            "firstSeed": self.first_seed,
            "seeds": self.days,
            "seedsOnSqliteServer": self.on_sqlite,
            "seconds": self.seconds,
            "daysPerSecond": self.days_a_second(),
            "faults": group(Group::Fault),
            "oracles": group(Group::Oracle),
            "work": group(Group::Work),
            "liveness": {
                "boundSeconds": REST_MS / 1_000,
                "boundConnections": ATTEMPTS_TO_REST,
                "meanSeconds": self.mean_rest(),
                "longestSeconds": self.worst.seconds,
                "mostConnections": self.worst.connections,
            },
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let last = self.first_seed + self.days.saturating_sub(1);
        writeln!(
            f,
            "{} simulated days (seeds {} to {last}) in {:.0} s, {:.0} a second; {} of them on the SQLite store of the server,\n\
             the others on the store in memory; every phone on its SQLite file.",
            self.days,
            self.first_seed,
            self.seconds,
            self.days_a_second(),
            self.on_sqlite
        )?;
        for (group, title) in
            [(Group::Work, "Work"), (Group::Fault, "Faults"), (Group::Oracle, "Checks by the oracles")]
        {
            writeln!(f, "\n{title}")?;
            for (what, count) in self.of(group) {
                writeln!(f, "{count:>12}  {what}")?;
            }
        }
        writeln!(f, "\nLiveness: from the last fault to everything delivered, without anybody doing anything")?;
        let worst = self.worst;
        writeln!(
            f,
            "{:>12}  seconds at most, {:.0} in the mean ({} allowed)\n{:>12}  connections of a phone at most ({} allowed)",
            worst.seconds,
            self.mean_rest(),
            REST_MS / 1_000,
            worst.connections,
            ATTEMPTS_TO_REST
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(counts: &[((Group, &'static str), u64)], seconds: u64, connections: u32) -> Outcome {
        Outcome { counts: counts.iter().copied().collect(), rest: Rest { seconds, connections }, ..Outcome::default() }
    }

    #[test]
    fn a_report_says_how_many_days_which_faults_which_checks_and_how_close_to_the_bound() {
        let mut report = Report::new(5);
        report.add(&day(&[((Group::Fault, "partitions"), 2), ((Group::Oracle, "liveness"), 1)], 15, 3), true);
        report.add(&day(&[((Group::Fault, "partitions"), 1), ((Group::Work, "actions"), 9)], 45, 2), false);
        report.took(0.5);
        let json = report.json();
        assert_eq!(
            (&json["firstSeed"], &json["seeds"], &json["seedsOnSqliteServer"]),
            (&5.into(), &2.into(), &1.into())
        );
        assert_eq!(json["faults"], json!({ "partitions": 3 }));
        assert_eq!(json["oracles"], json!({ "liveness": 1 }));
        assert_eq!(json["work"], json!({ "actions": 9 }));
        assert_eq!(json["daysPerSecond"], json!(4.0));
        let rest = &json["liveness"];
        assert_eq!((&rest["longestSeconds"], &rest["mostConnections"]), (&45.into(), &3.into()));
        let text = report.to_string();
        for part in [
            "2 simulated days (seeds 5 to 6)",
            "           3  partitions",
            "45  seconds at most, 30 in the mean (1200 allowed)",
        ] {
            assert!(text.contains(part), "{text}");
        }
    }
}
