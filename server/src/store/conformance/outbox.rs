//! Events on their way to other systems.

use super::fixture::*;
use crate::service::commit::Commit;
use crate::store::{OutboxLag, Store};
use std::sync::Arc;
use std::time::Duration;
use sync_core::domain::TenantId;

/// Generous: only a failure takes as long.
const DEADLINE: Duration = Duration::from_secs(30);

async fn waiting(store: &dyn Store, after: u64, limit: u32) -> Vec<(u64, String)> {
    let found = store.unpublished(after, limit).await.unwrap();
    found.into_iter().map(|waiting| (waiting.position, waiting.event.event_id.to_string())).collect()
}

pub async fn events_wait_until_they_are_published(store: Arc<dyn Store>) {
    let (anna, one, two) = (tech("TECH-10"), visit("DSP-1"), visit("DSP-2"));
    assert_eq!(waiting(&*store, 0, 10).await, []);
    let first = vec![event("evt-1", &one, &anna), event("evt-2", &two, &anna)];
    commit(&*store, Commit { events: first.clone(), ..blank(0) }).await;
    // Another tenant's go the same way.
    let globex = TenantId::new("globex").unwrap();
    let mut other = event("evt-1", &one, &anna);
    other.tenant_id = globex.clone();
    commit(&*store, Commit { tenant: globex, events: vec![other.clone()], ..blank(1) }).await;
    commit(&*store, Commit { events: vec![status_event("evt-3", &anna)], ..blank(2) }).await;

    let all = store.unpublished(0, 10).await.unwrap();
    assert_eq!(
        all.iter().map(|waiting| waiting.event.event_id.as_str()).collect::<Vec<_>>(),
        ["evt-1", "evt-2", "evt-1", "evt-3"]
    );
    assert!(all.is_sorted_by(|a, b| a.position < b.position));
    assert_eq!((&all[0].event, &all[2].event), (&first[0], &other));
    let positions: Vec<u64> = all.iter().map(|waiting| waiting.position).collect();
    assert_eq!(waiting(&*store, 0, 1).await, [(positions[0], "evt-1".to_owned())]);
    assert_eq!(waiting(&*store, positions[1], 1).await, [(positions[2], "evt-1".to_owned())]);
    assert_eq!(waiting(&*store, u64::MAX, 10).await, []);

    // Receipts come in any order; those named are marked, no others, however often.
    store.mark_published(&[positions[2], positions[0]], at(3)).await.unwrap();
    store.mark_published(&[positions[0], 999_999], at(4)).await.unwrap();
    store.mark_published(&[], at(4)).await.unwrap();
    assert_eq!(waiting(&*store, 0, 10).await, [(positions[1], "evt-2".to_owned()), (positions[3], "evt-3".to_owned())]);
    assert_eq!(store.events(&acme(), 0, None, None, 10).await.unwrap().len(), 3, "the journal keeps them");
    store.mark_published(&positions, at(5)).await.unwrap();
    assert_eq!(waiting(&*store, 0, 10).await, []);
}

pub async fn an_event_carries_its_trace(store: Arc<dyn Store>) {
    let (anna, one) = (tech("TECH-10"), visit("DSP-1"));
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let traced = Commit {
        events: vec![event("evt-1", &one, &anna), event("evt-2", &one, &anna)],
        traceparent: Some(trace.to_owned()),
        ..blank(0)
    };
    commit(&*store, traced).await;
    commit(&*store, Commit { events: vec![event("evt-3", &one, &anna)], ..blank(1) }).await;
    let found = store.unpublished(0, 10).await.unwrap();
    let traces: Vec<_> = found.iter().map(|waiting| waiting.traceparent.as_deref()).collect();
    assert_eq!(traces, [Some(trace), Some(trace), None]);
}

pub async fn what_waits_is_counted_with_the_oldest_time(store: Arc<dyn Store>) {
    assert_eq!(store.outbox_lag().await.unwrap(), OutboxLag { waiting: 0, oldest: None });
    let anna = tech("TECH-10");
    for n in 0..5 {
        let mut event = event(&format!("evt-{n}"), &visit("DSP-1"), &anna);
        event.timestamp = at(n);
        commit(&*store, Commit { events: vec![event], ..blank(n) }).await;
    }
    assert_eq!(store.outbox_lag().await.unwrap(), OutboxLag { waiting: 5, oldest: Some(at(0)) });
    let oldest = store.unpublished(0, 2).await.unwrap();
    let positions: Vec<u64> = oldest.iter().map(|waiting| waiting.position).collect();
    store.mark_published(&positions, at(9)).await.unwrap();
    assert_eq!(store.outbox_lag().await.unwrap(), OutboxLag { waiting: 3, oldest: Some(at(2)) });
}

pub async fn one_relay_at_a_time(store: Arc<dyn Store>) {
    let mut turn = store.relay_turn().await.unwrap().expect("nobody else has it");
    assert!(turn.is_held().await);
    assert!(store.relay_turn().await.unwrap().is_none(), "a second relay waits");
    assert!(turn.is_held().await, "asking for it does not take it away");
    drop(turn);
    // The database may need a moment to notice.
    let again = async {
        loop {
            if let Some(turn) = store.relay_turn().await.unwrap() {
                return turn;
            }
            tokio::task::yield_now().await;
        }
    };
    let mut turn = tokio::time::timeout(DEADLINE, again).await.expect("a turn that ended is free");
    assert!(turn.is_held().await);
}

pub async fn a_commit_wakes_the_relay(store: Arc<dyn Store>) {
    let relay = tokio::spawn({
        let store = store.clone();
        async move { store.event_written().await }
    });
    commit(&*store, Commit { events: vec![event("evt-1", &visit("DSP-1"), &tech("TECH-10"))], ..blank(0) }).await;
    tokio::time::timeout(DEADLINE, relay).await.expect("woken").unwrap();
}
