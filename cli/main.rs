//! `crm-dispatch`: the one binary. The server, its tools, a day to look at, and the benchmarks.

mod args;
mod audit;
mod bench;
#[cfg(feature = "kafka")]
mod bench_relay;
mod dead_letters;
mod demo;
mod serve;
mod tools;

use args::{Arguments, AuditCommand, Command};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("the async runtime did not start: {error}")),
    };
    match runtime.block_on(run(arguments)) {
        Ok(code) => code,
        Err(message) => fail(&message.to_string()),
    }
}

/// Every command's failure, as a person reads it: one line with the remedy.
type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let file = arguments.config.clone();
    let config = file.as_deref();
    match arguments.asked() {
        Command::Serve(options) => serve::run(config, &options).await,
        Command::Demo(options) => demo::run(config, &options).await,
        Command::Bench(options) => bench::run(&options).await,
        Command::Token(options) => tools::token(config, &options),
        Command::Migrate => tools::migrate(config).await,
        Command::Ingest(options) => tools::ingest(config, &options).await,
        Command::DeadLetters(options) => dead_letters::run(config, &options).await,
        Command::Restored => tools::restored(config).await,
        Command::Audit(AuditCommand::Verify(options)) => audit::verify(config, &options).await,
        Command::Openapi => tools::openapi(),
        Command::Config => tools::default_config(),
    }
}

fn fail(message: &str) -> ExitCode {
    use std::io::Write;
    // With standard error closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "crm-dispatch: {message}");
    ExitCode::FAILURE
}

/// Prints a line to standard output; a closed pipe (`| head`) is no failure.
fn say(line: impl std::fmt::Display) {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}
