//! Technicians, sites, and phones.

use super::fixture::*;
use crate::service::commit::{Commit, CommitError, DeviceWrite};
use crate::service::model::{Device, Location, Technician};
use crate::store::{HeldFact, Store};
use std::sync::Arc;
use sync_core::domain::rules::sequence::SequenceLedger;

pub async fn technicians_and_sites_by_version(store: Arc<dyn Store>) {
    let with = |technicians, locations| Commit { technicians, locations, ..blank(0) };
    for n in 1..=4 {
        let (anna, ring) = (technician(&format!("TECH-{n}")), location(&format!("LOC-{n}")));
        commit(&*store, with(vec![(None, anna)], vec![(None, ring)])).await;
    }
    let stored = store.technician(&acme(), &tech("TECH-1")).await.unwrap().unwrap();
    assert_eq!(stored, Technician { revision: 1, ..technician("TECH-1") });
    let moved = Location { name: "Moved".into(), ..location("LOC-1") };
    commit(&*store, with(vec![(Some(1), stored.clone())], vec![(Some(1), moved.clone())])).await;
    assert_eq!(store.technician(&acme(), &tech("TECH-1")).await.unwrap().unwrap().revision, 2);
    let found = store.location(&acme(), &site("LOC-1")).await.unwrap().unwrap();
    assert_eq!(found, Location { revision: 2, ..moved });
    for (expected, id) in [(Some(1), "TECH-1"), (None, "TECH-1"), (Some(1), "TECH-9")] {
        let late = with(vec![(expected, technician(id))], Vec::new());
        assert_eq!(try_commit(&*store, late).await, Err(CommitError::Conflict("technician")));
    }
    let late = with(vec![(None, technician("TECH-9"))], vec![(None, location("LOC-1"))]);
    assert_eq!(try_commit(&*store, late).await, Err(CommitError::Conflict("location")));
    assert_eq!(store.technician(&acme(), &tech("TECH-9")).await.unwrap(), None);
    assert_eq!(store.location(&acme(), &site("LOC-9")).await.unwrap(), None);

    let page = store.technicians(&acme(), Some(&tech("TECH-1")), 2).await.unwrap();
    assert_eq!(page.iter().map(|one| one.technician_id.as_str()).collect::<Vec<_>>(), ["TECH-2", "TECH-3"]);
    assert_eq!(store.technicians(&acme(), None, 10).await.unwrap().len(), 4);
    let page = store.locations(&acme(), Some(&site("LOC-2")), 10).await.unwrap();
    assert_eq!(page.iter().map(|one| one.location_id.as_str()).collect::<Vec<_>>(), ["LOC-3", "LOC-4"]);
    assert_eq!(store.locations(&acme(), None, 1).await.unwrap().len(), 1);
}

async fn report(store: &dyn Store, minutes: i64, write: DeviceWrite) -> Result<Device, CommitError> {
    let id = write.device.clone();
    try_commit(store, Commit { devices: vec![write], ..blank(minutes) }).await?;
    Ok(store.device(&acme(), &id).await.unwrap().unwrap())
}

pub async fn a_device_belongs_to_one_technician(store: Arc<dyn Store>) {
    let (anna, ben, one) = (tech("TECH-10"), tech("TECH-11"), phone("phone-a"));
    assert_eq!(store.device(&acme(), &one).await.unwrap(), None);
    report(&*store, 0, device(&one, &anna)).await.unwrap();
    assert_eq!(report(&*store, 0, device(&one, &ben)).await, Err(CommitError::ForeignDevice));
    report(&*store, 0, device(&phone("phone-b"), &ben)).await.unwrap();
    report(&*store, 0, device(&phone("phone-c"), &anna)).await.unwrap();

    let ids = async |technician| {
        let devices = store.devices(&acme(), technician).await.unwrap();
        devices.into_iter().map(|device| device.device.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(ids(Some(&anna)).await, ["phone-a", "phone-c"]);
    assert_eq!(ids(None).await, ["phone-a", "phone-b", "phone-c"]);
}

pub async fn two_connections_of_one_device(store: Arc<dyn Store>) {
    let (anna, one) = (tech("TECH-10"), phone("phone-a"));
    let ledger = |contiguous| SequenceLedger { contiguous, runs: vec![(contiguous + 2, contiguous + 3)], announced: 9 };
    let with = |contiguous, expected| DeviceWrite {
        ledger: Some(ledger(contiguous)),
        expected_ledger: Some(expected),
        ..device(&one, &anna)
    };
    let first = report(&*store, 0, with(1, 0)).await.unwrap();
    assert_eq!((first.ledger, first.ledger_version), (ledger(1), 1));
    let second = report(&*store, 0, with(2, 1)).await.unwrap();
    assert_eq!((second.ledger, second.ledger_version), (ledger(2), 2));
    assert_eq!(report(&*store, 0, with(3, 1)).await, Err(CommitError::Conflict("device")));
    let seen = report(&*store, 0, device(&one, &anna)).await.unwrap();
    assert_eq!((seen.ledger, seen.ledger_version), (ledger(2), 2), "what is not written stays");
}

pub async fn what_a_device_reports(store: Arc<dyn Store>) {
    let (anna, one) = (tech("TECH-10"), phone("phone-a"));
    let first = DeviceWrite { app: Some("field 1.2".into()), pending: Some((3, Some(at(-30)))), ..device(&one, &anna) };
    let mut known = report(&*store, 1, first).await.unwrap();
    let expected = Device {
        device: one.clone(),
        technician: anna.clone(),
        app: "field 1.2".into(),
        registered_at: at(1),
        seen_at: at(1),
        ledger: SequenceLedger::default(),
        ledger_version: 0,
        pending: 3,
        oldest_pending: Some(at(-30)),
        complete_at: None,
        acknowledged: 0,
        revoked_at: None,
        wiped_at: None,
        digest_mismatches: 0,
    };
    assert_eq!(known, expected);
    for minutes in [2, 3] {
        let mismatch = DeviceWrite { digest_mismatch: true, seen_at: Some(at(minutes)), ..device(&one, &anna) };
        known = report(&*store, minutes, mismatch).await.unwrap();
    }
    assert_eq!((known.digest_mismatches, known.seen_at, known.registered_at), (2, at(3), at(1)));
    assert_eq!((known.pending, known.complete_at), (3, None));
    let complete = DeviceWrite { pending: Some((0, None)), ..device(&one, &anna) };
    known = report(&*store, 4, complete).await.unwrap();
    assert_eq!((known.pending, known.oldest_pending, known.complete_at), (0, None, Some(at(4))));
    let lost = DeviceWrite { revoked_at: Some(at(5)), ..device(&one, &anna) };
    known = report(&*store, 5, lost).await.unwrap();
    assert_eq!((known.revoked_at, known.wiped_at), (Some(at(5)), None));
    let wiped = DeviceWrite { wiped_at: Some(at(6)), ..device(&one, &anna) };
    known = report(&*store, 6, wiped).await.unwrap();
    assert_eq!((known.revoked_at, known.wiped_at, known.app.as_str()), (Some(at(5)), Some(at(6)), "field 1.2"));
}

pub async fn facts_that_wait(store: Arc<dyn Store>) {
    let (annas, bens) = (phone("phone-a"), phone("phone-b"));
    let mut first = write(&visit("DSP-1"), 1);
    first.facts = vec![fact("f3", &annas, 3, None), fact("f1", &annas, 1, in_order()), fact("g2", &bens, 2, None)];
    commit_dispatch(&*store, 10, first).await;
    let mut second = write(&visit("DSP-2"), 1);
    second.facts = vec![fact("f2", &annas, 2, None)];
    commit_dispatch(&*store, 11, second).await;

    let (one, stranger) = (visit("DSP-1"), phone("phone-c"));
    let names = async |device, dispatch| {
        let held = store.held_facts(&acme(), device, dispatch).await.unwrap();
        held.into_iter().map(|held| held.fact.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(names(Some(&annas), None).await, ["f2", "f3"]);
    assert_eq!(names(None, Some(&one)).await, ["g2", "f3"]);
    assert_eq!(names(Some(&annas), Some(&one)).await, ["f3"]);
    assert_eq!(names(Some(&stranger), None).await, [""; 0]);
    assert_eq!(names(None, None).await.len(), 3);
    let expected = HeldFact {
        dispatch: visit("DSP-2"),
        fact: fact_id("f2"),
        device: annas,
        seq: 2,
        knew_revision: 3,
        since: at(11),
    };
    assert_eq!(store.held_facts(&acme(), None, Some(&visit("DSP-2"))).await.unwrap(), [expected]);
}
