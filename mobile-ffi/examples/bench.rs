//! What the phone library costs: opening, listing, acting, memory; encrypted and not. Prints a table, and writes JSON lines.
//!
//! ```text
//! scripts/bench-phone          # builds it as it ships, and measures the stripped library as well
//! ```
//! Each case is measured in a process of its own, so that its memory is its own.

use crm_dispatch_mobile::{
    Action, ClientOptions, DispatchClient, Encryption, HostError, LogLevel, SecureStorage, TokenProvider, VisitFilter,
};
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};
use sync_core::document::{ActorKey, Edit, VisitDoc};
use sync_core::domain::plan::{Assignment, ChecklistItem, Contact, Site};
use sync_core::domain::{DispatchId, Plan, TechnicianId, Timestamp, VisitCard, Window, fold, geo::Coordinates};
use sync_core::protocol::{Cursor, FeedItem};
use sync_core::store::{DatabaseKey, FeedBatch, OpenOptions, Protection, Store};

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Visits of a day on the phone.
const TODAY: usize = 20;
/// Times that a store is opened.
const OPENINGS: usize = 15;
/// Lists read, and actions taken.
const CALLS: usize = 200;
/// Visits in one batch.
const BATCH: usize = 500;
/// The first day, and when it begins.
const MIDNIGHT_MS: i64 = 1_770_076_800_000;
const DAY_MS: i64 = 24 * 3_600_000;
const KEY: [u8; 32] = [0x5a; 32];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let result = match arguments[..] {
        ["measure", path, encrypted] => measure(Path::new(path), encrypted == "encrypted"),
        [json] => all(Path::new(json)),
        _ => Err("usage: bench JSON-FILE".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say_error(&error.to_string());
            ExitCode::FAILURE
        }
    }
}

#[allow(clippy::print_stdout, reason = "a program's own words to its user")]
fn say(line: &str) {
    println!("{line}");
}

#[allow(clippy::print_stderr, reason = "a program's own words to its user")]
fn say_error(line: &str) {
    eprintln!("{line}");
}

fn all(lines: &Path) -> Result<(), Failure> {
    let mut json = String::new();
    say(&format!("{:<48} {:>12}", "figure", "value"));
    let mut row = |figure: String, value: f64, unit: &str| {
        say(&format!("{figure:<48} {value:>12.3} {unit}"));
        json += &format!(r#"{{"scenario":"phone","figure":"{figure}","value":{value:.3},"unit":"{unit}"}}"#);
        json.push('\n');
    };
    for visits in [500, 5_000] {
        for encrypted in [true, false] {
            let kind = if encrypted { "encrypted" } else { "in the clear" };
            let folder = tempfile::tempdir()?;
            let path = folder.path().join("phone.db");
            fill(&path, visits, encrypted)?;
            let measured = Command::new(std::env::current_exe()?)
                .arg("measure")
                .arg(&path)
                .arg(if encrypted { "encrypted" } else { "off" })
                .output()?;
            let text = String::from_utf8(measured.stdout)?;
            if !measured.status.success() {
                return Err(format!("measuring failed: {}", String::from_utf8_lossy(&measured.stderr)).into());
            }
            let figures = text.split_whitespace().map(str::parse).collect::<Result<Vec<f64>, _>>()?;
            let [open, list, act, before, after] = figures[..] else { return Err("a figure is missing".into()) };
            row(format!("open, {visits} visits, {kind}, p50"), open, "ms");
            row(format!("list today, {visits} visits, {kind}, p50"), list, "ms");
            row(format!("one action, {visits} visits, {kind}, p50"), act, "ms");
            row(format!("memory at work, {visits} visits, {kind}"), after, "kB");
            row(format!("of it the library's, {visits} visits, {kind}"), after - before, "kB");
        }
    }
    if let Some(library) = std::env::var_os("LIBRARY") {
        row("library, stripped".into(), std::fs::metadata(library)?.len() as f64 / 1024.0, "kB");
    }
    Ok(std::fs::write(lines, json)?)
}

/// Opens again and again, then works as a technician does; answers the figures on one line.
fn measure(path: &Path, encrypted: bool) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let before = resident_kb();
    let mut openings = Vec::new();
    for _ in 0..OPENINGS {
        let since = Instant::now();
        let phone = open(path, encrypted)?;
        openings.push(since.elapsed());
        runtime.block_on(phone.shutdown())?;
    }
    let phone = open(path, encrypted)?;
    let midnight = UNIX_EPOCH + Duration::from_millis(MIDNIGHT_MS.unsigned_abs());
    let filter = VisitFilter {
        from: Some(midnight),
        until: Some(midnight + Duration::from_millis(DAY_MS.unsigned_abs())),
        ..VisitFilter::default()
    };
    let (mut lists, mut actions) = (Vec::new(), Vec::new());
    for number in 0..CALLS {
        let since = Instant::now();
        let today = runtime.block_on(phone.visits(filter.clone()))?;
        lists.push(since.elapsed());
        if today.len() != TODAY {
            return Err(format!("{} visits today, {TODAY} expected", today.len()).into());
        }
        let since = Instant::now();
        let action = Action::LogTime { category: "labour".into(), minutes: 1 };
        let dispatch = today.get(number % TODAY).ok_or("no visit")?.dispatch_id.clone();
        runtime.block_on(phone.act(dispatch, action, None))?;
        actions.push(since.elapsed());
    }
    let after = resident_kb();
    say(&format!("{} {} {} {before} {after}", median_ms(openings), median_ms(lists), median_ms(actions)));
    Ok(())
}

fn median_ms(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |time| time.as_secs_f64() * 1_000.0)
}

/// Resident memory; 0 where the system does not say.
fn resident_kb() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0.0)
}

struct Keychain;

impl SecureStorage for Keychain {
    fn get(&self, name: String) -> Result<Option<Vec<u8>>, HostError> {
        Ok((name == "crm-dispatch.key.phone.db").then(|| KEY.to_vec()))
    }

    fn put(&self, _: String, _: Vec<u8>) -> Result<(), HostError> {
        Err(HostError::Failed { reason: "there is one key".into() })
    }

    fn remove(&self, _: String) -> Result<(), HostError> {
        Ok(())
    }
}

struct NoTokens;

#[async_trait::async_trait]
impl TokenProvider for NoTokens {
    async fn fetch_token(&self, _: bool) -> Result<String, HostError> {
        Err(HostError::Unavailable { reason: "no network".into() })
    }
}

fn open(path: &Path, encrypted: bool) -> Result<Arc<DispatchClient>, Failure> {
    let options = ClientOptions {
        path: path.to_str().ok_or("a path in Unicode is needed")?.to_owned(),
        server_url: "http://127.0.0.1:9".into(),
        app: "bench".into(),
        encryption: if encrypted { Encryption::SecureStorage } else { Encryption::Off },
        network_at_start: false,
        log_level: LogLevel::Error,
    };
    Ok(DispatchClient::open(options, Arc::new(NoTokens), Arc::new(Keychain), None)?)
}

/// A phone with this many visits, [`TODAY`] a day.
fn fill(path: &Path, visits: usize, encrypted: bool) -> Result<(), Failure> {
    let (now, mut rng) = (Timestamp::from_millis(MIDNIGHT_MS), rand::rng());
    let key = DatabaseKey::from_bytes(&KEY).ok_or("no key")?;
    let protection = if encrypted { Protection::Key(key) } else { Protection::Unencrypted };
    let store = Store::open(path, &OpenOptions { app: "bench".into(), now, protection }, &mut rng)?.store;
    let technician: TechnicianId = "TECH-10".parse()?;
    store.bind_user(&"tenant-001".parse()?, &technician, &mut rng)?;
    for first in (0..visits).step_by(BATCH) {
        let last = (first + BATCH).min(visits);
        let items = (first..last).map(|number| visit(number, &technician)).collect::<Result<_, _>>()?;
        let (from, to) = (Cursor(first as u64), Cursor(last as u64));
        let batch = FeedBatch { from, to, reset: false, more: last < visits, digest: None, items };
        store.apply_batch(batch, now, &mut rng)?;
    }
    Ok(store.close()?)
}

/// A visit of ordinary size: 20 items to tick off, a note of 60 characters.
fn visit(number: usize, technician: &TechnicianId) -> Result<FeedItem, Failure> {
    let day = i64::try_from(number / TODAY)?;
    let start = Timestamp::from_millis(MIDNIGHT_MS + day * DAY_MS + i64::try_from(number % TODAY)? * 1_800_000);
    let scheduled = Window { start, end: start.plus_millis(1_200_000) };
    let plan = Plan {
        revision: 1,
        service_order_id: Some(format!("SO-{number}").parse()?),
        title: format!("Yearly inspection of boiler {number}"),
        instructions: "Check pressure and flue, replace the filter, note the counter's reading.".into(),
        site: Some(Site {
            location_id: format!("LOC-{number}").parse()?,
            name: format!("House {number}"),
            address: format!("Praterstraße {number}, 1020 Wien"),
            coordinates: Coordinates { latitude: 48.2137, longitude: 16.3835 },
            access_notes: Some("Key box left of the door".into()),
        }),
        contact: Some(Contact { name: "Frau Huber".into(), phone: Some("+43 1 000000".into()) }),
        scheduled: Some(scheduled),
        arrival_window: Some(scheduled),
        assignment: Some(Assignment {
            epoch: 1,
            lead: technician.clone(),
            crew: Vec::new(),
            continues: Vec::new(),
            offered_at: start,
            offered_by: "office".parse()?,
        }),
        epoch: 1,
        checklist: (0..20)
            .map(|item| {
                let label = format!("Step {item} of the inspection done?");
                Ok(ChecklistItem { id: format!("item-{item}").parse()?, label, required: item < 5 })
            })
            .collect::<Result<_, Failure>>()?,
        attributes: (0..10).map(|field| (format!("field-{field}"), format!("value {field} of {number}"))).collect(),
        ..Plan::default()
    };
    let actor = ActorKey([7; 16]);
    let (mut document, _) = VisitDoc::genesis(actor, &plan, start);
    let note =
        Edit::Note { at: 0, delete: 0, insert: "The customer asks for a call half an hour before the arrival.".into() };
    document.edit(actor, &note, start)?;
    let dispatch = DispatchId::new(format!("DSP-{number:05}"))?;
    let card = VisitCard::new(dispatch.clone(), &plan, &fold(&document.view()));
    Ok(FeedItem::Snapshot { dispatch, document: document.save().into(), card, tag: document.tag() })
}
