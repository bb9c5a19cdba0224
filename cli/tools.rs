//! The small commands.

use crate::args::{IngestOptions, RoleName, TokenOptions};
use crate::{Failure, say};
use crm_dispatch_server::app::{Parts, TokenIssuer, open_store, service};
use crm_dispatch_server::auth::TokenRequest;
use crm_dispatch_server::config::{Config, DEFAULT_TOML};
use crm_dispatch_server::service::{Caller, Role};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::ExitCode;

impl From<RoleName> for Role {
    fn from(name: RoleName) -> Self {
        match name {
            RoleName::Dispatcher => Self::Dispatcher,
            RoleName::Technician => Self::Technician,
            RoleName::Integration => Self::Integration,
            RoleName::Admin => Self::Admin,
        }
    }
}

pub(crate) fn token(file: Option<&Path>, options: &TokenOptions) -> Result<ExitCode, Failure> {
    let config = Config::from_environment(file)?;
    let issuer = TokenIssuer::new(&config)?.ok_or(
        "this configuration trusts published keys only (auth.jwks_file); ask the identity provider for a token",
    )?;
    let request = TokenRequest {
        sub: options.sub.clone(),
        tenant: options.tenant.clone(),
        roles: options.role.iter().copied().map(Role::from).collect(),
        technician: options.technician.clone(),
        device: options.device.clone(),
    };
    say(match options.hours {
        Some(hours) => issuer.issue_for(&request, i64::from(hours) * 3600)?,
        None => issuer.issue(&request)?,
    });
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn migrate(file: Option<&Path>) -> Result<ExitCode, Failure> {
    let (store, database) = open_store(&Config::from_environment(file)?).await?;
    store.close().await;
    say(format_args!("{database} is up to date"));
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn restored(file: Option<&Path>) -> Result<ExitCode, Failure> {
    let (store, database) = open_store(&Config::from_environment(file)?).await?;
    store.renew_identity().await?;
    store.close().await;
    say(format_args!("{database} has a new identity; phones will notice it and give again what was lost"));
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn ingest(file: Option<&Path>, options: &IngestOptions) -> Result<ExitCode, Failure> {
    let config = Config::from_environment(file)?;
    let (store, _) = open_store(&config).await?;
    let service = service(&store, &config, Parts::default());
    let caller = Caller {
        tenant: options.tenant.clone(),
        user: "ingest".parse()?,
        roles: vec![Role::Integration],
        technician: None,
    };
    let input: Box<dyn BufRead> = if options.file == Path::new("-") {
        Box::new(std::io::stdin().lock())
    } else {
        let name = options.file.display();
        let file = std::fs::File::open(&options.file).map_err(|error| format!("{name}: {error}"))?;
        Box::new(BufReader::new(file))
    };
    let (mut taken, mut refused) = (0_u64, 0_u64);
    for (number, line) in input.lines().enumerate() {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        match service.ingest(&caller, &line).await {
            Ok(ingested) => {
                taken += 1;
                tracing::debug!(?ingested, "taken");
            }
            Err(error) => {
                refused += 1;
                say(format_args!("line {}: {}: {error}", number + 1, error.code()));
            }
        }
    }
    store.close().await;
    say(format_args!("{taken} taken, {refused} refused"));
    Ok(if refused == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn openapi() -> Result<ExitCode, Failure> {
    say(serde_json::to_string_pretty(&crm_dispatch_server::http::openapi())?);
    Ok(ExitCode::SUCCESS)
}

pub(crate) fn default_config() -> Result<ExitCode, Failure> {
    say(DEFAULT_TOML);
    Ok(ExitCode::SUCCESS)
}
