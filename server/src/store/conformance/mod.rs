//! The suite that every store passes: at least one story for every method of the traits, each on a fresh store.
//!
//! A backend's test names a function that gives a fresh, empty store, another one that opens the same database as a further node does
//! (unless nothing can), and lets [`store_conformance!`](crate::store_conformance) make one test a story:
//!
//! ```text
//! async fn fresh() -> (Arc<dyn Store>, Kept) { … }
//! async fn beside(kept: &Kept) -> Arc<dyn Store> { … }
//! crm_dispatch_server::store_conformance!(fresh, beside);
//! ```
//!
//! What comes with the store is dropped after the story.

// These are tests, though a backend's test crate calls them; the fixture is the words they are told in.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::wildcard_imports, missing_docs)]

pub mod calendar;
pub mod commits;
pub mod feeds;
pub mod fixture;
pub mod history;
pub mod journal;
pub mod nodes;
pub mod outbox;
pub mod people;
pub mod reading;

/// One test a story; see [`conformance`](crate::store::conformance).
#[macro_export]
macro_rules! store_conformance {
    ($fresh:ident $(, $beside:ident)?) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn what_a_node_tells_the_others_hear() {
            let (store, kept) = $fresh().await;
            let other = $beside(&kept).await;
            $crate::store::conformance::nodes::what_a_node_tells_the_others_hear(store, other).await;
        })?
        $crate::store_conformance! { @ $fresh;
            calendar: two_dispatchers_book_one_technician_and_one_wins, a_visit_moves_within_its_own_booking,
                a_released_booking_is_free, bookings_of_a_window;
            commits: a_dispatch_is_written_as_a_whole, whoever_was_slower_decides_again,
                one_bad_commit_does_not_hold_up_its_group, what_was_decided_on_a_commit_falls_with_it,
                a_service_order_has_one_dispatch,
                a_consumed_event_is_known_for_ever, an_idempotency_key_answers_what_it_answered,
                a_change_comes_once, a_fact_is_ruled_once, a_sequence_number_has_one_owner,
                a_serial_number_is_used_once, a_push_of_a_thousand_facts, numbers_grow_and_never_repeat,
                a_restored_database_gives_no_number_again, the_identity_stays, a_restored_copy_gets_an_identity_of_its_own,
                a_closed_store_answers_late_calls, tenants_do_not_meet, pruning_forgets_old_keys;
            feeds: a_feed_counts_without_gaps_whoever_commits, what_a_phone_lacks, what_a_technician_holds,
                a_departure_leaves_a_tombstone, visits_to_be_let_go, delivery_is_known_when_the_phone_has_stored_it,
                pruning_keeps_what_a_phone_may_need;
            history: a_phone_that_follows_pages_holds_exactly_what_it_should;
            journal: events_in_order, the_audit_trail_is_one_chain, the_whole_trail_is_walked;
            outbox: events_wait_until_they_are_published, an_event_carries_its_trace,
                what_waits_is_counted_with_the_oldest_time, one_relay_at_a_time, a_commit_wakes_the_relay;
            nodes: the_ends_of_many_feeds_at_once, revoked_phones_among_many, telling_other_nodes_never_waits,
                one_node_sweeps_at_a_time;
            people: technicians_and_sites_by_version, a_device_belongs_to_one_technician,
                two_connections_of_one_device, what_a_device_reports, facts_that_wait;
            reading: documents_of_several, where_several_stand, a_search_turns_its_pages, a_search_by_status_tells_delivered_ones,
                exceptions_newest_first, what_needs_a_look, service_levels_of_a_window;
        }
    };
    (@ $fresh:ident; $($room:ident: $($story:ident),*;)*) => {
        $(mod $room {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $story() {
                let (store, _kept) = super::$fresh().await;
                $crate::store::conformance::$room::$story(store).await;
            })*
        })*
    };
}

#[cfg(test)]
mod tests {
    /// The files of the suite, and of the traits.
    const STORIES: [&str; 10] = [
        include_str!("calendar.rs"),
        include_str!("commits.rs"),
        include_str!("feeds.rs"),
        include_str!("fixture.rs"),
        include_str!("history.rs"),
        include_str!("journal.rs"),
        include_str!("nodes.rs"),
        include_str!("outbox.rs"),
        include_str!("people.rs"),
        include_str!("reading.rs"),
    ];
    const TRAITS: &str = include_str!("../mod.rs");

    /// The names after this word, up to the next character that is in no name.
    fn names<'a>(text: &'a str, before: &str) -> Vec<&'a str> {
        let name = |rest: &'a str| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
        text.split(before).skip(1).map(name).collect()
    }

    #[test]
    fn every_method_of_the_traits_is_asked_in_some_story() {
        let mut methods = Vec::new();
        for body in TRAITS.split("\npub trait ").skip(1) {
            methods.extend(names(body.split("\n}").next().unwrap(), " fn "));
        }
        assert!(methods.len() >= 40, "only {} methods were found: the search is broken", methods.len());
        let asked = |method: &&str| !STORIES.iter().any(|story| story.contains(&format!(".{method}(")));
        assert_eq!(methods.into_iter().filter(asked).collect::<Vec<_>>(), [""; 0], "no story asks for these");
    }

    #[test]
    fn every_story_is_in_the_list() {
        let list = include_str!("mod.rs");
        let mut told = 0;
        for story in STORIES {
            let is_story = |name: &&str| story.contains(&format!("fn {name}(store: Arc<dyn Store>"));
            for name in names(story, "\npub async fn ").into_iter().filter(is_story) {
                assert!(list.contains(name), "{name} is told nowhere");
                told += 1;
            }
        }
        assert!(told >= 50, "only {told} stories were found: the search is broken");
    }
}
