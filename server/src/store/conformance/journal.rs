//! Events and the audit trail.

use super::fixture::*;
use crate::service::commit::{Commit, CommitError};
use crate::store::Store;
use crate::store::audit::verify_chain;
use crate::store::verify::{AuditPlace, AuditScope, AuditTally, verify_audit};
use serde_json::json;
use std::sync::Arc;
use sync_core::domain::TenantId;

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

pub async fn the_whole_trail_is_walked(store: Arc<dyn Store>) {
    let nothing = verify_audit(&*store, &AuditScope::default(), |_| ()).await.unwrap();
    assert_eq!(nothing.total(), AuditTally::default());
    let other = TenantId::new("globex").unwrap();
    for n in 1..=30 {
        let (one, two) = (format!("dispatch:DSP-{}", n % 3), format!("technician:TECH-{}", n % 2));
        let lines = vec![audit(&one, n, json!({ "n": n })), audit(&two, n, json!(null)), audit(&one, n, json!([n]))];
        let tenant = if n % 5 == 0 { other.clone() } else { acme() };
        commit(&*store, Commit { tenant, audit: lines, ..blank(n) }).await;
    }
    let whole = verify_audit(&*store, &AuditScope::default(), |_| ()).await.unwrap();
    assert_eq!(whole.breaks, []);
    assert_eq!(whole.tenants["acme"], AuditTally { chains: 5, lines: 72, broken: 0 });
    assert_eq!(whole.tenants["globex"], AuditTally { chains: 5, lines: 18, broken: 0 });
    let scope =
        |aggregate: Option<&str>| AuditScope { tenant: Some(other.clone()), aggregate: aggregate.map(str::to_owned) };
    let of_one = verify_audit(&*store, &scope(None), |_| ()).await.unwrap();
    assert_eq!((of_one.total().lines, of_one.tenants.len()), (18, 1));
    let of_chain = verify_audit(&*store, &scope(Some("dispatch:DSP-1")), |_| ()).await.unwrap();
    assert_eq!(of_chain.total(), AuditTally { chains: 1, lines: 4, broken: 0 });
    assert_eq!(verify_audit(&*store, &scope(Some("dispatch:DSP-9")), |_| ()).await.unwrap().total().chains, 0);

    // Pages of one line and of one chain lead through everything, each place once and in order.
    let mut places = vec![AuditPlace { tenant: String::new(), aggregate: String::new(), seq: i64::MIN }];
    while let Some(line) = store.audit_walk(places.last().unwrap(), 1).await.unwrap().pop() {
        places.push(line.place);
    }
    assert_eq!((places.len(), places.is_sorted_by(|a, b| a < b)), (91, true));
    let heads = store.audit_heads(&places[0], 100).await.unwrap();
    assert!(heads.iter().all(|head| head.has_lines && head.place.seq >= 3), "{heads:?}");
    assert_eq!(store.audit_heads(&heads[4].place, 2).await.unwrap(), heads[4..6]);
}
