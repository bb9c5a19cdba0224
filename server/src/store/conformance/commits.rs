//! Writing: all or nothing, once, in order.

use super::fixture::*;
use crate::service::commit::{ChangeWrite, Commit, CommitError, IdempotencyRecord};
use crate::service::model::Technician;
use crate::store::{BEFORE_IT, FactKeyQuery, NUMBERS_SKIPPED, Store};
use std::collections::BTreeSet;
use std::sync::Arc;
use sync_core::document::{ActorKey, ChangeHash};
use sync_core::domain::plan::Priority;
use sync_core::domain::{EventId, RulingReason, SerialNumber, TenantId, Verdict, VisitStatus};

pub async fn a_dispatch_is_written_as_a_whole(store: Arc<dyn Store>) {
    let (anna, id) = (tech("TECH-10"), visit("DSP-1"));
    let mut write = scheduled(assigned(&id, 1, &anna, 1), window(30, 90));
    write.row.priority = Priority::Emergency;
    write.row.sla_deadline = Some(at(45));
    write.row.plan.attributes.insert("gate".into(), "4711 – \"blue\" 'door'".into());
    let committed = commit_dispatch(&*store, 0, write.clone()).await;
    assert_eq!(committed.feed.len(), 1);

    let stored = store.dispatch(&acme(), &id).await.unwrap().unwrap();
    assert_eq!(stored.row, write.row);
    assert_eq!(stored.tag, write.tag);
    assert_eq!((stored.delivered_epoch, stored.delivered_at), (None, None));
    assert_eq!(stored.undelivered_to, [anna]);
    assert_eq!((stored.sla, stored.open_exceptions), (None, 0));
    assert_eq!(store.by_service_order(&acme(), &order_of(&id)).await.unwrap(), Some(id.clone()));
    assert_eq!(store.by_service_order(&acme(), &order_of(&visit("DSP-2"))).await.unwrap(), None);
    assert_eq!(store.dispatch(&acme(), &visit("DSP-2")).await.unwrap(), None);
    assert_eq!(store.commit(Vec::new()).await, []);
}

pub async fn whoever_was_slower_decides_again(store: Arc<dyn Store>) {
    let id = visit("DSP-1");
    commit_dispatch(&*store, 0, write(&id, 1)).await;
    commit_dispatch(&*store, 0, write(&id, 2)).await;
    for late in [write(&id, 2), write(&id, 4), write(&id, 1)] {
        let mut late = late;
        late.changes.clear();
        late.row.service_order_id = order_of(&visit("other"));
        let refused = try_commit(&*store, Commit { dispatch: Some(late), ..blank(0) }).await;
        assert_eq!(refused, Err(CommitError::Conflict("dispatch")));
    }
    assert_eq!(store.dispatch(&acme(), &id).await.unwrap().unwrap().row.revision, 2);

    // Twenty at once on one revision: one is written.
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let (store, commit) = (store.clone(), Commit { dispatch: Some(write(&id, 3)), ..blank(0) });
            tokio::spawn(async move { try_commit(&*store, commit).await })
        })
        .collect();
    let mut written = 0;
    for call in calls {
        match call.await.unwrap() {
            Ok(_) => written += 1,
            Err(error) => assert_eq!(error, CommitError::Conflict("dispatch")),
        }
    }
    assert_eq!(written, 1);
}

pub async fn one_bad_commit_does_not_hold_up_its_group(store: Arc<dyn Store>) {
    let (anna, before) = (tech("TECH-10"), visit("DSP-0"));
    commit_dispatch(&*store, 0, held_by(write(&before, 1), &anna)).await;
    let bad = Commit {
        dispatch: Some(held_by(write(&before, 7), &anna)),
        audit: vec![audit("dispatch:DSP-0", 0, serde_json::Value::Null)],
        events: vec![event("evt-bad", &before, &anna)],
        technicians: vec![(None, technician("TECH-99"))],
        ..blank(0)
    };
    let good = |id: &str| Commit { dispatch: Some(held_by(write(&visit(id), 1), &anna)), ..blank(0) };
    let mut twin = good("DSP-1");
    if let Some(dispatch) = &mut twin.dispatch {
        dispatch.row.service_order_id = order_of(&visit("other"));
    }
    // One that the database itself cannot take: a booking that ends as it begins.
    let broken = Commit { dispatch: Some(booked(write(&visit("DSP-3"), 1), &anna, window(5, 5))), ..blank(0) };
    let results = store.commit(vec![good("DSP-1"), bad, good("DSP-2"), twin, broken]).await;
    assert_eq!(results[0].as_ref().unwrap().feed[0].seq, 2);
    assert_eq!(results[1], Err(CommitError::Conflict("dispatch")));
    assert_eq!(results[2].as_ref().unwrap().feed[0].seq, 3, "no position was lost to the bad one");
    assert_eq!(results[3], Err(CommitError::Conflict("dispatch")), "it sees what its own group wrote");
    assert!(matches!(results[4], Err(CommitError::Store(_))), "{:?}", results[4]);

    assert_eq!(store.feed_head(&acme(), &anna).await.unwrap().0, 3);
    assert_eq!(store.technician(&acme(), &tech("TECH-99")).await.unwrap(), None);
    assert_eq!(store.events(&acme(), 0, None, None, 10).await.unwrap(), []);
    assert_eq!(store.audit(&acme(), "dispatch:DSP-0", 0, 10).await.unwrap(), []);
}

/// Two connections of one phone push at once: what the slower one has for its second visit was decided on what its first would have
/// left. Meanwhile the faster one brought the rows to the very versions that the second expects.
pub async fn what_was_decided_on_a_commit_falls_with_it(store: Arc<dyn Store>) {
    let (first, second) = (visit("DSP-1"), visit("DSP-2"));
    let row = |left: i64| Technician {
        van_stock: std::collections::BTreeMap::from([("PART-1".parse().unwrap(), left)]),
        ..technician("TECH-10")
    };
    commit(&*store, Commit { technicians: vec![(None, row(10))], ..blank(0) }).await;
    commit_dispatch(&*store, 0, write(&first, 1)).await;
    let faster = Commit { dispatch: Some(write(&first, 2)), technicians: vec![(Some(1), row(9))], ..blank(1) };
    commit(&*store, faster).await;

    let mut late = write(&first, 2);
    late.changes.clear();
    let slower = vec![
        Commit { dispatch: Some(late), technicians: vec![(Some(1), row(9))], ..blank(1) },
        Commit { dispatch: Some(write(&second, 1)), technicians: vec![(Some(2), row(8))], follows: true, ..blank(1) },
        Commit { audit: vec![audit("dispatch:DSP-2", 1, serde_json::Value::Null)], follows: true, ..blank(1) },
        Commit { dispatch: Some(write(&visit("DSP-3"), 1)), ..blank(1) },
    ];
    let results = store.commit(slower).await;
    assert_eq!(results[0], Err(CommitError::Conflict("dispatch")));
    assert_eq!(results[1], Err(CommitError::Conflict(BEFORE_IT)));
    assert_eq!(results[2], Err(CommitError::Conflict(BEFORE_IT)));
    assert!(results[3].is_ok(), "{:?}: it stands for itself", results[3]);
    let stored = store.technician(&acme(), &tech("TECH-10")).await.unwrap().unwrap();
    assert_eq!(stored, Technician { revision: 2, ..row(9) }, "one part left the truck, not two");
    assert_eq!(store.dispatch(&acme(), &second).await.unwrap(), None);
    assert_eq!(store.audit(&acme(), "dispatch:DSP-2", 0, 10).await.unwrap(), []);

    // The database itself refuses the first: a booking that ends as it begins. What follows it falls as well, however they are grouped.
    let broken =
        Commit { dispatch: Some(booked(write(&visit("DSP-4"), 1), &tech("TECH-10"), window(5, 5))), ..blank(2) };
    let after = Commit { dispatch: Some(write(&second, 1)), follows: true, ..blank(2) };
    let results = store.commit(vec![broken, after]).await;
    assert!(matches!(results[0], Err(CommitError::Store(_))), "{:?}", results[0]);
    assert_eq!(results[1], Err(CommitError::Conflict(BEFORE_IT)));
    assert_eq!(store.dispatch(&acme(), &second).await.unwrap(), None);

    // And where the first is written, so is what follows.
    let both = vec![
        Commit { technicians: vec![(Some(2), row(8))], ..blank(3) },
        Commit { technicians: vec![(Some(3), row(7))], follows: true, ..blank(3) },
    ];
    assert!(store.commit(both).await.iter().all(Result::is_ok));
    assert_eq!(store.technician(&acme(), &tech("TECH-10")).await.unwrap().unwrap().revision, 4);
}

pub async fn a_service_order_has_one_dispatch(store: Arc<dyn Store>) {
    commit_dispatch(&*store, 0, write(&visit("DSP-1"), 1)).await;
    let mut again = write(&visit("DSP-2"), 1);
    again.row.service_order_id = order_of(&visit("DSP-1"));
    let refused = try_commit(&*store, Commit { dispatch: Some(again), ..blank(0) }).await;
    assert_eq!(refused, Err(CommitError::AlreadyDone("service order")));
}

pub async fn a_consumed_event_is_known_for_ever(store: Arc<dyn Store>) {
    let consumed = Some(EventId::new("evt-4501").unwrap());
    commit(&*store, Commit { consumed: consumed.clone(), ..blank(0) }).await;
    store.prune(at(1_000_000)).await.unwrap();
    let again = Commit { consumed, dispatch: Some(write(&visit("DSP-1"), 1)), ..blank(1_000_000) };
    assert_eq!(try_commit(&*store, again).await, Err(CommitError::AlreadyDone("consumed event")));
    assert_eq!(store.dispatch(&acme(), &visit("DSP-1")).await.unwrap(), None);
}

fn answer(body: &str) -> IdempotencyRecord {
    IdempotencyRecord {
        key: "key-1".into(),
        request_hash: "hash".into(),
        status: 201,
        etag: Some("\"1\"".into()),
        body: body.into(),
    }
}

pub async fn an_idempotency_key_answers_what_it_answered(store: Arc<dyn Store>) {
    let call = |id: &str| Commit { dispatch: Some(write(&visit(id), 1)), idempotency: Some(answer(id)), ..blank(0) };
    // The same key twice at once: one takes effect, the other is told the first one's answer.
    let results = store.commit(vec![call("DSP-1"), call("DSP-2")]).await;
    assert!(results[0].is_ok());
    assert_eq!(results[1], Err(CommitError::KeyUsed(answer("DSP-1"))));
    assert_eq!(store.dispatch(&acme(), &visit("DSP-2")).await.unwrap(), None);
    assert_eq!(store.remembered(&acme(), "key-1").await.unwrap(), Some(answer("DSP-1")));
    assert_eq!(store.remembered(&acme(), "key-2").await.unwrap(), None);
    // It comes before every other objection: a retried creation is answered, not refused.
    assert_eq!(try_commit(&*store, call("DSP-1")).await, Err(CommitError::KeyUsed(answer("DSP-1"))));
}

pub async fn pruning_forgets_old_keys(store: Arc<dyn Store>) {
    let call = |key: &str, minutes| Commit {
        idempotency: Some(IdempotencyRecord { key: key.into(), ..answer("x") }),
        ..blank(minutes)
    };
    commit(&*store, call("old", 0)).await;
    commit(&*store, call("young", 10)).await;
    assert_eq!(store.prune(at(10)).await.unwrap(), 1);
    assert_eq!(store.remembered(&acme(), "old").await.unwrap(), None);
    assert!(store.remembered(&acme(), "young").await.unwrap().is_some());
    assert_eq!(store.prune(at(10)).await.unwrap(), 0);
}

pub async fn a_change_comes_once(store: Arc<dyn Store>) {
    let id = visit("DSP-1");
    commit_dispatch(&*store, 0, write(&id, 1)).await;
    let mut again = write(&id, 2);
    again.changes.push(change_of(&id, 1, None));
    let refused = try_commit(&*store, Commit { dispatch: Some(again), ..blank(0) }).await;
    assert_eq!(refused, Err(CommitError::AlreadyDone("change")));
}

pub async fn a_fact_is_ruled_once(store: Arc<dyn Store>) {
    let (id, anna) = (visit("DSP-1"), phone("phone-a"));
    let with = |revision, facts| {
        let mut write = write(&id, revision);
        write.facts = facts;
        Commit { dispatch: Some(write), ..blank(i64::try_from(revision).unwrap()) }
    };
    commit(&*store, with(1, vec![fact("f1", &anna, 2, None), fact("f2", &anna, 1, in_order())])).await;
    // The held one is ruled on; then neither may come again, held or ruled.
    commit(&*store, with(2, vec![fact("f1", &anna, 2, in_order())])).await;
    for again in [fact("f1", &anna, 2, in_order()), fact("f2", &anna, 1, None), fact("f2", &anna, 3, in_order())] {
        assert_eq!(try_commit(&*store, with(3, vec![again])).await, Err(CommitError::AlreadyDone("fact")));
    }
    assert_eq!(store.held_facts(&acme(), Some(&anna), None).await.unwrap(), []);
}

pub async fn a_sequence_number_has_one_owner(store: Arc<dyn Store>) {
    let (id, anna) = (visit("DSP-1"), phone("phone-a"));
    let with = |revision, facts| {
        let mut write = write(&id, revision);
        write.facts = facts;
        Commit { dispatch: Some(write), ..blank(0) }
    };
    commit(&*store, with(1, vec![fact("f1", &anna, 1, in_order()), fact("f2", &anna, 2, None)])).await;
    // Another fact with a taken number: whoever decided so did not know of it, and decides again.
    for taken in [1, 2] {
        let late = with(2, vec![fact("f3", &anna, taken, in_order())]);
        assert_eq!(try_commit(&*store, late).await, Err(CommitError::Conflict("device's sequence")));
    }
    let reused = Some(ruling(Verdict::Exception, RulingReason::SequenceReused));
    commit(&*store, with(2, vec![fact("f3", &anna, 1, reused)])).await;

    let other = phone("phone-b");
    let sequence = vec![(anna.clone(), 1), (anna.clone(), 2), (anna.clone(), 3), (other, 1)];
    let mut known = store.fact_keys(&acme(), &FactKeyQuery { sequence, serials: Vec::new() }).await.unwrap();
    known.sequence.sort();
    assert_eq!(known.sequence, [((anna.clone(), 1), fact_id("f1")), ((anna, 2), fact_id("f2"))]);
}

pub async fn a_serial_number_is_used_once(store: Arc<dyn Store>) {
    let (id, anna) = (visit("DSP-1"), phone("phone-a"));
    let serial = |text: &str| SerialNumber::new(text).unwrap();
    let with = |revision, fact_name: &str, number: &str, ruling| {
        let mut write = write(&id, revision);
        write.facts = vec![fact(fact_name, &anna, revision, ruling)];
        write.facts[0].serial = Some(serial(number));
        Commit { dispatch: Some(write), ..blank(0) }
    };
    commit(&*store, with(1, "f1", "SN-1", in_order())).await;
    commit(&*store, with(2, "f2", "SN-2", None)).await;
    let refused = with(3, "f3", "SN-3", Some(ruling(Verdict::Stale, RulingReason::FormerEpoch)));
    commit(&*store, refused).await;
    let late = with(4, "f4", "SN-1", in_order());
    assert_eq!(try_commit(&*store, late).await, Err(CommitError::Conflict("serial number")));
    commit(&*store, with(4, "f4", "SN-1", Some(ruling(Verdict::Exception, RulingReason::SerialUsedTwice)))).await;

    let serials = ["SN-1", "SN-2", "SN-3", "SN-4"].map(serial).to_vec();
    let mut known = store.fact_keys(&acme(), &FactKeyQuery { sequence: Vec::new(), serials }).await.unwrap();
    known.serials.sort();
    assert_eq!(known.serials, [(serial("SN-1"), fact_id("f1")), (serial("SN-2"), fact_id("f2"))]);
}

pub async fn a_push_of_a_thousand_facts(store: Arc<dyn Store>) {
    let (id, ben, device) = (visit("DSP-1"), tech("TECH-11"), phone("phone-a"));
    commit_dispatch(&*store, 0, held_by(write(&id, 1), &ben)).await;
    let mut push = held_by(write(&id, 2), &ben);
    push.changes = (0..1_000_u32)
        .map(|n| {
            let mut hash = [0; 32];
            hash[..4].copy_from_slice(&n.to_be_bytes());
            // Every length from nothing up, and every byte.
            let bytes = (0..n % 700).map(|byte| u8::try_from((byte + n) % 256).unwrap()).collect();
            ChangeWrite { hash: ChangeHash(hash), actor: ActorKey([9; 16]), device: Some(device.clone()), bytes }
        })
        .collect();
    push.facts = (1..=1_000).map(|seq| fact(&format!("fact-{seq}"), &device, seq, in_order())).collect();
    let sent: Vec<_> = push.changes.iter().map(|change| change.bytes.clone()).collect();
    commit_dispatch(&*store, 0, push).await;

    let page = store.feed_page(&acme(), &ben, &phone("phone-b"), 1, 10).await.unwrap();
    match &page.news[..] {
        [crate::store::FeedNewsItem::Changes { changes, .. }] => assert_eq!(*changes, sent),
        other => panic!("one visit's changes, not {other:?}"),
    }
    let sequence = (1..=1_000).map(|seq| (device.clone(), seq)).collect();
    let known = store.fact_keys(&acme(), &FactKeyQuery { sequence, serials: Vec::new() }).await.unwrap();
    assert_eq!(known.sequence.len(), 1_000);
}

pub async fn numbers_grow_and_never_repeat(store: Arc<dyn Store>) {
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                for _ in 0..40 {
                    mine.push(store.next_number(&acme(), "DSP").await.unwrap());
                }
                mine
            })
        })
        .collect();
    let mut all = BTreeSet::new();
    for call in calls {
        let mine = call.await.unwrap();
        assert!(mine.is_sorted_by(|a, b| a < b), "growing: {mine:?}");
        all.extend(mine);
    }
    assert_eq!(all.len(), 320, "a number was given twice");
    assert_eq!(store.next_number(&acme(), "ROUTE").await.unwrap(), 1, "kinds count by themselves");
    assert_eq!(store.next_number(&TenantId::new("other").unwrap(), "DSP").await.unwrap(), 1, "tenants too");
}

/// DSP-7 was made after the backup; the restored database must not call another visit so, since a phone still has facts
/// for the first one.
pub async fn a_restored_database_gives_no_number_again(store: Arc<dyn Store>) {
    let before = store.next_number(&acme(), "DSP").await.unwrap();
    let identity = store.identity();
    let renewed = store.renew_identity().await.unwrap();
    assert_ne!((renewed.generation, renewed.actor), (identity.generation, identity.actor));
    assert_eq!(store.identity(), renewed);
    assert!(store.next_number(&acme(), "DSP").await.unwrap() > before + NUMBERS_SKIPPED);
    let begun_after_the_copy = TenantId::new("other").unwrap();
    assert!(store.next_number(&begun_after_the_copy, "DSP").await.unwrap() > NUMBERS_SKIPPED);
    store.renew_identity().await.unwrap();
    assert!(store.next_number(&begun_after_the_copy, "ROUTE").await.unwrap() > 2 * NUMBERS_SKIPPED);
}

pub async fn the_identity_stays(store: Arc<dyn Store>) {
    let identity = store.identity();
    commit_dispatch(&*store, 0, write(&visit("DSP-1"), 1)).await;
    assert_eq!(store.identity(), identity);
    assert_ne!(identity.actor, ActorKey([0; 16]));
}

/// What `crm-dispatch restored` does: another generation for the phones, another actor for the documents.
pub async fn a_restored_copy_gets_an_identity_of_its_own(store: Arc<dyn Store>) {
    let before = store.identity();
    commit_dispatch(&*store, 0, write(&visit("DSP-1"), 1)).await;
    let renewed = store.renew_identity().await.unwrap();
    assert_ne!(renewed.generation, before.generation);
    assert_ne!(renewed.actor, before.actor);
    assert_eq!(store.identity(), renewed);
    commit_dispatch(&*store, 0, write(&visit("DSP-1"), 2)).await;
    assert_eq!(store.identity(), renewed);
}

/// Closing waits for what was handed in, and answers whoever comes later.
pub async fn a_closed_store_answers_late_calls(store: Arc<dyn Store>) {
    let waiting: Vec<_> = (0..10)
        .map(|number| {
            let (store, id) = (store.clone(), visit(&format!("DSP-{number}")));
            tokio::spawn(async move { try_commit(&*store, Commit { dispatch: Some(write(&id, 1)), ..blank(0) }).await })
        })
        .collect();
    commit_dispatch(&*store, 0, write(&visit("DSP-last"), 1)).await;
    store.close().await;
    for call in waiting {
        // Written, or refused because it came too late; never left without an answer.
        let answer = call.await.unwrap();
        assert!(matches!(answer, Ok(_) | Err(CommitError::Store(_))), "{answer:?}");
    }
    assert!(matches!(try_commit(&*store, blank(0)).await, Err(CommitError::Store(_))));
    assert!(store.dispatch(&acme(), &visit("DSP-last")).await.is_err());
    assert!(store.prune(at(0)).await.is_err());
    store.close().await;
}

pub async fn tenants_do_not_meet(store: Arc<dyn Store>) {
    let (anna, id, other) = (tech("TECH-10"), visit("DSP-1"), TenantId::new("other").unwrap());
    for tenant in [acme(), other.clone()] {
        let mut write = booked(assigned(&id, 1, &anna, 1), &anna, window(0, 60));
        write.row.status = if tenant == other { VisitStatus::Confirmed } else { VisitStatus::Assigned };
        let twin = Commit {
            tenant,
            dispatch: Some(write),
            technicians: vec![(None, technician("TECH-10"))],
            devices: vec![device(&phone("phone-a"), &anna)],
            events: vec![event("evt-1", &id, &anna)],
            audit: vec![audit("dispatch:DSP-1", 0, serde_json::json!({}))],
            consumed: Some(EventId::new("evt-0").unwrap()),
            idempotency: Some(answer("x")),
            ..blank(0)
        };
        assert_eq!(commit(&*store, twin).await.feed[0].seq, 1, "each tenant's feed begins at 1");
    }
    let status = store.dispatch(&other, &id).await.unwrap().unwrap().row.status;
    assert_eq!(status, VisitStatus::Confirmed);
    assert_eq!(store.events(&other, 0, None, None, 10).await.unwrap().len(), 1);
    assert_eq!(store.audit(&other, "dispatch:DSP-1", 0, 10).await.unwrap().len(), 1);
    let third = TenantId::new("third").unwrap();
    assert_eq!(store.dispatch(&third, &id).await.unwrap(), None);
    assert_eq!(store.holders(&third, &id).await.unwrap(), []);
    assert_eq!(store.technicians(&third, None, 10).await.unwrap(), []);
    assert_eq!(store.devices(&third, None).await.unwrap(), []);
}
