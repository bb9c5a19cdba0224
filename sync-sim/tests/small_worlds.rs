//! Every small world there is, as far as a test run without optimisation goes; `cargo run --release -p sync-sim -- exhaustive`
//! goes further.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use sync_sim::exhaustive::{check, compare};

#[test]
fn every_small_world_ends_as_the_rules_say_and_the_table_for_dispatchers_is_true() {
    let played = check(3).unwrap_or_else(|problem| panic!("{problem}"));
    println!("{played}");
    assert_eq!(played.missing(), Vec::<String>::new(), "what no world shows");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/outcomes.md");
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    let fresh = played.outcomes();
    assert!(
        kept == fresh,
        "docs/outcomes.md is not what the code does: cargo run --release -p sync-sim -- exhaustive --outcomes docs/outcomes.md"
    );
}

#[test]
fn worlds_that_are_left_out_as_the_same_as_others_would_have_ended_like_them() {
    let (few, many, different) = compare(2, 1).unwrap_or_else(|problem| panic!("{problem}"));
    println!("{few} endings instead of {many} find the {different} different ones");
    assert!(few < many, "{few} and {many}");
}
