//! A technician's day, end to end, offline and back: the office plans, fourteen phones work on the real engine, networks
//! fail, people change their minds, and at the end everything that was done on a phone must be on the server.

pub mod board;
pub mod conflicts;
mod finish;
mod incidents;
mod office_day;
pub mod report;
pub mod script;
mod technician;
pub mod world;

pub use report::DemoReport;
pub use world::LineSink;

use crate::city::City;
use crate::clock::{DayClock, PhoneClock};
use crate::office::{Office, OfficeError, TokenIssuer};
use crate::phone::{Phone, PhoneError, PhoneSetup};
use rand::{RngExt, SeedableRng, rngs::SmallRng};
use script::Script;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use sync_core::domain::{BootId, IdError, TechnicianId, TenantId, Timestamp};
use tokio::task::JoinSet;
use world::World;

/// How much earlier than the first shift the office is at work.
const OFFICE_EARLY_MS: i64 = 30 * 60_000;
/// The day ends this much before the last shift does; the last visits are over then.
const EVENING_MS: i64 = 15 * 60_000;
/// How long phones may take, in real time, to hand over their last work.
const LAST_WORD: Duration = Duration::from_secs(30);

/// What the demo needs.
#[derive(Clone)]
pub struct DemoOptions {
    /// The server, as `http://host:port`. Its clock must be `clock`.
    pub base_url: String,
    /// Makes tokens.
    pub tokens: TokenIssuer,
    /// Whose data.
    pub tenant: TenantId,
    /// Where phones keep their databases; one file each.
    pub dir: PathBuf,
    /// One seed gives one script.
    pub seed: u64,
    /// The day's input, on the day that is simulated.
    pub city: City,
    /// Shared with the server; from [`opening_time`], at real pace until the office opens.
    pub clock: DayClock,
    /// How many simulated seconds pass in a real one; 720 makes ten hours fifty seconds.
    pub scale: f64,
    /// Takes every line of output.
    pub out: LineSink,
}

impl std::fmt::Debug for DemoOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DemoOptions")
            .field("base_url", &self.base_url)
            .field("seed", &self.seed)
            .finish_non_exhaustive()
    }
}

/// Why the demo could not be run to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A call of the office failed.
    #[error(transparent)]
    Office(#[from] OfficeError),
    /// A phone could not be started.
    #[error(transparent)]
    Phone(#[from] PhoneError),
    /// The script names an id that is none.
    #[error(transparent)]
    Script(#[from] IdError),
    /// The day could not be set up.
    #[error("{0}")]
    Setup(String),
}

/// When the demo's day begins: give it to [`DayClock::starting_at`].
#[must_use]
pub fn opening_time(city: &City) -> Timestamp {
    city.working_day().start.plus_millis(-OFFICE_EARLY_MS)
}

/// Plays the day. The report says whether it passed.
///
/// # Errors
/// [`DemoError`] when the day could not be played at all; whatever goes wrong within it is in the report.
pub async fn run(options: DemoOptions) -> Result<DemoReport, DemoError> {
    let mut rng = SmallRng::seed_from_u64(options.seed);
    let script = Script::new(&options.city, &mut rng)?;
    let out = Arc::clone(&options.out);
    let office = Office::new(&options.base_url, Arc::clone(&options.tokens), options.seed)?;
    out(&format!(
        "{}: {} sites, {} technicians, {} service orders; seed {}",
        options.city.name,
        options.city.sites.len(),
        options.city.technicians.len(),
        options.city.orders.len(),
        options.seed
    ));
    let (dispatches, twice) = office_day::open(&office, &options.city).await?;
    let day_end = options.city.working_day().end.plus_millis(-EVENING_MS);
    let city = Arc::new(options.city.clone());
    let world = World::new(options.clock.clone(), city, script, office, dispatches, day_end);
    for note in twice {
        world.observe(18, note.dispatch, note.outcome);
    }
    let phones = switch_on(&options, &world, &mut rng).await?;
    let listeners = listen(&phones, &world);
    office_day::assign_all(&world).await?;
    out(&format!("{} visits assigned; the day begins", world.dispatches.len()));
    world.clock.set_scale(options.scale);
    play(&world, &phones, options.seed, &out).await;
    drop(listeners);
    out("evening: every phone has a network again");
    let report = finish::look_back(&world, &phones, LAST_WORD).await;
    world.clock.set_scale(1.0);
    out(&report.render());
    Ok(report)
}

type Phones = BTreeMap<TechnicianId, Arc<Phone>>;

async fn switch_on(options: &DemoOptions, world: &World, rng: &mut SmallRng) -> Result<Phones, DemoError> {
    let mut phones = BTreeMap::new();
    for technician in world.city.technicians.keys() {
        let skew_ms = world.script.skew_ms.get(technician).copied().unwrap_or(0);
        let boot = BootId::new(format!("boot-{:08x}", rng.random::<u32>()))?;
        let setup = PhoneSetup {
            base_url: options.base_url.clone(),
            tenant: options.tenant.clone(),
            technician: technician.clone(),
            clock: PhoneClock::new(world.clock.clone(), skew_ms, boot),
            tokens: Arc::clone(&options.tokens),
            seed: rng.random(),
            online: true,
        };
        let path = options.dir.join(format!("{technician}.sqlite"));
        let phone = Phone::start(&path, setup, world.ledger.clone()).await?;
        world.board.network(technician, true);
        phones.insert(technician.clone(), Arc::new(phone));
    }
    for (technician, phone) in &phones {
        if !phone.caught_up(LAST_WORD).await {
            let status = phone.status().borrow().clone();
            let why = status.error.map_or_else(|| format!("{:?}", status.phase), |error| error.to_string());
            return Err(DemoError::Setup(format!("{technician}'s phone cannot reach the server: {why}")));
        }
    }
    Ok(phones)
}

/// Notes when visits arrive on phones. The tasks end with the set.
fn listen(phones: &Phones, world: &World) -> JoinSet<()> {
    let mut listeners = JoinSet::new();
    for (technician, phone) in phones {
        let (mut events, world, technician) = (phone.events(), world.clone(), technician.clone());
        listeners.spawn(async move {
            loop {
                match events.recv().await {
                    Ok(sync_core::client::Event::VisitsChanged(changed)) => {
                        changed.iter().for_each(|dispatch| world.arrived_on_phone(&technician, dispatch));
                    }
                    Ok(_) | Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => {}
                    Err(tokio::sync::broadcast::error::RecvError::Closed) => return,
                }
            }
        });
    }
    listeners
}

/// The day itself: technicians, networks, incidents, and a line of progress every second.
async fn play(world: &World, phones: &Phones, seed: u64, out: &LineSink) {
    let mut day = JoinSet::new();
    for (index, (technician, phone)) in phones.iter().enumerate() {
        let Some(who) = world.city.technicians.get(technician).cloned() else { continue };
        let own_seed = seed.wrapping_mul(31).wrapping_add(index as u64);
        day.spawn(technician::work_a_day(who, Arc::clone(phone), world.clone(), own_seed));
        day.spawn(network(world.clone(), Arc::clone(phone)));
    }
    day.spawn(incidents::run(world.clone()));
    let mut second = tokio::time::interval(Duration::from_secs(1));
    let evening = world.clock.until(world.day_end) + Duration::from_secs(5);
    let deadline = tokio::time::sleep(evening);
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            () = &mut deadline => break,
            ended = day.join_next() => if ended.is_none() { break },
            _ = second.tick() => out(&progress(world, phones).await),
        }
    }
}

/// Takes a phone's network away and gives it back, as scripted.
async fn network(world: World, phone: Arc<Phone>) {
    let technician = phone.technician().clone();
    let outages = world.script.outages.get(&technician).cloned().unwrap_or_default();
    for outage in outages {
        world.clock.sleep_until(outage.start).await;
        phone.set_network(false);
        world.board.network(&technician, false);
        world.clock.sleep_until(outage.end.min(world.day_end)).await;
        back_online(&world, &phone).await;
    }
}

/// Gives a phone its network back, and measures how long its offline work takes to be acknowledged.
async fn back_online(world: &World, phone: &Phone) {
    let mut status = phone.status();
    let waiting = status.borrow_and_update().pending;
    let since = std::time::Instant::now();
    phone.set_network(true);
    world.board.network(phone.technician(), true);
    if waiting > 0 {
        let acknowledged = tokio::time::timeout(LAST_WORD, status.wait_for(|status| status.pending == 0)).await;
        if acknowledged.is_ok() {
            world.replayed(since.elapsed());
        }
    }
}

/// One line: simulated time, visits by status, phones, what was done and what is unsent.
async fn progress(world: &World, phones: &Phones) -> String {
    let visits = match world.office.search_all("").await {
        Ok(visits) => {
            let mut counts: BTreeMap<_, u32> = BTreeMap::new();
            visits.iter().for_each(|visit| *counts.entry(visit.status).or_default() += 1);
            let parts: Vec<_> = counts.iter().map(|(status, count)| format!("{} {count}", status.name())).collect();
            parts.join("  ")
        }
        Err(error) => error.to_string(),
    };
    let unsent: u32 = phones.values().map(|phone| phone.status().borrow().pending).sum();
    let (offline, all) = world.board.offline();
    let done = world.ledger.len();
    format!(
        "{}  {visits}  | phones offline {offline}/{all}  done {done}  unsent {unsent}",
        hour_minute(world.clock.now())
    )
}

/// `07:42` of a time's UTC day.
fn hour_minute(at: Timestamp) -> String {
    let minutes = at.millis().div_euclid(60_000).rem_euclid(24 * 60);
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_day_opens_before_the_first_shift_and_ends_after_the_last_visit() {
        let city = City::vienna().unwrap();
        assert_eq!(hour_minute(opening_time(&city)), "05:30");
        let end = city.working_day().end.plus_millis(-EVENING_MS);
        assert_eq!(hour_minute(end), "15:45");
        assert!(city.orders.iter().all(|event| event.payload.schedule_end < end));
    }
}
