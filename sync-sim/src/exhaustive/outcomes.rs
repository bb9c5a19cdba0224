//! The table of outcomes: what the worlds come to, in a dispatcher's words.
//!
//! A row is a clause of a rule and the shortest story in which it decides: a story is left out when it is a longer form of another
//! one of the same clause (some step of it makes no difference to that), or means the same to the customer as one before it. So
//! what makes no difference is not told.

use super::check::Shown;
use super::clause::Clause;
use super::step::{How, Phone, Step};
use super::wording;
use super::world::World;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub(super) use super::wording::title;

/// Longest story of a row: actions, and steps with exchanges, before all phones connect. Every search goes that far.
const ACTIONS_MAX: usize = 3;
const STEPS_MAX: usize = 4;

/// What everybody sees in the end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Outcome {
    technicians: String,
    office: String,
    customer: String,
}

/// A row, in the order in which rows are told: shortest first, then as the scenes are written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    steps: usize,
    scene: usize,
    word: Vec<Step>,
    order: Vec<Phone>,
    story: String,
    outcome: Outcome,
}

#[derive(Debug, Default)]
pub(super) struct Table {
    rows: BTreeMap<Clause, Vec<Row>>,
}

/// A world that has ended: as it was, and as it is.
pub(super) struct Ended<'a> {
    pub(super) scene: usize,
    /// The rules that the scene is made for.
    pub(super) about: &'a [u8],
    pub(super) before: &'a World,
    pub(super) word: &'a [Step],
    pub(super) order: &'a [Phone],
    pub(super) settled: &'a World,
    pub(super) shown: &'a Shown,
    pub(super) decided: &'a BTreeSet<Clause>,
}

impl Table {
    /// Considers a world that has ended.
    pub(super) fn add(&mut self, ended: &Ended<'_>) {
        let Ended { scene, about, before, word, order, settled, shown, decided } = *ended;
        if word.len() > STEPS_MAX || word.iter().filter(|step| step.is_action()).count() > ACTIONS_MAX {
            return;
        }
        let of_the_scene = |clause: &Clause| about.contains(&clause.rule()) && !self.is_known(*clause, word);
        let new: Vec<Clause> = decided.iter().copied().filter(of_the_scene).collect();
        if new.is_empty() {
            return;
        }
        let outcome = Outcome {
            technicians: wording::technicians(settled),
            office: wording::office(settled, shown),
            customer: wording::customer(settled, shown),
        };
        let waits = |phone: &&Phone| before.phones.get(*phone).is_some_and(|handset| !handset.outbox.is_empty());
        let order: Vec<Phone> = order.iter().filter(waits).copied().collect();
        let row = Row { steps: word.len(), scene, word: word.to_vec(), story: story(before, &order), order, outcome };
        for clause in new {
            self.put(clause, row.clone());
        }
    }

    /// A shorter form of the word is a row of the clause.
    fn is_known(&self, clause: Clause, word: &[Step]) -> bool {
        self.rows.get(&clause).is_some_and(|rows| rows.iter().any(|row| is_shorter_form(&row.word, word)))
    }

    fn put(&mut self, clause: Clause, row: Row) {
        if !self.is_known(clause, &row.word) {
            let rows = self.rows.entry(clause).or_default();
            rows.retain(|known| !is_shorter_form(&row.word, &known.word));
            rows.push(row);
        }
    }

    /// Together with what another thread has found.
    pub(super) fn join(&mut self, other: Self) {
        for (clause, rows) in other.rows {
            for row in rows {
                self.put(clause, row);
            }
        }
    }

    /// The rows of a rule: each story once, with all that decides in it, and of a clause's stories that end alike the first.
    fn of_rule(&self, rule: u8) -> Vec<(Vec<Clause>, &Row)> {
        let mut told: Vec<(Vec<Clause>, &Row)> = Vec::new();
        for (clause, rows) in self.rows.iter().filter(|(clause, _)| clause.rule() == rule) {
            let mut rows: Vec<&Row> = rows.iter().collect();
            rows.sort();
            // Whether it is Anna or Ben makes no difference, nor what else the office sees.
            let nameless = |row: &Row| row.outcome.customer.replace("Ben", "Anna");
            let mut seen: BTreeSet<String> = BTreeSet::new();
            for row in rows.into_iter().filter(|row| seen.insert(nameless(row))) {
                match told.iter_mut().find(|(_, other)| other.story == row.story && other.outcome == row.outcome) {
                    Some((clauses, _)) => clauses.push(*clause),
                    None => told.push((vec![*clause], row)),
                }
            }
        }
        told
    }
}

/// The word without some of its steps.
fn is_shorter_form(short: &[Step], long: &[Step]) -> bool {
    let mut rest = long.iter();
    short.len() < long.len() && short.iter().all(|step| rest.any(|other| other == step))
}

/// What was done, in order, and whose unsent work came first in the end.
fn story(world: &World, order: &[Phone]) -> String {
    let mut told: Vec<String> = world.taken.iter().map(ToString::to_string).collect();
    told.extend(order.iter().map(|phone| Step::Exchange(*phone, How::Whole).to_string()));
    told.join(" → ")
}

/// What an ending shows, but for times and for ids that say nothing: two words that are the same world have the same.
pub(super) fn signature(world: &World, shown: &Shown, decided: &BTreeSet<Clause>) -> String {
    let state = &shown.stored.row.state;
    let mut lines: Vec<String> = vec![
        wording::technicians(world).replace("<br>", "; "),
        format!("{:?} of assignment {}, stop {}", state.status, state.epoch, state.stop_work),
        format!("cancellation {:?}, hold {}", world.model.effect(), state.billing_hold),
        format!("settled {}, breach {:?}, on time {:?}", world.model.settled, world.model.breach, state.on_time),
        format!("labour {}, parts {}", world.model.ledgers().1, state.parts.len()),
        wording::customer(world, shown),
        format!("{decided:?}"),
    ];
    let mut raised: Vec<String> = Vec::new();
    for (rule, fact) in &world.model.raised {
        let deed = fact.as_ref().and_then(|fact| world.model.heard.iter().find(|(deed, _)| deed.fact == *fact));
        raised.push(format!("raised by rule {rule} {:?}", deed.map(|(deed, _)| (deed.phone, deed.act))));
    }
    for (deed, standing) in &world.model.heard {
        let ruling = shown.view.rulings.iter().find(|(fact, _)| fact.as_str() == deed.fact);
        let ruling =
            ruling.map(|(_, ruling)| (ruling.verdict, ruling.reason, ruling.clock_flagged, ruling.gap_flagged));
        lines.push(format!("{:?} {} {:?} {standing:?} {ruling:?}", deed.phone, deed.seq, deed.act));
    }
    lines.append(&mut raised);
    lines.push(format!("{} characters of notes", shown.report.notes.len()));
    lines.sort_unstable();
    lines.join("\n")
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "# What becomes of it\n")?;
        writeln!(
            f,
            "Two technicians, Anna and Ben, and one office. At eight o'clock the visit is Anna's (with Ben on her crew, where a row \
             says that she leads), both phones know it, and then they are offline: a phone knows what the office did only after it \
             has connected. \"Not knowing\" means that the office's last order had not reached the phone. Each row is the shortest \
             story in which that part of the rule decides, and what it comes to once all phones have been online.\n"
        )?;
        writeln!(
            f,
            "This page is written by the code that it describes: `cargo run --release -p sync-sim -- exhaustive --outcomes \
             docs/outcomes.md`. The stories are chosen from all small worlds of up to three actions of technicians, \
             office and clocks, and in between up to two connections of phones, which are not counted as actions; in the end all \
             phones connect, in every order. See `sync-sim/src/exhaustive`."
        )?;
        for rule in self.rows.keys().map(|clause| clause.rule()).collect::<BTreeSet<u8>>() {
            writeln!(f, "\n## {rule}. {}\n\n{}\n", title(rule), wording::says(rule))?;
            writeln!(
                f,
                "| What happened | What the rule says | The technicians | The office | The customer |\n|---|---|---|---|---|"
            )?;
            for (clauses, row) in self.of_rule(rule) {
                let said: Vec<&str> = clauses.iter().map(|clause| clause.said()).collect();
                let Outcome { technicians, office, customer } = &row.outcome;
                writeln!(f, "| {} | {} | {technicians} | {office} | {customer} |", row.story, said.join(" "))?;
            }
        }
        Ok(())
    }
}
