//! `audit verify`.

use crate::args::AuditVerifyOptions;
use crate::{Failure, say};
use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use crm_dispatch_server::app::open_store;
use crm_dispatch_server::config::{Config, Database};
use crm_dispatch_server::store::verify::{AuditReport, AuditScope, AuditTally, BREAKS_NAMED_MAX, verify_audit};
use std::io::Write as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// How often a long walk says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(5);
/// Columns of a table, at most.
const WIDTH_MAX: u16 = 160;

pub(crate) async fn verify(file: Option<&Path>, options: &AuditVerifyOptions) -> Result<ExitCode, Failure> {
    let config = Config::from_environment(file)?;
    // `serve` would make it; a trail that is not there has not been verified.
    if let Database::SqliteFile(path) = config.database.parse()?
        && !path.exists()
    {
        return Err(format!("there is no database {}; name one with database.url", path.display()).into());
    }
    let (store, database) = open_store(&config).await?;
    let scope = AuditScope { tenant: options.tenant.clone(), aggregate: options.aggregate.clone() };
    let mut told = Instant::now();
    let walked = verify_audit(&*store, &scope, |so_far| {
        if told.elapsed() >= PROGRESS_EVERY {
            told = Instant::now();
            let AuditTally { chains, lines, broken } = so_far;
            // With standard error closed there is nobody to tell.
            let _ = writeln!(std::io::stderr(), "{lines} lines of {chains} chains walked, {broken} broken so far");
        }
    })
    .await;
    store.close().await;
    let report = walked?;
    if report.total().chains == 0 && scope.tenant.is_some() {
        return Err("there is no such chain in this database; check --tenant and --aggregate".into());
    }
    say(tenants(&report));
    let AuditTally { chains, lines, broken } = report.total();
    if broken == 0 {
        say(format_args!("{database}: the audit trail is unbroken, {lines} lines in {chains} chains"));
        return Ok(ExitCode::SUCCESS);
    }
    say(breaks(&report));
    if broken > BREAKS_NAMED_MAX as u64 {
        say(format_args!("and {} more", broken - BREAKS_NAMED_MAX as u64));
    }
    say(format_args!("{database}: BROKEN: {broken} of {chains} chains, {lines} lines walked"));
    Ok(ExitCode::FAILURE)
}

fn tenants(report: &AuditReport) -> Table {
    let mut table = table(["Tenant", "Chains", "Lines", "Broken"]);
    for (tenant, tally) in &report.tenants {
        table.add_row([plain(tenant), tally.chains.to_string(), tally.lines.to_string(), tally.broken.to_string()]);
    }
    for column in 1..=3 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn breaks(report: &AuditReport) -> Table {
    let mut table = table(["Tenant", "Chain", "Line", "What is wrong"]);
    for broken in &report.breaks {
        let place = &broken.place;
        table.add_row([plain(&place.tenant), plain(&place.aggregate), place.seq.to_string(), broken.fault.to_string()]);
    }
    table
}

fn table(headings: [&str; 4]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH_MAX);
    table.set_header(headings);
    table
}

/// What somebody may have written into the database, without what a terminal would obey.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}
