//! `bench`: the benchmarks, each on a fresh server of this same binary.

use crate::args::BenchOptions;
use crate::demo::tokens;
use crate::{Failure, say};
use crm_dispatch_server::app::TokenIssuer;
use crm_dispatch_server::config::Config;
use fleet::bench;
use std::collections::HashMap;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

/// Signs the benchmarks' tokens; the servers are thrown away with it.
const SECRET: &str = "benchmarks only: a secret that protects nothing worth having";
const SECRET_VARIABLE: &str = "CRM_DISPATCH__AUTH__SECRET";

/// The scenario that needs a broker.
const RELAY: &str = "relay";
/// The setting of its broker.
#[cfg(feature = "kafka")]
const BROKERS_VARIABLE: &str = "CRM_DISPATCH__KAFKA__BROKERS";

/// What can be named.
pub(crate) fn scenarios() -> Vec<&'static str> {
    bench::SCENARIOS.into_iter().chain([RELAY]).collect()
}

/// Without a broker the relay is left out of a run of everything, and says so.
async fn relay_rows(options: &BenchOptions, dir: &Path, asked: bool) -> Result<Vec<bench::Row>, Failure> {
    let Some(brokers) = options.brokers.clone() else {
        let remedy = "relay: left out; name a broker for it: --brokers HOST:PORT, or TEST_KAFKA_BROKERS".to_owned();
        return if asked { Err(remedy.into()) } else { Ok(say_and(remedy)) };
    };
    #[cfg(feature = "kafka")]
    {
        let config = Config::load(None, HashMap::from([(BROKERS_VARIABLE.to_owned(), brokers)]))?;
        let rows = crate::bench_relay::run(&config.kafka, dir, options.postgres.as_deref()).await?;
        say(bench::render(&rows));
        Ok(rows)
    }
    #[cfg(not(feature = "kafka"))]
    {
        let remedy = format!("relay: left out, {brokers} or not; build with --features kafka ({})", dir.display());
        if asked { Err(remedy.into()) } else { Ok(say_and(remedy)) }
    }
}

fn say_and(line: String) -> Vec<bench::Row> {
    say(line);
    Vec::new()
}

pub(crate) async fn run(options: &BenchOptions) -> Result<ExitCode, Failure> {
    let temporary = tempfile::tempdir()?;
    let dir = options.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&dir)?;
    if cfg!(debug_assertions) {
        say("This is a debug build: the figures say little. Use cargo run --release -- bench");
    }
    let config = Config::load(None, HashMap::from([(SECRET_VARIABLE.to_owned(), SECRET.to_owned())]))?;
    let issuer = TokenIssuer::new(&config)?.ok_or("no secret to sign tokens with")?;
    let tenant: sync_core::domain::TenantId = "tenant-001".parse()?;
    let (relay, scenarios): (Vec<_>, Vec<_>) = options.scenarios.iter().cloned().partition(|name| name == RELAY);
    let mut rows = Vec::new();
    if relay.is_empty() || !scenarios.is_empty() {
        rows = bench::run(bench::BenchOptions {
            scenarios,
            server: bench::ServerCommand {
                program: std::env::current_exe()?,
                args: vec!["serve".to_owned()],
                env: vec![(SECRET_VARIABLE.to_owned(), SECRET.to_owned())],
                tokens: tokens(issuer, tenant.clone()),
                tenant,
            },
            dir: dir.clone(),
            growth_dispatches_max: options.growth,
            growth_postgres_dispatches_max: options.growth_postgres,
            idle_phones_max: options.phones,
            postgres: options.postgres.clone(),
            out: Arc::new(|line| say(line)),
        })
        .await?;
    }
    if !relay.is_empty() || options.scenarios.is_empty() {
        rows.extend(relay_rows(options, &dir, !relay.is_empty()).await?);
    }
    let lines = bench::json_lines(&rows);
    match &options.json {
        Some(path) => std::fs::write(path, lines)?,
        None => say(lines.trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}
