//! The benchmarks of `performance`: each prints its figure beside the budget, and where a budget is missed, what the time
//! went into. Nothing here asserts a time.

mod fixture;
mod growth;
mod idle;
mod light;
mod local;
mod offline;
mod postgres;
mod prime;
mod propagation;
mod row;
mod server;
mod tap;

pub use postgres::Database;
pub use row::{Row, Verdict, json_lines, render};
pub use server::ServerCommand;

use crate::demo::LineSink;
use crate::office::{Caller, OfficeError};
use std::path::PathBuf;
use std::time::Instant;
use sync_core::domain::{IdError, TechnicianId};
use sync_core::store::{ActError, StoreError};

/// The scenarios by name, in the order in which they run.
pub const SCENARIOS: [&str; 14] = [
    "local-list",
    "local-action",
    "bootstrap",
    "reconnect",
    "propagation",
    "assign",
    "offline-replay",
    "large-queue",
    "storm",
    "revoke",
    "idle",
    "growth",
    "reconcile",
    "growth-postgres",
];

/// What to run, and where.
#[derive(Clone)]
pub struct BenchOptions {
    /// Names out of [`SCENARIOS`]; all when empty.
    pub scenarios: Vec<String>,
    /// How to start a server; each scenario gets a fresh one.
    pub server: ServerCommand,
    /// Where databases lie: this disk's `fsync` is what durable figures pay for.
    pub dir: PathBuf,
    /// Stored dispatches in the largest `growth` case; 100,000 takes minutes to fill.
    pub growth_dispatches_max: usize,
    /// Stored dispatches in the largest `growth-postgres` case; they are made by the database itself.
    pub growth_postgres_dispatches_max: usize,
    /// Idle phones in the largest `idle` case.
    pub idle_phones_max: usize,
    /// A PostgreSQL server, by the url of one of its databases, for the scenarios that need one; they are left out without it,
    /// unless they are asked for by name.
    pub postgres: Option<String>,
    /// Takes every line of output.
    pub out: LineSink,
}

impl std::fmt::Debug for BenchOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BenchOptions")
            .field("scenarios", &self.scenarios)
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// Why a benchmark could not be run.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// No such scenario.
    #[error("there is no scenario {name:?}; there are {known}", name = .0, known = SCENARIOS.join(", "))]
    UnknownScenario(String),
    /// The server did not start.
    #[error("the server did not start: {0}")]
    Server(String),
    /// The office's call failed.
    #[error(transparent)]
    Office(#[from] OfficeError),
    /// A phone's store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A phone did not take an action.
    #[error(transparent)]
    Act(#[from] ActError),
    /// An id is none.
    #[error(transparent)]
    Id(#[from] IdError),
    /// The disk or the network.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// SQLite, used bare for comparison.
    #[error("SQLite: {0}")]
    Sqlite(#[from] rusqlite::Error),
    /// The machine does not give what is needed.
    #[error("{0}")]
    Machine(String),
    /// What should have happened did not.
    #[error("{0}")]
    World(String),
}

impl BenchError {
    fn socket(error: tokio_tungstenite::tungstenite::Error) -> Self {
        Self::World(format!("WebSocket: {error}"))
    }
}

/// One run of benchmarks.
struct Bench {
    options: BenchOptions,
}

impl Bench {
    fn wants(&self, scenario: &str) -> bool {
        self.options.scenarios.is_empty() || self.options.scenarios.iter().any(|wanted| wanted == scenario)
    }

    fn say(&self, line: &str) {
        (self.options.out)(line);
    }

    /// A fresh directory on the measured disk; gone when dropped.
    fn dir(&self, name: &str) -> Result<tempfile::TempDir, BenchError> {
        Ok(tempfile::Builder::new().prefix(&format!("bench-{name}-")).tempdir_in(&self.options.dir)?)
    }

    fn technician_token(&self, technician: &TechnicianId) -> String {
        (self.options.server.tokens)(&Caller::Technician(technician.clone()))
    }
}

/// Runs the scenarios one after the other and prints their table. A scenario that fails is said so and the others go on;
/// its error is the result once all have run.
///
/// # Errors
/// [`BenchError`] of the first scenario that failed.
pub async fn run(options: BenchOptions) -> Result<Vec<Row>, BenchError> {
    if let Some(unknown) = options.scenarios.iter().find(|name| !SCENARIOS.contains(&name.as_str())) {
        return Err(BenchError::UnknownScenario(unknown.clone()));
    }
    let bench = Bench { options };
    let mut rows = Vec::new();
    let mut failure = None;
    macro_rules! scenario {
        ($what:expr, [$($name:literal),+], $run:expr) => {
            if $(bench.wants($name))||+ {
                bench.say(&format!("{} …", $what));
                let since = Instant::now();
                match $run.await {
                    Ok(more) => {
                        bench.say(&format!("{} took {:.1} s", $what, since.elapsed().as_secs_f64()));
                        rows.extend(more);
                    }
                    Err(error) => {
                        bench.say(&format!("{} FAILED: {error}", $what));
                        failure.get_or_insert(error);
                    }
                }
            }
        };
    }
    scenario!("local list", ["local-list"], local::list(&bench));
    scenario!("local action", ["local-action"], local::action(&bench));
    scenario!("reconnect, 50 visits", ["reconnect"], prime::run(&bench, 50));
    scenario!("bootstrap and reconnect, 500 visits", ["bootstrap", "reconnect"], prime::run(&bench, 500));
    scenario!("bootstrap and reconnect, 5,000 visits", ["bootstrap", "reconnect"], prime::run(&bench, 5_000));
    scenario!("propagation", ["propagation"], propagation::run(&bench));
    scenario!("offline replay", ["offline-replay"], offline::replay(&bench));
    scenario!("large queue", ["large-queue"], offline::large_queue(&bench));
    scenario!("storm", ["storm"], offline::storm(&bench));
    scenario!("revoke to purged", ["revoke"], offline::revoke(&bench));
    scenario!("idle phones", ["idle"], idle::run(&bench));
    scenario!("growth", ["growth"], growth::run(&bench));
    if bench.options.postgres.is_some() || !bench.options.scenarios.is_empty() {
        scenario!("assign on PostgreSQL", ["assign"], propagation::run_on_postgres(&bench));
        scenario!("reconcile", ["reconcile"], postgres::reconcile(&bench));
        scenario!("growth on PostgreSQL", ["growth-postgres"], postgres::growth(&bench));
    } else {
        bench.say("assign, reconcile and growth-postgres are left out: they need a PostgreSQL server (--postgres URL)");
    }
    bench.say(&render(&rows));
    match failure {
        None => Ok(rows),
        Some(error) => Err(error),
    }
}
