//! What nodes on one database need of each other.

use super::fixture::*;
use crate::service::commit::Commit;
use crate::store::{Hint, Store};
use std::sync::Arc;

pub async fn the_ends_of_many_feeds_at_once(store: Arc<dyn Store>) {
    let (anna, berta, cora) = (tech("TECH-10"), tech("TECH-20"), tech("TECH-30"));
    assert_eq!(store.feed_heads(&[]).await.unwrap(), Vec::<u64>::new());
    let id = visit("DSP-1");
    commit_dispatch(&*store, 0, held_by(write(&id, 1), &anna)).await;
    commit_dispatch(&*store, 0, held_by(write(&id, 2), &anna)).await;
    commit_dispatch(&*store, 0, held_by(write(&visit("DSP-2"), 1), &berta)).await;
    let asked = [&berta, &cora, &anna, &berta].map(|technician| (acme(), technician.clone()));
    assert_eq!(store.feed_heads(&asked).await.unwrap(), [1, 0, 2, 1], "in the order asked, 0 where there is no feed");
    let other = sync_core::domain::TenantId::new("other").unwrap();
    assert_eq!(store.feed_heads(&[(other, anna)]).await.unwrap(), [0], "tenants do not meet");
}

pub async fn revoked_phones_among_many(store: Arc<dyn Store>) {
    let anna = tech("TECH-10");
    for name in ["phone-a", "phone-b", "phone-c"] {
        let seen = device(&phone(name), &anna);
        commit(&*store, Commit { devices: vec![seen], ..blank(0) }).await;
    }
    let asked = ["phone-c", "phone-b", "phone-x"].map(|name| (acme(), phone(name)));
    assert_eq!(store.revoked(&asked).await.unwrap(), []);
    let mut revoked = device(&phone("phone-b"), &anna);
    revoked.revoked_at = Some(at(1));
    commit(&*store, Commit { devices: vec![revoked], ..blank(1) }).await;
    assert_eq!(store.revoked(&asked).await.unwrap(), [(acme(), phone("phone-b"))]);
    assert_eq!(store.revoked(&[(acme(), phone("phone-a"))]).await.unwrap(), []);
}

/// Whatever a store does with hints, telling never waits, and never fails.
pub async fn telling_other_nodes_never_waits(store: Arc<dyn Store>) {
    for round in 0..20_000 {
        store.announce(vec![Hint::Grew { tenant: acme(), technician: tech("TECH-10"), seq: round }]);
    }
    let id = visit("DSP-1");
    commit_dispatch(&*store, 0, held_by(write(&id, 1), &tech("TECH-10"))).await;
}

pub async fn one_node_sweeps_at_a_time(store: Arc<dyn Store>) {
    let mut turn = store.sweep_turn().await.unwrap().expect("nobody else sweeps");
    assert!(turn.is_held().await);
    assert!(store.sweep_turn().await.unwrap().is_none(), "somebody sweeps");
    drop(turn);
    let again = async {
        // The database may take a moment to notice.
        while store.sweep_turn().await.unwrap().is_none() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), again).await.expect("the turn is free again");
}
