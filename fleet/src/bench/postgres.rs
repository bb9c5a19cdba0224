//! On PostgreSQL: changes reconciled beside pgbench's commits on the same server, and what a commit costs with few and with many
//! stored dispatches.

use super::fixture::{PATIENCE, World, caught_up, disconnect, each, technician_id};
use super::light::{self, LightPhone};
use super::row::{Row, median};
use super::server::ServerCommand;
use super::{Bench, BenchError};
use crate::latency::Latency;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;
use sync_core::client::Client;
use sync_core::domain::{ChecklistItemId, DispatchId, FactKind};
use sync_core::store::NewEdit;

/// Phones that work offline and come back together; and pgbench's clients.
const PHONES: usize = 16;
/// Visits of each.
const VISITS: usize = 25;
/// Rounds that a figure is the median of.
const ROUNDS: usize = 5;
/// How long pgbench runs, seconds.
const PGBENCH_SECONDS: usize = 10;
/// pgbench's tables: at simple-update's own size for so many clients.
const PGBENCH_SCALE: usize = 20;
/// Commands measured at each size.
const COMMANDS: usize = 200;
const TECHNICIANS: usize = 20;
const SMALL: usize = 1_000;

/// Stored dispatches, multiplied: what one of them has in every table that a commit looks into, under new names.
const MULTIPLY: &str = "
    CREATE TEMP TABLE n AS SELECT to_char(i, 'FM0000000') AS i FROM generate_series(1, :copies) i;
    CREATE TEMP TABLE d AS SELECT * FROM dispatches WHERE technician IS NULL ORDER BY dispatch_id LIMIT 500;
    INSERT INTO dispatches (tenant, dispatch_id, service_order_id, location_id, revision, status, priority, technician, epoch, start_ms,
        end_ms, sla_deadline_ms, created_ms, updated_ms, watch_ms, tag, card, plan, state)
      SELECT tenant, dispatch_id || '-' || i, service_order_id || '-' || i, location_id, revision, status, priority, technician, epoch,
        start_ms, end_ms, sla_deadline_ms, created_ms, updated_ms, watch_ms, tag, card, plan, state FROM d, n;
    INSERT INTO documents SELECT o.tenant, o.dispatch_id || '-' || i, o.document FROM documents o JOIN d USING (tenant, dispatch_id), n;
    INSERT INTO changes SELECT c.tenant, c.dispatch_id || '-' || i, c.revision, c.idx, c.hash, c.actor, c.device, c.bytes
      FROM changes c JOIN d USING (tenant, dispatch_id), n;
    INSERT INTO consumed_events SELECT tenant, event_id || '-' || i, at_ms FROM (SELECT * FROM consumed_events LIMIT 500) e, n;
    INSERT INTO audit SELECT a.tenant, a.aggregate || '-' || i, a.seq, a.at_ms, a.actor, a.action, a.detail, a.previous_hash, a.hash
      FROM audit a JOIN d ON a.tenant = d.tenant AND a.aggregate = 'dispatch:' || d.dispatch_id, n;
    INSERT INTO audit_heads SELECT a.tenant, a.aggregate || '-' || i, a.seq, a.hash
      FROM audit_heads a JOIN d ON a.tenant = d.tenant AND a.aggregate = 'dispatch:' || d.dispatch_id, n;
    ANALYZE;
    CHECKPOINT;
    SELECT count(*) FROM dispatches;
";

/// A database of the benchmark's own on the given server; removed when dropped.
#[derive(Debug)]
pub struct Database {
    bin: Option<PathBuf>,
    server: String,
    name: String,
}

impl Database {
    /// Makes one on the server that has the database at this url, by `psql`.
    ///
    /// # Errors
    /// [`BenchError::Machine`] without a server, or when it refuses.
    pub fn create(server: Option<&str>, name: &str) -> Result<Self, BenchError> {
        let Some(server) = server.map(str::to_owned) else {
            return Err(BenchError::Machine(
                "name a PostgreSQL server: --postgres URL, or TEST_POSTGRES_URL".to_owned(),
            ));
        };
        let bin = std::env::var_os("TEST_POSTGRES_BIN").map(PathBuf::from);
        let name = format!("crm_dispatch_bench_{name}_{}", std::process::id());
        let database = Self { bin, server, name };
        database.psql(&database.server, &format!("CREATE DATABASE {}", database.name), &[])?;
        Ok(database)
    }

    /// Its url.
    #[must_use]
    pub fn url(&self) -> String {
        let (base, parameters) =
            self.server.split_once('?').map_or((&*self.server, None), |(base, rest)| (base, Some(rest)));
        let end = base.rfind('/').unwrap_or(base.len());
        let parameters = parameters.map(|rest| format!("?{rest}")).unwrap_or_default();
        format!("{}/{}{parameters}", &base[..end], self.name)
    }

    /// How to start a server on it.
    pub(super) fn command(&self, bench: &Bench) -> ServerCommand {
        let mut command = bench.options.server.clone();
        command.env.push(("CRM_DISPATCH__DATABASE__URL".to_owned(), self.url()));
        command
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(self.bin.as_ref().map_or_else(|| PathBuf::from(name), |bin| bin.join(name)));
        command.stdin(Stdio::null());
        command
    }

    fn psql(&self, url: &str, sql: &str, variables: &[String]) -> Result<String, BenchError> {
        let mut command = self.tool("psql");
        command.args(["--no-psqlrc", "--quiet", "--no-align", "--tuples-only", "--set", "ON_ERROR_STOP=1"]);
        for variable in variables {
            command.args(["--set", variable]);
        }
        // psql replaces its variables in a script only, not in --command.
        let script = tempfile::NamedTempFile::new()?;
        std::fs::write(script.path(), sql)?;
        run(command.arg("--file").arg(script.path()).arg(url))
    }

    /// pgbench's simple-update, commits per second.
    fn pgbench(&self) -> Result<f64, BenchError> {
        let url = self.url();
        run(self.tool("pgbench").args(["--initialize", "--quiet", "--scale", &PGBENCH_SCALE.to_string(), &url]))?;
        let printed = run(self.tool("pgbench").args([
            "--no-vacuum",
            "--builtin=simple-update",
            "--protocol=prepared",
            &format!("--client={PHONES}"),
            "--jobs=2",
            &format!("--time={PGBENCH_SECONDS}"),
            &url,
        ]))?;
        printed
            .lines()
            .find_map(|line| line.strip_prefix("tps = ")?.split_whitespace().next()?.parse().ok())
            .ok_or_else(|| BenchError::World(format!("pgbench printed no tps: {printed}")))
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let sql = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        if let Err(error) = self.psql(&self.server, &sql, &[]) {
            tracing::warn!(%error, database = self.name, "a benchmark's database was left behind");
        }
    }
}

fn run(command: &mut Command) -> Result<String, BenchError> {
    let name = command.get_program().to_string_lossy().into_owned();
    let output =
        command.output().map_err(|error| BenchError::Machine(format!("{name}: {error}; set TEST_POSTGRES_BIN")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(BenchError::Machine(format!("{name} failed: {}", said.trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Phones with their visits, offline.
async fn phones(world: &World, dir: &std::path::Path) -> Result<Vec<(Client, Vec<DispatchId>)>, BenchError> {
    let dispatches = world.orders(PHONES * VISITS).await?;
    let pairs =
        dispatches.iter().enumerate().map(|(index, dispatch)| Ok((dispatch.clone(), technician_id(index % PHONES)?)));
    world.assign_all(pairs.collect::<Result<_, BenchError>>()?).await?;
    each((0..PHONES).collect(), |index| {
        let own: Vec<_> = dispatches.iter().skip(index).step_by(PHONES).cloned().collect();
        async move {
            let setup = world.setup(technician_id(index)?, world.server.base_url(), index as u64)?;
            let client = world.phone(&dir.join(format!("phone-{index}.sqlite")), setup).await?;
            client.set_network(true);
            caught_up(&client).await?;
            disconnect(&client).await;
            Ok((client, own))
        }
    })
    .await
}

/// Every phone makes so many changes on each of its visits, offline; then all come back: changes acknowledged per second.
async fn round(phones: &[(Client, Vec<DispatchId>)], changes: usize) -> Result<f64, BenchError> {
    for (client, own) in phones {
        disconnect(client).await;
        for dispatch in own {
            for number in 0..changes {
                let edit = match number {
                    0 => NewEdit::Fact(FactKind::TimeEntry { category: "labour".to_owned(), minutes: 15 }),
                    _ => NewEdit::Answer {
                        item: ChecklistItemId::new(format!("item-{number:02}"))?,
                        value: "in range".to_owned(),
                    },
                };
                client.act(dispatch, edit, None).await?;
            }
        }
    }
    let since = Instant::now();
    phones.iter().for_each(|(client, _)| client.set_network(true));
    for (client, _) in phones {
        let mut status = client.status();
        let sent = tokio::time::timeout(PATIENCE, status.wait_for(|status| status.pending == 0)).await;
        if sent.is_err() {
            return Err(BenchError::World(format!("a phone is stuck: {:?}", client.status().borrow().clone())));
        }
    }
    let taken = since.elapsed().as_secs_f64();
    Ok((PHONES * VISITS * changes) as f64 / taken)
}

/// Whole phones, each with its file, that come back with what they did offline: changes acknowledged per second.
async fn whole_phones(bench: &Bench, name: &str, changes: usize) -> Result<f64, BenchError> {
    let dir = bench.dir(name)?;
    let database = Database::create(bench.options.postgres.as_deref(), name)?;
    let world = World::start(&database.command(bench), dir.path(), PHONES).await?;
    let phones = phones(&world, dir.path()).await?;
    let mut rates = Vec::new();
    for _ in 0..ROUNDS {
        rates.push(round(&phones, changes).await?);
    }
    for (client, _) in phones {
        client.stop().await;
    }
    Ok(median(rates))
}

/// Phones as light as pgbench's clients: what the server takes in, by how much a push brings. `shape`: pushes a phone, visits a
/// push, changes a visit.
async fn light_phones(bench: &Bench, name: &str, shape: (usize, usize, usize)) -> Result<f64, BenchError> {
    let dir = bench.dir(name)?;
    let database = Database::create(bench.options.postgres.as_deref(), name)?;
    let world = World::start(&database.command(bench), dir.path(), PHONES).await?;
    let dispatches = world.orders(PHONES * VISITS).await?;
    let pairs =
        dispatches.iter().enumerate().map(|(index, dispatch)| Ok((dispatch.clone(), technician_id(index % PHONES)?)));
    world.assign_all(pairs.collect::<Result<_, BenchError>>()?).await?;
    let mut phones = Vec::new();
    for index in 0..PHONES {
        phones.push(LightPhone::connect(bench, &world, index).await?);
    }
    let (pushes, visits, changes) = shape;
    light::rate(&mut phones, pushes, visits, changes).await
}

pub(super) async fn reconcile(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let name = "reconcile";
    let whole = [whole_phones(bench, "whole_1", 1).await?, whole_phones(bench, "whole_10", 10).await?];
    // Within the burst of frames that a phone may send at once.
    let light = [
        ("one change a push", light_phones(bench, "light_1", (300, 1, 1)).await?),
        ("25 visits a push, one change each", light_phones(bench, "light_25", (20, VISITS, 1)).await?),
        ("25 visits a push, ten changes each", light_phones(bench, "light_250", (10, VISITS, 10)).await?),
    ];
    bench.say(&format!("  pgbench runs for {PGBENCH_SECONDS} s on the same server"));
    let pgbench = Database::create(bench.options.postgres.as_deref(), "pgbench")?.pgbench()?;
    let mut rows = vec![
        Row::info(name, "pgbench simple-update, commits per second", pgbench, "1/s")
            .detail(format!("{PHONES} clients, prepared, scale {PGBENCH_SCALE}")),
    ];
    for (what, rate) in light {
        rows.push(
            Row::info(name, format!("changes accepted per second, {what}"), rate, "1/s")
                .at_least(pgbench / 2.0, "0.5 x pgbench")
                .detail(format!("{:.2} x pgbench; {PHONES} phones as light as its clients", rate / pgbench)),
        );
    }
    for (what, rate) in [("one change a visit", whole[0]), ("ten changes a visit", whole[1])] {
        rows.push(
            Row::info(name, format!("changes acknowledged per second, whole phones come back, {what}"), rate, "1/s")
                .detail(format!(
                    "{:.2} x pgbench; {PHONES} phones with {VISITS} visits: connecting, and their own SQLite, on the same cores",
                    rate / pgbench
                )),
        );
    }
    Ok(rows)
}

pub(super) async fn growth(bench: &Bench) -> Result<Vec<Row>, BenchError> {
    let dir = bench.dir("growth-postgres")?;
    let database = Database::create(bench.options.postgres.as_deref(), "growth")?;
    let world = World::start(&database.command(bench), dir.path(), TECHNICIANS).await?;
    world.orders(SMALL).await?;
    let small = measure(&world).await?;
    let copies = bench.options.growth_postgres_dispatches_max.div_ceil(500).saturating_sub(3).max(1);
    bench.say(&format!("  the database is filled to about {} dispatches", copies * 500 + SMALL));
    let stored = database.psql(&database.url(), MULTIPLY, &[format!("copies={copies}")])?;
    let large = measure(&world).await?;
    let stored = stored.trim();
    let mut rows = Vec::new();
    for (name, quantile) in [("p50", 0.5), ("p95", 0.95)] {
        let (small_ms, large_ms) = (small.quantile_ms(quantile), large.quantile_ms(quantile));
        let figure = |count: &dyn std::fmt::Display| format!("assign, {count} stored dispatches, {name}");
        rows.push(Row::info("growth-postgres", figure(&SMALL), small_ms, "ms"));
        let slope = format!("slope {:.2} x", large_ms / small_ms);
        rows.push(Row::info("growth-postgres", figure(&stored), large_ms, "ms").detail(slope));
    }
    Ok(rows)
}

/// One command after the other: decide, commit, fsync, answer.
async fn measure(world: &World) -> Result<Latency, BenchError> {
    let dispatches = world.orders(COMMANDS).await?;
    let mut latency = Latency::default();
    for (number, dispatch) in dispatches.iter().enumerate() {
        let technician = technician_id(number % TECHNICIANS)?;
        let since = Instant::now();
        world.office.assign(dispatch, &technician, &[]).await?;
        latency.record(since.elapsed());
    }
    Ok(latency)
}
