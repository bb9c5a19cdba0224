//! Faults that heal: afterwards both sides converge, without the user doing anything (invariant 5), and what was
//! acknowledged is still there (invariants 2 and 11).

#![allow(clippy::unwrap_used, clippy::panic, reason = "a story that is not as told shall fail")]

mod support;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use support::{FixedTokens, MINUTE, PhoneSetup, World};
use sync_core::client::{Event, Phase};
use sync_core::domain::FactKind;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_restarts_is_found_again() {
    let mut world = World::start().await;
    let phone = world.phone("TECH-10", "maria");
    let dispatch = world.assigned("SO-1", 1, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    for _ in 0..2 {
        world.stop_server().await;
        world.start_server().await;
    }
    phone.starts_work(&dispatch).await;
    phone.caught_up().await;
    assert_eq!(world.status(&dispatch).await, "IN_PROGRESS");
}

/// The token ran out while the phone slept: the server says so, the phone asks for a fresh one, once.
#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expired_is_replaced_once_and_not_in_a_loop() {
    let world = World::start().await;
    let stale = world.token_for("TECH-10", -3600);
    let tokens = Arc::new(FixedTokens::new(vec![stale, world.token("TECH-10")]));
    let setup = PhoneSetup { tokens: Some(Arc::clone(&tokens) as _), ..PhoneSetup::default() };
    let phone = world.phone_with("TECH-10", "maria", setup);
    phone.caught_up().await;
    assert_eq!(tokens.rejected.load(Ordering::SeqCst), 1);
    assert_eq!(tokens.asked.load(Ordering::SeqCst), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_during_a_connection_is_replaced() {
    let world = World::start().await;
    let tokens = Arc::new(FixedTokens::new(vec![world.token_for("TECH-10", 1), world.token("TECH-10")]));
    let setup = PhoneSetup { tokens: Some(Arc::clone(&tokens) as _), ..PhoneSetup::default() };
    let phone = world.phone_with("TECH-10", "maria", setup);
    phone.caught_up().await;
    let mut status = phone.client.status();
    let again = status.wait_for(|_| tokens.rejected.load(Ordering::SeqCst) == 1);
    tokio::time::timeout(support::PATIENCE, again).await.unwrap().unwrap();
    phone.caught_up().await;
}

/// An identity provider that only has refused tokens is asked again with growing patience, not in a tight loop.
#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_are_always_refused_do_not_become_a_storm() {
    let world = World::start().await;
    let tokens = Arc::new(FixedTokens::new(vec!["refused.for.ever".into()]));
    let setup = PhoneSetup { tokens: Some(Arc::clone(&tokens) as _), ..PhoneSetup::default() };
    let phone = world.phone_with("TECH-10", "maria", setup);
    phone.until_phase(Phase::Waiting).await;
    assert!(tokens.asked.load(Ordering::SeqCst) <= 3, "asked {} times", tokens.asked.load(Ordering::SeqCst));
}

/// A network that can be cut without either end noticing.
struct Cable {
    port: u16,
    whole: watch::Sender<bool>,
}

impl Cable {
    async fn to(server_port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let whole = watch::Sender::new(true);
        let state = whole.subscribe();
        tokio::spawn(async move {
            while let Ok((mut phone, _)) = listener.accept().await {
                let mut state = state.clone();
                tokio::spawn(async move {
                    let _ = state.wait_for(|whole| *whole).await.map(drop);
                    let mut server = TcpStream::connect(("127.0.0.1", server_port)).await.unwrap();
                    tokio::select! {
                        _ = copy_bidirectional(&mut phone, &mut server) => {}
                        // Nothing passes any more, and nobody is told: both sockets stay open.
                        () = async { let _ = state.wait_for(|whole| !*whole).await.map(drop); } => std::future::pending().await,
                    }
                });
            }
        });
        Self { port, whole }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_half_open_connection_is_noticed_and_replaced() {
    let world = World::start().await;
    let cable = Cable::to(world.port).await;
    let setup = PhoneSetup { url: Some(format!("http://127.0.0.1:{}", cable.port)), ..PhoneSetup::default() };
    let phone = world.phone_with("TECH-10", "maria", setup);
    let dispatch = world.assigned("SO-1", 1, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    phone.caught_up().await;
    cable.whole.send_replace(false);
    phone.starts_work(&dispatch).await;
    // Half a minute later the push has not been acknowledged: the phone gives the socket up by itself.
    world.clock.advance(MINUTE);
    phone.client.sync_soon();
    let mut status = phone.client.status();
    tokio::time::timeout(support::PATIENCE * 3, async {
        status.wait_for(|status| status.phase != Phase::Connected).await.unwrap();
    })
    .await
    .unwrap();
    cable.whole.send_replace(true);
    phone.caught_up().await;
    assert_eq!(world.status(&dispatch).await, "IN_PROGRESS");
}

/// Invariant 11: the server comes back from last night's copy; the phone notices, and gives again what it lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_restored_from_a_backup_is_given_again_what_it_lost() {
    let mut world = World::start().await;
    let phone = world.phone("TECH-10", "maria");
    let dispatch = world.assigned("SO-1", 1, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    phone.caught_up().await;
    world.stop_server().await;
    world.back_up();
    world.start_server().await;
    phone.starts_work(&dispatch).await;
    phone.caught_up().await;
    assert_eq!(world.facts(&dispatch).await.len(), 4);

    let mut events = phone.client.events();
    world.stop_server().await;
    world.restore().await;
    world.start_server().await;
    phone.caught_up().await;
    world.until_status(&dispatch, "IN_PROGRESS").await;
    assert_eq!(world.facts(&dispatch).await.len(), 4, "every acknowledged fact is there again");
    let mut requeued = 0;
    while let Ok(event) = events.try_recv() {
        if let Event::ServerReplaced { requeued: count } = event {
            requeued = count;
        }
    }
    assert_eq!(requeued, 4);
}

/// Rule 9.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_phone_is_emptied_and_proves_it() {
    let world = World::start().await;
    let phone = world.phone("TECH-10", "maria");
    let dispatch = world.assigned("SO-1", 1, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    phone.caught_up().await;
    let device = phone.store().sync_state().unwrap().device;
    world.post(&format!("/devices/{device}/revoke"), serde_json::json!({})).await;
    phone.until_phase(Phase::Revoked).await;
    assert!(phone.visits().is_empty());
    let proven = async {
        loop {
            let devices = world.get("/devices").await;
            let of_it = devices["items"].as_array().unwrap().iter().find(|d| d["deviceId"] == device.as_str()).cloned();
            if of_it.is_some_and(|device| device["wipedAt"].is_string()) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(support::PATIENCE, proven).await.unwrap();
}

/// The dispatcher sees which phone is behind, and how many of its actions are still missing.
#[tokio::test(flavor = "multi_thread")]
async fn the_office_sees_which_phone_is_behind() {
    let world = World::start().await;
    let phone = world.phone("TECH-10", "maria");
    let dispatch = world.assigned("SO-1", 1, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    phone.starts_work(&dispatch).await;
    phone.caught_up().await;
    let devices = world.get("/devices").await;
    let device = &devices["items"][0];
    assert_eq!(
        (device["technicianId"].as_str(), device["missingActions"].as_u64()),
        (Some("TECH-10"), Some(0)),
        "{device}"
    );
}

/// Two installs of one technician: what one does, the other sees.
#[tokio::test(flavor = "multi_thread")]
async fn a_technician_with_two_phones_sees_the_same_on_both() {
    let world = World::start().await;
    let (phone, tablet) = (world.phone("TECH-10", "phone"), world.phone("TECH-10", "tablet"));
    let dispatch = world.assigned("SO-1", 1, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    tablet.until_holding(&dispatch).await;
    phone.does(&dispatch, FactKind::Accepted { eta: None }).await;
    let confirmed = sync_core::domain::VisitStatus::Confirmed;
    tablet.until("confirmed", |visits| visits.iter().any(|card| card.status == confirmed)).await;
    tablet.does(&dispatch, FactKind::TravelStarted { eta: None }).await;
    let under_way = sync_core::domain::VisitStatus::EnRoute;
    phone.until("under way", |visits| visits.iter().any(|card| card.status == under_way)).await;
}
