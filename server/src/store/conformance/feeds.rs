//! What phones get to know.

use super::fixture::*;
use crate::service::commit::{Commit, FeedNews};
use crate::store::{FeedNewsItem, Store};
use std::collections::BTreeSet;
use std::sync::Arc;
use sync_core::domain::state::Moment;
use sync_core::domain::{VisitStatus, Window};
use sync_core::protocol::Digest;

pub async fn a_feed_counts_without_gaps_whoever_commits(store: Arc<dyn Store>) {
    let anna = tech("TECH-10");
    let calls: Vec<_> = (0..40)
        .map(|call| {
            let (store, anna) = (store.clone(), anna.clone());
            tokio::spawn(async move {
                let mut seen = Vec::new();
                for turn in 0..5 {
                    let id = visit(&format!("DSP-{call}-{turn}"));
                    let made = commit_dispatch(&*store, 0, held_by(write(&id, 1), &anna)).await;
                    // Whoever asks after the answer sees the entry.
                    assert!(store.feed_head(&acme(), &anna).await.unwrap().0 >= made.feed[0].seq);
                    seen.push((made.feed[0].seq, id));
                }
                seen
            })
        })
        .collect();
    let mut all = Vec::new();
    for call in calls {
        all.extend(call.await.unwrap());
    }
    all.sort();
    assert_eq!(all.iter().map(|entry| entry.0).collect::<Vec<_>>(), (1..=200).collect::<Vec<_>>());
    let digest = all.iter().fold(Digest::default(), |digest, (_, id)| digest.toggled(id, tag_of(id, 1)));
    assert_eq!(store.feed_head(&acme(), &anna).await.unwrap(), (200, digest.0));
    let page = store.feed_page(&acme(), &anna, &phone("p"), 0, 1_000).await.unwrap();
    let told: Vec<_> = page.news.iter().map(|item| dispatch_of(item).to_string()).collect();
    assert_eq!(told, all.iter().map(|(_, id)| id.to_string()).collect::<Vec<_>>(), "in feed order");
}

pub(super) fn dispatch_of(item: &FeedNewsItem) -> &sync_core::domain::DispatchId {
    match item {
        FeedNewsItem::Changes { visit, .. } | FeedNewsItem::Whole(visit) => &visit.dispatch,
        FeedNewsItem::Gone(entry) => &entry.dispatch,
    }
}

pub async fn what_a_phone_lacks(store: Arc<dyn Store>) {
    let (anna, mine, id) = (tech("TECH-10"), phone("phone-a"), visit("DSP-1"));
    assert_eq!(store.feed_head(&acme(), &anna).await.unwrap(), (0, 0));
    let nothing = store.feed_page(&acme(), &anna, &mine, 0, 10).await.unwrap();
    assert_eq!((nothing.to, nothing.head, nothing.news.len(), nothing.too_old), (0, 0, 0, false));

    commit_dispatch(&*store, 0, held_by(write(&id, 1), &anna)).await;
    // Somebody else's change that the technician was not told of by an entry of its own.
    commit_dispatch(&*store, 0, write(&id, 2)).await;
    let mut own = held_by(write(&id, 3), &anna);
    own.changes = vec![change_of(&id, 3, Some(&mine)), change_of(&id, 30, None)];
    commit_dispatch(&*store, 0, own).await;

    let page = store.feed_page(&acme(), &anna, &mine, 1, 10).await.unwrap();
    assert_eq!((page.to, page.head), (2, 2));
    assert_eq!(page.digest, Digest::default().toggled(&id, tag_of(&id, 3)).0);
    let [FeedNewsItem::Changes { visit: told, changes }] = &page.news[..] else { panic!("changes: {page:?}") };
    assert_eq!((&told.dispatch, told.tag, told.document.len()), (&id, tag_of(&id, 3), 0));
    assert_eq!(told.card, write(&id, 3).row.card);
    assert_eq!(*changes, [change_of(&id, 2, None).bytes, change_of(&id, 30, None).bytes], "its own is left out");

    let other = store.feed_page(&acme(), &anna, &phone("phone-b"), 1, 10).await.unwrap();
    let [FeedNewsItem::Changes { changes, .. }] = &other.news[..] else { panic!("changes: {other:?}") };
    assert_eq!(changes.len(), 3);
    let fresh = store.feed_page(&acme(), &anna, &mine, 0, 10).await.unwrap();
    let [FeedNewsItem::Whole(told)] = &fresh.news[..] else { panic!("whole: {fresh:?}") };
    assert_eq!(told.document, document_of(&id, 3));
    for future in [2, 3, u64::MAX] {
        let page = store.feed_page(&acme(), &anna, &mine, future, 10).await.unwrap();
        assert_eq!((page.to, page.news.len(), page.too_old), (2, 0, false));
    }
}

pub async fn what_a_technician_holds(store: Arc<dyn Store>) {
    let (anna, ben) = (tech("TECH-10"), tech("TECH-11"));
    for n in 1..=5 {
        commit_dispatch(&*store, 0, held_by(write(&visit(&format!("DSP-{n}")), 1), &anna)).await;
    }
    let both = held_by(held_by(write(&visit("DSP-6"), 1), &anna), &ben);
    assert_eq!(commit_dispatch(&*store, 0, both).await.feed.len(), 2);
    commit_dispatch(&*store, 0, gone_from(write(&visit("DSP-2"), 2), &anna)).await;

    let mut all = Vec::new();
    let mut after = None;
    loop {
        let page = store.held(&acme(), &anna, after.as_ref(), 2, usize::MAX).await.unwrap();
        assert_eq!((page.head, page.digest), store.feed_head(&acme(), &anna).await.unwrap());
        assert!(page.visits.len() <= 2);
        after = page.visits.last().map(|visit| visit.dispatch.clone());
        all.extend(page.visits.into_iter().map(|held| held.dispatch.to_string()));
        if !page.more {
            break;
        }
    }
    assert_eq!(all, ["DSP-1", "DSP-3", "DSP-4", "DSP-5", "DSP-6"]);
    // Each document has 7 bytes; a page has at least one visit however few bytes it may have.
    for (bytes, visits) in [(0, 1), (7, 1), (8, 2), (21, 3), (35, 5)] {
        let page = store.held(&acme(), &anna, None, 10, bytes).await.unwrap();
        assert_eq!((page.visits.len(), page.more), (visits, visits < 5), "{bytes} bytes");
    }
    let ids = ["DSP-6", "DSP-2", "DSP-3", "DSP-9"].map(visit);
    let some = store.held_some(&acme(), &anna, &ids).await.unwrap();
    let found: Vec<_> = some.iter().map(|held| (held.dispatch.to_string(), held.document.clone())).collect();
    assert_eq!(found, [("DSP-3".into(), b"DSP-3@1".to_vec()), ("DSP-6".into(), b"DSP-6@1".to_vec())]);
    assert_eq!(store.holders(&acme(), &visit("DSP-6")).await.unwrap(), [anna, ben]);
    assert_eq!(store.holders(&acme(), &visit("DSP-2")).await.unwrap(), []);
}

pub async fn a_departure_leaves_a_tombstone(store: Arc<dyn Store>) {
    let (anna, ben, id) = (tech("TECH-10"), tech("TECH-11"), visit("DSP-1"));
    commit_dispatch(&*store, 0, assigned(&id, 1, &anna, 1)).await;
    let made = commit_dispatch(&*store, 5, gone_from(assigned(&id, 2, &ben, 2), &anna)).await;
    let [to_ben, to_anna] = &made.feed[..] else { panic!("two entries: {made:?}") };
    assert_eq!((&to_ben.technician, to_ben.seq, &to_ben.news), (&ben, 1, &FeedNews::Held));
    assert_eq!((&to_anna.technician, to_anna.seq, to_anna.digest), (&anna, 2, 0));
    assert_eq!(to_anna.news, FeedNews::Gone(tombstone(&id)));

    let page = store.feed_page(&acme(), &anna, &phone("p"), 1, 10).await.unwrap();
    assert_eq!(page.news, [FeedNewsItem::Gone(to_anna.clone())]);
    let stored = store.dispatch(&acme(), &id).await.unwrap().unwrap();
    assert_eq!(stored.undelivered_to, [anna.clone(), ben], "neither phone knows yet");

    // Back again after the departure: the phone may have removed it, so it comes whole.
    commit_dispatch(&*store, 6, assigned(&id, 3, &anna, 3)).await;
    let page = store.feed_page(&acme(), &anna, &phone("p"), 1, 10).await.unwrap();
    assert!(matches!(&page.news[..], [FeedNewsItem::Whole(_)]), "{page:?}");
}

pub async fn visits_to_be_let_go(store: Arc<dyn Store>) {
    let anna = tech("TECH-10");
    let planned = |id: &str, to| scheduled(held_by(write(&visit(id), 1), &anna), window(0, to));
    commit_dispatch(&*store, 0, planned("DSP-past", 60)).await;
    commit_dispatch(&*store, 0, planned("DSP-next", 600)).await;
    let mut ended = planned("DSP-ended", 600);
    ended.row.state.ended = Some(Moment { at: at(30), uncertainty_ms: 0 });
    commit_dispatch(&*store, 0, ended).await;
    commit_dispatch(&*store, 0, held_by(write(&visit("DSP-unplanned"), 1), &anna)).await;
    let nobodys = scheduled(write(&visit("DSP-nobodys"), 1), window(0, 60));
    commit_dispatch(&*store, 0, nobodys).await;

    let found = async |before, limit| {
        let found = store.outside_window(at(before), limit).await.unwrap();
        found.into_iter().map(|(_, id)| id.to_string()).collect::<BTreeSet<_>>()
    };
    assert_eq!(found(30, 10).await, BTreeSet::new());
    assert_eq!(found(31, 10).await, BTreeSet::from(["DSP-ended".into()]));
    assert_eq!(found(100, 10).await, BTreeSet::from(["DSP-ended".into(), "DSP-past".into()]));
    assert_eq!(found(100, 1).await.len(), 1);
    commit_dispatch(&*store, 0, gone_from(write(&visit("DSP-past"), 2), &anna)).await;
    let moved = Window { start: at(500), end: at(560) };
    commit_dispatch(&*store, 0, scheduled(held_by(write(&visit("DSP-ended"), 2), &anna), moved)).await;
    assert_eq!(found(100, 10).await, BTreeSet::new(), "let go, and moved into the window");
}

pub async fn delivery_is_known_when_the_phone_has_stored_it(store: Arc<dyn Store>) {
    let (anna, ben, id) = (tech("TECH-10"), tech("TECH-11"), visit("DSP-1"));
    let (annas, bens) = (phone("phone-a"), phone("phone-b"));
    let stored = async |minutes, technician: &_, device_id: &_, acknowledged| {
        let write =
            crate::service::commit::DeviceWrite { acknowledged: Some(acknowledged), ..device(device_id, technician) };
        commit(&*store, Commit { devices: vec![write], ..blank(minutes) }).await;
        store.dispatch(&acme(), &id).await.unwrap().unwrap()
    };
    commit_dispatch(&*store, 0, held_by(write(&visit("DSP-0"), 1), &anna)).await;
    let crewed = held_by(assigned(&id, 1, &anna, 1), &ben);
    commit_dispatch(&*store, 0, crewed).await;

    let before = stored(1, &anna, &annas, 1).await;
    assert_eq!(before.delivered_epoch, None, "the entry before it");
    let crew = stored(2, &ben, &bens, 1).await;
    assert_eq!((crew.delivered_epoch, crew.undelivered_to), (None, vec![anna.clone()]), "the lead's phone counts");
    let after = stored(3, &anna, &annas, 2).await;
    assert_eq!((after.delivered_epoch, after.delivered_at), (Some(1), Some(at(3))));
    assert_eq!((after.row.revision, after.undelivered_to.len()), (1, 0), "no new revision");
    assert_eq!(after.row.state.office_status(after.delivered_epoch), VisitStatus::Dispatched);

    // A later change of the same epoch is not delivered a second time.
    commit_dispatch(&*store, 0, assigned(&id, 2, &anna, 1)).await;
    assert_eq!(store.dispatch(&acme(), &id).await.unwrap().unwrap().undelivered_to, std::slice::from_ref(&anna));
    assert_eq!(stored(4, &anna, &annas, 3).await.delivered_at, Some(at(3)));
    // A re-assignment is a new epoch; the former lead's acknowledgement of its own news says nothing about it.
    commit_dispatch(&*store, 0, gone_from(assigned(&id, 3, &ben, 2), &anna)).await;
    let former = stored(5, &anna, &annas, 4).await;
    assert_eq!((former.delivered_epoch, former.undelivered_to), (Some(1), vec![ben.clone()]));
    let present = stored(6, &ben, &bens, 2).await;
    assert_eq!((present.delivered_epoch, present.delivered_at), (Some(2), Some(at(6))));
    // Positions never go back, nor beyond the feed's end.
    stored(7, &ben, &bens, 1).await;
    stored(7, &anna, &annas, 1_000).await;
    assert_eq!(store.device(&acme(), &bens).await.unwrap().unwrap().acknowledged, 2);
    assert_eq!(store.device(&acme(), &annas).await.unwrap().unwrap().acknowledged, 4);
}

pub async fn pruning_keeps_what_a_phone_may_need(store: Arc<dyn Store>) {
    let (anna, id, other) = (tech("TECH-10"), visit("DSP-1"), visit("DSP-2"));
    for revision in 1..=6 {
        commit_dispatch(&*store, i64::try_from(revision).unwrap(), held_by(write(&id, revision), &anna)).await;
    }
    commit_dispatch(&*store, 7, held_by(write(&other, 1), &anna)).await;
    let acknowledge = async |device_id: &str, acknowledged, revoked| {
        let write = crate::service::commit::DeviceWrite {
            acknowledged: Some(acknowledged),
            revoked_at: if revoked { Some(at(8)) } else { None },
            ..device(&phone(device_id), &anna)
        };
        commit(&*store, Commit { devices: vec![write], ..blank(8) }).await;
    };
    acknowledge("phone-a", 7, false).await;
    acknowledge("phone-b", 3, false).await;
    let page = async |after| store.feed_page(&acme(), &anna, &phone("x"), after, 10).await.unwrap();

    assert_eq!(store.prune(at(1)).await.unwrap(), 0, "nothing is that old");
    assert_eq!(store.prune(at(3)).await.unwrap(), 2, "entries 1 and 2 are old enough");
    assert!(page(1).await.too_old);
    assert!(!page(2).await.too_old);
    assert_eq!(store.prune(at(100)).await.unwrap(), 1, "phone-b has stored up to 3");
    assert_eq!(page(3).await.news.len(), 2);
    let lagging = page(2).await;
    assert!((lagging.too_old, lagging.news.is_empty()) == (true, true), "{lagging:?}");

    acknowledge("phone-b", 3, true).await;
    // Entry 6 says what is held, entry 7 too: they stay, so that what comes next builds upon them.
    assert_eq!(store.prune(at(100)).await.unwrap(), 2);
    commit_dispatch(&*store, 200, held_by(write(&id, 7), &anna)).await;
    let next = page(7).await;
    assert!(matches!(&next.news[..], [FeedNewsItem::Changes { changes, .. }] if changes.len() == 1), "{next:?}");
    acknowledge("phone-a", 8, false).await;
    assert_eq!(store.prune(at(1_000)).await.unwrap(), 1, "entry 6 says no longer what is held");
    assert_eq!(store.prune(at(1_000)).await.unwrap(), 0);
    let head = store.feed_head(&acme(), &anna).await.unwrap();
    let digest = Digest::default().toggled(&id, tag_of(&id, 7)).toggled(&other, tag_of(&other, 1));
    assert_eq!(head, (8, digest.0), "pruning changes nothing of what is held");
}
