//! The search: from the morning on, step by step, on all processors.

use super::check::orders;
use super::merge::Shapes;
use super::outcomes::{Ended, signature};
use super::played::Played;
use super::reduce;
use super::scene::{self, EXCHANGES_MAX, Scene};
use super::sealed;
use super::stage::Stage;
use super::step::{Phone, Step};
use super::world::{Taken, World};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Differences that are told.
const TOLD_MAX: usize = 12;
/// Steps on a phone that two share: logins, logouts, work, exchanges.
const SEALED_STEPS_MAX: usize = 5;

/// Plays every world of up to so many actions, and of as many as six at most.
///
/// # Errors
/// The first world that is not as the rules say, with its steps.
pub fn check(actions: usize) -> Result<Played, String> {
    play_all(&scenes(actions, EXCHANGES_MAX), true, &Endings::default(), actions)
}

/// Plays every world twice, as [`check`] does and without leaving out any word. How many words had an ending, here and there,
/// and how many different endings both found.
///
/// # Errors
/// A world that is not as the rules say; an ending that only one of the two has found.
pub fn compare(actions: usize, exchanges: usize) -> Result<(u64, u64, usize), String> {
    let scenes = scenes(actions, exchanges);
    let collected = [true, false].map(|reduced| {
        let endings = Endings(Some(Mutex::default()));
        let played = play_all(&scenes, reduced, &endings, 0)?;
        let found = endings.0.map(Mutex::into_inner).transpose();
        Ok::<_, String>((played.endings, found.unwrap_or_default().unwrap_or_default()))
    });
    let [reduced, whole] = collected;
    let ((few, reduced), (many, whole)) = (reduced?, whole?);
    let lost = whole.iter().filter(|(ending, _)| !reduced.contains_key(*ending));
    let lost = lost.map(|((_, ending), word)| format!("left out, and no other ends like it: {word}\n{ending}"));
    let made_up = reduced.iter().filter(|(ending, _)| !whole.contains_key(*ending));
    let made_up = made_up.map(|((_, ending), word)| format!("an ending that nothing else has: {word}\n{ending}"));
    let wrong: Vec<String> = lost.chain(made_up).collect();
    if wrong.is_empty() {
        return Ok((few, many, whole.len()));
    }
    let told: Vec<&str> = wrong.iter().take(TOLD_MAX).map(String::as_str).collect();
    Err(format!("{} endings differ\n\n{}", wrong.len(), told.join("\n\n")))
}

fn scenes(actions: usize, exchanges: usize) -> Vec<Scene> {
    let within = |scene: Scene| Scene {
        actions: scene.actions.min(actions),
        exchanges: scene.exchanges.min(exchanges),
        ..scene
    };
    scene::all().into_iter().map(within).collect()
}

/// What one thread plays at a time.
#[derive(Debug, Clone, Copy)]
enum Job {
    /// The worlds of a scene that begin with this step; the morning alone.
    Words(usize, Option<Step>),
    /// The phone that two share (rule 10).
    SharedPhone(usize),
}

/// Which endings there are, by what they show; kept to compare two searches.
#[derive(Debug, Default)]
struct Endings(Option<Mutex<BTreeMap<(String, String), String>>>);

fn play_all(scenes: &[Scene], reduced: bool, endings: &Endings, sealed: usize) -> Result<Played, String> {
    let mut jobs = vec![Job::SharedPhone(sealed.min(SEALED_STEPS_MAX))];
    for (index, scene) in scenes.iter().enumerate() {
        jobs.push(Job::Words(index, None));
        jobs.extend(scene.alphabet.iter().map(|step| Job::Words(index, Some(*step))));
    }
    let (next, shapes) = (AtomicUsize::new(0), Shapes::default());
    let total = Mutex::new(Ok(Played::of(scenes)));
    let worker = || {
        let mut played = Played::of(scenes);
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            let done = match *job {
                Job::SharedPhone(steps) => sealed::check(steps).map(|words| played.sealed += words),
                Job::Words(index, first) => {
                    let mut search = Search { scenes, index, reduced, endings, shapes: &shapes, played: &mut played };
                    search.play(first)
                }
            };
            if let Err(problem) = done {
                next.store(jobs.len(), Ordering::Relaxed);
                let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
                if total.is_ok() {
                    *total = Err(problem);
                }
                return;
            }
        }
        if let Ok(total) = &mut *total.lock().unwrap_or_else(PoisonError::into_inner) {
            total.add(played);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(worker);
        }
    });
    total.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// What a world may still grow by.
#[derive(Debug, Clone, Copy)]
struct Left {
    actions: usize,
    exchanges: usize,
}

impl Left {
    fn after(self, step: Step) -> Option<Self> {
        Some(if step.is_action() {
            Self { actions: self.actions.checked_sub(1)?, ..self }
        } else {
            Self { exchanges: self.exchanges.checked_sub(1)?, ..self }
        })
    }
}

struct Search<'a> {
    scenes: &'a [Scene],
    index: usize,
    reduced: bool,
    endings: &'a Endings,
    shapes: &'a Shapes,
    played: &'a mut Played,
}

/// A world, and the word that it is.
struct Node<'a> {
    world: &'a World,
    word: &'a [Step],
    /// The phone that connected last was known to the server before.
    knew_last: bool,
}

impl Search<'_> {
    fn scene(&self) -> Result<&Scene, String> {
        self.scenes.get(self.index).ok_or_else(|| "there is no such scene".to_owned())
    }

    /// The morning alone, or all worlds that begin with that step.
    fn play(&mut self, first: Option<Step>) -> Result<(), String> {
        let scene = self.scene()?;
        let left = Left { actions: scene.actions, exchanges: scene.exchanges };
        let (stage, morning) = Stage::new(scene)?;
        let node = Node { world: &morning, word: &[], knew_last: false };
        match first {
            None => self.visit(&stage, &node)?,
            Some(step) => self.take(&stage, &node, step, left)?,
        }
        self.played.calls += stage.calls.get();
        Ok(())
    }

    /// All worlds that go on from this one with that step.
    fn take(&mut self, stage: &Stage, node: &Node<'_>, step: Step, left: Left) -> Result<(), String> {
        let Some(left) = left.after(step) else { return Ok(()) };
        if self.reduced && !reduce::goes_on(self.scene()?, node.word, step) {
            self.played.left_out += 1;
            return Ok(());
        }
        let taken = stage.step(node.world, step).map_err(|problem| {
            let mut world = node.world.clone();
            world.taken.push(Taken::from(&step));
            self.told(&world, &problem)
        })?;
        let Some(world) = taken else {
            self.played.refused += 1;
            return Ok(());
        };
        let connected = match step {
            Step::Exchange(phone, _) => node.world.phones.get(&phone).is_some_and(|handset| handset.registered),
            _ => false,
        };
        let word = [node.word, &[step]].concat();
        let next = Node { world: &world, word: &word, knew_last: connected };
        self.visit(stage, &next)?;
        for step in self.scene()?.alphabet.clone() {
            self.take(stage, &next, step, left)?;
        }
        Ok(())
    }

    /// Counts the world, and ends it.
    fn visit(&mut self, stage: &Stage, node: &Node<'_>) -> Result<(), String> {
        self.played.world(self.index);
        if self.reduced && !reduce::ends(self.scenes, self.index, node.word, node.knew_last) {
            return Ok(());
        }
        self.end(stage, node)
    }

    /// Everybody has a network again, in every order that makes a difference.
    fn end(&mut self, stage: &Stage, node: &Node<'_>) -> Result<(), String> {
        let world = node.world;
        for order in orders(world) {
            let settled = stage.settle(world, &order).map_err(|problem| self.told(world, &problem))?;
            let shown = stage.check(&settled).map_err(|problem| self.told(&settled, &problem))?;
            let decided: BTreeSet<_> = settled.model.decided.union(&shown.clauses).copied().collect();
            let merged = self.played.merged.merge(&shown, self.shapes);
            merged.map_err(|problem| self.told(&settled, &problem))?;
            if let Endings(Some(endings)) = self.endings {
                self.keep(endings, &settled, &order, &signature(&settled, &shown, &decided))?;
            }
            self.played.ending(self.index, &decided);
            let (before, settled, shown, decided) = (world, &settled, &shown, &decided);
            let about = self.scenes.get(self.index).map_or(&[][..], |scene| scene.rules);
            let ended =
                Ended { scene: self.index, about, before, word: node.word, order: &order, settled, shown, decided };
            self.played.table.add(&ended);
        }
        Ok(())
    }

    /// Keeps what an ending shows; in a mirrored scene, whoever of the two it is.
    fn keep(
        &self,
        endings: &Mutex<BTreeMap<(String, String), String>>,
        world: &World,
        order: &[Phone],
        ending: &str,
    ) -> Result<(), String> {
        let scene = self.scene()?;
        let mut endings = endings.lock().unwrap_or_else(PoisonError::into_inner);
        let mut put = |ending: String| {
            let setting = scene.setting();
            endings.entry((setting, ending)).or_insert_with(|| format!("{} {order:?}", self.told(world, "")));
        };
        put(if scene.mirrored { nameless(ending) } else { ending.to_owned() });
        Ok(())
    }

    fn told(&self, world: &World, problem: &str) -> String {
        let name = self.scenes.get(self.index).map_or("", |scene| scene.name);
        let steps: Vec<String> = world.taken.iter().map(ToString::to_string).collect();
        format!("\"{name}\": {problem}\n  - {}", steps.join("\n  - "))
    }
}

/// The lesser of the ending and its mirror image, without the lines that say who leads.
fn nameless(ending: &str) -> String {
    let tells_the_lead = |line: &&str| line.contains("has the visit") || line.contains("will come");
    let sorted = |text: &str| {
        let mut lines: Vec<&str> = text.lines().filter(|line| !tells_the_lead(line)).collect();
        lines.sort_unstable();
        lines.join("\n")
    };
    let swapped = ending.replace("Anna", "\u{0}").replace("Ben", "Anna").replace('\u{0}', "Ben");
    sorted(ending).min(sorted(&swapped))
}
