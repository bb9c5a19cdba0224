//! Configuration in layers: the embedded, commented `default.toml`, then a file, then the environment.
//!
//! An unknown name is an error, and every error is one line that names the key and the remedy.

mod consume;
mod kafka;
mod validate;

pub use consume::{ConsumeConfig, ConsumeTopics};
pub use kafka::{Encoding, KafkaConfig, SaslMechanism, SecurityProtocol};

use crate::auth::Secret;
use config::{Environment, File, FileFormat};
use serde::{Deserialize, Deserializer};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The commented defaults, as text: what the `config` command prints.
pub const DEFAULT_TOML: &str = include_str!("../../config/default.toml");
/// Names a configuration file, where `--config` does not.
pub const CONFIG_FILE_VARIABLE: &str = "CRM_DISPATCH_CONFIG";
/// Names the database, where neither a file nor [`VARIABLE_PREFIX`]'s variable does.
pub const DATABASE_URL_VARIABLE: &str = "DATABASE_URL";
/// Every variable that starts with it is a setting: `CRM_DISPATCH__SERVER__PORT`.
pub const VARIABLE_PREFIX: &str = "CRM_DISPATCH";

/// Everything that can be set.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Listening and limits.
    pub server: ServerConfig,
    /// Where everything is kept.
    pub database: DatabaseConfig,
    /// The operator's listener.
    pub admin: AdminConfig,
    /// Who is let in.
    pub auth: AuthConfig,
    /// Phones.
    pub sync: SyncConfig,
    /// Where events are told.
    pub kafka: KafkaConfig,
    /// What is logged.
    pub log: LogConfig,
}

/// Listening and limits.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServerConfig {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port; 0 takes a free one.
    pub port: u16,
    /// Largest request body, bytes.
    pub body_bytes_max: usize,
    /// A request that takes longer is given up.
    pub request_timeout_ms: u64,
    /// Requests answered at the same time.
    pub requests_concurrent_max: usize,
    /// On shutdown, how long requests are still taken while the server says that it is not ready.
    pub drain_notice_ms: u64,
    /// On shutdown, how long requests under way may take.
    pub drain_timeout_ms: u64,
    /// Web pages that may call from a browser.
    #[serde(deserialize_with = "list")]
    pub cors_origins: Vec<String>,
}

/// The operator's listener: figures, without a token.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdminConfig {
    /// Address to listen on.
    pub host: IpAddr,
    /// Port; 0 takes a free one. `None`: no figures.
    #[serde(default)]
    pub port: Option<u16>,
}

/// Where everything is kept.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatabaseConfig {
    /// `sqlite://PATH` or `postgres://USER:PASSWORD@HOST:PORT/DATABASE`.
    pub url: String,
    /// PostgreSQL: most connections that read; beside them each writer has one.
    pub connections_max: u32,
    /// PostgreSQL: how long making a connection may take.
    pub connect_timeout_ms: u64,
    /// PostgreSQL: a statement that takes longer is given up.
    pub statement_timeout_ms: u64,
    /// PostgreSQL: how long calls wait for a database that cannot be reached before they fail.
    pub retry_ms: u64,
}

/// The database a url names.
#[derive(Clone, PartialEq, Eq)]
pub enum Database {
    /// A file.
    SqliteFile(PathBuf),
    /// A PostgreSQL database: its url.
    Postgres(String),
}

impl std::fmt::Display for Database {
    /// Where it is, without user and password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SqliteFile(path) => write!(f, "{}", path.display()),
            Self::Postgres(url) => f.write_str(&without_user(url)),
        }
    }
}

impl std::fmt::Debug for Database {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Database({self})")
    }
}

/// A url without user, password and parameters, any of which may hold a secret.
fn without_user(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let place = rest.split('?').next().unwrap_or_default();
    // A password that was not percent-encoded may hold an `@` or a `?`.
    let place = place.rsplit('@').next().unwrap_or_default();
    if rest.contains('@') && !rest.split('?').next().unwrap_or_default().contains('@') {
        return format!("{scheme}://…");
    }
    format!("{scheme}://{place}")
}

/// Who is let in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// A token's `iss`.
    pub issuer: String,
    /// A token's `aud`.
    pub audience: String,
    /// How far a token's times may be off.
    pub leeway_seconds: u32,
    /// Signs tokens (HS256).
    #[serde(default)]
    pub secret: Option<Secret>,
    /// The one before it, still accepted.
    #[serde(default)]
    pub previous_secret: Option<Secret>,
    /// Published keys (RS256, ES256, EdDSA).
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    /// How often that file is looked at.
    pub jwks_recheck_seconds: u32,
    /// How long a token of the `token` command is valid.
    pub token_lifetime_seconds: u32,
}

/// Phones.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SyncConfig {
    /// Phones connected at the same time.
    pub connections_max: usize,
    /// A phone lets a visit go this many days after it ended, or was scheduled to end.
    pub window_days_back: u32,
    /// How often it is looked whether feeds of connected phones grew without a word.
    pub look_interval_ms: u64,
}

/// What is logged.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LogConfig {
    /// For whom.
    pub format: LogFormat,
    /// A level, or directives.
    pub level: String,
}

/// For whom the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For machines: one JSON object a line.
    Json,
}

/// A setting that cannot be used. One line: which key, why, what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("configuration: {0}")]
pub struct ConfigError(pub(crate) String);

impl Config {
    /// The defaults, then `file` (or the file that [`CONFIG_FILE_VARIABLE`] names), then the `environment`'s variables.
    ///
    /// # Errors
    /// [`ConfigError`] when a name is unknown, or a value impossible.
    pub fn load(file: Option<&Path>, mut environment: HashMap<String, String>) -> Result<Self, ConfigError> {
        let named = environment.remove(CONFIG_FILE_VARIABLE).map(PathBuf::from);
        let mut builder = config::Config::builder().add_source(File::from_str(DEFAULT_TOML, FileFormat::Toml));
        if let Some(url) = environment.remove(DATABASE_URL_VARIABLE) {
            let fallback = Environment::default().separator("__");
            builder = builder.add_source(fallback.source(Some(HashMap::from([("database__url".to_owned(), url)]))));
        }
        if let Some(path) = file.or(named.as_deref()) {
            builder = builder.add_source(File::from(path).format(FileFormat::Toml).required(true));
        }
        let variables = Environment::with_prefix(VARIABLE_PREFIX).prefix_separator("__").separator("__");
        let config: Self = builder
            .add_source(variables.source(Some(environment)))
            .build()
            .and_then(config::Config::try_deserialize)
            .map_err(|error| {
                ConfigError(format!("{}; `crm-dispatch config` prints every setting", one_line(&error)))
            })?;
        config.validate()?;
        Ok(config)
    }

    /// [`Self::load`] with the process's environment.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn from_environment(file: Option<&Path>) -> Result<Self, ConfigError> {
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .filter(|(name, _)| name.starts_with(VARIABLE_PREFIX) || name == DATABASE_URL_VARIABLE)
            .collect();
        Self::load(file, environment)
    }

    /// Where the secret is kept that was made because none was set: beside the database.
    #[must_use]
    pub fn development_secret_path(&self) -> Option<PathBuf> {
        match self.database.parse().ok()? {
            Database::SqliteFile(path) => Some(path.with_extension("secret")),
            Database::Postgres(_) => None,
        }
    }
}

impl ServerConfig {
    /// Address and port to listen on.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        SocketAddr::new(self.host, self.port)
    }

    /// A request that takes longer is given up.
    #[must_use]
    pub fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.request_timeout_ms)
    }

    /// On shutdown, how long requests are still taken while the server says that it is not ready.
    #[must_use]
    pub fn drain_notice(&self) -> Duration {
        Duration::from_millis(self.drain_notice_ms)
    }

    /// On shutdown, how long requests under way may take.
    #[must_use]
    pub fn drain_timeout(&self) -> Duration {
        Duration::from_millis(self.drain_timeout_ms)
    }
}

impl SyncConfig {
    /// How often it is looked whether feeds of connected phones grew without a word.
    #[must_use]
    pub fn look_every(&self) -> Duration {
        Duration::from_millis(self.look_interval_ms)
    }
}

impl AdminConfig {
    /// Address and port to listen on; `None` where there is no such listener.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        self.port.map(|port| SocketAddr::new(self.host, port))
    }
}

impl std::fmt::Debug for DatabaseConfig {
    /// Without what may be a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseConfig").field("url", &without_user(&self.url)).finish_non_exhaustive()
    }
}

/// A list, or a text of values separated by commas, which is all that an environment variable can hold.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    struct ListOrText;
    impl<'de> serde::de::Visitor<'de> for ListOrText {
        type Value = Vec<String>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a list of texts")
        }
        fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Vec<String>, E> {
            Ok(text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect())
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut access: A) -> Result<Vec<String>, A::Error> {
            let mut values = Vec::new();
            while let Some(value) = access.next_element()? {
                values.push(value);
            }
            Ok(values)
        }
    }
    deserializer.deserialize_any(ListOrText)
}

fn one_line(error: &config::ConfigError) -> String {
    error.to_string().lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join(" ")
}
