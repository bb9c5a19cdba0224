//! `bench relay`: from the outbox to Kafka's receipts, beside a bare producer with the same messages on the same broker. From PostgreSQL,
//! as in production, where a server is named, and from the embedded database.

use crate::{Failure, say};
use crm_dispatch_server::config::KafkaConfig;
use crm_dispatch_server::events::kafka::bench::bare_producer;
use crm_dispatch_server::events::kafka::relay::Relay;
use crm_dispatch_server::events::{Event, Payload, RelayStatus};
use crm_dispatch_server::service::commit::Commit;
use crm_dispatch_server::service::{Clock as _, SystemClock};
use crm_dispatch_server::store::postgres::{PostgresOptions, PostgresStore};
use crm_dispatch_server::store::sqlite::SqliteStore;
use crm_dispatch_server::store::{OutboxEvent, Store};
use fleet::bench::{Database, Row};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use sync_core::domain::{TenantId, Timestamp};
use tokio::sync::watch;

/// Events a run.
const EVENTS: usize = 100_000;
/// Runs of each; the middle one counts.
const RUNS: usize = 3;
/// Dispatches that the events are about.
const DISPATCHES: usize = 2_000;
/// Events in one commit while filling.
const COMMIT_EVENTS: usize = 500;
/// What the relay shall reach at least, events a second.
const FLOOR: f64 = 10_000.0;
/// How often a dispatcher commits meanwhile.
const COMMIT_EVERY: Duration = Duration::from_millis(10);

pub(crate) async fn run(config: &KafkaConfig, dir: &Path, postgres: Option<&str>) -> Result<Vec<Row>, Failure> {
    let mut rows = Vec::new();
    let (mut bare, mut commit_rows) = (Vec::new(), Vec::new());
    if postgres.is_none() {
        say("relay: from the embedded database only; name a PostgreSQL server too: --postgres URL");
    }
    for place in [postgres.map(|_| "PostgreSQL"), Some("SQLite")].into_iter().flatten() {
        let (mut relayed, mut commits) = (Vec::new(), Vec::new());
        for run in 0..RUNS {
            let home = tempfile::Builder::new().prefix("bench-relay-").tempdir_in(dir)?;
            // The database is removed after its store is closed.
            let (database, store): (Option<Database>, Arc<dyn Store>) = match place {
                "SQLite" => (None, SqliteStore::open(&home.path().join("server.db")).await?),
                _ => {
                    let database = Database::create(postgres, "relay")?;
                    let store = PostgresStore::open(&PostgresOptions::new(database.url())).await?;
                    (Some(database), store)
                }
            };
            fill(&*store).await?;
            let events = read(&*store).await?;
            // Topics of their own, so that no run meets another's messages.
            let topic_prefix = format!("bench-{}-{}-{run}.", std::process::id(), place.to_lowercase());
            let config = KafkaConfig { topic_prefix, ..config.clone() };
            bare.push(rate(events.len(), bare_producer(&config, &events).await?));
            let (took, meanwhile) = relay(&store, &config).await?;
            relayed.push(rate(events.len(), took));
            commits.extend(meanwhile);
            store.close().await;
            drop(database);
            say(format_args!("relay: {place}, run {} of {RUNS} done", run + 1));
        }
        let relayed = middle(relayed);
        commits.sort_unstable();
        let p95 = commits.get(commits.len() * 95 / 100).copied().unwrap_or_default();
        rows.push((place, relayed));
        let parts = format!("{} commits, one every {} ms", commits.len(), COMMIT_EVERY.as_millis());
        commit_rows.push(
            Row::info("relay", format!("{place}: a commit meanwhile, p95"), p95.as_secs_f64() * 1_000.0, "ms")
                .detail(parts),
        );
    }
    let bare = middle(bare);
    let outbox = rows.into_iter().map(|(place, relayed)| {
        let parts = format!("{EVENTS} waiting events; {:.0} % of the bare producer", 100.0 * relayed / bare);
        Row::info("relay", format!("{place}: outbox to receipts, marked"), relayed, "events/s")
            .at_least(FLOOR, "")
            .detail(parts)
    });
    let bare = Row::info("relay", "bare rdkafka producer, idempotent, same messages", bare, "events/s");
    Ok(outbox.chain([bare]).chain(commit_rows).collect())
}

fn rate(events: usize, took: Duration) -> f64 {
    events as f64 / took.as_secs_f64()
}

fn middle(mut rates: Vec<f64>) -> f64 {
    rates.sort_by(f64::total_cmp);
    rates.get(rates.len() / 2).copied().unwrap_or_default()
}

fn commit_of(tenant: &TenantId, at: Timestamp, events: Vec<Event>) -> Commit {
    Commit {
        tenant: tenant.clone(),
        at,
        follows: false,
        dispatch: None,
        exceptions: Vec::new(),
        technicians: Vec::new(),
        locations: Vec::new(),
        devices: Vec::new(),
        events,
        audit: Vec::new(),
        consumed: None,
        idempotency: None,
        traceparent: None,
    }
}

fn event(tenant: &TenantId, at: Timestamp, n: usize) -> Result<Event, Failure> {
    let dispatch = format!("DSP-{}", n % DISPATCHES);
    Ok(Event {
        event_id: format!("evt-{n:08}").parse()?,
        timestamp: at,
        aggregate_id: dispatch.clone(),
        tenant_id: tenant.clone(),
        payload: Payload::TechnicianAssigned {
            dispatch_id: dispatch.parse()?,
            service_order_id: format!("SO-{n}").parse()?,
            technician_id: "TECH-10".parse()?,
            status: "ASSIGNED".to_owned(),
        },
    })
}

async fn fill(store: &dyn Store) -> Result<(), Failure> {
    let (tenant, at) = ("tenant-001".parse()?, SystemClock.now());
    for from in (0..EVENTS).step_by(COMMIT_EVENTS) {
        let events = (from..from + COMMIT_EVENTS).map(|n| event(&tenant, at, n)).collect::<Result<Vec<_>, _>>()?;
        for result in store.commit(vec![commit_of(&tenant, at, events)]).await {
            result?;
        }
    }
    Ok(())
}

async fn read(store: &dyn Store) -> Result<Vec<OutboxEvent>, Failure> {
    let mut events: Vec<OutboxEvent> = Vec::with_capacity(EVENTS);
    loop {
        let page = store.unpublished(events.last().map_or(0, |last| last.position), 1_000).await?;
        if page.is_empty() {
            return Ok(events);
        }
        events.extend(page);
    }
}

/// Publishes everything; answers how long that took from the moment that topics were known, and how long the commits of a
/// dispatcher took meanwhile.
async fn relay(store: &Arc<dyn Store>, config: &KafkaConfig) -> Result<(Duration, Vec<Duration>), Failure> {
    let (says, mut status) = watch::channel(RelayStatus::Journal);
    let stop = watch::Sender::new(false);
    let relay = Relay::new(Arc::clone(store), Arc::new(SystemClock), config.clone(), says, stop.subscribe());
    let relay = tokio::spawn(relay.run());
    let started = status.wait_for(|status| *status == RelayStatus::Publishing || status.is_degraded()).await?.clone();
    if let RelayStatus::Waiting(reason) | RelayStatus::Stopped(reason) = started {
        return Err(reason.into());
    }
    let began = Instant::now();
    let tenant: TenantId = "tenant-001".parse()?;
    let mut commits = Vec::new();
    while !store.unpublished(0, 1).await?.is_empty() {
        let since = Instant::now();
        for result in store.commit(vec![commit_of(&tenant, SystemClock.now(), Vec::new())]).await {
            result?;
        }
        commits.push(since.elapsed());
        tokio::time::sleep(COMMIT_EVERY).await;
    }
    let took = began.elapsed();
    stop.send_replace(true);
    relay.await?;
    Ok((took, commits))
}
