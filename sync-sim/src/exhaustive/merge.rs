//! Merge orders: a document's changes in every order that causality allows make the same visit.

use super::check::Shown;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, PoisonError};
use sync_core::document::{StateTag, VisitDoc};
use sync_core::domain::{Report, VisitState, VisitView, fold};

/// Orders that are played one by one. Of a document with more, every change is merged onto every set of changes that it can
/// meet, which is every step of every order.
const PLAYED_ONE_BY_ONE: u64 = 24;

/// What was merged.
#[derive(Debug, Default, Clone)]
pub(super) struct Merged {
    /// Documents that differ in more than times and ids.
    pub(super) shapes: u64,
    /// The orders that they have.
    pub(super) orders: u128,
    /// Those that were played from the first to the last change.
    pub(super) played: u64,
    /// Single merges.
    pub(super) merges: u64,
}

/// Shapes that have been merged, by whichever thread.
#[derive(Debug, Default)]
pub(super) struct Shapes(Mutex<HashSet<[u8; 32]>>);

impl Shapes {
    fn is_new(&self, shape: [u8; 32]) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(shape)
    }
}

/// A change: what it depends on, by index.
struct Node<'a> {
    bytes: &'a [u8],
    needs: u64,
}

impl Merged {
    /// Together with what another thread has merged.
    pub(super) fn add(&mut self, other: &Self) {
        self.shapes += other.shapes;
        self.orders += other.orders;
        self.played += other.played;
        self.merges += other.merges;
    }

    /// Merges a finished world's document in every order, unless one of the same shape was merged before.
    pub(super) fn merge(&mut self, shown: &Shown, shapes: &Shapes) -> Result<(), String> {
        let nodes = nodes(&shown.changes)?;
        if !shapes.is_new(shape(&nodes, shown)) {
            return Ok(());
        }
        self.shapes += 1;
        let expected = (shown.document.tag(), fold(&shown.view), shown.report.clone(), shown.view.clone());
        let orders = count(&nodes);
        self.orders += u128::from(orders);
        let first = VisitDoc::load(nodes.first().ok_or("no change")?.bytes).map_err(|error| error.to_string())?;
        let mut walk = Walk { nodes: &nodes, met: BTreeMap::new(), once: orders > PLAYED_ONE_BY_ONE, merged: self };
        walk.go(1, &first)?;
        let all = full(nodes.len());
        let last = walk.met.get(&all).ok_or("no order was merged to its end")?;
        if (last.0, &last.1, &last.2, &last.3) != (expected.0, &expected.1, &expected.2, &expected.3) {
            return Err(format!("merged in another order it is {:?} {:?} and not {:?}", last.1, last.2, expected.1));
        }
        Ok(())
    }
}

type Seen = (StateTag, VisitState, Report, VisitView);

struct Walk<'a> {
    nodes: &'a [Node<'a>],
    /// What each set of changes makes.
    met: BTreeMap<u64, Seen>,
    /// Each set of changes is left by one way only.
    once: bool,
    merged: &'a mut Merged,
}

impl Walk<'_> {
    fn go(&mut self, have: u64, document: &VisitDoc) -> Result<(), String> {
        let complete = have == full(self.nodes.len());
        // The fold is total on every part of the history, and the same by whatever way it was reached.
        if self.once || complete || !self.met.contains_key(&have) {
            let view = document.view();
            let seen = (document.tag(), fold(&view), document.report(), view);
            match self.met.get(&have) {
                Some(before) if *before != seen => {
                    return Err(format!("two merge orders make {:?} and {:?}", before.1, seen.1));
                }
                Some(_) if self.once => return Ok(()),
                Some(_) => {}
                None => drop(self.met.insert(have, seen)),
            }
        }
        if complete {
            self.merged.played += u64::from(!self.once);
            return Ok(());
        }
        for (index, node) in self.nodes.iter().enumerate() {
            let bit = 1 << index;
            if have & bit == 0 && node.needs & !have == 0 {
                let mut next = document.clone();
                next.apply(&[node.bytes]).map_err(|error| format!("a merge order fails: {error}"))?;
                self.merged.merges += 1;
                self.go(have | bit, &next)?;
            }
        }
        Ok(())
    }
}

fn full(changes: usize) -> u64 {
    (1 << changes) - 1
}

/// How many orders causality allows.
fn count(nodes: &[Node<'_>]) -> u64 {
    let mut ways: BTreeMap<u64, u64> = BTreeMap::from([(1, 1)]);
    for _ in 1..nodes.len() {
        let mut next: BTreeMap<u64, u64> = BTreeMap::new();
        for (have, count) in ways {
            for (index, node) in nodes.iter().enumerate() {
                if have & (1 << index) == 0 && node.needs & !have == 0 {
                    *next.entry(have | 1 << index).or_default() += count;
                }
            }
        }
        ways = next;
    }
    ways.into_values().sum()
}

/// Reads the changes' dependencies out of their chunks: magic, checksum, type, length, then the dependencies' count and hashes.
fn nodes(changes: &[Vec<u8>]) -> Result<Vec<Node<'_>>, String> {
    if changes.len() >= 64 {
        return Err("more changes than a small world has".to_owned());
    }
    let hash = |bytes: &[u8]| -> [u8; 32] { Sha256::digest(bytes.get(8..).unwrap_or_default()).into() };
    let known: Vec<[u8; 32]> = changes.iter().map(|change| hash(change)).collect();
    let mut nodes = Vec::with_capacity(changes.len());
    for change in changes {
        let (_, after_length) = leb128(change, 9)?;
        let (count, mut at) = leb128(change, after_length)?;
        let mut needs = 0;
        for _ in 0..count {
            let dependency = change.get(at..at + 32).ok_or("a change ends among its dependencies")?;
            let index = known.iter().position(|hash| hash == dependency).ok_or("a change needs what is not there")?;
            needs |= 1 << index;
            at += 32;
        }
        nodes.push(Node { bytes: change, needs });
    }
    Ok(nodes)
}

fn leb128(bytes: &[u8], mut at: usize) -> Result<(u64, usize), String> {
    let (mut value, mut shift) = (0_u64, 0);
    loop {
        let byte = *bytes.get(at).ok_or("a change ends within a number")?;
        value |= u64::from(byte & 0x7f) << shift;
        at += 1;
        shift += 7;
        if byte & 0x80 == 0 {
            return Ok((value, at));
        }
    }
}

/// What two documents have in common that differ in times and ids only: who wrote what upon what, and how it was ruled.
fn shape(nodes: &[Node<'_>], shown: &Shown) -> [u8; 32] {
    let mut hash = Sha256::new();
    for node in nodes {
        hash.update(node.needs.to_be_bytes());
        hash.update((node.bytes.len() as u64).to_be_bytes());
    }
    for (id, fact) in &shown.view.facts {
        let ruling = shown.view.rulings.get(id).map(|ruling| (ruling.verdict, ruling.reason, ruling.knew_revision));
        hash.update(format!("{id} {} {} {:?};", fact.kind.name(), fact.epoch, ruling));
    }
    let state = &shown.stored.row.state;
    hash.update(format!("{:?} {} {:?} {:?}", state.status, state.epoch, state.lead, state.stop_work));
    hash.finalize().into()
}
