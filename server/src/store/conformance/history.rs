//! Random histories: whatever the office, the crew and the phones do, and however the pages fall, a phone that follows its
//! feed ends with exactly what it should hold.

use super::fixture::*;
use crate::service::commit::{Commit, DeviceWrite, FeedNews};
use crate::store::{FeedNewsItem, Store};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use sync_core::domain::{DeviceId, DispatchId, TechnicianId};
use sync_core::protocol::Digest;

const HISTORIES: u64 = 12;
const STEPS: usize = 150;
const VISITS: usize = 7;

/// Which revisions' changes are known of each visit held.
type Documents = BTreeMap<DispatchId, BTreeSet<u64>>;

struct Phone {
    device: DeviceId,
    cursor: u64,
    documents: Documents,
}

/// What is true.
#[derive(Default)]
struct Truth {
    revisions: BTreeMap<DispatchId, u64>,
    held: BTreeSet<DispatchId>,
    minutes: i64,
}

impl Truth {
    fn documents(&self) -> Documents {
        self.held.iter().map(|id| (id.clone(), (1..=self.revisions[id]).collect())).collect()
    }
}

fn revision_in(text: &[u8], separator: char) -> u64 {
    std::str::from_utf8(text).unwrap().rsplit(separator).next().unwrap().parse().unwrap()
}

impl Phone {
    /// One page. True when it was the last one.
    async fn pull(&mut self, store: &dyn Store, technician: &TechnicianId, limit: u32, truth: &Truth) -> bool {
        let page = store.feed_page(&acme(), technician, &self.device, self.cursor, limit).await.unwrap();
        if page.too_old {
            self.reset(store, technician, limit).await;
            return false;
        }
        assert!(page.news.len() <= limit as usize);
        assert!(page.to > self.cursor || self.cursor == page.head, "a page gets on");
        for item in page.news {
            match item {
                FeedNewsItem::Whole(visit) => {
                    let known = self.documents.entry(visit.dispatch.clone()).or_default();
                    known.extend(1..=revision_in(&visit.document, '@'));
                    self.must_be_complete(&visit.dispatch, truth);
                }
                FeedNewsItem::Changes { visit, changes } => {
                    let known = self.documents.get_mut(&visit.dispatch).expect("changes of a visit that it has");
                    known.extend(changes.iter().map(|change| revision_in(change, '+')));
                    self.must_be_complete(&visit.dispatch, truth);
                }
                FeedNewsItem::Gone(entry) => {
                    assert!(matches!(entry.news, FeedNews::Gone(_)));
                    self.documents.remove(&entry.dispatch);
                }
            }
        }
        self.cursor = page.to;
        if page.to < page.head {
            return false;
        }
        assert_eq!(self.documents, truth.documents(), "at the feed's end the phone holds what it should");
        let digest = self
            .documents
            .keys()
            .fold(Digest::default(), |digest, id| digest.toggled(id, tag_of(id, truth.revisions[id])));
        assert_eq!(digest.0, page.digest);
        true
    }

    fn must_be_complete(&self, id: &DispatchId, truth: &Truth) {
        let known: Vec<_> = self.documents[id].iter().copied().collect();
        assert_eq!(known, (1..=truth.revisions[id]).collect::<Vec<_>>(), "{id} has a hole");
    }

    /// Everything anew.
    async fn reset(&mut self, store: &dyn Store, technician: &TechnicianId, limit: u32) {
        self.documents.clear();
        let mut after = None;
        loop {
            let page = store.held(&acme(), technician, after.as_ref(), limit, usize::MAX).await.unwrap();
            if after.is_none() {
                self.cursor = page.head;
            }
            for visit in &page.visits {
                let known = (1..=revision_in(&visit.document, '@')).collect();
                self.documents.insert(visit.dispatch.clone(), known);
            }
            after = page.visits.last().map(|visit| visit.dispatch.clone());
            if !page.more {
                return;
            }
        }
    }
}

/// Somebody changes a visit: the office, a crew mate, or one of the phones (which has its own change at once).
async fn change(
    store: &dyn Store,
    technician: &TechnicianId,
    rng: &mut StdRng,
    truth: &mut Truth,
    phones: &mut [Phone],
) {
    let id = visit(&format!("DSP-{}", rng.random_range(0..VISITS)));
    let revision = truth.revisions.get(&id).map_or(1, |revision| revision + 1);
    let author = rng.random_range(0..phones.len() + 2);
    let pushes = phones.get(author).is_some_and(|phone| phone.documents.contains_key(&id)) && truth.held.contains(&id);
    let mut draft = write(&id, revision);
    if pushes {
        draft.changes = vec![change_of(&id, revision, Some(&phones[author].device))];
        phones[author].documents.entry(id.clone()).or_default().insert(revision);
    }
    let leaves = !pushes && rng.random_range(0..4) == 0;
    if leaves {
        draft = gone_from(draft, technician);
        truth.held.remove(&id);
    } else if truth.held.contains(&id) || rng.random_range(0..3) > 0 {
        draft = held_by(draft, technician);
        truth.held.insert(id.clone());
    }
    truth.minutes += 1;
    commit_dispatch(store, truth.minutes, draft).await;
    truth.revisions.insert(id, revision);
}

pub async fn a_phone_that_follows_pages_holds_exactly_what_it_should(store: Arc<dyn Store>) {
    for seed in 0..HISTORIES {
        // Shown when the story fails.
        println!("history of seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        // Each history has a technician of its own; the visits are told apart by a tenant's worth of revisions.
        let technician = tech(&format!("TECH-{seed}"));
        let mut truth = Truth { revisions: revisions_of(&*store).await, ..Truth::default() };
        let mut phones: Vec<_> = ["registered", "unknown"]
            .map(|name| Phone { device: phone(&format!("{name}-{seed}")), cursor: 0, documents: BTreeMap::new() })
            .into();
        for step in 0..STEPS {
            let context = format!("seed {seed}, step {step}");
            let limit = rng.random_range(1..5);
            match rng.random_range(0..20) {
                0..=12 => change(&*store, &technician, &mut rng, &mut truth, &mut phones).await,
                13..=17 => {
                    let chosen = rng.random_range(0..phones.len());
                    phones[chosen].pull(&*store, &technician, limit, &truth).await;
                }
                18 => {
                    let acknowledged =
                        DeviceWrite { acknowledged: Some(phones[0].cursor), ..device(&phones[0].device, &technician) };
                    commit(&*store, Commit { devices: vec![acknowledged], ..blank(truth.minutes) }).await;
                    store.prune(at(truth.minutes - rng.random_range(0..20))).await.expect(&context);
                }
                _ => {
                    // A full synchronisation, however many pages it takes.
                    for phone in &mut phones {
                        let mut pages = 0;
                        while !phone.pull(&*store, &technician, limit, &truth).await {
                            pages += 1;
                            assert!(pages < 1_000, "it ends ({context})");
                        }
                    }
                }
            }
        }
        for phone in &mut phones {
            while !phone.pull(&*store, &technician, 2, &truth).await {}
        }
    }
}

/// Where earlier histories have left the visits.
async fn revisions_of(store: &dyn Store) -> BTreeMap<DispatchId, u64> {
    let mut revisions = BTreeMap::new();
    for n in 0..VISITS {
        let id = visit(&format!("DSP-{n}"));
        if let Some(stored) = store.dispatch(&acme(), &id).await.unwrap() {
            revisions.insert(id, stored.row.revision);
        }
    }
    revisions
}
