//! `demo`: a technician's day, end to end, on a server of its own.

use crate::args::DemoOptions;
use crate::serve::asked_to_stop;
use crate::{Failure, say};
use crm_dispatch_server::app::{Parts, Server, TokenIssuer};
use crm_dispatch_server::auth::TokenRequest;
use crm_dispatch_server::config::Config;
use crm_dispatch_server::service::{Clock, IdSource, Role, SystemClock};
use crm_dispatch_server::telemetry;
use fleet::city::City;
use fleet::clock::DayClock;
use fleet::demo;
use fleet::office::Caller;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use sync_core::domain::{TechnicianId, TenantId, Timestamp};

/// How long the printed tokens are good for.
const TOKEN_SECONDS: i64 = 24 * 3600;
/// Whose part a visitor may take.
const VISITOR: &str = "TECH-10";

/// The server's time is the demo's.
struct DemoTime(DayClock);

impl Clock for DemoTime {
    fn now(&self) -> Timestamp {
        self.0.now()
    }
}

pub(crate) async fn run(file: Option<&Path>, options: &DemoOptions) -> Result<ExitCode, Failure> {
    let kept = options.dir.is_some();
    let temporary = tempfile::tempdir()?;
    let dir = options.dir.clone().unwrap_or_else(|| temporary.path().to_owned());
    std::fs::create_dir_all(&dir)?;
    let database = dir.join("server.sqlite");
    if database.exists() {
        return Err(format!("{} is there already; the demo wants an empty directory", database.display()).into());
    }
    let mut config = Config::from_environment(file)?;
    config.database.url = format!("sqlite://{}", database.display());
    if let Some(port) = options.port {
        config.server.port = port;
    }
    "warn".clone_into(&mut config.log.level);
    telemetry::init(&config.log)?;

    let city = City::vienna()?.on_day(SystemClock.now());
    let clock = DayClock::starting_at(demo::opening_time(&city), 1.0);
    let parts = Parts { clock: Arc::new(DemoTime(clock.clone())), ids: IdSource::random() };
    let server = Server::start(config, parts).await?;
    say(format_args!("server on {} with embedded SQLite in {}", server.url(), dir.display()));
    let issuer = server.issuer().cloned().ok_or("the demo signs its own tokens: leave auth.jwks_file unset")?;
    let report = demo::run(demo::DemoOptions {
        base_url: server.url(),
        tokens: tokens(issuer.clone(), options.tenant.clone()),
        tenant: options.tenant.clone(),
        dir: dir.clone(),
        seed: options.seed,
        city,
        clock,
        scale: options.speed,
        out: Arc::new(|line| say(line)),
    })
    .await?;
    let code = if report.passed() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    if !options.once {
        invite(&server, &issuer, &options.tenant)?;
        asked_to_stop().await?;
    }
    server.shutdown().await;
    if kept {
        say(format_args!("the databases of the server and of every phone are in {}", dir.display()));
    }
    Ok(code)
}

/// Signs a token for whoever speaks.
pub(crate) fn tokens(issuer: TokenIssuer, tenant: TenantId) -> fleet::office::TokenIssuer {
    // A token that cannot be signed is answered as an empty one, which the server refuses and names.
    Arc::new(move |caller| {
        request(caller, &tenant)
            .and_then(|request| issuer.issue_for(&request, TOKEN_SECONDS).map_err(Into::into))
            .unwrap_or_default()
    })
}

fn request(caller: &Caller, tenant: &TenantId) -> Result<TokenRequest, Failure> {
    let (sub, role, technician) = match caller {
        Caller::Dispatcher => ("demo-dispatcher", Role::Dispatcher, None),
        Caller::Integration => ("demo-service-orders", Role::Integration, None),
        Caller::Admin => ("demo-admin", Role::Admin, None),
        Caller::Technician(technician) => (technician.as_str(), Role::Technician, Some(technician.clone())),
    };
    Ok(TokenRequest { sub: sub.parse()?, tenant: tenant.clone(), roles: vec![role], technician, device: None })
}

/// What to try now.
fn invite(server: &Server, issuer: &TokenIssuer, tenant: &TenantId) -> Result<(), Failure> {
    let url = server.url();
    let base = format!("{url}{}", fleet::office::BASE_PATH);
    let request = TokenRequest {
        sub: "demo-visitor".parse()?,
        tenant: tenant.clone(),
        roles: vec![Role::Dispatcher, Role::Integration, Role::Admin],
        technician: None,
        device: None,
    };
    let token = issuer.issue_for(&request, TOKEN_SECONDS)?;
    say("");
    say("The server goes on, its clock at its evening and at real pace. To look around:");
    say(format_args!("  export TOKEN={token}"));
    for path in ["/requests?status=COMPLETED&limit=3", "/exceptions", "/devices", "/events?limit=5", "/DSP-1/report"] {
        say(format_args!("  curl -s -H \"Authorization: Bearer $TOKEN\" '{base}{path}'"));
    }
    let technician = TechnicianId::new(VISITOR)?;
    let request = TokenRequest {
        sub: VISITOR.parse()?,
        tenant: tenant.clone(),
        roles: vec![Role::Technician],
        technician: Some(technician),
        device: None,
    };
    say(
        "To be a technician on the phone library, at a console (it needs Java and Maven), with one more visit of your own:",
    );
    let json = "-H 'Content-Type: application/json'";
    let order = r#"{"serviceOrderId":"SO-VISITOR","locationId":"LOC-10","title":"One more visit"}"#;
    say(format_args!("  curl -s -H \"Authorization: Bearer $TOKEN\" {json} '{base}/requests' -d '{order}'"));
    let whom = format!(r#"{{"technicianId":"{VISITOR}"}}"#);
    say(format_args!("  curl -s -H \"Authorization: Bearer $TOKEN\" {json} '{base}/DISPATCH_ID/assign' -d '{whom}'"));
    say(format_args!("  export CRM_DISPATCH_TOKEN={}", issuer.issue_for(&request, TOKEN_SECONDS)?));
    say(format_args!("  mobile-ffi/kotlin/sample/run --technician {VISITOR} --server {url}"));
    say(format_args!("API documentation: {url}/docs"));
    say("Ctrl-C ends it.");
    Ok(())
}
