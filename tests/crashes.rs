//! The real server and real phones as processes, killed with SIGKILL at random moments while everybody works; then what was told is held
//! against what is there. Moments are drawn from a seed: so many things observed, then a moment more.
//!
//! `CRASH_SEED` draws the same moments again (what the machine does in them is its own business), `CRASH_KILLS` kills more often.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a story that is not as told shall fail")]
#![allow(clippy::print_stderr, reason = "a seed that is not printed is lost")]

#[path = "crashes/check.rs"]
mod check;
mod cluster_support;
#[path = "crashes/office.rs"]
mod office;
mod support;
#[path = "crashes/told.rs"]
mod told;

use cluster_support::{Balancer, HOUR, LONG, Node, now};
use crm_dispatch_server::app::TokenIssuer;
use crm_dispatch_server::config::Config;
use crm_dispatch_server::service::Role;
use office::{Answered, Desk};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use support::postgres_support::Database;
use support::{SECRET, TENANT, token_request};
use sync_core::domain::Timestamp;
use tempfile::TempDir;

const TECHNICIANS: [&str; 4] = ["TECH-10", "TECH-20", "TECH-30", "TECH-40"];
const OFFICES: usize = 6;
/// What every truck begins the day with: more than anybody uses.
const STOCK: i64 = 1_000_000;
/// How many processes are killed, unless `CRASH_KILLS` says otherwise.
const KILLS: u64 = 40;
/// A day's token outlives any run by hand.
const TOKEN_SECONDS: i64 = 24 * 3_600;

/// Everything that runs, and what has been observed of it.
struct World {
    seed: u64,
    rng: StdRng,
    url: String,
    dir: TempDir,
    issuer: TokenIssuer,
    balancer: Balancer,
    nodes: Vec<Node>,
    phones: Vec<Phone>,
    /// Lines that technicians were told, and answers that dispatchers got.
    observed: Arc<AtomicU64>,
    kills: u64,
    _database: Option<Database>,
}

/// A technician's process.
struct Phone {
    technician: &'static str,
    child: Child,
}

impl Drop for Phone {
    /// SIGKILL: nothing of the process runs after it.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A whole number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} must be a whole number")))
}

impl World {
    /// An office, furnished, and its server, which was killed in the middle of its first starts.
    async fn start(url: String, dir: TempDir, nodes: usize, database: Option<Database>) -> Self {
        let seed = number("CRASH_SEED").unwrap_or_else(rand::random);
        eprintln!("CRASH_SEED={seed}");
        let secret = HashMap::from([("CRM_DISPATCH__AUTH__SECRET".to_owned(), SECRET.to_owned())]);
        let issuer = TokenIssuer::new(&Config::load(None, secret).unwrap()).unwrap().unwrap();
        let mut world = Self {
            seed,
            rng: StdRng::seed_from_u64(seed),
            url,
            dir,
            issuer,
            balancer: Balancer::before(&vec![0; nodes]).await,
            nodes: Vec::new(),
            phones: Vec::new(),
            observed: Arc::default(),
            kills: 0,
            _database: database,
        };
        for number in 0..nodes {
            for _ in 0..2 {
                world.dies_starting(number).await;
            }
            let node = world.node(number).await;
            world.nodes.push(node);
        }
        world
    }

    fn log(&self, name: &str) -> PathBuf {
        self.dir.path().join(format!("{name}.log"))
    }

    fn settings() -> [(String, String); 1] {
        [("SYNC__LOOK_INTERVAL_MS".to_owned(), "200".to_owned())]
    }

    /// Starts a server and lets the balancer know where it is.
    async fn node(&self, number: usize) -> Node {
        let (url, log) = (self.url.clone(), self.log(&format!("node-{number}")));
        let node = tokio::task::spawn_blocking(move || Node::start(&url, &log, 0, &Self::settings())).await.unwrap();
        self.balancer.moved(number, node.port);
        node
    }

    /// A server that is killed before it has said that it listens, or just after.
    async fn dies_starting(&mut self, number: usize) {
        let mut command = Node::command(&self.url, &self.log(&format!("node-{number}")), 0, &Self::settings());
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        self.a_moment(400).await;
        child.kill().unwrap();
        child.wait().unwrap();
        self.kills += 1;
    }

    /// A drawn moment: what is killed after it is in the middle of something.
    async fn a_moment(&mut self, most_ms: u64) {
        let micros = self.rng.random_range(0..most_ms * 1_000);
        tokio::time::sleep(Duration::from_micros(micros)).await;
    }

    fn token(&self, sub: &str, roles: &[Role], technician: Option<&str>) -> String {
        self.issuer.issue_for(&token_request(sub, roles, technician), TOKEN_SECONDS).unwrap()
    }

    /// A technician's process, as it is started.
    fn command(&self, technician: &str, dir: &Path, seed: u64) -> Command {
        let log = File::options().create(true).append(true).open(self.log(technician)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_technician"));
        command
            .args(["--server", &self.balancer.url(), "--tenant", TENANT, "--technician", technician])
            .arg("--dir")
            .arg(dir)
            .args(["--seed", &seed.to_string()])
            .env("TECHNICIAN_TOKEN", self.token(technician, &[Role::Technician], Some(technician)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log));
        command
    }

    fn phone(&mut self, technician: &'static str) -> Phone {
        let dir = self.dir.path().join(technician);
        let seed = self.rng.random();
        let mut child = self.command(technician, &dir, seed).spawn().unwrap();
        let (lines, observed) = (BufReader::new(child.stdout.take().unwrap()).lines(), Arc::clone(&self.observed));
        std::thread::spawn(move || {
            for _ in lines.map_while(Result::ok) {
                observed.fetch_add(1, Ordering::SeqCst);
            }
        });
        Phone { technician, child }
    }

    fn desk(&self, number: usize) -> Desk {
        let roles = [Role::Dispatcher, Role::Admin, Role::Integration];
        Desk::new(number, self.balancer.url(), self.token("office", &roles, None), Arc::clone(&self.observed))
    }

    /// A site, and technicians who work day and night for years.
    async fn furnish(&self) {
        let desk = self.desk(OFFICES);
        let coordinates = json!({ "latitude": 48.2082, "longitude": 16.3738 });
        let site = json!({ "name": "Site", "address": "Wien", "coordinates": coordinates });
        desk.put("/locations/LOC-10", site).await;
        let today = now().millis().div_euclid(24 * HOUR) * 24 * HOUR;
        let until = Timestamp::from_millis(today + 3_650 * 24 * HOUR).to_string();
        for technician in TECHNICIANS {
            let body = json!({
                "name": technician,
                "skills": [{ "code": "HVAC", "level": 3 }],
                "homeBase": coordinates,
                "availability": [{ "start": Timestamp::from_millis(today).to_string(), "end": until }],
                "vanStock": { "PART-1": STOCK },
            });
            desk.put(&format!("/technicians/{technician}"), body).await;
        }
    }

    /// Waits until that much more was observed, then a moment.
    async fn in_the_middle_of_work(&mut self) {
        let until = self.observed.load(Ordering::SeqCst) + self.rng.random_range(2..60);
        let waited = async {
            while self.observed.load(Ordering::SeqCst) < until {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        if tokio::time::timeout(LONG, waited).await.is_err() {
            panic!("nobody gets on with the work\n{}", self.logs());
        }
        self.a_moment(25).await;
    }

    /// A phone is killed, wherever it is, and starts again; one in three times it does not get far.
    async fn kill_phone(&mut self) {
        let victim = self.rng.random_range(0..self.phones.len());
        loop {
            let mut phone = self.phones.remove(victim);
            let technician = phone.technician;
            if let Some(status) = phone.child.try_wait().unwrap() {
                panic!("{technician}'s phone ended by itself: {status}\n{}", self.logs());
            }
            drop(phone);
            self.kills += 1;
            let phone = self.phone(technician);
            self.phones.insert(victim, phone);
            if !self.rng.random_bool(0.33) {
                break;
            }
            self.a_moment(150).await;
        }
    }

    /// A server is killed, wherever it is, and starts again; one in four times it is killed as it starts.
    async fn kill_node(&mut self) {
        let victim = self.rng.random_range(0..self.nodes.len());
        let mut node = self.nodes.remove(victim);
        if let Some(status) = node.child.try_wait().unwrap() {
            panic!("node {victim} ended by itself: {status}\n{}", self.logs());
        }
        drop(node);
        self.kills += 1;
        if self.rng.random_bool(0.25) {
            self.dies_starting(victim).await;
        }
        let node = self.node(victim).await;
        self.nodes.insert(victim, node);
    }

    /// Everybody exchanges what is left. Twice: what one phone brings, another one may have to fetch.
    async fn settle(&mut self) {
        self.phones.clear();
        for _ in 0..2 {
            let mut settling = Vec::new();
            for technician in TECHNICIANS {
                let mut command = self.command(technician, &self.dir.path().join(technician), 0);
                let child = command.arg("--settle").stdout(Stdio::null()).spawn().unwrap();
                settling.push(Phone { technician, child });
            }
            for mut phone in settling {
                let deadline = Instant::now() + 2 * LONG;
                let status = loop {
                    if let Some(status) = phone.child.try_wait().unwrap() {
                        break status;
                    }
                    assert!(Instant::now() < deadline, "{} never settles\n{}", phone.technician, self.logs());
                    tokio::time::sleep(Duration::from_millis(20)).await;
                };
                assert!(status.success(), "{} does not settle\n{}", phone.technician, self.logs());
            }
        }
    }

    /// What everybody said last, when a story went wrong.
    fn logs(&self) -> String {
        let mut said = format!("CRASH_SEED={} after {} kills\n", self.seed, self.kills);
        let nodes = (0..2).map(|number| format!("node-{number}"));
        for name in TECHNICIANS.into_iter().map(str::to_owned).chain(nodes) {
            let log = std::fs::read_to_string(self.log(&name)).unwrap_or_default();
            let lines: Vec<_> = log.lines().rev().take(15).collect();
            said += &format!("{name}:\n{}\n", lines.into_iter().rev().collect::<Vec<_>>().join("\n"));
        }
        said
    }
}

impl Drop for World {
    /// Databases, phones and what was told stay for a look when the story went wrong.
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.dir.disable_cleanup(true);
            eprintln!("CRASH_SEED={}: everything is in {}", self.seed, self.dir.path().display());
        }
    }
}

/// The story: everybody works, and somebody is killed, again and again. Then everything that was told is there, once.
async fn nothing_that_was_told_is_lost(url: String, dir: TempDir, nodes: usize, database: Option<Database>) {
    let mut world = World::start(url, dir, nodes, database).await;
    world.furnish().await;
    for technician in TECHNICIANS {
        let phone = world.phone(technician);
        world.phones.push(phone);
    }
    let over = tokio::sync::watch::Sender::new(false);
    let offices: Vec<_> = (0..OFFICES)
        .map(|number| {
            let desk = world.desk(number);
            tokio::spawn(desk.work(StdRng::seed_from_u64(world.rng.random()), over.subscribe()))
        })
        .collect();
    let kills = world.kills + number("CRASH_KILLS").unwrap_or(KILLS);
    while world.kills < kills {
        world.in_the_middle_of_work().await;
        if world.rng.random_bool(0.6) {
            world.kill_phone().await;
        } else {
            world.kill_node().await;
        }
    }
    world.in_the_middle_of_work().await;
    over.send_replace(true);
    let mut answered: Vec<Answered> = Vec::new();
    for office in offices {
        let office = tokio::time::timeout(LONG, office).await;
        answered.extend(office.unwrap_or_else(|_| panic!("an office waits for ever\n{}", world.logs())).unwrap());
    }
    world.settle().await;
    check::answers_are_remembered(&mut world, &answered).await;
    // One last time, so that what is read now is what is on the disk.
    world.nodes.clear();
    let counts = check::everything_is_there(&world, &answered).await;
    eprintln!("seed {}: {} processes killed; {counts}", world.seed, world.kills);
}

#[tokio::test(flavor = "multi_thread")]
async fn phones_and_their_server_are_killed_at_random_and_nothing_that_was_told_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite://{}", dir.path().join("server.db").display());
    nothing_that_was_told_is_lost(url, dir, 1, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn phones_and_two_nodes_on_postgresql_are_killed_at_random_and_nothing_that_was_told_is_lost() {
    let database = Database::create().await;
    nothing_that_was_told_is_lost(database.url(), tempfile::tempdir().unwrap(), 2, Some(database)).await;
}
