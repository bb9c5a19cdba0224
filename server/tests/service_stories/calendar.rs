//! Who can go, and two dispatchers who both want the same one.

use crate::world::{HOUR, MINUTE, World, caller, id, skill, window};
use crm_dispatch_server::service::directory::TechnicianInput;
use crm_dispatch_server::service::fit::Unfit;
use crm_dispatch_server::service::model::{Absence, Skill, TechnicianStatus};
use crm_dispatch_server::service::office::AssignInput;
use crm_dispatch_server::service::reads::CandidateSearch;
use crm_dispatch_server::service::{Request, Role, ServiceError};
use sync_core::domain::geo::Coordinates;

fn reasons(error: ServiceError) -> Vec<Unfit> {
    match error {
        ServiceError::TechnicianNotAvailable { reasons, .. } => reasons,
        other => panic!("expected unavailability, got {other:?}"),
    }
}

#[tokio::test]
async fn the_office_is_told_everything_that_stands_against_a_technician() {
    let world = World::new().await;
    let admin = caller("tenant-1", "admin", Role::Admin);
    let dispatch = world.visit("SO-1").await;
    let change = |input| world.service.put_technician(Request::plain(&admin), &TECH_A, input);
    static TECH_A: std::sync::LazyLock<sync_core::domain::TechnicianId> = std::sync::LazyLock::new(|| id("TECH-A"));

    change(TechnicianInput { skills: Some(vec![]), ..Default::default() }).await.unwrap();
    let found = reasons(world.assign(&dispatch, "TECH-A").await.unwrap_err());
    assert_eq!(found, [Unfit::SkillMissing { code: id("HVAC") }]);

    change(TechnicianInput { skills: Some(vec![skill("HVAC", 1)]), ..Default::default() }).await.unwrap();
    let found = reasons(world.assign(&dispatch, "TECH-A").await.unwrap_err());
    assert_eq!(found, [Unfit::SkillLevelTooLow { code: id("HVAC"), needed: 2, has: 1 }]);

    let until = window(2 * HOUR, 3 * HOUR).start;
    let expiring = Skill { expires_at: Some(until), ..skill("HVAC", 3) };
    change(TechnicianInput { skills: Some(vec![expiring]), ..Default::default() }).await.unwrap();
    let found = reasons(world.assign(&dispatch, "TECH-A").await.unwrap_err());
    assert_eq!(found, [Unfit::SkillExpired { code: id("HVAC"), expires_at: until }], "valid now, not on the day");

    let away = Absence { window: window(3 * HOUR, 3 * HOUR + MINUTE), reason: "dentist".into() };
    world.service.add_absence(Request::plain(&admin), &TECH_A, away.clone()).await.unwrap();
    change(TechnicianInput {
        skills: Some(vec![skill("HVAC", 2)]),
        availability: Some(vec![window(4 * HOUR, 9 * HOUR)]),
        ..Default::default()
    })
    .await
    .unwrap();
    world
        .service
        .set_technician_status(Request::plain(&admin), &TECH_A, TechnicianStatus::Unavailable, None)
        .await
        .unwrap();
    let found = reasons(world.assign(&dispatch, "TECH-A").await.unwrap_err());
    assert_eq!(
        found,
        [
            Unfit::NotBookable { status: TechnicianStatus::Unavailable },
            Unfit::OutsideAvailability { needed: window(3 * HOUR, 4 * HOUR) },
            Unfit::Absent { window: away.window, why: "dentist".into() },
        ]
    );
    let unknown = world.assign(&dispatch, "TECH-X").await.unwrap_err();
    assert_eq!(unknown, ServiceError::TechnicianNotFound(id("TECH-X")));
}

#[tokio::test]
async fn the_drive_between_two_visits_counts() {
    let world = World::new().await;
    let first = world.visit("SO-1").await;
    world.assign(&first, "TECH-A").await.unwrap();
    // Site 2 is about a kilometre from site 1, three minutes by the estimate.
    let mut request = world.request("SO-2", Some(window(4 * HOUR + MINUTE, 5 * HOUR)));
    request.location_id = id("LOC-2");
    let close = world.create(request).await.dispatch_id;
    let found = reasons(world.assign(&close, "TECH-A").await.unwrap_err());
    assert!(matches!(&found[..], [Unfit::Booked { dispatch, .. }] if *dispatch == first), "{found:?}");

    let mut request = world.request("SO-3", Some(window(4 * HOUR + 10 * MINUTE, 5 * HOUR)));
    request.location_id = id("LOC-2");
    let reachable = world.create(request).await.dispatch_id;
    world.assign(&reachable, "TECH-A").await.unwrap();

    // From Graz, two hours away, nobody is at the next visit in time.
    let admin = caller("tenant-1", "admin", Role::Admin);
    let graz = crm_dispatch_server::service::directory::LocationInput {
        name: "Graz".into(),
        address: "Graz".into(),
        coordinates: Coordinates { latitude: 47.0707, longitude: 15.4395 },
        access_notes: None,
    };
    world.service.put_location(Request::plain(&admin), &id("LOC-GRAZ"), graz).await.unwrap();
    let mut request = world.request("SO-4", Some(window(90 * MINUTE, 2 * HOUR)));
    request.location_id = id("LOC-GRAZ");
    let far = world.create(request).await.dispatch_id;
    let found = reasons(world.assign(&far, "TECH-A").await.unwrap_err());
    assert!(
        found.iter().any(|reason| matches!(reason, Unfit::NextOutOfReach { dispatch, .. } if *dispatch == first)),
        "{found:?}"
    );
}

#[tokio::test]
async fn two_dispatchers_at_the_same_moment_cannot_both_win() {
    let world = World::new().await;
    let (first, second) = (world.visit("SO-1").await, world.visit("SO-2").await);
    let (dora, emil) = (caller("tenant-1", "dora", Role::Dispatcher), caller("tenant-1", "emil", Role::Dispatcher));
    let take = || AssignInput { technician_id: id("TECH-A"), crew: vec![] };
    let (one, other) = tokio::join!(
        world.service.assign(Request::plain(&dora), &first, take()),
        world.service.assign(Request::plain(&emil), &second, take()),
    );
    let lost: Vec<_> = [one, other].into_iter().filter_map(Result::err).collect();
    assert_eq!(lost.len(), 1, "one wins, one is told");
    assert!(matches!(&lost[0], ServiceError::AssignmentConflict { .. } | ServiceError::TechnicianNotAvailable { .. }));

    // Both looked at the same revision of the same visit.
    let third = world.create(world.request("SO-3", Some(window(6 * HOUR, 7 * HOUR)))).await;
    let seen = Some(third.revision);
    let (one, other) = tokio::join!(
        world.service.assign(
            Request { expected_revision: seen, ..Request::plain(&dora) },
            &third.dispatch_id,
            AssignInput { technician_id: id("TECH-B"), crew: vec![] }
        ),
        world.service.assign(
            Request { expected_revision: seen, ..Request::plain(&emil) },
            &third.dispatch_id,
            AssignInput { technician_id: id("TECH-C"), crew: vec![] }
        ),
    );
    let lost: Vec<_> = [one, other].into_iter().filter_map(Result::err).collect();
    assert_eq!(lost, [ServiceError::RevisionMismatch { expected: 1, actual: 2 }]);
    assert_eq!(world.see(&third.dispatch_id).await.revision, 2);
}

#[tokio::test]
async fn the_nearest_who_can_go_come_first_and_the_others_say_why_not() {
    let world = World::new().await;
    let admin = caller("tenant-1", "admin", Role::Admin);
    let near = TechnicianInput {
        home_base: Some(Coordinates { latitude: 48.2083, longitude: 16.3739 }),
        ..Default::default()
    };
    world.service.put_technician(Request::plain(&admin), &id("TECH-C"), near).await.unwrap();
    let unskilled = TechnicianInput { skills: Some(vec![]), ..Default::default() };
    world.service.put_technician(Request::plain(&admin), &id("TECH-A"), unskilled).await.unwrap();
    let search = CandidateSearch {
        location_id: id("LOC-1"),
        window: Some(window(3 * HOUR, 4 * HOUR)),
        required_skills: vec![sync_core::domain::plan::SkillRequirement { code: id("HVAC"), level: 1 }],
        dispatch_id: None,
        include_unavailable: true,
    };
    let found = world.service.available_technicians(&world.dispatcher(), search).await.unwrap();
    let names: Vec<_> = found.iter().map(|view| (view.technician_id.as_str(), view.available)).collect();
    assert_eq!(names, [("TECH-C", true), ("TECH-B", true), ("TECH-A", false)]);
    assert!(found[0].distance_km.unwrap() < 0.1);
    assert_eq!(found[2].reasons, [Unfit::SkillMissing { code: id("HVAC") }]);
}
