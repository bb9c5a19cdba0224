//! Logging: text for people, JSON for machines, to standard error. And figures ([`metrics`]).

pub mod metrics;

use crate::config::{LogConfig, LogFormat};
use tracing_subscriber::EnvFilter;

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level or a directive makes no sense.
    #[error(
        "configuration: log.level is {level:?}; use error, warn, info, debug, trace, or directives like info,hyper=warn"
    )]
    Level {
        /// As it was set.
        level: String,
    },
    /// It was set up before.
    #[error("logging was set up before")]
    Again,
}

/// Starts logging for the whole process. Call it once, before anything is worth logging.
///
/// # Errors
/// [`TelemetryError`] when the level makes no sense, or logging was started before.
pub fn init(config: &LogConfig) -> Result<(), TelemetryError> {
    let filter =
        EnvFilter::try_new(&config.level).map_err(|_| TelemetryError::Level { level: config.level.clone() })?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match config.format {
        LogFormat::Text => builder.with_target(false).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init(),
    }
    .map_err(|_| TelemetryError::Again)
}
