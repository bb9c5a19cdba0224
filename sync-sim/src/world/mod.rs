//! The simulated world: one queue of events in virtual time, one seeded source of randomness, one thread.

mod driver;
mod network;
mod nodes;
mod people;
mod phones;
mod script;

use crate::disk::{DiskCounts, install};
use crate::memory::{MemoryStore, Tables};
use crate::node::{End, Node, end};
use crate::phone::{DAWN, HandOver, Phone};
use crate::report::{Counts, Group, Rest};
use crate::scenario::{DAY_MS, HOUR, MINUTE, SECOND, Scenario, What};
use crate::{oracle, prepared, staff};
use crm_dispatch_server::service::Role;
use crm_dispatch_server::store::Store as ServerStore;
use crm_dispatch_server::store::sqlite::SqliteStore;
use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};
use sha2::{Digest as _, Sha256};
use std::cell::RefCell;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BinaryHeap};
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Waker};
use sync_core::document::ActorKey;
use sync_core::domain::{TechnicianId, TenantId};
use sync_core::protocol::limits::LATE_PUSHES_MAX;
use sync_core::protocol::{ByeCode, Generation};
use sync_core::session::{PhoneInput, ServerInput};

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
    pub counts: Counts,
    /// How the day came to rest.
    pub rest: Rest,
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

/// What happens next is the greatest: the earliest, and of those at one time what was queued first.
struct Queued {
    time: i64,
    number: u64,
    due: Due,
}

impl Ord for Queued {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.time, other.number).cmp(&(self.time, self.number))
    }
}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Queued {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Queued {}

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
    queue: BinaryHeap<Queued>,
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
    pub(crate) counts: Counts,
    rest: Rest,
    healing: bool,
}

/// How long everything may take to come to rest after the last fault.
pub(crate) const REST_MS: i64 = 20 * MINUTE;
/// How many connections a phone may need for it.
pub(crate) const ATTEMPTS_TO_REST: u32 = 14;
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
    install();
    let mut world = World::new(scenario, folder, speak)?;
    world.run();
    let disks: Vec<DiskCounts> = world.phones.iter().map(|phone| phone.disk.counts()).collect();
    for disk in disks {
        world.count("disk writes and syncs", disk.steps);
        world.fault("torn writes", disk.torn);
        world.fault("writes lost with the power", disk.lost);
        world.fault("writes refused by a full disk", disk.refused);
    }
    let faults: u64 = world.nodes.iter().map(|node| node.switch.faults()).sum();
    world.fault("store calls failed", faults);
    let trace = world.trace.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    // The stores are closed while the folder is still there. Nobody looks at the disks any more: nothing is written on the way.
    for phone in &mut world.phones {
        phone.disk.kill();
        phone.store = None;
    }
    Ok(Outcome { violation: world.violation, trace, counts: world.counts, rest: world.rest })
}

impl<'a> World<'a> {
    fn new(scenario: &'a Scenario, folder: &Path, speak: bool) -> Result<Self, String> {
        let clock = Arc::new(AtomicI64::new(DAWN));
        let mut rng = SmallRng::seed_from_u64(scenario.seed);
        let (mut memory, mut runtime) = (None, None);
        let mut actor = [0; 16];
        rng.fill_bytes(&mut actor);
        let (actor, generation) = (ActorKey(actor), Generation(rng.next_u64()));
        let store: Arc<dyn ServerStore> = if scenario.sqlite {
            let made = tokio::runtime::Builder::new_current_thread().enable_time().build();
            let made = made.map_err(|error| error.to_string())?;
            let path = folder.join("dispatch.db");
            prepared::server_file(&path, generation, actor)?;
            let store = made.block_on(SqliteStore::open(&path)).map_err(|error| error.to_string())?;
            runtime = Some(made);
            store
        } else {
            let store = Arc::new(MemoryStore::new(generation, actor));
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
            let mut phone = Phone::new(folder, seed, remembers, tenant.clone(), technician, DAWN);
            if !scenario.sqlite {
                phone.prepare()?;
            }
            phones.push(phone);
        }
        Ok(Self {
            scenario,
            now: DAWN,
            clock,
            queue: BinaryHeap::new(),
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
            counts: Counts::new(),
            rest: Rest::default(),
            healing: false,
        })
    }

    pub(crate) fn count(&mut self, what: &'static str, by: u64) {
        *self.counts.entry((Group::Work, what)).or_default() += by;
    }

    fn fault(&mut self, what: &'static str, by: u64) {
        *self.counts.entry((Group::Fault, what)).or_default() += by;
    }

    /// An oracle has looked, and is content unless it says otherwise.
    pub(crate) fn looked(&mut self, oracle: &'static str) {
        *self.counts.entry((Group::Oracle, oracle)).or_default() += 1;
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
        self.queue.push(Queued { time: time.max(self.now), number: self.pushed, due });
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
        let connections = self.phones.iter().map(|phone| phone.attempts).max().unwrap_or(0);
        self.rest = Rest { seconds: rest, connections };
    }

    /// Everything up to that time.
    fn go_on(&mut self, until: i64) {
        while self.violation.is_none() {
            if self.queue.peek().is_none_or(|next| next.time > until) {
                break;
            }
            let Some(Queued { time, due, .. }) = self.queue.pop() else { break };
            self.now = time;
            self.clock.store(time, Relaxed);
            self.happens(due);
        }
        self.now = until.max(self.now);
        self.clock.store(self.now, Relaxed);
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
