//! A phone's life: jobs in the background, sleep, other technicians, revocation, keys. The whole engine against the real
//! server.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a story that is not as told shall fail")]

mod support;

use serde_json::Value;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::{FixedTokens, HOUR, PATIENCE, PhoneSetup, TENANT, World};
use sync_core::client::{
    AtRest, BoxFuture, Engine, EngineConfig, EngineError, Event, KeyVault, Phase, Revoked, TokenError, TokenNeed,
    TokenProvider, VaultError,
};
use sync_core::domain::{DispatchId, FactKind, TechnicianId, Timestamp};
use sync_core::store::{DeviceNow, NewEdit, StoreError, VisitQuery};
use zeroize::Zeroizing;

/// A phone that was handed to `technician`, without a connection.
async fn engine_with(world: &World, technician: &str, at_rest: AtRest, setup: PhoneSetup) -> Arc<Engine> {
    let path = world.phone_file("engine");
    let client = world.client_config(technician, setup);
    let engine = Engine::open(EngineConfig { path, app: "story 1.0".into(), client, at_rest }).unwrap();
    sign_in(&engine, technician).await;
    Arc::new(engine)
}

async fn engine(world: &World, technician: &str) -> Arc<Engine> {
    engine_with(world, technician, AtRest::Unencrypted, PhoneSetup::default()).await
}

async fn sign_in(engine: &Engine, technician: &str) -> sync_core::store::Bound {
    engine.sign_in(TENANT.parse().unwrap(), technician.parse::<TechnicianId>().unwrap()).await.unwrap()
}

async fn states(engine: &Engine, dispatch: &DispatchId, kind: FactKind) {
    engine.client().act(dispatch, NewEdit::Fact(kind), None).await.unwrap();
}

fn holds(engine: &Engine, dispatch: &DispatchId) -> bool {
    engine.store().visits(&VisitQuery::default()).unwrap().iter().any(|card| card.dispatch_id == *dispatch)
}

async fn until_phase(engine: &Engine, wanted: Phase) {
    let mut status = engine.status();
    let waited = tokio::time::timeout(PATIENCE, status.wait_for(|status| status.phase == wanted)).await;
    if waited.is_err() {
        panic!("never {wanted:?}: {:?}", engine.status().borrow());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_in_the_background_exchanges_everything_and_hangs_up() {
    let world = World::start().await;
    let engine = engine(&world, "TECH-10").await;
    let dispatch = world.assigned("SO-1", 1, "TECH-10").await;
    let outcome = engine.sync_now(PATIENCE).await.unwrap();
    assert!(outcome.caught_up, "{outcome:?}");
    assert!(holds(&engine, &dispatch));
    assert!(!engine.client().is_running());

    states(&engine, &dispatch, FactKind::Accepted { eta: None }).await;
    world.until_status(&dispatch, "DISPATCHED").await;
    let outcome = engine.sync_now(PATIENCE).await.unwrap();
    assert!(outcome.caught_up && outcome.pending == 0, "{outcome:?}");
    assert_eq!(world.status(&dispatch).await, "CONFIRMED");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_without_a_server_says_what_remains_at_its_deadline() {
    let mut world = World::start().await;
    let engine = engine(&world, "TECH-10").await;
    let dispatch = world.assigned("SO-1", 1, "TECH-10").await;
    engine.sync_now(PATIENCE).await.unwrap();
    world.stop_server().await;
    states(&engine, &dispatch, FactKind::Accepted { eta: None }).await;
    let outcome = engine.sync_now(Duration::from_millis(200)).await.unwrap();
    assert!(!outcome.caught_up);
    assert_eq!((outcome.pending, outcome.parked), (1, 0));
    assert!(outcome.error.is_some() && outcome.oldest_pending.is_some(), "{outcome:?}");
    assert!(!engine.client().is_running());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_leaves_the_apps_own_connection_alone() {
    let world = World::start().await;
    let engine = engine(&world, "TECH-10").await;
    engine.start().await.unwrap();
    until_phase(&engine, Phase::Connected).await;
    assert!(engine.sync_now(PATIENCE).await.unwrap().caught_up);
    assert!(engine.client().is_running());
}

/// A night in a pocket: the operating system finds no lock to end the app for, and in the morning the token has expired.
#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_slept_wakes_up_with_one_fresh_token() {
    let world = World::start().await;
    let tokens = Arc::new(FixedTokens::new(vec![world.token_for("TECH-10", 1), world.token("TECH-10")]));
    let setup = PhoneSetup { tokens: Some(Arc::clone(&tokens) as _), ..PhoneSetup::default() };
    let engine = engine_with(&world, "TECH-10", AtRest::Unencrypted, setup).await;
    let first = world.assigned("SO-1", 1, "TECH-10").await;
    engine.start().await.unwrap();
    assert!(engine.sync_now(PATIENCE).await.unwrap().caught_up);
    states(&engine, &first, FactKind::Accepted { eta: None }).await;

    engine.suspend().await.unwrap();
    assert!(matches!(engine.store().visits(&VisitQuery::default()), Err(StoreError::Closed)));
    // Another process could have it now: nothing is held.
    let lock = std::fs::File::open(lock_file(&world)).unwrap();
    lock.try_lock().unwrap();
    lock.unlock().unwrap();
    let log = world.phone_file("engine").with_extension("db-wal");
    assert!(std::fs::metadata(log).map_or(0, |data| data.len()) == 0, "the log is in the database");
    let second = world.assigned("SO-2", 3, "TECH-10").await;
    // The token of the evening has expired for certain: it lived for one second of the world's time.
    world.clock.advance(8 * HOUR);

    engine.resume().await.unwrap();
    assert!(engine.sync_now(PATIENCE).await.unwrap().caught_up);
    assert!(holds(&engine, &second));
    assert_eq!(world.status(&first).await, "CONFIRMED");
    assert!(tokens.rejected.load(Ordering::SeqCst) <= 1);
    assert!(tokens.asked.load(Ordering::SeqCst) <= 4, "no loop");
}

fn lock_file(world: &World) -> PathBuf {
    let mut name = world.phone_file("engine").into_os_string();
    name.push(".lock");
    name.into()
}

/// The token of whoever holds the phone.
struct OfWhoever(Mutex<String>);

impl TokenProvider for OfWhoever {
    fn token(&self, _: TokenNeed) -> BoxFuture<'_, Result<String, TokenError>> {
        Box::pin(async { Ok(self.0.lock().unwrap().clone()) })
    }
}

/// A shared phone: Anna hands it to Ben with work that the office has not seen.
#[tokio::test(flavor = "multi_thread")]
async fn sealed_work_is_delivered_when_its_technician_signs_in_again() {
    let world = World::start().await;
    let tokens = Arc::new(OfWhoever(Mutex::new(world.token("TECH-10"))));
    let setup = PhoneSetup { tokens: Some(Arc::clone(&tokens) as _), ..PhoneSetup::default() };
    let engine = engine_with(&world, "TECH-10", AtRest::Unencrypted, setup).await;
    let dispatch = world.assigned("SO-1", 1, "TECH-10").await;
    engine.sync_now(PATIENCE).await.unwrap();
    states(&engine, &dispatch, FactKind::Accepted { eta: None }).await;
    states(&engine, &dispatch, FactKind::TravelStarted { eta: None }).await;
    assert_eq!(engine.sign_out().await.unwrap().sealed, 2);

    *tokens.0.lock().unwrap() = world.token("TECH-20");
    sign_in(&engine, "TECH-20").await;
    assert!(engine.sync_now(PATIENCE).await.unwrap().caught_up);
    assert!(!holds(&engine, &dispatch));
    assert_eq!(engine.sync_state().await.unwrap().outbox.pending, 0);
    assert_eq!(world.facts(&dispatch).await.len(), 0);

    *tokens.0.lock().unwrap() = world.token("TECH-10");
    assert_eq!(sign_in(&engine, "TECH-10").await.unsealed, 2);
    assert!(engine.sync_now(PATIENCE).await.unwrap().caught_up);
    assert_eq!(world.status(&dispatch).await, "EN_ROUTE");
    assert_eq!(world.facts(&dispatch).await.len(), 2);
}

/// A keychain that the test can look into.
#[derive(Default)]
struct Keychain(Mutex<HashMap<String, Vec<u8>>>);

impl KeyVault for Keychain {
    fn get(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, VaultError> {
        Ok(self.0.lock().unwrap().get(name).cloned().map(Zeroizing::new))
    }

    fn put(&self, name: &str, value: &[u8]) -> Result<(), VaultError> {
        self.0.lock().unwrap().insert(name.to_owned(), value.to_vec());
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<(), VaultError> {
        self.0.lock().unwrap().remove(name);
        Ok(())
    }
}

/// How an engine's file is kept where this build can encrypt, and where it cannot.
fn at_rest(keychain: &Arc<Keychain>) -> AtRest {
    if cfg!(feature = "encrypted") { AtRest::Encrypted(Arc::clone(keychain) as _) } else { AtRest::Unencrypted }
}

async fn revoke(world: &World, engine: &Engine) -> String {
    let device = engine.sync_state().await.unwrap().device;
    world.post(&format!("/devices/{device}/revoke"), serde_json::json!({})).await;
    device.as_str().to_owned()
}

/// What the office knows of a device, once it says that it was wiped.
async fn wiped(world: &World, device: &str) -> Value {
    let proven = async {
        loop {
            let devices = world.get("/devices").await;
            let of_it = devices["items"].as_array().unwrap().iter().find(|d| d["deviceId"] == device).cloned();
            if let Some(device) = of_it.filter(|device| device["wipedAt"].is_string()) {
                return device;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, proven).await.unwrap()
}

async fn revoked(events: &mut tokio::sync::broadcast::Receiver<Event>) -> Revoked {
    let heard = async {
        loop {
            if let Event::Revoked(outcome) = events.recv().await.unwrap() {
                return outcome;
            }
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.unwrap()
}

/// Rules 9 and 14: a phone is lost with work that the office has not seen, and turns up.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_phone_hands_over_its_work_and_then_destroys_everything() {
    let world = World::start().await;
    let keychain = Arc::new(Keychain::default());
    let engine = engine_with(&world, "TECH-10", at_rest(&keychain), PhoneSetup::default()).await;
    let dispatch = world.assigned("SO-1", 1, "TECH-10").await;
    engine.sync_now(PATIENCE).await.unwrap();
    states(&engine, &dispatch, FactKind::Accepted { eta: None }).await;
    states(&engine, &dispatch, FactKind::TravelStarted { eta: None }).await;
    let device = revoke(&world, &engine).await;

    let mut events = engine.events();
    engine.start().await.unwrap();
    let outcome = revoked(&mut events).await;
    assert_eq!(outcome, Revoked { handed_over: 2, sealed: 0, erased: true });
    let proof = wiped(&world, &device).await;
    assert_eq!(proof["pendingActions"].as_u64().unwrap_or(0), 0, "{proof}");
    // The facts are with the office, as facts and without effect: quarantined.
    let facts = world.facts(&dispatch).await;
    assert_eq!(facts.len(), 2, "{facts:?}");
    assert_eq!(world.status(&dispatch).await, "DISPATCHED");
    assert!(keychain.0.lock().unwrap().is_empty(), "the key is gone");
    assert!(!world.phone_file("engine").exists(), "the file is gone");
    assert!(matches!(engine.sync_state().await, Err(EngineError::Store(StoreError::Closed))));
    engine.suspend().await.unwrap();
    assert!(engine.resume().await.is_err(), "nothing comes back");
    engine.close().await.unwrap();

    // The same phone in other hands is another one.
    let engine = engine_with(&world, "TECH-20", at_rest(&keychain), PhoneSetup::default()).await;
    assert!(engine.sync_now(PATIENCE).await.unwrap().caught_up);
    assert_ne!(engine.sync_state().await.unwrap().device.as_str(), device);
}

/// Another technician's sealed work lies on the phone that is revoked: it stays, and nothing else does.
#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_phone_keeps_the_sealed_work_of_others() {
    let world = World::start().await;
    let tokens = Arc::new(OfWhoever(Mutex::new(world.token("TECH-10"))));
    let setup = PhoneSetup { tokens: Some(Arc::clone(&tokens) as _), ..PhoneSetup::default() };
    let keychain = Arc::new(Keychain::default());
    let engine = engine_with(&world, "TECH-10", at_rest(&keychain), setup).await;
    let dispatch = world.assigned("SO-1", 1, "TECH-10").await;
    engine.sync_now(PATIENCE).await.unwrap();
    states(&engine, &dispatch, FactKind::Accepted { eta: None }).await;
    engine.sign_out().await.unwrap();
    *tokens.0.lock().unwrap() = world.token("TECH-20");
    sign_in(&engine, "TECH-20").await;
    engine.sync_now(PATIENCE).await.unwrap();
    let device = revoke(&world, &engine).await;
    let mut events = engine.events();
    engine.start().await.unwrap();
    let outcome = revoked(&mut events).await;
    assert_eq!(outcome, Revoked { handed_over: 0, sealed: 0, erased: false });
    wiped(&world, &device).await;

    *tokens.0.lock().unwrap() = world.token("TECH-10");
    assert_eq!(sign_in(&engine, "TECH-10").await.unsealed, 1);
    assert!(engine.sync_now(PATIENCE).await.unwrap().caught_up);
    assert_eq!(world.status(&dispatch).await, "CONFIRMED");
}

/// Rule 6: a clock that jumps moves no fact past another one, and loses none.
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_forward_and_back_loses_no_fact() {
    let world = World::start().await;
    let engine = engine(&world, "TECH-10").await;
    let dispatch = world.assigned("SO-1", 1, "TECH-10").await;
    engine.sync_now(PATIENCE).await.unwrap();
    let clock = JumpingClock::new(&world);
    for (off_by, kind) in [
        (0, FactKind::Accepted { eta: None }),
        (24 * HOUR, FactKind::TravelStarted { eta: None }),
        (-365 * 24 * HOUR, FactKind::Arrived),
        (0, FactKind::WorkStarted),
    ] {
        let (now, edit, id) = (clock.now(off_by), NewEdit::Fact(kind), dispatch.clone());
        let store = Arc::clone(engine.store());
        tokio::task::spawn_blocking(move || store.act(&id, edit, &now, None, &mut rand::rng())).await.unwrap().unwrap();
    }
    assert!(engine.sync_now(PATIENCE).await.unwrap().caught_up);
    assert_eq!(world.status(&dispatch).await, "IN_PROGRESS");
    assert_eq!(world.facts(&dispatch).await.len(), 4);
}

/// A wall clock that somebody sets; the monotonic one goes on.
struct JumpingClock(Timestamp);

impl JumpingClock {
    fn new(world: &World) -> Self {
        use crm_dispatch_server::service::Clock as _;
        Self(world.clock.now())
    }

    fn now(&self, off_by: i64) -> DeviceNow {
        DeviceNow { wall: self.0.plus_millis(off_by), monotonic_ms: 60_000, boot: "boot-1".parse().unwrap() }
    }
}
