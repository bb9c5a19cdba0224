//! `serve`.

use crate::args::ServeOptions;
use crate::{Failure, say};
use crm_dispatch_server::app::{Parts, Server};
use crm_dispatch_server::config::Config;
use crm_dispatch_server::http::METRICS_PATH;
use crm_dispatch_server::telemetry;
use std::path::Path;
use std::process::ExitCode;

pub(crate) async fn run(file: Option<&Path>, options: &ServeOptions) -> Result<ExitCode, Failure> {
    let mut config = Config::from_environment(file)?;
    if let Some(port) = options.port {
        config.server.port = port;
    }
    telemetry::init(&config.log)?;
    let server = Server::start(config, Parts::default()).await?;
    say(format_args!("listening on {}", server.url()));
    say(format_args!("API documentation: {}/docs", server.url()));
    if let Some(address) = server.admin_address() {
        say(format_args!("figures on http://{address}{METRICS_PATH}"));
    }
    asked_to_stop().await?;
    tracing::info!("stopping: requests under way finish, phones are told when to come back");
    server.shutdown().await;
    Ok(ExitCode::SUCCESS)
}

/// Resolves when the process is asked to end: Ctrl-C, or a supervisor's TERM.
pub(crate) async fn asked_to_stop() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result,
            _ = term.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
