//! What nodes on one database need of each other.

use super::fixture::*;
use crate::service::commit::Commit;
use crate::store::{Heard, Hint, Store};
use std::sync::Arc;
use std::time::Duration;

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

/// Two nodes on one database hear each other and never themselves. Where there is only one, it hears nothing, for ever.
pub async fn what_a_node_tells_the_others_hear(store: Arc<dyn Store>, other: Arc<dyn Store>) {
    assert_eq!(store.is_shared(), other.is_shared());
    let grew = |seq| Hint::Grew { tenant: acme(), technician: tech("TECH-10"), seq };
    let of_phone = |revoked| {
        let (tenant, technician, device) = (acme(), tech("TECH-10"), phone("phone-a"));
        match revoked {
            true => Hint::Revoked { tenant, technician, device },
            false => Hint::Connected { tenant, technician, device },
        }
    };
    if !store.is_shared() {
        store.announce(vec![grew(1)]);
        let heard = tokio::select! {
            biased;
            heard = other.heard() => Some(heard),
            heard = store.heard() => Some(heard),
            () = tokio::task::yield_now() => None,
        };
        assert_eq!(heard, None);
        return;
    }
    let hears = async |node: &Arc<dyn Store>| loop {
        let heard = tokio::time::timeout(Duration::from_secs(30), node.heard()).await.expect("something is heard");
        if let Heard::Hint(hint) = heard {
            return hint;
        }
    };
    // Whoever begins to listen has missed what was told before, and says so.
    for node in [&store, &other] {
        let first = tokio::time::timeout(Duration::from_secs(30), node.heard()).await.expect("they listen");
        assert_eq!(first, Heard::Missed);
    }
    for hint in [grew(7), of_phone(false), of_phone(true)] {
        store.announce(vec![hint.clone()]);
        assert_eq!(hears(&other).await, hint);
    }
    // What it told itself was told before, and does not come.
    other.announce(vec![grew(8)]);
    assert_eq!(hears(&store).await, grew(8));
    store.close().await;
    other.close().await;
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
    tokio::time::timeout(Duration::from_secs(10), again).await.expect("the turn is free again");
}
