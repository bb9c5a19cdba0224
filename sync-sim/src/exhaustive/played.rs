//! What was played, and how often each rule decided.

use super::clause::Clause;
use super::merge::Merged;
use super::outcomes::{self, Table};
use super::scene::Scene;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// How many conflict rules there are.
const RULES: u8 = 18;

/// What was played.
#[derive(Debug, Default)]
pub struct Played {
    scenes: Vec<InScene>,
    /// Endings: worlds, by the order in which unsent work arrived. Each was compared with the rules.
    pub endings: u64,
    /// Words that were not played, because another is the same world.
    pub left_out: u64,
    /// Steps that were refused or changed nothing.
    pub refused: u64,
    /// Calls of the service.
    pub calls: u64,
    /// Endings by what decided.
    clauses: BTreeMap<Clause, u64>,
    rules: BTreeMap<u8, u64>,
    pub(super) merged: Merged,
    /// Words played on the phone's own file (rule 10).
    pub(super) sealed: u64,
    pub(super) table: Table,
}

#[derive(Debug, Default, Clone)]
struct InScene {
    name: &'static str,
    actions: usize,
    worlds: u64,
    endings: u64,
}

impl Played {
    pub(super) fn of(scenes: &[Scene]) -> Self {
        let of = |scene: &Scene| InScene { name: scene.name, actions: scene.actions, ..InScene::default() };
        Self { scenes: scenes.iter().map(of).collect(), ..Self::default() }
    }

    /// Worlds: words over the scenes' alphabets in which every step changes something.
    #[must_use]
    pub fn worlds(&self) -> u64 {
        self.scenes.iter().map(|scene| scene.worlds).sum()
    }

    pub(super) fn world(&mut self, scene: usize) {
        if let Some(scene) = self.scenes.get_mut(scene) {
            scene.worlds += 1;
        }
    }

    pub(super) fn ending(&mut self, scene: usize, decided: &BTreeSet<Clause>) {
        self.endings += 1;
        if let Some(scene) = self.scenes.get_mut(scene) {
            scene.endings += 1;
        }
        for clause in decided {
            *self.clauses.entry(*clause).or_default() += 1;
        }
        for rule in decided.iter().map(|clause| clause.rule()).collect::<BTreeSet<u8>>() {
            *self.rules.entry(rule).or_default() += 1;
        }
    }

    /// Together with what another thread has played.
    pub(super) fn add(&mut self, other: Self) {
        for (scene, also) in self.scenes.iter_mut().zip(other.scenes) {
            scene.worlds += also.worlds;
            scene.endings += also.endings;
        }
        self.endings += other.endings;
        self.left_out += other.left_out;
        self.refused += other.refused;
        self.calls += other.calls;
        for (clause, count) in other.clauses {
            *self.clauses.entry(clause).or_default() += count;
        }
        for (rule, count) in other.rules {
            *self.rules.entry(rule).or_default() += count;
        }
        self.merged.add(&other.merged);
        self.sealed += other.sealed;
        self.table.join(other.table);
    }

    /// What no world has come to: rules, and the clauses of them, that never decided.
    #[must_use]
    pub fn missing(&self) -> Vec<String> {
        let rules = (1..=RULES).filter(|rule| !self.rules.contains_key(rule));
        let rules = rules.map(|rule| format!("rule {rule}: {}", outcomes::title(rule)));
        let clauses = Clause::ALL.iter().filter(|clause| !self.clauses.contains_key(clause));
        rules.chain(clauses.map(|clause| format!("rule {}: {}", clause.rule(), clause.said()))).collect()
    }

    /// The table of outcomes, as Markdown.
    #[must_use]
    pub fn outcomes(&self) -> String {
        self.table.to_string()
    }
}

impl fmt::Display for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:>9} {:>9}", "worlds", "endings")?;
        for scene in &self.scenes {
            let InScene { name, actions, worlds, endings } = scene;
            writeln!(f, "{worlds:>9} {endings:>9}  up to {actions} actions: {name}")?;
        }
        writeln!(f, "{:>9} {:>9}  words on the phone's own file: logout, another user, back again", self.sealed, "")?;
        writeln!(
            f,
            "{} worlds with {} endings, each compared with the rules; {} words left out, because another is the same world;",
            self.worlds(),
            self.endings,
            self.left_out
        )?;
        writeln!(f, "{} steps refused or without effect; {} calls of the service", self.refused, self.calls)?;
        let Merged { shapes, orders, played, merges } = &self.merged;
        writeln!(
            f,
            "{shapes} shapes of documents have {orders} merge orders: {played} played one by one, {merges} merges in all"
        )?;
        writeln!(f, "\nEndings in which each rule decided:")?;
        for rule in 1..=RULES {
            let count = self.rules.get(&rule).copied().unwrap_or(0);
            writeln!(f, "{count:>9}  rule {rule}: {}", outcomes::title(rule))?;
            for clause in Clause::ALL.iter().filter(|clause| clause.rule() == rule) {
                let count = self.clauses.get(clause).copied().unwrap_or(0);
                writeln!(f, "  {count:>9}    {}", clause.said())?;
            }
        }
        Ok(())
    }
}
