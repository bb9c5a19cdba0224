//! Events and the audit trail.

use super::fixture::*;
use crate::service::commit::{Commit, CommitError};
use crate::store::Store;
use crate::store::audit::verify_chain;
use serde_json::json;
use std::sync::Arc;

pub async fn events_in_order(store: Arc<dyn Store>) {
    let (anna, one, two) = (tech("TECH-10"), visit("DSP-1"), visit("DSP-2"));
    let events = vec![event("evt-1", &one, &anna), event("evt-2", &two, &anna), status_event("evt-3", &anna)];
    commit(&*store, Commit { events: events.clone(), ..blank(0) }).await;
    commit(&*store, Commit { events: vec![event("evt-4", &one, &anna)], ..blank(0) }).await;

    let all = store.events(&acme(), 0, None, None, 10).await.unwrap();
    assert_eq!(
        all.iter().map(|(_, event)| event.event_id.as_str()).collect::<Vec<_>>(),
        ["evt-1", "evt-2", "evt-3", "evt-4"]
    );
    assert!(all.is_sorted_by(|a, b| a.0 < b.0));
    assert_eq!(all[..3].iter().map(|(_, event)| event.clone()).collect::<Vec<_>>(), events);
    let ids = async |after, topic, aggregate, limit| {
        let found = store.events(&acme(), after, topic, aggregate, limit).await.unwrap();
        found.into_iter().map(|(_, event)| event.event_id.to_string()).collect::<Vec<_>>()
    };
    let assigned = Some("crm.dispatch.assignment.created");
    assert_eq!(ids(all[1].0, None, None, 10).await, ["evt-3", "evt-4"]);
    assert_eq!(ids(0, None, None, 2).await, ["evt-1", "evt-2"]);
    assert_eq!(ids(0, assigned, None, 10).await, ["evt-1", "evt-2", "evt-4"]);
    assert_eq!(ids(0, None, Some("DSP-1"), 10).await, ["evt-1", "evt-4"]);
    assert_eq!(ids(all[0].0, assigned, Some("DSP-1"), 10).await, ["evt-4"]);
    assert_eq!(ids(0, assigned, Some("TECH-10"), 10).await, [""; 0]);
    assert_eq!(ids(u64::MAX, None, None, 10).await, [""; 0]);

    let again = Commit { events: vec![event("evt-4", &two, &anna)], ..blank(0) };
    assert_eq!(try_commit(&*store, again).await, Err(CommitError::AlreadyDone("event")));
}

pub async fn the_audit_trail_is_one_chain(store: Arc<dyn Store>) {
    let chain = "dispatch:DSP-1";
    let detail = |n: i64| json!({"technician": "TECH-10", "km": 0.1 + n as f64 / 3.0, "epoch": n, "a": [null]});
    commit(&*store, Commit { audit: vec![audit(chain, 0, detail(1)), audit(chain, 0, detail(2))], ..blank(0) }).await;
    let mixed = vec![audit("technician:TECH-10", 1, json!(1)), audit(chain, 1, detail(3))];
    commit(&*store, Commit { audit: mixed, ..blank(1) }).await;
    let calls: Vec<_> = (4..24)
        .map(|n| {
            let (store, entry) = (store.clone(), audit(chain, n, detail(n)));
            tokio::spawn(async move { commit(&*store, Commit { audit: vec![entry], ..blank(n) }).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap();
    }
    let trail = store.audit(&acme(), chain, 0, 100).await.unwrap();
    assert_eq!(trail.iter().map(|line| line.seq).collect::<Vec<_>>(), (1..=23).collect::<Vec<_>>());
    assert_eq!(verify_chain(&acme(), &trail), Ok(()));
    assert_eq!((&trail[1].detail, &trail[1].actor[..], trail[1].at), (&detail(2), "dispatcher@acme", at(0)));

    let page = store.audit(&acme(), chain, 20, 2).await.unwrap();
    assert_eq!(page, trail[20..22]);
    assert_eq!(verify_chain(&acme(), &page), Ok(()));
    assert_eq!(store.audit(&acme(), "technician:TECH-10", 0, 10).await.unwrap().len(), 1);

    let mut tampered = trail;
    tampered[9].detail["technician"] = json!("TECH-11");
    assert_eq!(verify_chain(&acme(), &tampered), Err(9));
}
