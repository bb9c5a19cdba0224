//! The simulated world: one queue of events in virtual time, one seeded source of randomness, one thread.

use crate::disk::DiskCounts;
use crate::memory::{MemoryStore, Tables};
use crate::node::{End, Node, Out, ServerEnd, end, serve};
use crate::oracle;
use crate::phone::{DAWN, Done, HandOver, Phone, phone_state};
use crate::scenario::{DAY_MS, HOUR, MINUTE, SECOND, Scenario, What};
use crate::staff;
use crm_dispatch_server::service::Role;
use crm_dispatch_server::store::Store as ServerStore;
use crm_dispatch_server::store::sqlite::SqliteStore;
use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::{Context, Waker};
use sync_core::document::ActorKey;
use sync_core::domain::{TechnicianId, TenantId, VisitCard};
use sync_core::protocol::limits::{LATE_PUSHES_MAX, PUSH_BYTES_MAX, PUSH_CHANGES_MAX, PUSH_LANES_MAX};
use sync_core::protocol::{
    ByeCode, Generation, PhoneMessage, Push, PushLane, ServerMessage, Wiped, decode_server, encode_phone,
};
use sync_core::session::phone::{BatchStored, Disconnect};
use sync_core::session::{PhoneEffect, PhoneInput, PhoneSession, ServerInput};
use sync_core::store::{ActError, FeedBatch, NewEdit, PageLimits, StoreError, VisitQuery};

/// What went wrong, in words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which oracle.
    pub oracle: &'static str,
    /// What it saw.
    pub detail: String,
}

/// How a day went.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// What an oracle found; the day ends there.
    pub violation: Option<Violation>,
    /// SHA-256 over everything that happened, in order.
    pub trace: String,
    /// How often what happened.
    pub counts: BTreeMap<&'static str, u64>,
}

/// What is to happen at some time.
enum Due {
    Script(usize),
    /// A frame arrives.
    ToServer(usize, Vec<u8>),
    ToPhone(usize, Vec<u8>),
    /// The other side's close arrives.
    ServerHearsClose(usize),
    PhoneHearsClose(usize),
    /// A phone's socket is open, or was refused.
    Connected {
        phone: usize,
        attempt: u64,
        node: usize,
        reachable: bool,
    },
    Attempt {
        phone: usize,
        attempt: u64,
    },
    PhoneTick {
        phone: usize,
        timer: u64,
    },
    ServerTick(usize),
    TokenEnds(usize),
    Poll,
    Sweep,
    /// A node looks for what other nodes did.
    Look(usize),
    StartNode(usize),
    StartPhone {
        phone: usize,
        reboot: bool,
    },
    FreeDisk(usize),
    UserBack(usize),
    SignIn(usize),
    /// The office's call, again: its answer has not come.
    OfficeCall {
        event: usize,
        turn: u32,
    },
    /// The server has not answered a revoked phone that hands its work over.
    HandOverTimeout {
        phone: usize,
        conn: usize,
        turn: u32,
    },
    /// The app goes to the background when nothing happens.
    Idle(usize),
    /// There is more to send.
    Nudge {
        phone: usize,
        attempt: u64,
    },
    /// It looks for news.
    WakeUp(usize),
}

/// A connection between a phone and a node.
struct Conn {
    phone: usize,
    node: usize,
    life: u32,
    end: Option<End>,
    /// When the last frame sent arrives: frames keep their order.
    up_at: i64,
    down_at: i64,
    /// Until when frames may come twice, or not in their order; and whether that ever was so.
    scrambled_until: i64,
    scrambled: bool,
    /// Nothing arrives any more.
    up_lost: bool,
    down_lost: bool,
    phone_open: bool,
}

type Work = Pin<Box<dyn Future<Output = ()>>>;

/// Something that a node does.
struct Task {
    node: usize,
    work: Work,
}

/// The office's answer to a call.
pub(crate) type Answer = Rc<RefCell<Option<Result<String, String>>>>;

pub(crate) struct World<'a> {
    pub(crate) scenario: &'a Scenario,
    pub(crate) now: i64,
    clock: Arc<AtomicI64>,
    queue: BinaryHeap<Reverse<(i64, u64)>>,
    dues: BTreeMap<u64, Due>,
    pushed: u64,
    pub(crate) rng: SmallRng,
    trace: Sha256,
    /// Prints what happens.
    speak: bool,
    pub(crate) memory: Option<Arc<MemoryStore>>,
    pub(crate) store: Arc<dyn ServerStore>,
    runtime: Option<tokio::runtime::Runtime>,
    nodes: Vec<Node>,
    pub(crate) phones: Vec<Phone>,
    conns: Vec<Conn>,
    tasks: Vec<Task>,
    calls: BTreeMap<usize, (Answer, usize)>,
    turns: BTreeMap<usize, u32>,
    /// How long a node that is about to die will be away.
    nodes_restart: BTreeMap<usize, i64>,
    backup: Option<Tables>,
    /// Work that a restore took from the server, and that no phone has any more, is nobody's fault.
    pub(crate) restored: bool,
    pub(crate) tenant: TenantId,
    pub(crate) violation: Option<Violation>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
    healing: bool,
}

/// How long everything may take to come to rest after the last fault.
const REST_MS: i64 = 20 * MINUTE;
/// How many connections a phone may need for it.
const ATTEMPTS_TO_REST: u32 = 14;
const CONNECT_TIMEOUT_MS: i64 = 10 * SECOND;
const TOKEN_MS: i64 = 50 * MINUTE;
/// How often a node looks for what other nodes did and did not say.
const LOOK_EVERY_MS: i64 = 5 * SECOND;
const IDLE_MS: i64 = 40 * SECOND;
/// How long a revoked phone waits for the answer to what it hands over.
const HAND_OVER_PATIENCE_MS: i64 = 5 * SECOND;

/// Plays a day in an empty folder.
///
/// # Errors
/// When the machine's own disk does not do what it should: that says nothing about the code.
pub fn play(scenario: &Scenario, folder: &Path, speak: bool) -> Result<Outcome, String> {
    let mut world = World::new(scenario, folder, speak)?;
    world.run();
    let disks: Vec<DiskCounts> = world.phones.iter().map(|phone| phone.disk.counts()).collect();
    for disk in disks {
        world.count("disk writes and syncs", disk.steps);
        world.count("torn writes", disk.torn);
        world.count("writes lost with the power", disk.lost);
        world.count("writes refused by a full disk", disk.refused);
    }
    let faults: u64 = world.nodes.iter().map(|node| node.switch.faults()).sum();
    world.count("store calls failed", faults);
    let trace = world.trace.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    // The stores are closed while the folder is still there.
    for phone in &mut world.phones {
        phone.store = None;
    }
    Ok(Outcome { violation: world.violation, trace, counts: world.counts })
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, folder: &Path, speak: bool) -> Result<Self, String> {
        let clock = Arc::new(AtomicI64::new(DAWN));
        let mut rng = SmallRng::seed_from_u64(scenario.seed);
        let (mut memory, mut runtime) = (None, None);
        let store: Arc<dyn ServerStore> = if scenario.sqlite {
            let made = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let made = made.map_err(|error| error.to_string())?;
            let path = folder.join("dispatch.db");
            let store = made.block_on(SqliteStore::open(&path)).map_err(|error| error.to_string())?;
            runtime = Some(made);
            store
        } else {
            let mut actor = [0; 16];
            rng.fill_bytes(&mut actor);
            let store = Arc::new(MemoryStore::new(Generation(rng.next_u64()), ActorKey(actor)));
            memory = Some(Arc::clone(&store));
            store
        };
        let nodes = (0..scenario.nodes.max(1))
            .map(|node| Node::start(Arc::clone(&store), &clock, scenario.seed ^ (u64::from(node) << 32), 1))
            .collect();
        let tenant = TenantId::new("acme").map_err(|error| error.to_string())?;
        let mut phones = Vec::new();
        for number in 0..scenario.technicians.max(1) {
            let folder = folder.join(format!("phone-{number}"));
            std::fs::create_dir_all(&folder).map_err(|error| error.to_string())?;
            let technician = TechnicianId::new(format!("TECH-{number}")).map_err(|error| error.to_string())?;
            let remembers = scenario
                .events
                .iter()
                .any(|event| matches!(event.what, What::KillPhone { phone, power: true, .. } if phone == number));
            let seed = scenario.seed.wrapping_mul(31).wrapping_add(u64::from(number));
            phones.push(Phone::new(folder, seed, remembers, tenant.clone(), technician, DAWN));
        }
        Ok(Self {
            scenario,
            now: DAWN,
            clock,
            queue: BinaryHeap::new(),
            dues: BTreeMap::new(),
            pushed: 0,
            rng,
            trace: Sha256::new(),
            speak,
            memory,
            store,
            runtime,
            nodes,
            phones,
            conns: Vec::new(),
            tasks: Vec::new(),
            calls: BTreeMap::new(),
            turns: BTreeMap::new(),
            nodes_restart: BTreeMap::new(),
            backup: None,
            restored: false,
            tenant,
            violation: None,
            counts: BTreeMap::new(),
            healing: false,
        })
    }

    pub(crate) fn count(&mut self, what: &'static str, by: u64) {
        *self.counts.entry(what).or_default() += by;
    }

    #[allow(clippy::print_stdout, reason = "asked for on the command line")]
    pub(crate) fn note(&mut self, what: std::fmt::Arguments<'_>) {
        let line = format!("{:>10} {what}\n", self.now - DAWN);
        if self.speak {
            print!("{line}");
        }
        self.trace.update(line.as_bytes());
    }

    pub(crate) fn violates(&mut self, oracle: &'static str, detail: String) {
        self.note(format_args!("VIOLATION {oracle}: {detail}"));
        self.violation.get_or_insert(Violation { oracle, detail });
    }

    fn at(&mut self, time: i64, due: Due) {
        self.pushed += 1;
        self.queue.push(Reverse((time.max(self.now), self.pushed)));
        self.dues.insert(self.pushed, due);
    }

    /// Waits for something of a node's, in real time for a store with threads of its own.
    pub(crate) fn wait<T>(&self, work: impl Future<Output = T>) -> T {
        match &self.runtime {
            Some(runtime) => runtime.block_on(work),
            None => {
                let mut work = std::pin::pin!(work);
                loop {
                    if let std::task::Poll::Ready(done) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                        return done;
                    }
                }
            }
        }
    }

    fn run(&mut self) {
        self.furnish();
        for index in 0..self.scenario.events.len() {
            let at = DAWN + self.scenario.events[index].at_ms;
            self.at(at, Due::Script(index));
        }
        for phone in 0..self.phones.len() {
            self.start_phone(phone);
        }
        self.at(DAWN + MINUTE, Due::Sweep);
        self.go_on(DAWN + DAY_MS);
        if self.violation.is_some() {
            return;
        }
        self.heal();
        let until = self.now + REST_MS;
        while self.violation.is_none() && self.now < until {
            // Held facts are ruled on after two minutes; everything else is a matter of exchanges.
            let step = self.now + 15 * SECOND;
            self.go_on(step);
            if self.violation.is_none() && oracle::at_rest(self) {
                break;
            }
        }
        if self.violation.is_none() {
            oracle::check(self, ATTEMPTS_TO_REST);
        }
        let rest = (self.now - DAWN - DAY_MS).unsigned_abs() / 1_000;
        self.count("seconds to rest", rest);
    }

    /// Everything up to that time.
    fn go_on(&mut self, until: i64) {
        while self.violation.is_none() {
            match self.queue.peek() {
                Some(Reverse((time, _))) if *time <= until => {}
                _ => break,
            }
            let Some(Reverse((time, number))) = self.queue.pop() else { break };
            let Some(due) = self.dues.remove(&number) else { continue };
            self.now = time;
            self.clock.store(time, Ordering::Relaxed);
            self.happens(due);
        }
        self.now = until.max(self.now);
        self.clock.store(self.now, Ordering::Relaxed);
    }

    fn happens(&mut self, due: Due) {
        match due {
            Due::Script(index) => self.script(index),
            Due::ToServer(conn, frame) => self.reach_server(conn, frame),
            Due::ToPhone(conn, frame) => self.reach_phone(conn, frame),
            Due::ServerHearsClose(conn) => {
                if let Some(end) = self.conns[conn].end.take() {
                    end.borrow_mut().gone = true;
                }
            }
            Due::PhoneHearsClose(conn) => {
                if self.conns[conn].phone_open {
                    self.lost(self.conns[conn].phone, None);
                }
            }
            Due::Attempt { phone, attempt } => {
                if self.phones[phone].link.attempt == attempt {
                    self.attempt(phone);
                }
            }
            Due::Connected { phone, attempt, node, reachable } => {
                if self.phones[phone].link.attempt == attempt {
                    self.connected(phone, node, reachable);
                }
            }
            Due::PhoneTick { phone, timer } => {
                if self.phones[phone].link.timer == timer {
                    self.phone_input(phone, PhoneInput::Tick);
                }
            }
            Due::ServerTick(conn) => self.feed_server(conn, Some(ServerInput::Tick)),
            Due::TokenEnds(conn) => {
                let over = self.conns[conn].end.as_ref().is_some_and(|end| end.borrow().expires_at <= self.now);
                if over {
                    self.feed_server(conn, Some(end(ByeCode::TokenExpired, None)));
                }
            }
            Due::Poll => self.poll_tasks(),
            Due::Sweep => self.sweep(),
            Due::Look(node) => {
                if let Some(service) = self.nodes[node].service.clone() {
                    let work = async move {
                        // A look that fails is followed by the next one.
                        let _ = service.look_for_growth().await;
                    };
                    self.spawn(node, Box::pin(work));
                }
            }
            Due::StartNode(node) => self.start_node(node),
            Due::StartPhone { phone, reboot } => {
                if reboot {
                    let now = self.now;
                    self.phones[phone].clock.reboot(now);
                }
                self.start_phone(phone);
            }
            Due::FreeDisk(phone) => {
                self.phones[phone].disk.heal();
            }
            Due::HandOverTimeout { phone, conn, turn } => {
                let late = |work: &mut HandOver| work.conn == conn && work.turn == turn;
                if let Some(work) = self.phones[phone].hand_over.take_if(late) {
                    self.hand_over(phone, HandOver { turn: LATE_PUSHES_MAX, ..work });
                }
            }
            Due::UserBack(phone) => self.user_back(phone),
            Due::SignIn(phone) => self.sign_in(phone),
            Due::OfficeCall { event, turn } => self.office_call(event, turn),
            Due::Idle(phone) => {
                let idle = self.now - self.phones[phone].active_at >= IDLE_MS;
                if idle && !self.healing && self.phones[phone].link.conn.is_some() {
                    self.note(format_args!("phone {phone} sleeps"));
                    self.hang_up(phone, true);
                }
            }
            Due::Nudge { phone, attempt } => {
                if self.phones[phone].link.attempt == attempt {
                    self.phone_input(phone, PhoneInput::OutboxGrew);
                }
            }
            Due::WakeUp(phone) => {
                if !self.healing {
                    let later = self.now + self.rng.random_range(30 * MINUTE..4 * HOUR);
                    self.at(later, Due::WakeUp(phone));
                    self.wake(phone);
                }
            }
        }
    }

    /// Sites, technicians with stock, and their calendars.
    fn furnish(&mut self) {
        let tenant = self.tenant.clone();
        let admin = staff::caller(&tenant, "admin", Role::Admin);
        let Some(service) = self.nodes[0].service.clone() else { return };
        let technicians: Vec<_> = self.phones.iter().map(|phone| phone.technician.clone()).collect();
        let done = self.wait(staff::furnish(&service, &admin, &technicians));
        if let Err(error) = done {
            self.violates("the simulator", format!("furnishing: {error}"));
        }
        for node in 0..self.nodes.len() {
            if self.runtime.is_none() && self.rng.random_bool(0.5) {
                self.nodes[node].switch.slows();
            }
        }
        for phone in 0..self.phones.len() {
            let at = self.now + self.rng.random_range(0..MINUTE);
            self.at(at, Due::WakeUp(phone));
        }
    }

    // --- the script

    fn script(&mut self, index: usize) {
        let event = self.scenario.events[index].clone();
        let phones = self.phones.len();
        self.note(format_args!("{:?}", event.what));
        let now = self.now;
        let who = |phone: u8| usize::from(phone) % phones;
        match event.what {
            What::Act { phone } => self.act(who(phone), event.salt),
            What::KillPhone { phone, after_io, power, restart_ms } => {
                let phone = who(phone);
                if self.phones[phone].store.is_none() {
                    return;
                }
                self.count(if power { "phones that lost their power" } else { "phone processes killed" }, 1);
                if after_io == 0 {
                    self.kill_phone(phone, power, restart_ms);
                } else {
                    self.phones[phone].disk.dies_in(after_io);
                    self.phones[phone].dies = Some((power, restart_ms));
                }
            }
            What::DiskFull { phone, after_io, for_ms } => {
                self.count("full disks", 1);
                self.phones[who(phone)].disk.fills_in(after_io);
                self.at(now + for_ms, Due::FreeDisk(who(phone)));
            }
            What::ClockJump { phone, by_ms } => {
                self.count("clocks set", 1);
                self.phones[who(phone)].clock.offset_ms += by_ms;
            }
            What::Drift { phone, ppm } => {
                self.count("clocks that drift", 1);
                self.phones[who(phone)].clock.set_speed(now, ppm);
            }
            What::Reboot { phone, for_ms } => {
                let phone = who(phone);
                if self.phones[phone].store.is_some() {
                    self.count("phones switched off and on", 1);
                    self.close_phone(phone);
                    self.at(now + for_ms, Due::StartPhone { phone, reboot: true });
                }
            }
            What::Update { phone } => {
                let phone = who(phone);
                if self.phones[phone].store.is_some() {
                    self.count("app updates", 1);
                    self.close_phone(phone);
                    self.phones[phone].version += 1;
                    self.at(now + SECOND, Due::StartPhone { phone, reboot: false });
                }
            }
            What::SwitchUser { phone, for_ms } => self.switch_user(who(phone), for_ms),
            What::PrunePhone { phone } => {
                let wall = self.phones[who(phone)].clock.wall(now);
                // A process that dies in it has nothing to say.
                let _ = self.ask(who(phone), |store, _| store.prune(wall));
            }
            What::Cut { phone } => {
                if let Some(conn) = self.phones[who(phone)].link.conn {
                    self.count("connections cut", 1);
                    self.conns[conn].down_lost = true;
                    // A part of what is under way still arrives.
                    self.conns[conn].up_lost = self.rng.random();
                    let server_hears = self.rng.random_bool(0.6);
                    self.lost(who(phone), None);
                    if server_hears {
                        self.at(now + 100, Due::ServerHearsClose(conn));
                    }
                }
            }
            What::Partition { phone, for_ms } => {
                self.count("partitions", 1);
                let phone = who(phone);
                self.phones[phone].link.no_network_until = now + for_ms;
                if let Some(conn) = self.phones[phone].link.conn
                    && (for_ms > 20 * SECOND || self.rng.random())
                {
                    (self.conns[conn].up_lost, self.conns[conn].down_lost) = (true, true);
                }
            }
            What::HalfOpen { phone, up, down } => {
                if let Some(conn) = self.phones[who(phone)].link.conn {
                    self.count("half-open connections", 1);
                    self.conns[conn].up_lost |= up;
                    self.conns[conn].down_lost |= down;
                }
            }
            What::Scramble { phone, for_ms } => {
                if let Some(conn) = self.phones[who(phone)].link.conn {
                    self.count("connections that deliver twice and out of order", 1);
                    self.conns[conn].scrambled_until = now + for_ms;
                    self.conns[conn].scrambled = true;
                }
            }
            What::Slow { phone, latency_ms, for_ms } => {
                self.count("slow networks", 1);
                let link = &mut self.phones[who(phone)].link;
                link.slow_until = now + for_ms;
                link.latency_ms = link.latency_ms.max(latency_ms);
            }
            What::TokenOutage { phone, for_ms } => {
                self.count("token outages", 1);
                self.phones[who(phone)].link.no_token_until = now + for_ms;
            }
            What::TokenEnds { phone } => {
                let link = &mut self.phones[who(phone)].link;
                link.token_until = now;
                if let Some(conn) = link.conn {
                    self.count("tokens that ended", 1);
                    if let Some(end) = &self.conns[conn].end {
                        end.borrow_mut().expires_at = now;
                    }
                    self.at(now, Due::TokenEnds(conn));
                }
            }
            What::Revoke { phone, sign_in_ms } => self.revoke(index, who(phone), sign_in_ms),
            What::KillNode { node, commits, after, restart_ms } => {
                let node = usize::from(node) % self.nodes.len();
                if self.nodes[node].service.is_some() {
                    self.count(if after { "nodes killed after a commit" } else { "nodes killed before a commit" }, 1);
                    self.nodes[node].switch.dies_at(commits, after);
                    self.nodes_restart.insert(node, restart_ms);
                }
            }
            What::KillNodeAt { node, call, restart_ms } => {
                let node = usize::from(node) % self.nodes.len();
                if self.nodes[node].service.is_some() {
                    self.count("nodes killed at a call to the store", 1);
                    self.nodes[node].switch.dies_at_call(call);
                    self.nodes_restart.insert(node, restart_ms);
                }
            }
            What::StoreFault { node, calls, written } => {
                let node = usize::from(node) % self.nodes.len();
                self.count("store faults", 1);
                self.nodes[node].switch.fails(calls, written);
            }
            What::Backup => self.backup = self.memory.as_ref().map(|memory| memory.copy()),
            What::Restore { restart_ms } => self.restore(restart_ms),
            What::Office { .. } => self.office_call(index, 0),
        }
    }

    // --- server nodes

    fn start_node(&mut self, node: usize) {
        if self.nodes[node].service.is_none() {
            self.note(format_args!("node {node} starts"));
            let (life, seed) = (self.nodes[node].life + 1, self.rng.next_u64());
            self.nodes[node] = Node::start(Arc::clone(&self.store), &self.clock, seed, life);
            if self.runtime.is_none() && self.rng.random_bool(0.5) {
                self.nodes[node].switch.slows();
            }
        }
    }

    fn kill_node(&mut self, node: usize, restart_ms: i64) {
        self.note(format_args!("node {node} dies"));
        self.nodes[node].service = None;
        self.tasks.retain(|task| task.node != node);
        for conn in 0..self.conns.len() {
            if self.conns[conn].node == node && self.conns[conn].end.take().is_some() && self.rng.random_bool(0.7) {
                self.at(self.now + 80, Due::PhoneHearsClose(conn));
            }
        }
        let waiting: Vec<_> = self.calls.iter().filter(|(_, (_, on))| *on == node).map(|(call, _)| *call).collect();
        for event in waiting {
            self.calls.remove(&event);
            self.at(self.now + 5 * SECOND, Due::OfficeCall { event, turn: 1 });
        }
        self.at(self.now + restart_ms, Due::StartNode(node));
    }

    fn restore(&mut self, restart_ms: i64) {
        let (Some(backup), Some(memory)) = (self.backup.take(), self.memory.clone()) else { return };
        self.count("databases restored from an old copy", 1);
        for node in 0..self.nodes.len() {
            if self.nodes[node].service.is_some() {
                self.kill_node(node, restart_ms);
            }
        }
        let mut actor = [0; 16];
        self.rng.fill_bytes(&mut actor);
        memory.restore(backup, Generation(self.rng.next_u64()), ActorKey(actor));
        self.restored = true;
    }

    fn sweep(&mut self) {
        let every = if self.healing {
            10 * SECOND
        } else if self.runtime.is_some() {
            30 * MINUTE
        } else {
            6 * MINUTE
        };
        self.at(self.now + every, Due::Sweep);
        let nodes = self.nodes.len();
        let node = self.rng.random_range(0..nodes);
        if let Some(service) = self.nodes[node].service.clone() {
            let work = async move {
                // A sweep that fails is tried again by the next one.
                let _ = service.sweep().await;
            };
            self.spawn(node, Box::pin(work));
        }
    }

    fn spawn(&mut self, node: usize, work: Work) {
        match &self.runtime {
            Some(runtime) => {
                runtime.block_on(work);
                self.after_work(node);
            }
            None => {
                self.tasks.push(Task { node, work });
                self.poll_tasks();
            }
        }
    }

    fn poll_tasks(&mut self) {
        let mut index = 0;
        let mut worked = std::collections::BTreeSet::new();
        while index < self.tasks.len() {
            let task = &mut self.tasks[index];
            worked.insert(task.node);
            if task.work.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready() {
                drop(self.tasks.remove(index));
            } else {
                index += 1;
            }
        }
        for node in worked {
            self.after_work(node);
        }
    }

    /// What the node's work has led to: frames, answers, news for other phones, or its death.
    fn after_work(&mut self, node: usize) {
        for wake in self.nodes[node].switch.wakes() {
            self.at(wake, Due::Poll);
        }
        if self.nodes[node].switch.is_dead() && self.nodes[node].service.is_some() {
            let restart = self.nodes_restart.remove(&node).unwrap_or(10 * SECOND);
            self.kill_node(node, restart);
            return;
        }
        let answered: Vec<_> =
            self.calls.iter().filter(|(_, (answer, _))| answer.borrow().is_some()).map(|(call, _)| *call).collect();
        for call in answered {
            if let Some((answer, _)) = self.calls.remove(&call) {
                self.office_answered(call, &answer);
            }
        }
        for conn in 0..self.conns.len() {
            if self.conns[conn].node == node {
                self.drain(conn);
            }
        }
        // Other nodes hear of it by a hint, which may get lost; they look by themselves as well, now and then.
        if self.nodes.len() > 1 && self.nodes[node].switch.take_announced() {
            for other in (0..self.nodes.len()).filter(|other| *other != node) {
                let wait = if self.rng.random_bool(0.8) {
                    self.rng.random_range(5..200)
                } else {
                    self.count("hints between nodes lost", 1);
                    LOOK_EVERY_MS
                };
                self.at(self.now + wait, Due::Look(other));
            }
        }
    }

    /// Sends what a connection's work has put out, and gives it the next thing to do.
    fn drain(&mut self, conn: usize) {
        let Some(end) = self.conns[conn].end.clone() else { return };
        let (outs, gone, bye) = {
            let mut state = end.borrow_mut();
            (std::mem::take(&mut state.out), state.gone, state.bye.take())
        };
        if let Some(bye) = bye {
            self.note(format_args!("conn {conn} bye {bye:?}"));
        }
        for out in outs {
            match out {
                Out::Frame(frame) => self.send_down(conn, frame),
                Out::Close => self.close_down(conn),
            }
        }
        if gone {
            self.close_down(conn);
            self.conns[conn].end = None;
            return;
        }
        self.feed_server(conn, None);
    }

    /// Gives an idle connection its next input.
    fn feed_server(&mut self, conn: usize, input: Option<ServerInput>) {
        let Some(end) = self.conns[conn].end.clone() else { return };
        if self.nodes[self.conns[conn].node].life != self.conns[conn].life {
            self.conns[conn].end = None;
            return;
        }
        let input = {
            let mut state = end.borrow_mut();
            if state.busy || state.gone {
                if matches!(input, Some(ServerInput::Tick | ServerInput::End { .. })) {
                    drop(state);
                    let due = if matches!(input, Some(ServerInput::Tick)) {
                        Due::ServerTick(conn)
                    } else {
                        Due::TokenEnds(conn)
                    };
                    self.at(self.now + 500, due);
                }
                return;
            }
            let next = match input {
                Some(input) => Some(input),
                None if !state.frames.is_empty() && self.rng.random_bool(0.6) => {
                    state.frames.pop_front().map(ServerInput::Frame)
                }
                None => state.signal().or_else(|| state.frames.pop_front().map(ServerInput::Frame)),
            };
            let Some(next) = next else { return };
            state.busy = true;
            next
        };
        if matches!(input, ServerInput::Tick) {
            let deadline = end.borrow().session.deadline_ms();
            let at = i64::try_from(deadline).unwrap_or(self.now).max(self.now + SECOND);
            self.at(at, Due::ServerTick(conn));
        }
        let node = self.conns[conn].node;
        self.spawn(node, Box::pin(serve(end, input)));
    }

    // --- the network

    fn latency(&mut self, phone: usize) -> i64 {
        let now = self.now;
        let link = &mut self.phones[phone].link;
        if link.slow_until <= now && link.latency_ms > 250 {
            link.latency_ms = 120;
        }
        let base = link.latency_ms;
        let wait = (link.no_network_until - now).max(0);
        wait + base + self.rng.random_range(0..=base)
    }

    fn send_up(&mut self, conn: usize, frame: Vec<u8>) {
        let phone = self.conns[conn].phone;
        self.phones[phone].exchanges += 1;
        if self.conns[conn].up_lost {
            self.count("frames lost", 1);
            return;
        }
        let sent = self.now + self.latency(phone);
        if self.comes_twice(conn) {
            let again = sent + self.rng.random_range(0..2 * SECOND);
            self.at(again, Due::ToServer(conn, frame.clone()));
        }
        let at = if self.comes_out_of_order(conn) { sent } else { sent.max(self.conns[conn].up_at) };
        self.conns[conn].up_at = at.max(self.conns[conn].up_at);
        self.at(at, Due::ToServer(conn, frame));
    }

    fn send_down(&mut self, conn: usize, frame: Vec<u8>) {
        if self.conns[conn].down_lost {
            self.count("frames lost", 1);
            return;
        }
        let sent = self.now + self.latency(self.conns[conn].phone);
        if self.comes_twice(conn) {
            let again = sent + self.rng.random_range(0..2 * SECOND);
            self.at(again, Due::ToPhone(conn, frame.clone()));
        }
        let at = if self.comes_out_of_order(conn) { sent } else { sent.max(self.conns[conn].down_at) };
        self.conns[conn].down_at = at.max(self.conns[conn].down_at);
        self.at(at, Due::ToPhone(conn, frame));
    }

    fn comes_twice(&mut self, conn: usize) -> bool {
        let twice = self.now < self.conns[conn].scrambled_until && self.rng.random_bool(0.25);
        if twice {
            self.count("frames delivered twice", 1);
        }
        twice
    }

    fn comes_out_of_order(&mut self, conn: usize) -> bool {
        let overtakes = self.now < self.conns[conn].scrambled_until && self.rng.random_bool(0.5);
        if overtakes {
            self.count("frames that may overtake others", 1);
        }
        overtakes
    }

    fn close_down(&mut self, conn: usize) {
        if !self.conns[conn].down_lost && self.conns[conn].phone_open {
            let at = (self.now + 30).max(self.conns[conn].down_at);
            self.at(at, Due::PhoneHearsClose(conn));
        }
    }

    fn reach_server(&mut self, conn: usize, frame: Vec<u8>) {
        let Some(end) = self.conns[conn].end.clone() else { return };
        if self.conns[conn].up_lost && self.rng.random_bool(0.5) {
            self.count("frames lost", 1);
            return;
        }
        self.note(format_args!("conn {conn} up {} {:02x?}", frame.len(), digest(&frame)));
        end.borrow_mut().frames.push_back(frame);
        self.feed_server(conn, None);
    }

    fn reach_phone(&mut self, conn: usize, frame: Vec<u8>) {
        if self.conns[conn].down_lost || !self.conns[conn].phone_open {
            self.count("frames lost", 1);
            return;
        }
        let phone = self.conns[conn].phone;
        self.note(format_args!("conn {conn} down {} {:02x?}", frame.len(), digest(&frame)));
        if self.phones[phone].hand_over.as_ref().is_some_and(|work| work.conn == conn) {
            return self.handed_over(phone, &frame);
        }
        self.phone_input(phone, PhoneInput::Frame(frame));
    }

    // --- phones

    fn start_phone(&mut self, phone: usize) {
        if self.phones[phone].store.is_some() {
            return;
        }
        let now = self.now;
        match self.phones[phone].start(now) {
            Ok(report) => {
                let lost = report.set_aside.is_some() || report.rows_quarantined > 0 || report.restored;
                self.note(format_args!("phone {phone} starts"));
                if lost {
                    self.violates("the phone's file is sound", format!("phone {phone}: {report:?}"));
                }
                self.wake(phone);
            }
            Err(error) => {
                let faulty = self.phones[phone].disk.is_dead() || self.phones[phone].disk.is_full();
                if self.phones[phone].disk.is_dead() {
                    self.phones[phone].die(false);
                } else {
                    self.phones[phone].store = None;
                }
                if !faulty {
                    self.violates("the phone starts", format!("phone {phone}: {error}"));
                }
                self.note(format_args!("phone {phone} does not start"));
                self.at(now + MINUTE, Due::StartPhone { phone, reboot: false });
            }
        }
    }

    fn kill_phone(&mut self, phone: usize, power: bool, restart_ms: i64) {
        self.note(format_args!("phone {phone} dies"));
        self.drop_conn(phone);
        self.phones[phone].die(power);
        self.phones[phone].dies = None;
        let now = self.now;
        self.at(now + restart_ms, Due::StartPhone { phone, reboot: power });
    }

    /// The app ends as it should.
    fn close_phone(&mut self, phone: usize) {
        self.hang_up(phone, true);
        if let Some(store) = self.phones[phone].store.take() {
            let result = store.close();
            if self.phones[phone].disk.is_dead() {
                let (power, _) = self.phones[phone].dies.take().unwrap_or((false, 0));
                self.phones[phone].die(power);
            } else {
                self.stored(phone, result);
            }
        }
    }

    /// Looks at what a call of the store came to. False when it failed, as it may with such a disk.
    fn stored(&mut self, phone: usize, result: Result<(), StoreError>) -> bool {
        if self.phones[phone].disk.is_dead() {
            let (power, restart_ms) = self.phones[phone].dies.unwrap_or((false, SECOND));
            self.kill_phone(phone, power, restart_ms);
            return false;
        }
        match result {
            Ok(()) => true,
            Err(_) if self.phones[phone].disk.is_full() => false,
            Err(error) => {
                self.violates("the phone's store answers", format!("phone {phone}: {error}"));
                false
            }
        }
    }

    fn wake(&mut self, phone: usize) {
        let now = self.now;
        let state = &mut self.phones[phone];
        let idle = state.store.is_some() && !state.revoked && !state.away;
        if idle && state.link.conn.is_none() && !state.link.attempting {
            state.active_at = now;
            self.attempt(phone);
        }
    }

    fn attempt(&mut self, phone: usize) {
        let now = self.now;
        let state = &mut self.phones[phone];
        if state.store.is_none() || state.revoked || state.away {
            return;
        }
        state.attempts += 1;
        state.link.attempt += 1;
        state.link.attempting = true;
        state.link.asked_to_wait = false;
        let attempt = state.link.attempt;
        let link = &mut state.link;
        if link.rejected || link.token_until == 0 {
            if link.no_token_until > now {
                self.note(format_args!("phone {phone} has no token"));
                return self.again(phone, None, false);
            }
            link.token_until = now + TOKEN_MS;
        }
        let no_network = link.no_network_until > now;
        let node = self.rng.random_range(0..self.nodes.len());
        let (wait, reachable) = if no_network { (CONNECT_TIMEOUT_MS, false) } else { (2 * self.latency(phone), true) };
        self.at(now + wait, Due::Connected { phone, attempt, node, reachable });
    }

    fn connected(&mut self, phone: usize, node: usize, reachable: bool) {
        self.phones[phone].link.attempting = false;
        let Some(service) = self.nodes[node].service.clone().filter(|_| reachable) else {
            self.note(format_args!("phone {phone} is not connected to node {node}"));
            return self.again(phone, None, false);
        };
        let was_rejected = self.phones[phone].link.rejected;
        if self.phones[phone].link.token_until <= self.now {
            self.note(format_args!("phone {phone} is refused"));
            self.count("expired tokens refused", 1);
            self.phones[phone].link.rejected = true;
            // A refused token is replaced at once, but only once.
            return if was_rejected { self.again(phone, None, false) } else { self.attempt(phone) };
        }
        self.phones[phone].link.rejected = false;
        let conn = self.conns.len();
        self.note(format_args!("phone {phone} is connected to node {node}: conn {conn}"));
        self.count("connections", 1);
        let state = &self.phones[phone];
        let until = state.link.token_until;
        let end = ServerEnd::open(&self.nodes[node], service, self.tenant.clone(), state.technician.clone(), until);
        let tick = i64::try_from(end.borrow().session.deadline_ms()).unwrap_or(self.now);
        self.conns.push(Conn {
            phone,
            node,
            life: self.nodes[node].life,
            end: Some(end),
            up_at: self.now,
            down_at: self.now,
            scrambled_until: 0,
            scrambled: false,
            up_lost: false,
            down_lost: false,
            phone_open: true,
        });
        self.at(tick, Due::ServerTick(conn));
        self.at(until, Due::TokenEnds(conn));
        self.phones[phone].link.conn = Some(conn);
        self.phones[phone].active_at = self.now;
        let state = self.phones[phone].store.as_ref().map(sync_core::store::Store::sync_state);
        match state {
            Some(Ok(state)) => {
                let now = self.phones[phone].clock.session(self.now);
                let (session, effects) = PhoneSession::open(now, phone_state(state));
                self.carry_out(phone, session, effects);
            }
            Some(Err(error)) => {
                self.stored(phone, Err(error));
                self.lost(phone, None);
            }
            None => {}
        }
    }

    /// The phone's side of the connection is over, without the server hearing of it.
    fn drop_conn(&mut self, phone: usize) {
        if let Some(conn) = self.phones[phone].link.conn {
            self.conns[conn].phone_open = false;
            if self.rng.random_bool(0.5) {
                self.at(self.now + 200, Due::ServerHearsClose(conn));
            }
        }
    }

    fn hang_up(&mut self, phone: usize, server_hears: bool) {
        if let Some(conn) = self.phones[phone].link.conn {
            self.conns[conn].phone_open = false;
            if server_hears && !self.conns[conn].up_lost {
                let at = self.conns[conn].up_at.max(self.now + 50);
                self.at(at, Due::ServerHearsClose(conn));
            }
        }
        self.phones[phone].hang_up();
    }

    /// The connection is lost: again, after a while.
    fn lost(&mut self, phone: usize, retry_after_ms: Option<i64>) {
        let good = self.phones[phone].link.greeted;
        self.drop_conn(phone);
        self.phones[phone].hang_up();
        self.again(phone, retry_after_ms, good);
    }

    fn again(&mut self, phone: usize, retry_after_ms: Option<i64>, good: bool) {
        let now = self.now;
        let state = &mut self.phones[phone];
        if good {
            state.link.backoff.succeeded();
        }
        state.link.attempt += 1;
        state.link.attempting = false;
        state.link.asked_to_wait = retry_after_ms.is_some();
        let attempt = state.link.attempt;
        let delay = state.link.backoff.next_delay_ms(retry_after_ms, &mut state.rng);
        self.at(now + delay, Due::Attempt { phone, attempt });
    }

    fn phone_input(&mut self, phone: usize, input: PhoneInput) {
        let Some(mut session) = self.phones[phone].link.session.take() else { return };
        let now = self.phones[phone].clock.session(self.now);
        let effects = session.handle(now, input);
        self.carry_out(phone, session, effects);
    }

    fn carry_out(&mut self, phone: usize, mut session: PhoneSession, effects: Vec<PhoneEffect>) {
        let mut queue = VecDeque::from(effects);
        while let Some(effect) = queue.pop_front() {
            match self.effect(phone, effect) {
                Ok(Some(answer)) => {
                    let now = self.phones[phone].clock.session(self.now);
                    for next in session.handle(now, answer).into_iter().rev() {
                        queue.push_front(next);
                    }
                }
                Ok(None) => {}
                Err(()) => return,
            }
        }
        let deadline = session.deadline_ms();
        let state = &mut self.phones[phone];
        state.link.session = Some(session);
        state.link.timer += 1;
        let timer = state.link.timer;
        let at = state.clock.true_time(deadline, self.now);
        self.at(at, Due::PhoneTick { phone, timer });
        if !self.healing {
            self.at(self.now + IDLE_MS, Due::Idle(phone));
        }
    }

    /// A call of the phone's store; the connection ends when it fails.
    fn ask<T>(
        &mut self,
        phone: usize,
        call: impl FnOnce(&sync_core::store::Store, &mut SmallRng) -> Result<T, StoreError>,
    ) -> Result<T, ()> {
        let state = &mut self.phones[phone];
        let Some(store) = &state.store else { return Err(()) };
        let result = call(store, &mut state.rng);
        // A process that died in the middle of it has not answered.
        match result {
            Ok(done) if !self.phones[phone].disk.is_dead() => Ok(done),
            Ok(_) => {
                self.stored(phone, Ok(()));
                Err(())
            }
            Err(error) => {
                self.stored(phone, Err(error));
                if self.phones[phone].link.conn.is_some() {
                    self.lost(phone, None);
                }
                Err(())
            }
        }
    }

    fn effect(&mut self, phone: usize, effect: PhoneEffect) -> Result<Option<PhoneInput>, ()> {
        let device = self.phones[phone].clock.device(self.now);
        let wall = device.wall;
        let Some(conn) = self.phones[phone].link.conn else { return Err(()) };
        Ok(match effect {
            PhoneEffect::Send(message) => {
                if let PhoneMessage::Ack(ack) = &message
                    && !ack.digest_matched
                {
                    self.count("digest mismatches healed", 1);
                    self.note(format_args!("phone {phone} reports a digest mismatch"));
                }
                self.send_up(conn, encode_phone(&message));
                None
            }
            PhoneEffect::Introduce(welcome) => {
                let (check, state) = self.ask(phone, |store, _| {
                    let check = store.server_identity(welcome.generation, welcome.head, wall)?;
                    Ok((check, store.sync_state()?))
                })?;
                self.phones[phone].link.greeted = true;
                if check.changed {
                    self.count("phones that noticed another server database", 1);
                }
                Some(PhoneInput::Introduced(phone_state(state)))
            }
            PhoneEffect::LoadOutbox => {
                let limits = PageLimits { changes: PUSH_CHANGES_MAX, bytes: PUSH_BYTES_MAX, lanes: PUSH_LANES_MAX };
                let page = self.ask(phone, |store, _| store.outbox_page(&limits))?;
                let lanes: Vec<PushLane> = page.lanes.iter().map(|sent| sent.lane.clone()).collect();
                self.phones[phone].link.in_flight = page.lanes;
                Some(PhoneInput::Outbox { lanes, mark: page.mark })
            }
            PhoneEffect::StoreBatch { batch, items } => {
                self.phones[phone].active_at = self.now;
                let batch = FeedBatch {
                    from: batch.from,
                    to: batch.to,
                    reset: batch.reset,
                    more: batch.more,
                    digest: batch.digest,
                    items,
                };
                let applied = self.ask(phone, |store, rng| store.apply_batch(batch, wall, rng))?;
                if applied.outbox_changed {
                    let (at, timer) = (self.now + 1, self.phones[phone].link.attempt);
                    self.at(at, Due::Nudge { phone, attempt: timer });
                }
                self.look_at_list(phone)?;
                Some(PhoneInput::BatchStored(BatchStored {
                    cursor: applied.cursor,
                    digest_matched: applied.digest_matches,
                    gap: applied.cursor_gap,
                    needs_fetch: applied.needs_fetch,
                }))
            }
            PhoneEffect::StorePushAck { lanes: _, ack } => {
                self.phones[phone].active_at = self.now;
                let sent = std::mem::take(&mut self.phones[phone].link.in_flight);
                for lane in &ack.lanes {
                    if let Some(refusal) = &lane.refusal {
                        self.note(format_args!("lane {} refused: {}", lane.dispatch, refusal.code));
                        self.count("lanes refused", 1);
                    }
                }
                let applied = self.ask(phone, |store, rng| {
                    store.push_acknowledged(&sent, &ack.lanes, ack.feed.as_ref(), wall, rng)
                })?;
                self.count("changes acknowledged", u64::from(applied.acknowledged));
                Some(PhoneInput::AckStored(BatchStored {
                    cursor: applied.cursor,
                    digest_matched: applied.digest_matches,
                    gap: false,
                    needs_fetch: applied.needs_fetch,
                }))
            }
            PhoneEffect::SetClock { offset_ms, uncertainty_ms } => {
                let link = &self.phones[phone].link;
                let drifted = link.clock_noted.is_none_or(|(at, offset)| {
                    device.monotonic_ms.saturating_sub(at) > 60_000 || offset.abs_diff(offset_ms) > 100
                });
                if drifted {
                    self.phones[phone].link.clock_noted = Some((device.monotonic_ms, offset_ms));
                    self.ask(phone, |store, _| store.set_clock_offset(offset_ms, uncertainty_ms, &device))?;
                }
                None
            }
            PhoneEffect::Synced => {
                let noted = self.phones[phone].link.synced_noted;
                if noted.is_none_or(|at| device.monotonic_ms.saturating_sub(at) > 60_000) {
                    self.phones[phone].link.synced_noted = Some(device.monotonic_ms);
                    self.ask(phone, |store, _| store.note_synced(wall))?;
                }
                self.phones[phone].link.caught_up = true;
                None
            }
            PhoneEffect::Disconnect(why) => {
                self.disconnected(phone, conn, why);
                return Err(());
            }
        })
    }

    fn disconnected(&mut self, phone: usize, conn: usize, why: Disconnect) {
        self.note(format_args!("phone {phone} hangs up: {why:?}"));
        match why {
            Disconnect::ServerReplaced => self.lost(phone, None),
            Disconnect::HalfOpen | Disconnect::PushTimeout | Disconnect::NoWelcome => {
                self.count("half-open connections found", 1);
                self.lost(phone, None);
            }
            Disconnect::Malformed(detail) => {
                if !self.conns[conn].scrambled {
                    self.violates("every frame makes sense", detail);
                }
                self.lost(phone, None);
            }
            Disconnect::Bye(bye) => match bye.code {
                ByeCode::TokenExpired => {
                    self.count("connections that outlived their token", 1);
                    self.phones[phone].link.rejected = true;
                    self.drop_conn(phone);
                    self.phones[phone].hang_up();
                    self.phones[phone].link.backoff.succeeded();
                    self.attempt(phone);
                }
                ByeCode::DeviceRevoked => {
                    let Ok(wiped) = self.ask(phone, |store, rng| store.wipe_after_revocation(rng)) else { return };
                    self.count("phones wiped", 1);
                    self.note(format_args!("phone {phone} is wiped, {} changes sealed", wiped.sealed));
                    let state = &mut self.phones[phone];
                    state.revoked = true;
                    state.seen.clear();
                    let back = if self.healing { SECOND } else { self.phones[phone].sign_in_ms };
                    self.at(self.now + back, Due::SignIn(phone));
                    let work = HandOver { conn, turn: 0, sent: Vec::new(), taken: 0, sealed: wiped.sealed };
                    self.hand_over(phone, work);
                }
                code => {
                    if !self.conns[conn].scrambled
                        && matches!(
                            code,
                            ByeCode::OutOfTurn | ByeCode::Malformed | ByeCode::TooLarge | ByeCode::Version
                        )
                    {
                        self.violates("no phone offends", format!("phone {phone}: {bye:?}"));
                    }
                    self.lost(phone, bye.retry_after_ms.map(i64::from));
                }
            },
        }
    }

    /// Gives the next part of what a revoked phone has sealed to the server, as the shipped driver does; or the proof that
    /// nothing of the visits is left.
    fn hand_over(&mut self, phone: usize, mut work: HandOver) {
        let user = (self.tenant.clone(), self.phones[phone].technician.clone());
        let conn = work.conn;
        if work.turn < LATE_PUSHES_MAX && work.sealed > 0 {
            let limits = PageLimits::default();
            let Ok(page) = self.ask(phone, |store, _| store.sealed_page(&user, &limits)) else { return };
            if !page.lanes.is_empty() {
                let lanes = page.lanes.iter().map(|sent| sent.lane.clone()).collect();
                let push = Push { id: u32::MAX - work.turn, lanes, outbox: page.mark };
                self.send_up(conn, encode_phone(&PhoneMessage::Push(push)));
                self.at(self.now + HAND_OVER_PATIENCE_MS, Due::HandOverTimeout { phone, conn, turn: work.turn });
                work.sent = page.lanes;
                self.phones[phone].hand_over = Some(work);
                return;
            }
        }
        let sealed = work.sealed.saturating_sub(work.taken);
        self.send_up(conn, encode_phone(&PhoneMessage::Wiped(Wiped { sealed })));
        self.hang_up(phone, true);
    }

    fn handed_over(&mut self, phone: usize, frame: &[u8]) {
        let Ok(ServerMessage::PushAck(ack)) = decode_server(frame) else { return };
        let waits_for = |work: &mut HandOver| ack.id == u32::MAX - work.turn;
        let Some(mut work) = self.phones[phone].hand_over.take_if(waits_for) else { return };
        let Ok(taken) = self.ask(phone, |store, _| store.sealed_taken(&work.sent, &ack.lanes)) else { return };
        self.count("changes handed over by revoked phones", u64::from(taken));
        if taken > 0 {
            self.phones[phone].done.iter_mut().for_each(|done| done.given_up = true);
        }
        work.taken += taken;
        work.turn = if taken == 0 { LATE_PUSHES_MAX } else { work.turn + 1 };
        self.hand_over(phone, work);
    }

    fn sign_in(&mut self, phone: usize) {
        if !self.phones[phone].revoked {
            return;
        }
        if self.phones[phone].hand_over.is_some() {
            self.at(self.now + SECOND, Due::SignIn(phone));
            return;
        }
        let (tenant, technician) = (self.tenant.clone(), self.phones[phone].technician.clone());
        self.phones[phone].revoked = false;
        if self.phones[phone].store.is_some() && !self.phones[phone].away {
            if self.ask(phone, |store, rng| store.bind_user(&tenant, &technician, rng)).is_err() {
                self.bind_again(phone);
                return;
            }
            self.wake(phone);
        }
    }

    /// The disk was full, say: the technician tries again.
    fn bind_again(&mut self, phone: usize) {
        if self.phones[phone].store.is_some() {
            self.phones[phone].away = true;
            self.at(self.now + MINUTE, Due::UserBack(phone));
        }
    }

    fn switch_user(&mut self, phone: usize, for_ms: i64) {
        if self.phones[phone].store.is_none() || self.phones[phone].revoked || self.phones[phone].away {
            return;
        }
        self.count("users switched", 1);
        self.hang_up(phone, true);
        let (tenant, guest) = (self.tenant.clone(), staff::technician("TECH-GUEST"));
        if self.ask(phone, |store, rng| store.bind_user(&tenant, &guest, rng)).is_ok() {
            self.phones[phone].seen.clear();
        }
        self.phones[phone].away = true;
        self.at(self.now + for_ms, Due::UserBack(phone));
    }

    fn user_back(&mut self, phone: usize) {
        if !self.phones[phone].away {
            return;
        }
        self.phones[phone].away = false;
        let (tenant, technician) = (self.tenant.clone(), self.phones[phone].technician.clone());
        if self.phones[phone].store.is_some() && !self.phones[phone].revoked {
            match self.ask(phone, |store, rng| store.bind_user(&tenant, &technician, rng)) {
                Ok(_) => self.wake(phone),
                Err(()) => self.bind_again(phone),
            }
        }
    }

    /// The technician looks at the list: what is in it must not vanish unexplained.
    fn look_at_list(&mut self, phone: usize) -> Result<Vec<VisitCard>, ()> {
        let query = VisitQuery { unscheduled: true, ..VisitQuery::default() };
        let cards = self.ask(phone, |store, _| store.visits(&query))?;
        self.phones[phone].seen.extend(cards.iter().map(|card| card.dispatch_id.clone()));
        Ok(cards)
    }

    fn act(&mut self, phone: usize, salt: u64) {
        if self.phones[phone].store.is_none() || self.phones[phone].revoked || self.phones[phone].away {
            return;
        }
        let Ok(cards) = self.look_at_list(phone) else { return };
        let mut rng = SmallRng::seed_from_u64(salt);
        if cards.is_empty() {
            return self.wake(phone);
        }
        let card = cards[rng.random_range(0..cards.len())].clone();
        let edit = staff::next_edit(&card, &mut rng);
        let now = self.phones[phone].clock.device(self.now);
        let state = &mut self.phones[phone];
        let Some(store) = &state.store else { return };
        let result = store.act(&card.dispatch_id, edit.clone(), &now, None, &mut state.rng);
        match result {
            Ok(acted) => {
                // What the process had no time to tell was not told.
                if self.phones[phone].disk.is_dead() {
                    self.stored(phone, Ok(()));
                    return;
                }
                let (kind, note) = match &edit {
                    NewEdit::Fact(kind) => (kind.name(), None),
                    NewEdit::Note { insert, .. } => ("note", Some(insert.clone())),
                    NewEdit::Answer { .. } => ("answer", None),
                    NewEdit::Summary(_) => ("summary", None),
                };
                self.note(format_args!("phone {phone} {kind} on {} ({} pending)", card.dispatch_id, acted.pending));
                self.count("actions", 1);
                let dispatch = card.dispatch_id;
                self.phones[phone].done.push(Done { dispatch, fact: acted.fact, note, kind, given_up: false });
                self.phones[phone].active_at = self.now;
                if self.phones[phone].link.conn.is_some() {
                    self.phone_input(phone, PhoneInput::OutboxGrew);
                } else if !self.phones[phone].link.asked_to_wait {
                    self.wake(phone);
                }
            }
            Err(ActError::Illegal { .. }) => self.count("actions that made no sense", 1),
            Err(ActError::NotFound(_) | ActError::NoUser | ActError::Refused(_)) => {
                self.count("actions refused", 1);
            }
            Err(ActError::Store(error)) => {
                self.note(format_args!("phone {phone} could not store an action"));
                self.stored(phone, Err(error));
            }
        }
    }

    // --- the office

    fn revoke(&mut self, index: usize, phone: usize, sign_in_ms: i64) {
        self.phones[phone].sign_in_ms = sign_in_ms;
        self.count("revocations", 1);
        self.office_call(index, 0);
    }

    fn office_call(&mut self, event: usize, turn: u32) {
        if turn > 8 {
            return;
        }
        let alive: Vec<_> = (0..self.nodes.len()).filter(|node| self.nodes[*node].service.is_some()).collect();
        if alive.is_empty() {
            self.at(self.now + 5 * SECOND, Due::OfficeCall { event, turn: turn + 1 });
            return;
        }
        let node = alive[self.rng.random_range(0..alive.len())];
        let Some(service) = self.nodes[node].service.clone() else { return };
        let answer: Answer = Rc::default();
        let drawn = self.scenario.events[event].clone();
        let technicians: Vec<_> = self.phones.iter().map(|phone| phone.technician.clone()).collect();
        let op = match drawn.what {
            What::Office { op } => staff::Call::Office(op),
            What::Revoke { phone, .. } => {
                let phone = usize::from(phone) % self.phones.len();
                let Some(Ok(state)) = self.phones[phone].store.as_ref().map(sync_core::store::Store::sync_state) else {
                    return;
                };
                staff::Call::Revoke(state.device)
            }
            _ => return,
        };
        let (tenant, into, dawn) = (self.tenant.clone(), Rc::clone(&answer), DAWN);
        let key = format!("call-{event}");
        let work = async move {
            let result = staff::call(&service, &tenant, op, drawn.salt, &key, &technicians, dawn).await;
            *into.borrow_mut() = Some(result);
        };
        self.calls.insert(event, (answer, node));
        self.turns.insert(event, turn);
        self.spawn(node, Box::pin(work));
    }

    fn office_answered(&mut self, event: usize, answer: &Answer) {
        let turn = self.turns.get(&event).copied().unwrap_or(0);
        match answer.borrow_mut().take() {
            Some(Ok(done)) => {
                self.note(format_args!("office: {done}"));
                self.count("office calls done", 1);
            }
            Some(Err(refused)) => {
                self.note(format_args!("office refused: {refused}"));
                self.count("office calls refused", 1);
                if refused == staff::AGAIN {
                    self.at(self.now + 5 * SECOND, Due::OfficeCall { event, turn: turn + 1 });
                }
            }
            None => {}
        }
    }

    // --- the end

    /// The last fault is over: networks, disks, processes and tokens are what they should be. Nobody does anything from now
    /// on but signing in again.
    fn heal(&mut self) {
        self.note(format_args!("everything heals"));
        self.healing = true;
        let now = self.now;
        for node in 0..self.nodes.len() {
            self.nodes[node].switch.heal();
            if self.nodes[node].service.is_none() {
                self.at(now + SECOND, Due::StartNode(node));
            }
        }
        for phone in 0..self.phones.len() {
            let state = &mut self.phones[phone];
            state.disk.heal();
            state.dies = None;
            let link = &mut state.link;
            (link.no_network_until, link.no_token_until, link.slow_until) = (now, now, now);
            link.latency_ms = link.latency_ms.min(250);
            (state.attempts, state.exchanges) = (0, 0);
            if state.store.is_none() {
                self.at(now + SECOND, Due::StartPhone { phone, reboot: false });
            }
            if self.phones[phone].away {
                self.at(now + SECOND, Due::UserBack(phone));
            }
            if self.phones[phone].revoked {
                self.at(now + SECOND, Due::SignIn(phone));
            }
            // The app comes to the foreground.
            self.wake(phone);
        }
        self.at(now + SECOND, Due::Sweep);
        for node in 0..self.nodes.len() {
            self.at(now + LOOK_EVERY_MS, Due::Look(node));
        }
    }

    /// True when nothing is under way in the servers.
    pub(crate) fn servers_rest(&self) -> bool {
        self.tasks.is_empty() && self.calls.is_empty() && self.nodes.iter().all(|node| node.service.is_some())
    }

    pub(crate) fn connected_and_caught_up(&self, phone: usize) -> bool {
        let link = &self.phones[phone].link;
        link.conn.is_some_and(|conn| self.conns[conn].end.is_some()) && link.caught_up
    }
}

fn digest(frame: &[u8]) -> [u8; 4] {
    let hash = Sha256::digest(frame);
    [hash[0], hash[1], hash[2], hash[3]]
}
