//! The office revokes a phone whose technician has unsent work, and the phone's process is killed in the middle of its wipe: whatever
//! the moment, the next start goes on, and in the end nothing is on the phone, and the office has the work and the proof.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a story that is not as told shall fail")]

mod support;

use serde_json::json;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use support::{PATIENCE, PhoneSetup, TENANT, World};
use sync_core::client::{AtRest, Engine, EngineConfig, EngineError, Event, Phase, Revoked};
use sync_core::domain::{DispatchId, FactKind, TechnicianId};
use sync_core::store::{NewEdit, StoreError, VisitQuery};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};

const TECHNICIAN: &str = "TECH-10";
/// What every visit is called, as the file would have it in the clear.
const TITLE: &str = "Boiler of SO-";

/// Who speaks, and how often it was their turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Phone(u32),
    Server(u32),
}

/// The words of a revoked phone and its server: request and upgrade, greeting and revocation, what is unsent and its receipt, the
/// proof and the end.
const MOMENTS: [(Turn, &str); 4] = [
    (Turn::Phone(3), "the phone is wiped, and has handed nothing over"),
    (Turn::Server(3), "the office has the work, and the phone does not know"),
    (Turn::Phone(4), "the phone knows, and the office has no proof"),
    (Turn::Server(4), "the office has the proof, and the phone does not know"),
];

/// What becomes of the connection at that turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// What is said gets no further, and nobody is told.
    Silent,
    Broken,
}

/// Between a phone and its server, up to one turn of one connection.
struct Wire {
    address: std::net::SocketAddr,
    cut: watch::Receiver<bool>,
}

impl Wire {
    async fn cut_at(server: std::net::SocketAddr, last: Turn, end: End) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, cut) = watch::channel(false);
        tokio::spawn(async move {
            let (mut phone, _) = listener.accept().await.unwrap();
            drop(listener);
            let mut server = TcpStream::connect(server).await.unwrap();
            let (mut up, mut down) = ([0; 64 * 1024], [0; 64 * 1024]);
            let mut turn = Turn::Server(0);
            loop {
                let spoke = tokio::select! {
                    read = phone.read(&mut up) => match (read.unwrap_or(0), turn) {
                        (0, _) => break,
                        (read, Turn::Server(so_far)) => (Turn::Phone(so_far + 1), read),
                        (read, same) => (same, read),
                    },
                    read = server.read(&mut down) => match (read.unwrap_or(0), turn) {
                        (0, _) => break,
                        (read, Turn::Phone(so_far)) => (Turn::Server(so_far), read),
                        (read, same) => (same, read),
                    },
                };
                turn = spoke.0;
                if turn == last {
                    tell.send_replace(true);
                    if end == End::Broken {
                        break;
                    }
                    std::future::pending::<()>().await;
                }
                let passed = match turn {
                    Turn::Phone(_) => server.write_all(&up[..spoke.1]).await,
                    Turn::Server(_) => phone.write_all(&down[..spoke.1]).await,
                };
                if passed.is_err() {
                    break;
                }
            }
        });
        Self { address, cut }
    }
}

/// The phone's app, as a process.
struct App(Child);

impl App {
    fn start(folder: &Path, server: std::net::SocketAddr, token: &str) -> Self {
        let child = Command::new(env!("CARGO_BIN_EXE_technician"))
            .args([
                "--server",
                &format!("http://{server}"),
                "--tenant",
                TENANT,
                "--technician",
                TECHNICIAN,
                "--seed",
                "1",
            ])
            .args(["--idle", "--dir"])
            .arg(folder)
            .env("TECHNICIAN_TOKEN", token)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }
}

impl Drop for App {
    /// SIGKILL: nothing of the process runs after it.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn open(world: &World, folder: &Path, seed: u64) -> Engine {
    let client = world.client_config(TECHNICIAN, PhoneSetup { seed, ..PhoneSetup::default() });
    let at_rest = AtRest::Unencrypted;
    Engine::open(EngineConfig { path: folder.join("visits.db"), app: "story 1.0".into(), client, at_rest }).unwrap()
}

fn in_the_clear(folder: &Path, text: &str) -> bool {
    ["visits.db", "visits.db-wal"].iter().any(|name| {
        let bytes = std::fs::read(folder.join(name)).unwrap_or_default();
        bytes.windows(text.len()).any(|window| window == text.as_bytes())
    })
}

/// A phone that has a visit, two facts that nobody has heard of, and a revocation that it has not heard of. Answers visit and device.
async fn lost_phone(world: &World, folder: &Path, hour: u32) -> (DispatchId, String) {
    let dispatch = world.assigned(&format!("SO-{hour}"), hour.into(), TECHNICIAN).await;
    // No two phones make the same ids.
    let engine = open(world, folder, hour.into());
    engine.sign_in(TENANT.parse().unwrap(), TECHNICIAN.parse::<TechnicianId>().unwrap()).await.unwrap();
    assert!(engine.sync_now(PATIENCE).await.unwrap().caught_up);
    for kind in [FactKind::Accepted { eta: None }, FactKind::TravelStarted { eta: None }] {
        engine.client().act(&dispatch, NewEdit::Fact(kind), None).await.unwrap();
    }
    let device = engine.sync_state().await.unwrap().device.as_str().to_owned();
    engine.close().await.unwrap();
    world.post(&format!("/devices/{device}/revoke"), json!({})).await;
    (dispatch, device)
}

async fn revoked(events: &mut broadcast::Receiver<Event>) -> Revoked {
    let heard = async {
        loop {
            if let Event::Revoked(outcome) = events.recv().await.unwrap() {
                break outcome;
            }
        }
    };
    tokio::time::timeout(PATIENCE, heard).await.expect("the app is told")
}

async fn wiped_at(world: &World, device: &str) -> Option<String> {
    let devices = world.get("/devices").await;
    let found = devices["items"].as_array().unwrap().iter().find(|found| found["deviceId"] == device);
    found.and_then(|found| found["wipedAt"].as_str()).map(str::to_owned)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_killed_in_the_middle_of_its_wipe_goes_on_with_it() {
    let world = World::start().await;
    let server = std::net::SocketAddr::from(([127, 0, 0, 1], world.port));
    for ((moment, what), hour) in MOMENTS.into_iter().zip(1..) {
        let folder = world.dir.path().join(format!("phone-{hour}"));
        std::fs::create_dir_all(&folder).unwrap();
        let (dispatch, device) = lost_phone(&world, &folder, hour).await;
        assert!(in_the_clear(&folder, TITLE), "{what}: there is something to lose");

        let mut wire = Wire::cut_at(server, moment, End::Silent).await;
        let app = App::start(&folder, wire.address, &world.token(TECHNICIAN));
        tokio::time::timeout(PATIENCE, wire.cut.wait_for(|cut| *cut)).await.expect(what).unwrap();
        drop(app);
        assert!(!in_the_clear(&folder, TITLE), "{what}: the wipe came first");
        assert!(folder.join("visits.db").exists(), "{what}");
        assert_eq!(wiped_at(&world, &device).await.is_some(), moment == Turn::Server(4), "{what}");

        // The app is opened again, and shows the technician nothing.
        let engine = open(&world, &folder, 9);
        assert_eq!(engine.store().visits(&VisitQuery::default()).unwrap(), [], "{what}");
        assert_eq!(engine.sync_state().await.unwrap().user, None, "{what}");
        let mut events = engine.events();
        engine.start().await.unwrap();
        let outcome = revoked(&mut events).await;
        let before_the_receipt = matches!(moment, Turn::Phone(3) | Turn::Server(3));
        let handed_over = if before_the_receipt { 2 } else { 0 };
        assert_eq!(outcome, Revoked { handed_over, sealed: 0, erased: true }, "{what}");
        assert!(wiped_at(&world, &device).await.is_some(), "{what}: proven");
        assert!(!folder.join("visits.db").exists(), "{what}: the file is gone");
        assert_eq!(world.facts(&dispatch).await.len(), 2, "{what}: the office has each fact once");
        assert_eq!(world.status(&dispatch).await, "DISPATCHED", "{what}: without effect");
        let mut status = engine.status();
        tokio::time::timeout(PATIENCE, status.wait_for(|status| status.phase == Phase::Revoked))
            .await
            .expect(what)
            .unwrap();
        engine.close().await.unwrap();
    }
}

/// The office is told in the end, however often the connection breaks before it has heard; and the app is told again.
#[tokio::test(flavor = "multi_thread")]
async fn a_wipe_that_the_office_has_not_heard_of_is_told_by_the_next_connection() {
    let world = World::start().await;
    let server = std::net::SocketAddr::from(([127, 0, 0, 1], world.port));
    let folder = world.dir.path().join("phone");
    std::fs::create_dir_all(&folder).unwrap();
    let (_, device) = lost_phone(&world, &folder, 1).await;
    let wire = Wire::cut_at(server, Turn::Phone(3), End::Broken).await;
    let setup = PhoneSetup { url: Some(format!("http://{}", wire.address)), ..PhoneSetup::default() };
    let client = world.client_config(TECHNICIAN, setup);
    let path = folder.join("visits.db");
    let engine = Engine::open(EngineConfig { path, app: "story 1.0".into(), client, at_rest: AtRest::Unencrypted });
    let engine = engine.unwrap();
    let mut events = engine.events();
    engine.start().await.unwrap();
    assert_eq!(revoked(&mut events).await, Revoked { handed_over: 0, sealed: 2, erased: false });
    assert_eq!(engine.status().borrow().phase, Phase::Revoked);
    assert_eq!(wiped_at(&world, &device).await, None);
    engine.close().await.unwrap();

    // Somebody signs the same technician in, as an app does at every start: the wipe is finished first.
    let engine = open(&world, &folder, 9);
    engine.sign_in(TENANT.parse().unwrap(), TECHNICIAN.parse::<TechnicianId>().unwrap()).await.unwrap();
    let mut events = engine.events();
    // A job in the background does it as well.
    let job = engine.sync_now(PATIENCE).await;
    assert!(matches!(job, Err(EngineError::Store(StoreError::Closed))), "{job:?}");
    assert_eq!(revoked(&mut events).await, Revoked { handed_over: 2, sealed: 0, erased: true });
    assert!(wiped_at(&world, &device).await.is_some());
    assert!(!folder.join("visits.db").exists());
}
