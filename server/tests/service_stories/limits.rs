//! Much at once.

use crate::world::{Phone, World, id};
use crm_dispatch_server::service::ServiceError;
use sync_core::document::Edit;
use sync_core::domain::{FactKind, VisitStatus};
use sync_core::protocol::limits::PUSH_CHANGES_MAX;

#[tokio::test]
async fn a_thousand_actions_made_offline_count_once_and_in_order() {
    let world = World::new().await;
    let (dispatch, mut phone) = world.assigned("SO-1", "TECH-A").await;
    phone.act(&dispatch, FactKind::Arrived, world.now());
    phone.act(&dispatch, FactKind::WorkStarted, world.now());
    for number in 0..997 {
        let kind = match number % 3 {
            0 => FactKind::TimeEntry { category: "labour".into(), minutes: 1 },
            1 => FactKind::Paused { reason: None },
            _ => FactKind::Resumed,
        };
        phone.act(&dispatch, kind, world.now().plus_millis(number));
    }
    phone.act(&dispatch, FactKind::Completed, world.now().plus_millis(2_000));
    assert_eq!(phone.outbox.len(), PUSH_CHANGES_MAX);
    let outcome = phone.push(&world).await;
    assert_eq!(outcome.ack.lanes[0].accepted, 1_000);
    assert_eq!(outcome.ack.lanes[0].refusal, None);
    assert!(outcome.ack.lanes[0].verdicts.is_empty());
    assert_eq!(outcome.feed.len(), 1, "one commit, one feed entry");
    assert_eq!(world.see(&dispatch).await.status, VisitStatus::Completed);
    assert_eq!(world.told(&dispatch).await, ["assigned TECH-A", "ON_SITE", "AVAILABLE"]);
}

#[tokio::test]
async fn many_visits_in_one_push_are_one_answer() {
    let world = World::new().await;
    let mut visits = Vec::new();
    for number in 0..30 {
        let dispatch = world.create(world.request(&format!("SO-{number}"), None)).await.dispatch_id;
        world.assign(&dispatch, "TECH-A").await.unwrap();
        visits.push(dispatch);
    }
    let mut phone = Phone::new(&world, "TECH-A", 1);
    phone.prime(&world).await;
    for dispatch in &visits {
        phone.act(dispatch, FactKind::Accepted { eta: None }, world.now());
        phone.edit(dispatch, &Edit::Note { at: 0, delete: 0, insert: "ring twice".into() }, world.now());
    }
    let outcome = phone.push(&world).await;
    assert!(outcome.ack.lanes.iter().all(|lane| lane.accepted == 2 && lane.refusal.is_none()));
    let seqs: Vec<_> = outcome.feed.iter().map(|entry| entry.seq).collect();
    assert!(seqs.windows(2).all(|pair| pair[1] == pair[0] + 1), "its own feed, without a gap: {seqs:?}");
    let health = world.service.devices(&world.dispatcher(), Some(&id("TECH-A"))).await.unwrap();
    assert_eq!((health[0].missing_actions, health[0].pending), (0, 0));
}

#[tokio::test]
async fn an_office_command_in_the_middle_of_a_push_costs_another_round_and_no_fact() {
    let world = World::new().await;
    let (dispatch, mut phone) = world.assigned("SO-1", "TECH-A").await;
    let dora = world.dispatcher();
    for round in 0..10 {
        phone.act(&dispatch, FactKind::TimeEntry { category: "labour".into(), minutes: round }, world.now());
        let push = phone.packed();
        let priority = if round % 2 == 0 {
            sync_core::domain::plan::Priority::High
        } else {
            sync_core::domain::plan::Priority::Low
        };
        let request = crm_dispatch_server::service::Request::plain(&dora);
        let (pushed, commanded) = tokio::join!(
            world.service.push(&phone.session, &push),
            world.service.set_priority(request, &dispatch, priority)
        );
        assert_eq!(pushed.unwrap().ack.lanes[0].refusal, None);
        commanded.unwrap();
        phone.prime(&world).await;
        phone.outbox.clear();
    }
    assert_eq!(phone.documents[&dispatch].view().facts.len(), 10);
    assert_eq!(phone.documents[&dispatch].view().rulings.len(), 10);
}

#[tokio::test]
async fn a_push_over_the_limit_is_refused_as_a_whole() {
    let world = World::new().await;
    let (dispatch, mut phone) = world.assigned("SO-1", "TECH-A").await;
    for _ in 0..=PUSH_CHANGES_MAX {
        phone.outbox.push((dispatch.clone(), Vec::new()));
    }
    let push = phone.packed();
    let error = world.service.push(&phone.session, &push).await.unwrap_err();
    assert!(matches!(error, ServiceError::ValidationFailed { field: "push", .. }));
}
