//! Figures for whoever operates the server: Prometheus text, on a listener of its own ([`crate::http::admin_router`]).
//!
//! Any room counts with the macros of the crate `metrics`; without a configured listener they do nothing. Every name is in
//! [`METRICS`], which gives it its help text; the alert rules in `deploy/` are checked against that list.

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use std::sync::OnceLock;

/// How a figure behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Seconds, in the buckets of [`SECONDS`].
    Seconds,
}

/// Upper bounds of the buckets of durations, seconds: fine around our own figures (milliseconds), and with the owner's limits
/// (2 s, alert at 5 s) among them.
pub const SECONDS: [f64; 14] = [0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.125, 0.25, 0.5, 1.0, 2.0, 5.0, 15.0];

/// Calls by `method`, `route` and `status`.
pub const HTTP_REQUESTS: &str = "crm_dispatch_http_requests_total";
/// How long calls took, by `method` and `route`.
pub const HTTP_SECONDS: &str = "crm_dispatch_http_request_seconds";
/// Connected phones.
pub const PHONES: &str = "crm_dispatch_phones_connected";
/// Connections of phones, by how they were met.
pub const PHONE_CONNECTIONS: &str = "crm_dispatch_phone_connections_total";
/// Connections of phones ended by the server, by `code`.
pub const PHONE_BYES: &str = "crm_dispatch_phone_byes_total";
/// Frames, by `direction`.
pub const SYNC_FRAMES: &str = "crm_dispatch_sync_frames_total";
/// Bytes of frames, by `direction`.
pub const SYNC_BYTES: &str = "crm_dispatch_sync_bytes_total";
/// Pushes, by `result`.
pub const PUSHES: &str = "crm_dispatch_pushes_total";
/// Lanes of pushes that were refused, by `code`.
pub const LANES_REFUSED: &str = "crm_dispatch_push_lanes_refused_total";
/// How long pushes took.
pub const PUSH_SECONDS: &str = "crm_dispatch_push_seconds";
/// From the commit that a phone is told of until its durable receipt.
pub const DELIVERY_SECONDS: &str = "crm_dispatch_delivery_seconds";
/// Phones that found their holdings' digest to be another than the server's, and fetch everything anew.
pub const DIGEST_MISMATCHES: &str = "crm_dispatch_digest_mismatches_total";
/// Times that a phone's queue of news overflowed.
pub const NEWS_LAGGED: &str = "crm_dispatch_news_lagged_total";
/// Hints of other nodes that mattered to a phone connected here, by `kind`.
pub const HINTS: &str = "crm_dispatch_node_hints_total";
/// Feeds that had grown on another node without a hint.
pub const FEEDS_FOUND_GROWN: &str = "crm_dispatch_feeds_found_grown_total";
/// Commits, by `result`.
pub const COMMITS: &str = "crm_dispatch_commits_total";
/// How long commits took until they were durable.
pub const COMMIT_SECONDS: &str = "crm_dispatch_commit_seconds";
/// Sweeps, by `result`.
pub const SWEEPS: &str = "crm_dispatch_sweeps_total";
/// How long a sweep took.
pub const SWEEP_SECONDS: &str = "crm_dispatch_sweep_seconds";
/// Dispatches that a sweep failed on.
pub const SWEEP_FAILURES: &str = "crm_dispatch_sweep_failed_dispatches_total";
/// Service-level breaches announced, confirmed or retracted.
pub const BREACHES: &str = "crm_dispatch_sla_decisions_total";
/// 1 while this node answers that it is ready.
pub const READY: &str = "crm_dispatch_ready";
/// Consumed events, by `topic` and `outcome`.
pub const CONSUMED: &str = "crm_dispatch_consumed_events_total";
/// How long consumed events took until their effect was stored, by `topic`.
pub const CONSUMED_SECONDS: &str = "crm_dispatch_consumed_event_seconds";
/// Attempts at consumed events that have to be made again, by `topic`.
pub const CONSUMER_RETRIES: &str = "crm_dispatch_consumer_retries_total";
/// 1 while a partition waits for something that is away, by `topic` and `partition`.
pub const CONSUMER_BLOCKED: &str = "crm_dispatch_consumer_blocked";
/// Events not consumed yet, by `topic` and `partition`.
pub const CONSUMER_LAG: &str = "crm_dispatch_consumer_lag";
/// Changes of the partitions that this node has, by `kind`.
pub const CONSUMER_REBALANCES: &str = "crm_dispatch_consumer_rebalances_total";
/// Offset commits that failed.
pub const CONSUMER_COMMITS_FAILED: &str = "crm_dispatch_consumer_commits_failed_total";
/// Dead letters, by `topic` and `reason`.
pub const DEAD_LETTERS: &str = "crm_dispatch_consumer_dead_letters_total";

/// Every figure: its name, how it behaves, what it says.
pub const METRICS: &[(&str, Kind, &str)] = &[
    (HTTP_REQUESTS, Kind::Counter, "REST calls by method, route and status."),
    (HTTP_SECONDS, Kind::Seconds, "Time from a REST call until its answer, by method and route."),
    (PHONES, Kind::Gauge, "Phones connected to this node."),
    (PHONE_CONNECTIONS, Kind::Counter, "Connections of phones by result: taken, full, draining."),
    (PHONE_BYES, Kind::Counter, "Connections of phones that the server ended, by code."),
    (SYNC_FRAMES, Kind::Counter, "Frames between phones and this node, by direction."),
    (SYNC_BYTES, Kind::Counter, "Bytes of frames between phones and this node, by direction."),
    (PUSHES, Kind::Counter, "Pushes of phones by result: stored, failed."),
    (LANES_REFUSED, Kind::Counter, "Visits of pushes that were refused, by code."),
    (PUSH_SECONDS, Kind::Seconds, "Time from a push until its acknowledgement."),
    (
        DELIVERY_SECONDS,
        Kind::Seconds,
        "Time from the commit of news (or its hint from another node) until a connected phone's durable receipt.",
    ),
    (
        DIGEST_MISMATCHES,
        Kind::Counter,
        "Phones that held something else than the server had for them, and fetched everything anew.",
    ),
    (
        NEWS_LAGGED,
        Kind::Counter,
        "Times that news for a phone came faster than it took them, so that it pulls instead.",
    ),
    (
        HINTS,
        Kind::Counter,
        "Hints of other nodes that mattered to a phone connected here, by kind: grew, connected, revoked.",
    ),
    (
        FEEDS_FOUND_GROWN,
        Kind::Counter,
        "Feeds of phones connected here that were found grown by looking: a hint was lost.",
    ),
    (COMMITS, Kind::Counter, "Commits by result: committed, conflict, overlap, repeated, failed."),
    (COMMIT_SECONDS, Kind::Seconds, "Time until commits handed over together were durable or refused."),
    (SWEEPS, Kind::Counter, "Sweeps by result: done, elsewhere (another node sweeps), failed."),
    (SWEEP_SECONDS, Kind::Seconds, "Time that a sweep took."),
    (SWEEP_FAILURES, Kind::Counter, "Dispatches that a sweep failed on; the next one tries again."),
    (BREACHES, Kind::Counter, "Service-level breaches announced, confirmed or retracted."),
    (
        CONSUMED,
        Kind::Counter,
        "Events consumed from Kafka, by topic and outcome: applied, duplicate, no_effect, waiting (for its order), dead_letter.",
    ),
    (
        CONSUMED_SECONDS,
        Kind::Seconds,
        "Time from taking an event until its effect was stored, retries included, by topic.",
    ),
    (CONSUMER_RETRIES, Kind::Counter, "Attempts at consumed events that have to be made again, by topic."),
    (CONSUMER_BLOCKED, Kind::Gauge, "1 while a partition waits for something that is away, by topic and partition."),
    (
        CONSUMER_LAG,
        Kind::Gauge,
        "Events of a partition of this node that are not consumed yet, by topic and partition.",
    ),
    (CONSUMER_REBALANCES, Kind::Counter, "Changes of this node's partitions by kind: assigned, revoked, lost."),
    (CONSUMER_COMMITS_FAILED, Kind::Counter, "Offset commits that failed; the next one covers them."),
    (
        DEAD_LETTERS,
        Kind::Counter,
        "Consumed events that went to the dead letters, by topic and reason (the x-error-code).",
    ),
    (READY, Kind::Gauge, "1 while this node answers that it is ready, 0 while it drains or the database is gone."),
];

/// Counts from now on, for the whole process. Several servers of one process share the figures; the first one that asks starts
/// them. `None` where something else in the process collects figures already.
pub fn start() -> Option<&'static PrometheusHandle> {
    static HANDLE: OnceLock<Option<PrometheusHandle>> = OnceLock::new();
    let handle = HANDLE.get_or_init(|| {
        let recorder = PrometheusBuilder::new().set_buckets(&SECONDS).ok()?.build_recorder();
        let handle = recorder.handle();
        metrics::set_global_recorder(recorder).ok()?;
        for (name, kind, help) in METRICS {
            match kind {
                Kind::Counter => metrics::describe_counter!(*name, *help),
                Kind::Gauge => metrics::describe_gauge!(*name, *help),
                Kind::Seconds => metrics::describe_histogram!(*name, metrics::Unit::Seconds, *help),
            }
        }
        Some(handle)
    });
    handle.as_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_collected_once_however_many_servers_ask() {
        let (Some(first), Some(second)) = (start(), start()) else { panic!("nothing else collects in this process") };
        metrics::counter!(PUSHES, "result" => "stored").increment(2);
        metrics::histogram!(COMMIT_SECONDS).record(0.003);
        for text in [first.render(), second.render()] {
            assert!(text.contains("# HELP crm_dispatch_pushes_total Pushes of phones by result"), "{text}");
            assert!(text.contains("crm_dispatch_pushes_total{result=\"stored\"} 2"), "{text}");
            assert!(text.contains("crm_dispatch_commit_seconds_bucket{le=\"0.004\"} 1"), "{text}");
            assert!(text.contains("crm_dispatch_commit_seconds_bucket{le=\"0.002\"} 0"), "{text}");
        }
    }

    #[test]
    fn every_figure_has_one_name_of_the_usual_form() {
        for (index, (name, kind, _)) in METRICS.iter().enumerate() {
            assert!(name.starts_with("crm_dispatch_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert_eq!(name.ends_with("_seconds"), *kind == Kind::Seconds, "{name}");
            assert!(METRICS[..index].iter().all(|other| other.0 != *name), "{name}");
        }
    }
}
