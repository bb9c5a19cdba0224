//! What serde cannot see: ranges, lengths, and settings that only make sense together.

use super::{Config, ConfigError, Database, DatabaseConfig};
use std::path::PathBuf;

impl Config {
    /// Checks what types cannot.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let server = &self.server;
        range("server.body_bytes_max", server.body_bytes_max as u64, 1_024, 16 * 1024 * 1024)?;
        range("server.request_timeout_ms", server.request_timeout_ms, 100, 600_000)?;
        range("server.requests_concurrent_max", server.requests_concurrent_max as u64, 1, 100_000)?;
        range("server.drain_notice_ms", server.drain_notice_ms, 0, 60_000)?;
        range("server.drain_timeout_ms", server.drain_timeout_ms, 0, 600_000)?;
        for origin in &server.cors_origins {
            check_origin(origin)?;
        }
        self.validate_database()?;
        self.validate_auth()?;
        self.kafka.validate()?;
        range("sync.connections_max", self.sync.connections_max as u64, 1, 1_000_000)?;
        range("sync.look_interval_ms", self.sync.look_interval_ms, 50, 60_000)?;
        range("sync.window_days_back", u64::from(self.sync.window_days_back), 0, 366)?;
        Ok(())
    }

    fn validate_database(&self) -> Result<(), ConfigError> {
        let database = &self.database;
        range("database.connections_max", u64::from(database.connections_max), 1, 1_000)?;
        range("database.connect_timeout_ms", database.connect_timeout_ms, 100, 60_000)?;
        range("database.statement_timeout_ms", database.statement_timeout_ms, 100, 600_000)?;
        range("database.retry_ms", database.retry_ms, 0, 60_000)?;
        let named = matches!(database.parse()?, Database::Postgres(_));
        if named && self.auth.secret.is_none() && self.auth.jwks_file.is_none() {
            return Err(error(
                "auth.secret",
                "is not set and database.url names PostgreSQL; set it (CRM_DISPATCH__AUTH__SECRET, at least 32 bytes, the same on \
                 every node) or auth.jwks_file",
            ));
        }
        Ok(())
    }

    fn validate_auth(&self) -> Result<(), ConfigError> {
        let auth = &self.auth;
        for (key, value) in [("auth.issuer", &auth.issuer), ("auth.audience", &auth.audience)] {
            if value.trim().is_empty() {
                return Err(error(key, "is empty; name what tokens say there"));
            }
        }
        for (key, secret) in [("auth.secret", &auth.secret), ("auth.previous_secret", &auth.previous_secret)] {
            if let Some(Err(why)) = secret.as_ref().map(crate::auth::Secret::check) {
                return Err(error(key, &why.to_string()));
            }
        }
        if auth.previous_secret.is_some() && auth.secret.is_none() {
            return Err(error("auth.previous_secret", "is set without auth.secret; set the new one too"));
        }
        range("auth.leeway_seconds", u64::from(auth.leeway_seconds), 0, 300)?;
        range("auth.jwks_recheck_seconds", u64::from(auth.jwks_recheck_seconds), 1, 3_600)?;
        range("auth.token_lifetime_seconds", u64::from(auth.token_lifetime_seconds), 60, 366 * 86_400)?;
        if auth.secret.is_none() && auth.jwks_file.is_none() && !self.server.host.is_loopback() {
            return Err(error(
                "auth.secret",
                &format!(
                    "is not set and server.host is {}; set it (CRM_DISPATCH__AUTH__SECRET, at least 32 bytes) or auth.jwks_file, \
                     or listen on 127.0.0.1",
                    self.server.host
                ),
            ));
        }
        Ok(())
    }
}

impl DatabaseConfig {
    /// What the url names.
    ///
    /// # Errors
    /// [`ConfigError`] when this release cannot open it. The url itself is not repeated: it may hold a password.
    pub fn parse(&self) -> Result<Database, ConfigError> {
        if self.url.starts_with("postgres://") || self.url.starts_with("postgresql://") {
            return Ok(Database::Postgres(self.url.clone()));
        }
        match self.url.strip_prefix("sqlite://") {
            Some(path) if !path.is_empty() && !path.contains('?') => Ok(Database::SqliteFile(PathBuf::from(path))),
            _ => Err(error(
                "database.url",
                "is no database url; use postgres://USER:PASSWORD@HOST:PORT/DATABASE or sqlite://PATH",
            )),
        }
    }
}

pub(super) fn error(key: &str, why: &str) -> ConfigError {
    ConfigError(format!("{key} {why}"))
}

pub(super) fn range(key: &str, value: u64, min: u64, max: u64) -> Result<(), ConfigError> {
    if (min..=max).contains(&value) { Ok(()) } else { Err(error(key, &format!("is {value}; use {min} to {max}"))) }
}

/// An origin is scheme, host and port, nothing else; `*` would let any page act for a signed-in dispatcher.
fn check_origin(origin: &str) -> Result<(), ConfigError> {
    let rest = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    let fine = rest.is_some_and(|rest| {
        !rest.is_empty()
            && rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b':' | b'[' | b']'))
    });
    if fine {
        Ok(())
    } else {
        Err(error("server.cors_origins", &format!("has {origin:?}; use origins like https://office.example.com")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::fs;

    fn load(variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let environment = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(None, environment.collect::<HashMap<_, _>>())
    }

    #[test]
    fn without_any_setting_the_embedded_defaults_serve_on_loopback() {
        let config = load(&[]).unwrap();
        assert_eq!(config.server.address().to_string(), "127.0.0.1:9405");
        assert_eq!(config.database.parse().unwrap(), Database::SqliteFile(PathBuf::from("var/crm-dispatch.db")));
        assert_eq!(config.development_secret_path(), Some(PathBuf::from("var/crm-dispatch.secret")));
    }

    #[test]
    fn the_environment_overrides_the_file_and_the_file_the_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("office.toml");
        fs::write(&file, "[server]\nport = 1111\nbody_bytes_max = 4096\n").unwrap();
        let environment = HashMap::from([
            ("CRM_DISPATCH__SERVER__PORT".to_owned(), "2222".to_owned()),
            ("CRM_DISPATCH__SERVER__CORS_ORIGINS".to_owned(), "https://a.example, https://b.example:8443".to_owned()),
            (super::super::CONFIG_FILE_VARIABLE.to_owned(), file.display().to_string()),
        ]);
        let config = Config::load(None, environment).unwrap();
        assert_eq!((config.server.port, config.server.body_bytes_max), (2222, 4096));
        assert_eq!(config.server.cors_origins, ["https://a.example", "https://b.example:8443"]);
        assert_eq!(config.log.level, "info");
    }

    #[test]
    fn a_typing_error_is_named() {
        let error = load(&[("CRM_DISPATCH__SERVER__PROT", "1")]).unwrap_err().to_string();
        assert!(error.contains("prot") && error.contains("port"), "{error}");
        let error = load(&[("CRM_DISPATCH__SERVER__PORT", "many")]).unwrap_err().to_string();
        assert!(error.contains("server.port") && !error.contains('\n'), "{error}");
    }

    const KAFKA: (&str, &str) = ("CRM_DISPATCH__KAFKA__BROKERS", "kafka:9092");
    const CONSUME: ((&str, &str), (&str, &str)) =
        (("CRM_DISPATCH__KAFKA__CONSUME__ENABLED", "true"), ("CRM_DISPATCH__KAFKA__CONSUME__TENANTS", "tenant-001"));

    #[test]
    fn each_impossible_setting_names_its_key_and_a_remedy() {
        let long = "s".repeat(32);
        let cases: [(&[(&str, &str)], &str); 22] = [
            (
                &[("CRM_DISPATCH__DATABASE__URL", "postgres://u:hunter2@db/x")],
                "auth.secret is not set and database.url",
            ),
            (&[("CRM_DISPATCH__DATABASE__CONNECTIONS_MAX", "0")], "database.connections_max is 0; use 1 to 1000"),
            (&[("DATABASE_URL", "redis://:hunter2@cache")], "database.url is no database url"),
            (&[("CRM_DISPATCH__DATABASE__URL", "mysql://db")], "database.url is no database url"),
            (&[("CRM_DISPATCH__SERVER__HOST", "0.0.0.0")], "auth.secret is not set and server.host is 0.0.0.0"),
            (&[("CRM_DISPATCH__AUTH__SECRET", "too short")], "auth.secret must have at least 32 bytes, has 9"),
            (&[("CRM_DISPATCH__AUTH__PREVIOUS_SECRET", &long)], "auth.previous_secret is set without auth.secret"),
            (&[("CRM_DISPATCH__SERVER__BODY_BYTES_MAX", "1")], "server.body_bytes_max is 1; use 1024 to"),
            (&[("CRM_DISPATCH__SERVER__CORS_ORIGINS", "*")], "server.cors_origins has \"*\""),
            (&[("CRM_DISPATCH__AUTH__ISSUER", " ")], "auth.issuer is empty"),
            (&[("CRM_DISPATCH__KAFKA__BROKERS", "kafka-1")], "kafka.brokers has \"kafka-1\"; use HOST:PORT"),
            (&[("CRM_DISPATCH__KAFKA__TOPIC_PREFIX", "a b")], "kafka.topic_prefix is no part of a topic's name"),
            (
                &[("CRM_DISPATCH__KAFKA__SECURITY_PROTOCOL", "sasl_ssl")],
                "kafka.security_protocol needs kafka.sasl_username",
            ),
            (
                &[
                    ("CRM_DISPATCH__KAFKA__SECURITY_PROTOCOL", "sasl_plaintext"),
                    ("CRM_DISPATCH__KAFKA__SASL_USERNAME", "dispatch"),
                    ("CRM_DISPATCH__KAFKA__SASL_PASSWORD", "hunter2"),
                ],
                "kafka.sasl_mechanism is PLAIN on an open connection",
            ),
            (
                &[("CRM_DISPATCH__KAFKA__BROKERS", "k:9092"), ("CRM_DISPATCH__KAFKA__ENCODING", "avro")],
                "kafka.encoding is avro, which needs kafka.schema_registry_url",
            ),
            (&[("CRM_DISPATCH__KAFKA__SCHEMA_REGISTRY_URL", "http://u:hunter2@r")], "without user and password"),
            (&[("CRM_DISPATCH__KAFKA__LINGER_MS", "2000")], "kafka.linger_ms is 2000; use 0 to 1000"),
            (&[("CRM_DISPATCH__KAFKA__CONSUME__ENABLED", "true")], "kafka.consume.enabled needs kafka.brokers"),
            (
                &[KAFKA, ("CRM_DISPATCH__KAFKA__CONSUME__ENABLED", "true")],
                "kafka.consume.tenants is empty; name the tenants",
            ),
            (
                &[KAFKA, CONSUME.0, CONSUME.1, ("CRM_DISPATCH__KAFKA__CONSUME__TOPICS__SLA_BREACHED", "a topic")],
                "kafka.consume.topics has \"a topic\"",
            ),
            (
                &[
                    KAFKA,
                    CONSUME.0,
                    CONSUME.1,
                    ("CRM_DISPATCH__KAFKA__CONSUME__DEAD_LETTER_TOPIC", "inventory.stock.changed"),
                ],
                "kafka.consume.topics has \"inventory.stock.changed\" twice",
            ),
            (
                &[KAFKA, CONSUME.0, CONSUME.1, ("CRM_DISPATCH__KAFKA__CONSUME__PARALLEL_MAX", "0")],
                "kafka.consume.parallel_max is 0; use 1 to 1000",
            ),
        ];
        for (variables, expected) in cases {
            let error = load(variables).unwrap_err().to_string();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn no_secret_is_ever_printed() {
        let secret = "a-secret-of-more-than-thirty-two-bytes";
        let mut config =
            load(&[("CRM_DISPATCH__AUTH__SECRET", secret), ("CRM_DISPATCH__SERVER__HOST", "0.0.0.0")]).unwrap();
        for url in [
            "postgres://office:hunter2@db/dispatch",
            "postgres://office:hun?er2@hunter2@db/dispatch",
            "postgres://db/dispatch?user=office&password=hunter2",
            "postgres:hunter2@db",
        ] {
            config.database.url = url.to_owned();
            let printed = format!("{config:?} {:?}", config.database.parse());
            assert!(!printed.contains(secret) && !printed.contains("hunter2"), "{printed}");
        }
        assert_eq!(
            Database::Postgres("postgres://a:hunter2@db:1/x?sslmode=require".into()).to_string(),
            "postgres://db:1/x"
        );
    }

    #[test]
    fn the_plain_variable_names_the_database_where_nothing_else_does() {
        let plain = ("DATABASE_URL", "sqlite://plain.db");
        let file = |variables: &[(&str, &str)]| load(variables).unwrap().database.parse().unwrap();
        assert_eq!(file(&[plain]), Database::SqliteFile(PathBuf::from("plain.db")));
        let own = ("CRM_DISPATCH__DATABASE__URL", "sqlite://own.db");
        assert_eq!(file(&[plain, own]), Database::SqliteFile(PathBuf::from("own.db")));
    }
}
