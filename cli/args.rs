//! The command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use sync_core::domain::{DeviceId, TechnicianId, TenantId, UserId};

/// Dispatch for field technicians: offline-first phones, a REST back office, events.
///
/// Without a command it runs `demo`: a whole working day of fourteen technicians in about a minute, checked for losses; then it
/// keeps serving, so that you can look around.
#[derive(Debug, Parser)]
#[command(name = "crm-dispatch", version, about, long_about)]
pub(crate) struct Arguments {
    /// A configuration file; `crm-dispatch config` prints one with every setting and its default. The environment overrides
    /// it: CRM_DISPATCH__SERVER__PORT=9500.
    #[arg(long, global = true, value_name = "FILE", env = "CRM_DISPATCH_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    #[command(subcommand)]
    command: Option<Command>,
}

impl Arguments {
    /// What is asked for; the demo where nothing is.
    pub(crate) fn asked(self) -> Command {
        self.command.unwrap_or_else(|| Command::Demo(DemoOptions::parse_from(["demo"])))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve REST and phones until stopped.
    Serve(ServeOptions),
    /// Play a technician's day: a server, fourteen phones, sixty visits, networks that fail, an office that changes its mind.
    ///
    /// Takes about a minute, prints what happened, and checks that everything done on a phone is on the server; the exit
    /// code says so too. Then it keeps serving, with tokens to try.
    Demo(DemoOptions),
    /// Measure: each figure beside its budget. Use a release build.
    ///
    /// Example: crm-dispatch bench reconnect propagation
    Bench(BenchOptions),
    /// Print a token that the server accepts, for trying things out.
    ///
    /// Example: crm-dispatch token --role dispatcher --role admin
    Token(TokenOptions),
    /// Make or migrate the database, and say where it is. `serve` does the same at its start.
    Migrate,
    /// Take in consumed events from a file: one JSON envelope a line, as Service Orders publishes them.
    ///
    /// Safe to repeat: an event is taken once, whatever happens.
    Ingest(IngestOptions),
    /// Show the events that Kafka brought and that could not be consumed; with --retry, try them again.
    ///
    /// Letters stay in their topic until it forgets them. Trying again is safe to repeat: an event has its effect once.
    DeadLetters(DeadLettersOptions),
    /// Tell a database that it was restored from a backup, before serving from it: phones then give again what it lost.
    Restored,
    /// The audit trail: who did what, in chains of lines of which each names the one before it.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Print the OpenAPI document of the REST API.
    Openapi,
    /// Print the commented default configuration.
    Config,
}

#[derive(Debug, Args)]
pub(crate) struct ServeOptions {
    /// The port to listen on, instead of the configured one; 0 takes a free one and says which.
    #[arg(long)]
    pub(crate) port: Option<u16>,
}

#[derive(Debug, Parser)]
pub(crate) struct DemoOptions {
    /// End after the report instead of serving on.
    #[arg(long)]
    pub(crate) once: bool,
    /// One seed gives one script: outages, clocks, answers.
    #[arg(long, default_value_t = 2026)]
    pub(crate) seed: u64,
    /// Simulated seconds in a real one; 720 plays the day in less than a minute.
    #[arg(long, default_value_t = 720.0)]
    pub(crate) speed: f64,
    /// The port to listen on, instead of the configured one; 0 takes a free one and says which.
    #[arg(long)]
    pub(crate) port: Option<u16>,
    /// Keep the databases here; a temporary directory otherwise.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) dir: Option<PathBuf>,
    /// Whose data.
    #[arg(long, default_value = "tenant-001")]
    pub(crate) tenant: TenantId,
}

#[derive(Debug, Args)]
pub(crate) struct BenchOptions {
    /// Which; all when none is named.
    #[arg(value_parser = crate::bench::scenarios())]
    pub(crate) scenarios: Vec<String>,
    /// Where databases are kept meanwhile: it is this disk that is measured. A temporary directory otherwise.
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) dir: Option<PathBuf>,
    /// Write the figures here as JSON lines, instead of printing them.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Stored dispatches in the largest growth case.
    #[arg(long, default_value_t = 100_000)]
    pub(crate) growth: usize,
    /// Stored dispatches in the largest growth-postgres case.
    #[arg(long, default_value_t = 1_000_000)]
    pub(crate) growth_postgres: usize,
    /// A PostgreSQL server for assign, reconcile, growth-postgres and relay: the url of one of its databases, of a user who may make
    /// others.
    #[arg(long, value_name = "URL", env = "TEST_POSTGRES_URL", hide_env_values = true)]
    pub(crate) postgres: Option<String>,
    /// A Kafka cluster for relay: HOST:PORT of some brokers, separated by commas.
    #[arg(long, value_name = "BROKERS", env = "TEST_KAFKA_BROKERS")]
    pub(crate) brokers: Option<String>,
    /// Connected phones in the largest idle case.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) phones: usize,
}

#[derive(Debug, Args)]
pub(crate) struct TokenOptions {
    /// What the caller may do; repeat for more.
    #[arg(long, value_enum, required = true)]
    pub(crate) role: Vec<RoleName>,
    /// Whose data.
    #[arg(long, default_value = "tenant-001")]
    pub(crate) tenant: TenantId,
    /// Who.
    #[arg(long, default_value = "cli")]
    pub(crate) sub: UserId,
    /// Which technician; needed with `--role technician`.
    #[arg(long)]
    pub(crate) technician: Option<TechnicianId>,
    /// Only for this device.
    #[arg(long)]
    pub(crate) device: Option<DeviceId>,
    /// Valid for this many hours instead of the configured time.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=8760))]
    pub(crate) hours: Option<u32>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum RoleName {
    /// Plans visits.
    Dispatcher,
    /// Goes there.
    Technician,
    /// Another system.
    Integration,
    /// Everything a dispatcher may, and the master data and devices.
    Admin,
}

#[derive(Debug, Args)]
pub(crate) struct IngestOptions {
    /// The file; `-` for standard input.
    pub(crate) file: PathBuf,
    /// Whose data; each line must name the same tenant.
    #[arg(long, default_value = "tenant-001")]
    pub(crate) tenant: TenantId,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Walk the hash chain of every dispatch, technician, site and device, and say where one breaks.
    ///
    /// Finds lines that were changed, removed, moved or slipped in, and chains whose end, or all of which, was cut off. Each broken chain is
    /// printed with the first line that is wrong; the exit code is then 1. The server may go on working meanwhile, and memory does
    /// not grow with the trail. The database is opened as `serve` opens it, so one of an older release is migrated.
    ///
    /// Not seen by it: an end that was cut off together with the recorded end of its chain, a chain that was removed with it, and hashes that
    /// were all computed anew from some line on. Whoever may write to the database can do that; compare with a copy
    /// that they cannot write to.
    ///
    /// Examples:
    ///   crm-dispatch audit verify
    ///   crm-dispatch audit verify --tenant tenant-001 --aggregate dispatch:DSP-7
    #[command(verbatim_doc_comment)]
    Verify(AuditVerifyOptions),
}

#[derive(Debug, Args)]
pub(crate) struct AuditVerifyOptions {
    /// Only the chains of this tenant.
    #[arg(long)]
    pub(crate) tenant: Option<TenantId>,
    /// Only this chain: dispatch:DSP-7, technician:TECH-10, location:LOC-10 or device:phone-1.
    #[arg(long, requires = "tenant")]
    pub(crate) aggregate: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct DeadLettersOptions {
    /// Try them again, now that their cause is gone.
    #[arg(long)]
    pub(crate) retry: bool,
    /// Only those with this code: LOCATION_NOT_FOUND.
    #[arg(long)]
    pub(crate) code: Option<String>,
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        super::Arguments::command().debug_assert();
    }
}
