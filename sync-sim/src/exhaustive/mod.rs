//! Every small world there is: two technicians, one office, in every order, with every merge order of what
//! comes of them. Each conflict rule is covered by construction, and what it comes to is a table for dispatchers.
//!
//! The worlds of a scene are the words over its alphabet (`scene`, `step`): each prefix of a word is a world too, so that a
//! search forward from the morning plays every program of every actor and every interleaving with the phones' exchanges once.
//! A step that phone or server refuses changes nothing, and is not followed. Each world is settled (everybody gets a network,
//! in every order in which unsent work can arrive), and then compared with an oracle that knows the rules by their wording
//! (`model`, `check`). `merge` merges its document in every order.
//!
//! What acts is the shipped code: the service with its decisions, the documents, `legal_next` and the fold. The store is the one
//! in memory; the phones' file is left to the simulated days and to `sealed`, which plays rule 10 on it.

mod check;
mod command;
mod merge;
mod model;
mod outcomes;
mod scene;
mod sealed;
mod stage;
mod step;

pub use command::Command;

use merge::Merged;
use outcomes::Table;
use scene::Scene;
use stage::{Stage, World};
use std::collections::BTreeMap;
use std::fmt;

/// How many conflict rules there are.
const RULES: u8 = 18;

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Every scene at its full length.
    Whole,
    /// At most so many steps, actions and exchanges together; for a test run without optimisation.
    Short(usize),
}

/// What was played.
#[derive(Debug, Default)]
pub struct Played {
    scenes: Vec<(&'static str, usize, u64)>,
    /// Worlds: words over the scenes' alphabets in which every step changes something.
    pub worlds: u64,
    /// Ways in which they ended: by the order in which unsent work arrived.
    pub endings: u64,
    /// Steps that were refused or changed nothing.
    pub refused: u64,
    /// Calls of the service.
    pub calls: u64,
    /// Worlds by rule.
    rules: BTreeMap<u8, u64>,
    merged: Merged,
    /// Words played on the phone's own file (rule 10).
    sealed: u64,
    table: Table,
}

impl Played {
    /// The rules that no world exercised.
    #[must_use]
    pub fn missing(&self) -> Vec<u8> {
        (1..=RULES).filter(|rule| !self.rules.contains_key(rule)).collect()
    }

    /// The table of outcomes, as Markdown.
    #[must_use]
    pub fn outcomes(&self) -> String {
        self.table.to_string()
    }
}

impl fmt::Display for Played {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, actions, worlds) in &self.scenes {
            writeln!(f, "{worlds:>9}  worlds of up to {actions} actions: {name}")?;
        }
        writeln!(f, "{:>9}  words on the phone's own file: logout, another user, back again", self.sealed)?;
        writeln!(
            f,
            "{} worlds, ended in {} ways; {} steps refused or without effect; {} calls of the service",
            self.worlds, self.endings, self.refused, self.calls
        )?;
        let Merged { shapes, orders, played, merges, .. } = &self.merged;
        writeln!(
            f,
            "{shapes} shapes of documents have {orders} merge orders: {played} played one by one, {merges} merges in all"
        )?;
        for rule in 1..=RULES {
            let worlds = self.rules.get(&rule).copied().unwrap_or(0);
            writeln!(f, "rule {rule:>2}: {worlds:>9} worlds  {}", outcomes::title(rule))?;
        }
        Ok(())
    }
}

/// Plays every world.
///
/// # Errors
/// The first world that is not as the rules say, with its steps.
pub fn check(reach: Reach) -> Result<Played, String> {
    let mut played = Played::default();
    for scene in scene::all() {
        let steps = match reach {
            Reach::Whole => scene.actions + scene.exchanges,
            Reach::Short(steps) => steps,
        };
        let scene = Scene { actions: scene.actions.min(steps), exchanges: scene.exchanges.min(steps), ..scene };
        let (stage, morning) = Stage::new(&scene)?;
        let before = played.worlds;
        let left = Left { steps, actions: scene.actions, exchanges: scene.exchanges };
        Search { scene: &scene, stage: &stage, played: &mut played }.explore(&morning, left)?;
        played.scenes.push((scene.name, scene.actions, played.worlds - before));
        played.calls += stage.calls.get();
    }
    played.sealed = sealed::check(match reach {
        Reach::Whole => 5,
        Reach::Short(_) => 3,
    })?;
    *played.rules.entry(10).or_default() += played.sealed;
    Ok(played)
}

/// What a world may still grow by.
#[derive(Debug, Clone, Copy)]
struct Left {
    steps: usize,
    actions: usize,
    exchanges: usize,
}

impl Left {
    fn after(self, step: step::Step) -> Option<Self> {
        let steps = self.steps.checked_sub(1)?;
        Some(if step.is_action() {
            Self { steps, actions: self.actions.checked_sub(1)?, ..self }
        } else {
            Self { steps, exchanges: self.exchanges.checked_sub(1)?, ..self }
        })
    }
}

struct Search<'a> {
    scene: &'a Scene,
    stage: &'a Stage,
    played: &'a mut Played,
}

impl Search<'_> {
    /// This world, and all that follow from it.
    fn explore(&mut self, world: &World, left: Left) -> Result<(), String> {
        self.played.worlds += 1;
        self.end(world)?;
        for step in &self.scene.alphabet {
            let Some(left) = left.after(*step) else { continue };
            let next = self.stage.step(world, *step).map_err(|problem| {
                let mut world = world.clone();
                world.taken.push(step.into());
                self.told(&world, &problem)
            })?;
            match next {
                Some(next) => self.explore(&next, left)?,
                None => self.played.refused += 1,
            }
        }
        Ok(())
    }

    /// Everybody has a network again, in every order that makes a difference.
    fn end(&mut self, world: &World) -> Result<(), String> {
        let mut touched = world.model.touched.clone();
        for order in check::orders(world) {
            self.played.endings += 1;
            let settled = self.stage.settle(world, &order).map_err(|problem| self.told(world, &problem))?;
            let shown = self.stage.check(&settled).map_err(|problem| self.told(&settled, &problem))?;
            self.played.merged.merge(&shown).map_err(|problem| self.told(&settled, &problem))?;
            touched.extend(&settled.model.touched);
            self.played.table.add(self.scene, &settled, &order, world, &shown);
        }
        for rule in touched {
            *self.played.rules.entry(rule).or_default() += 1;
        }
        Ok(())
    }

    fn told(&self, world: &World, problem: &str) -> String {
        let steps: Vec<String> = world.taken.iter().map(ToString::to_string).collect();
        format!("\"{}\": {problem}\n  - {}", self.scene.name, steps.join("\n  - "))
    }
}
