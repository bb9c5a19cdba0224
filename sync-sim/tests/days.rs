//! Simulated days: the same seed is the same day, and every day that ever failed passes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use sync_sim::{Outcome, Scenario, play, scenario};

fn played(day: &Scenario) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    play(day, folder.path(), false).unwrap()
}

#[test]
fn the_same_seed_gives_the_same_trace_byte_for_byte() {
    for seed in 1..=5 {
        let mut day = scenario::draw(seed);
        // One of them on the server's shipped store.
        (day.sqlite, day.nodes) = if seed == 5 { (true, 1) } else { (false, day.nodes) };
        let (first, again) = (played(&day), played(&day));
        assert_eq!(first.trace, again.trace, "seed {seed}");
        assert_eq!(first.counts, again.counts, "seed {seed}");
    }
    assert_ne!(played(&scenario::draw(1)).trace, played(&scenario::draw(2)).trace);
}

#[test]
fn after_any_day_everything_that_a_technician_did_is_there_once() {
    for seed in 1..=20 {
        let mut day = scenario::draw(seed);
        // The server's shipped store has its share.
        (day.sqlite, day.nodes) = if seed % 10 == 0 { (true, 1) } else { (false, day.nodes) };
        let outcome = played(&day);
        assert_eq!(outcome.violation, None, "replay: cargo run -p sync-sim -- --replay {seed} --sqlite-every 10");
    }
}

#[test]
fn every_day_that_ever_failed_passes() {
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/cases")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "json") {
            let day: Scenario = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
            assert_eq!(played(&day).violation, None, "{}", path.display());
        }
    }
}

#[test]
fn a_kept_day_is_read_as_it_was_written() {
    let day = scenario::draw(3);
    let text = serde_json::to_string(&day).unwrap();
    assert_eq!(serde_json::from_str::<Scenario>(&text).unwrap(), day);
}
