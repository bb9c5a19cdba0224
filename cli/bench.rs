//! `bench`: the benchmarks, each on a fresh server of this same binary.

use crate::args::BenchOptions;
use crate::demo::tokens;
use crate::{Failure, say};
use crm_dispatch_server::app::TokenIssuer;
use crm_dispatch_server::config::Config;
use fleet::bench;
use std::collections::HashMap;
use std::process::ExitCode;
use std::sync::Arc;

/// Signs the benchmarks' tokens; the servers are thrown away with it.
const SECRET: &str = "benchmarks only: a secret that protects nothing worth having";
const SECRET_VARIABLE: &str = "CRM_DISPATCH__AUTH__SECRET";

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
    let rows = bench::run(bench::BenchOptions {
        scenarios: options.scenarios.clone(),
        server: bench::ServerCommand {
            program: std::env::current_exe()?,
            args: vec!["serve".to_owned()],
            env: vec![(SECRET_VARIABLE.to_owned(), SECRET.to_owned())],
            tokens: tokens(issuer, tenant.clone()),
            tenant,
        },
        database: options.database.clone(),
        dir,
        growth_dispatches_max: options.growth,
        idle_phones_max: options.phones,
        postgres: options.postgres.clone(),
        out: Arc::new(|line| say(line)),
    })
    .await?;
    let lines = bench::json_lines(&rows);
    match &options.json {
        Some(path) => std::fs::write(path, lines)?,
        None => say(lines.trim_end()),
    }
    Ok(ExitCode::SUCCESS)
}
