//! Two nodes on one database, without a word between them: what one accepts, the phones of the other get by looking.

use crate::world::{Phone, World, id};
use crm_dispatch_server::service::push::FeedAnswer;
use crm_dispatch_server::service::{Request, Signal};
use std::time::Duration;
use sync_core::domain::plan::Priority;
use sync_core::domain::{FactKind, VisitStatus};
use sync_core::protocol::{ByeCode, Cursor};

#[tokio::test]
async fn a_visit_that_one_node_assigned_is_found_by_the_phone_of_another() {
    let here = World::new().await;
    let there = here.other_node();
    let anna = Phone::new(&here, "TECH-A", 1);
    let feed = there.service.hub().subscribe(&there.tenant, &id("TECH-A"), &anna.session.device);
    let dispatch = here.visit("SO-1").await;
    here.assign(&dispatch, "TECH-A").await.unwrap();
    assert_eq!(feed.try_next(), None, "nobody has said a word");

    assert_eq!(there.service.look_for_growth().await.unwrap(), 1);
    let Signal::Notice(hint) = feed.next().await else { panic!("a hint") };
    assert!(hint.items.is_empty(), "it only says where to look");
    let FeedAnswer::Items { items, to, .. } = there.service.feed_page(&anna.session, Cursor(0), 10).await.unwrap()
    else {
        panic!("news")
    };
    assert_eq!((items.len(), to, to.0), (1, Cursor(1), hint.to_seq));
    assert_eq!(there.service.look_for_growth().await.unwrap(), 0, "it is said once");
}

#[tokio::test]
async fn what_a_node_told_its_phones_itself_is_not_found_again() {
    let world = World::new().await;
    let (dispatch, anna) = world.assigned("SO-1", "TECH-A").await;
    let feed = world.service.hub().subscribe(&world.tenant, &id("TECH-A"), &anna.session.device);
    let dora = world.dispatcher();
    world.service.set_priority(Request::plain(&dora), &dispatch, Priority::High).await.unwrap();
    assert!(matches!(feed.next().await, Signal::Notice(notice) if notice.items.len() == 1));
    assert_eq!(world.service.look_for_growth().await.unwrap(), 0);
    assert_eq!(feed.try_next(), None);
}

/// However much happens elsewhere, a phone that takes nothing is told once that there is something.
#[tokio::test]
async fn many_hints_for_a_slow_phone_are_one() {
    let here = World::new().await;
    let there = here.other_node();
    let feed = there.service.hub().subscribe(&there.tenant, &id("TECH-A"), &id("slow"));
    let (dispatch, _anna) = here.assigned("SO-1", "TECH-A").await;
    let dora = here.dispatcher();
    for round in 0..100 {
        let priority = if round % 2 == 0 { Priority::High } else { Priority::Low };
        here.service.set_priority(Request::plain(&dora), &dispatch, priority).await.unwrap();
        there.service.look_for_growth().await.unwrap();
    }
    let Signal::Notice(hint) = feed.next().await else { panic!("a hint") };
    assert_eq!(hint.to_seq, 101);
    assert_eq!(feed.try_next(), None);
}

#[tokio::test]
async fn a_phone_that_one_node_revoked_is_disconnected_by_another() {
    let here = World::new().await;
    let there = here.other_node();
    let (_dispatch, anna) = here.assigned("SO-1", "TECH-A").await;
    let device = anna.session.device.clone();
    let revoked = there.service.hub().subscribe(&there.tenant, &id("TECH-A"), &device);
    let other = there.service.hub().subscribe(&there.tenant, &id("TECH-A"), &id("tablet"));
    there.service.look_for_growth().await.unwrap();
    let dora = here.dispatcher();
    here.service.revoke_device(Request::plain(&dora), &device).await.unwrap();
    there.service.look_for_growth().await.unwrap();
    let told = async {
        loop {
            if let Signal::Disconnect(code) = revoked.next().await {
                break code;
            }
        }
    };
    assert_eq!(told.await, ByeCode::DeviceRevoked);
    assert!(!matches!(other.try_next(), Some(Signal::Disconnect(_))));
}

/// A node keeps opened documents. One that another node has changed since must not be what a phone's change is refused by.
#[tokio::test]
async fn a_change_that_builds_on_what_another_node_wrote_is_taken() {
    let here = World::new().await;
    let there = here.other_node();
    let (dispatch, mut anna) = here.assigned("SO-1", "TECH-A").await;
    anna.act(&dispatch, FactKind::Accepted { eta: None }, here.now());
    assert!(anna.push(&there).await.ack.lanes[0].refusal.is_none());
    // The other node keeps the document as of now; then the office changes the visit through this one.
    let dora = here.dispatcher();
    here.service.set_priority(Request::plain(&dora), &dispatch, Priority::High).await.unwrap();
    let FeedAnswer::Items { items, to, .. } =
        there.service.feed_page(&anna.session, Cursor(anna.cursor), 10).await.unwrap()
    else {
        panic!("news")
    };
    anna.take(items);
    anna.cursor = to.0;
    assert_eq!(anna.documents[&dispatch].plan().priority, Priority::High);

    anna.act(&dispatch, FactKind::TravelStarted { eta: None }, here.now());
    let outcome = anna.push(&there).await;
    assert_eq!((outcome.ack.lanes[0].accepted, &outcome.ack.lanes[0].refusal), (1, &None));
    assert_eq!(here.see(&dispatch).await.status, VisitStatus::EnRoute);
    assert_eq!(here.see(&dispatch).await.priority, Priority::High);
}

/// A phone whose acknowledgement was lost comes back through another node: what it sends again has no second effect.
#[tokio::test]
async fn the_same_push_through_two_nodes_has_one_effect() {
    let here = World::new().await;
    let there = here.other_node();
    let (dispatch, mut anna) = here.assigned("SO-1", "TECH-A").await;
    anna.act(&dispatch, FactKind::Accepted { eta: None }, here.now());
    let push = anna.packed();
    let (one, two) = tokio::join!(here.service.push(&anna.session, &push), there.service.push(&anna.session, &push));
    for outcome in [one.unwrap(), two.unwrap()] {
        assert_eq!((outcome.ack.lanes[0].accepted, &outcome.ack.lanes[0].refusal), (1, &None));
    }
    let confirmed = here.told(&dispatch).await.iter().filter(|told| *told == "DispatchConfirmedEvent").count();
    assert_eq!(confirmed, 1);
}

#[tokio::test]
async fn one_node_sweeps_and_another_takes_over_when_it_is_gone() {
    let here = World::new().await;
    let there = here.other_node();
    let (mut first, mut second) = (None, None);
    assert!(here.service.sweep_in_turn(&mut first).await.unwrap().is_some());
    assert!(there.service.sweep_in_turn(&mut second).await.unwrap().is_none(), "elsewhere");
    assert!(here.service.sweep_in_turn(&mut first).await.unwrap().is_some(), "it keeps its turn");
    drop(first);
    assert!(there.service.sweep_in_turn(&mut second).await.unwrap().is_some());
}

/// A connection that has just come is not ended by the hint that its phone was elsewhere a moment ago.
#[tokio::test]
async fn an_old_connection_is_replaced_by_one_to_another_node_and_a_new_one_is_not() {
    let world = World::new().await;
    let hub = world.service.hub();
    let connection = hub.subscribe(&world.tenant, &id("TECH-A"), &id("phone"));
    assert!(!hub.replace(&world.tenant, &id("TECH-A"), &id("phone"), Duration::from_secs(60)));
    assert_eq!(connection.try_next(), None);
    assert!(hub.replace(&world.tenant, &id("TECH-A"), &id("phone"), Duration::ZERO));
    assert_eq!(connection.next().await, Signal::Disconnect(ByeCode::Replaced));
}
