//! Nobody is booked twice at one time.

use super::fixture::*;
use crate::service::commit::{Commit, CommitError};
use crate::store::Store;
use std::sync::Arc;

pub async fn two_dispatchers_book_one_technician_and_one_wins(store: Arc<dyn Store>) {
    let anna = tech("TECH-10");
    for round in 0..20 {
        let (from, to) = (round * 100, round * 100 + 60);
        let calls: Vec<_> = ["A", "B"]
            .into_iter()
            .map(|dispatcher| {
                let (store, anna) = (store.clone(), anna.clone());
                let id = visit(&format!("DSP-{dispatcher}{round}"));
                tokio::spawn(async move {
                    let span = window(from, to);
                    let write = booked(assigned(&id, 1, &anna, 1), &anna, span);
                    (id, try_commit(&*store, Commit { dispatch: Some(write), ..blank(0) }).await)
                })
            })
            .collect();
        let mut winner = None;
        let mut loser = None;
        for call in calls {
            match call.await.unwrap() {
                (id, Ok(_)) => assert_eq!(winner.replace(id), None, "both won round {round}"),
                (id, Err(error)) => assert!(loser.replace((id, error)).is_none(), "both lost round {round}"),
            }
        }
        let (winner, (loser, error)) = (winner.unwrap(), loser.unwrap());
        assert_eq!(error, CommitError::Overlap { technician: anna.clone(), dispatch: winner });
        assert_eq!(store.dispatch(&acme(), &loser).await.unwrap(), None, "nothing of the loser's was written");
    }
}

pub async fn a_visit_moves_within_its_own_booking(store: Arc<dyn Store>) {
    let (anna, id) = (tech("TECH-10"), visit("DSP-1"));
    commit_dispatch(&*store, 0, booked(write(&id, 1), &anna, window(0, 60))).await;
    commit_dispatch(&*store, 0, booked(write(&id, 2), &anna, window(30, 90))).await;
    // One ends as the next begins: no overlap.
    commit_dispatch(&*store, 0, booked(write(&visit("DSP-2"), 1), &anna, window(90, 120))).await;
    let into_the_next = booked(write(&id, 3), &anna, window(30, 91));
    assert_eq!(
        try_commit(&*store, Commit { dispatch: Some(into_the_next), ..blank(0) }).await,
        Err(CommitError::Overlap { technician: anna.clone(), dispatch: visit("DSP-2") })
    );
    let booked_now = store.bookings(&acme(), &anna, window(0, 1_000)).await.unwrap();
    assert_eq!(booked_now.iter().map(|booking| booking.1).collect::<Vec<_>>(), [window(30, 90), window(90, 120)]);
}

pub async fn a_released_booking_is_free(store: Arc<dyn Store>) {
    let (anna, ben) = (tech("TECH-10"), tech("TECH-11"));
    let crew = booked(booked(write(&visit("DSP-1"), 1), &anna, window(0, 60)), &ben, window(10, 60));
    commit_dispatch(&*store, 0, crew).await;
    // The crew of two covers both calendars, each with its own travel.
    for (technician, free_before) in [(&anna, 0), (&ben, 10)] {
        let blocked = booked(write(&visit("DSP-2"), 1), technician, window(free_before, free_before + 5));
        let refused = try_commit(&*store, Commit { dispatch: Some(blocked), ..blank(0) }).await;
        assert_eq!(refused, Err(CommitError::Overlap { technician: technician.clone(), dispatch: visit("DSP-1") }));
    }
    commit_dispatch(&*store, 0, booked(write(&visit("DSP-3"), 1), &ben, window(0, 10))).await;
    // A long booking that contains others, and one that is contained.
    let contains = booked(write(&visit("DSP-4"), 1), &ben, window(-100, 500));
    let refused = try_commit(&*store, Commit { dispatch: Some(contains), ..blank(0) }).await;
    assert!(matches!(refused, Err(CommitError::Overlap { .. })), "{refused:?}");
    // A commit that says nothing of calendars leaves them; then nobody has the visit any more.
    commit_dispatch(&*store, 0, write(&visit("DSP-1"), 2)).await;
    let blocked = booked(write(&visit("DSP-2"), 1), &anna, window(0, 60));
    let refused = try_commit(&*store, Commit { dispatch: Some(blocked), ..blank(0) }).await;
    assert!(matches!(refused, Err(CommitError::Overlap { .. })), "{refused:?}");
    let mut released = write(&visit("DSP-1"), 3);
    released.bookings = Some(Vec::new());
    commit_dispatch(&*store, 0, released).await;
    commit_dispatch(&*store, 0, booked(write(&visit("DSP-2"), 1), &anna, window(0, 60))).await;
}

pub async fn bookings_of_a_window(store: Arc<dyn Store>) {
    let anna = tech("TECH-10");
    for (id, from, to) in [("DSP-1", 0, 60), ("DSP-2", 60, 120), ("DSP-3", 200, 260), ("DSP-4", 300, 360)] {
        let mut write = booked(write(&visit(id), 1), &anna, window(from, to));
        write.row.location_id = site(&format!("LOC-{id}"));
        commit_dispatch(&*store, 0, write).await;
    }
    let found = async |from, to| {
        let bookings = store.bookings(&acme(), &anna, window(from, to)).await.unwrap();
        bookings.into_iter().map(|(id, span, site)| (id.to_string(), span, site.to_string())).collect::<Vec<_>>()
    };
    let named = |id: &str, from, to| (id.to_string(), window(from, to), format!("LOC-{id}"));
    assert_eq!(found(59, 61).await, [named("DSP-1", 0, 60), named("DSP-2", 60, 120)]);
    assert_eq!(found(60, 200).await, [named("DSP-2", 60, 120)]);
    assert_eq!(found(250, 1_000).await, [named("DSP-3", 200, 260), named("DSP-4", 300, 360)]);
    assert_eq!(found(120, 200).await, []);
    assert_eq!(store.bookings(&acme(), &tech("TECH-11"), window(0, 500)).await.unwrap(), []);
}
