//! A phone: the shipped store on a disk, its clocks, and what its driver remembers of the connection.

use crate::disk::Disk;
use crate::prepared;
use crate::scenario::{DAY_MS, HOUR};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::path::PathBuf;
use sync_core::domain::{BootId, DispatchId, FactId, TechnicianId, TenantId, Timestamp};
use sync_core::session::phone::PhoneState;
use sync_core::session::{Backoff, PhoneNow, PhoneSession};
use sync_core::store::{DeviceNow, OpenOptions, OpenReport, Protection, SentLane, Store, StoreError, SyncState};

/// The day begins at 2026-02-03T06:00:00Z.
pub(crate) const DAWN: i64 = 1_770_098_400_000;

pub(crate) struct Phone {
    pub(crate) folder: PathBuf,
    pub(crate) disk: Disk,
    pub(crate) store: Option<Store>,
    pub(crate) rng: SmallRng,
    pub(crate) tenant: TenantId,
    pub(crate) technician: TechnicianId,
    pub(crate) version: u32,
    pub(crate) clock: PhoneClock,
    pub(crate) link: Link,
    /// Work that the technician was told is safe.
    pub(crate) done: Vec<Done>,
    /// Visits that the technician has seen in the list since the last wipe or change of user.
    pub(crate) seen: std::collections::BTreeSet<DispatchId>,
    /// The device was revoked, and the technician has not signed in again.
    pub(crate) revoked: bool,
    /// Somebody else is logged in.
    pub(crate) away: bool,
    /// The technician's visits are about to leave the phone, or have left it: nobody has logged in yet, somebody else does, or
    /// the device was revoked.
    pub(crate) leaving: bool,
    /// The process is to die at some write: with the power, and away for how long.
    pub(crate) dies: Option<(bool, i64)>,
    /// Revoked, and handing over what is unsent: on which connection, in which turn, and what was sent.
    pub(crate) hand_over: Option<HandOver>,
    /// When the technician signs in again after a revocation.
    pub(crate) sign_in_ms: i64,
    /// When the app was last in use.
    pub(crate) active_at: i64,
    pub(crate) attempts: u32,
    pub(crate) exchanges: u32,
    /// The app lies on the phone as it was made beforehand, and has never been started.
    prepared: bool,
}

/// Something that a technician did, and the app said that it is stored.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    pub(crate) dispatch: DispatchId,
    pub(crate) fact: Option<FactId>,
    /// What the technician wrote into the notes.
    pub(crate) note: Option<String>,
    pub(crate) kind: &'static str,
    /// The device was revoked, and the server has taken what was unsent.
    pub(crate) given_up: bool,
}

/// What a revoked phone has given to the server, and waits for the answer to.
pub(crate) struct HandOver {
    pub(crate) conn: usize,
    pub(crate) turn: u32,
    pub(crate) sent: Vec<SentLane>,
}

/// What the driver keeps.
#[derive(Default)]
pub(crate) struct Link {
    pub(crate) session: Option<PhoneSession>,
    pub(crate) conn: Option<usize>,
    pub(crate) in_flight: Vec<SentLane>,
    pub(crate) greeted: bool,
    pub(crate) clock_noted: Option<(u64, i64)>,
    pub(crate) synced_noted: Option<u64>,
    pub(crate) backoff: Backoff,
    /// The last token was refused.
    pub(crate) rejected: bool,
    pub(crate) asked_to_wait: bool,
    pub(crate) caught_up: bool,
    /// Of the timer and of an attempt under way; older ones mean nothing.
    pub(crate) timer: u64,
    pub(crate) attempt: u64,
    pub(crate) attempting: bool,
    pub(crate) token_until: i64,
    pub(crate) no_token_until: i64,
    pub(crate) no_network_until: i64,
    pub(crate) latency_ms: i64,
    pub(crate) slow_until: i64,
}

/// The phone's clocks, by the true time.
pub(crate) struct PhoneClock {
    pub(crate) offset_ms: i64,
    ppm: i64,
    /// Since when the clock runs at this speed, and how far it had run off before.
    since: i64,
    drifted: i64,
    boot: u32,
    booted_at: i64,
    drifted_at_boot: i64,
}

impl PhoneClock {
    pub(crate) fn new(offset_ms: i64, now: i64) -> Self {
        Self { offset_ms, ppm: 0, since: now, drifted: 0, boot: 1, booted_at: now - HOUR, drifted_at_boot: 0 }
    }

    fn drift(&self, now: i64) -> i64 {
        self.drifted + (now - self.since) * self.ppm / 1_000_000
    }

    pub(crate) fn set_speed(&mut self, now: i64, ppm: i32) {
        (self.drifted, self.since, self.ppm) = (self.drift(now), now, i64::from(ppm));
    }

    pub(crate) fn reboot(&mut self, now: i64) {
        self.boot += 1;
        self.booted_at = now;
        self.drifted_at_boot = self.drift(now);
    }

    pub(crate) fn wall(&self, now: i64) -> Timestamp {
        Timestamp::from_millis(now + self.offset_ms + self.drift(now))
    }

    fn monotonic_ms(&self, now: i64) -> u64 {
        u64::try_from(now - self.booted_at + self.drift(now) - self.drifted_at_boot).unwrap_or(0)
    }

    pub(crate) fn device(&self, now: i64) -> DeviceNow {
        let boot = BootId::new(format!("boot-{}", self.boot)).unwrap_or_else(|_| unreachable!("letters make an id"));
        DeviceNow { wall: self.wall(now), monotonic_ms: self.monotonic_ms(now), boot }
    }

    pub(crate) fn session(&self, now: i64) -> PhoneNow {
        PhoneNow { wall: self.wall(now), monotonic_ms: self.monotonic_ms(now) }
    }

    /// The true time at which the monotonic clock shows this.
    pub(crate) fn true_time(&self, monotonic_ms: u64, now: i64) -> i64 {
        let wait = i64::try_from(monotonic_ms.saturating_sub(self.monotonic_ms(now))).unwrap_or(DAY_MS);
        // The clock may be a little slow: better late than again and again too early.
        now + wait + wait * self.ppm.abs() / 1_000_000 + 1
    }
}

/// While a wipe is not finished and nobody has signed in, the phone speaks in the name of the device that was revoked.
pub(crate) fn phone_state(state: SyncState) -> PhoneState {
    let owed = state.farewell.filter(|_| state.user.is_none());
    PhoneState {
        device: owed.map_or(state.device, |owed| owed.device),
        app: state.app,
        generation: state.generation,
        cursor: state.cursor,
        digest: state.digest,
        outbox: state.outbox,
        needs_fetch: state.needs_fetch,
    }
}

impl Phone {
    pub(crate) fn new(
        folder: PathBuf,
        seed: u64,
        remembers: bool,
        tenant: TenantId,
        technician: TechnicianId,
        now: i64,
    ) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let disk = Disk::attach(&folder, rng.random(), remembers);
        let offset_ms =
            if rng.random_bool(0.8) { rng.random_range(-3_000..3_000) } else { rng.random_range(-HOUR..HOUR) };
        let latency_ms = rng.random_range(15..250);
        Self {
            folder,
            disk,
            store: None,
            tenant,
            technician,
            version: 1,
            clock: PhoneClock::new(offset_ms, now),
            link: Link { latency_ms, ..Link::default() },
            rng,
            done: Vec::new(),
            seen: std::collections::BTreeSet::new(),
            revoked: false,
            away: false,
            leaving: true,
            dies: None,
            hand_over: None,
            sign_in_ms: HOUR,
            active_at: now,
            attempts: 0,
            exchanges: 0,
            prepared: false,
        }
    }

    /// Lays the store's empty file down, where the first start would make it. A day on the server's SQLite store leaves that to
    /// the first start.
    ///
    /// # Errors
    /// The machine's own disk.
    pub(crate) fn prepare(&mut self) -> Result<(), String> {
        prepared::phone_file(&self.folder.join("visits.db"))?;
        self.prepared = true;
        Ok(())
    }

    /// The app starts.
    ///
    /// Answers what was found, and whether the technician was logged out by nobody.
    pub(crate) fn start(&mut self, now: i64) -> Result<(OpenReport, bool), StoreError> {
        let options = OpenOptions {
            app: format!("sim {}", self.version),
            now: self.clock.wall(now),
            protection: Protection::Unencrypted,
        };
        self.disk.settle().map_err(|source| StoreError::File { what: "settling the simulated disk", source })?;
        let opened = Store::open(&self.folder.join("visits.db"), &options, &mut self.rng)?;
        let own = opened.store.sync_state()?.user == Some((self.tenant.clone(), self.technician.clone()));
        if !own {
            // The process may have died when a wipe was done and nobody had been told.
            self.seen.clear();
        }
        let forgotten = !own && !self.leaving;
        if !self.revoked && !self.away {
            opened.store.bind_user(&self.tenant, &self.technician, &mut self.rng)?;
            self.leaving = false;
        }
        self.store = Some(opened.store);
        let mut report = opened.report;
        if std::mem::take(&mut self.prepared) {
            // A file without an install beside it looks like a copy.
            (report.created, report.restored) = (report.restored, false);
        }
        Ok((report, forgotten))
    }

    /// The process is gone, without a word.
    pub(crate) fn die(&mut self, power: bool) {
        self.disk.kill();
        self.store = None;
        self.disk.revive(power);
        self.hang_up();
    }

    /// Forgets the connection.
    pub(crate) fn hang_up(&mut self) {
        let link = &mut self.link;
        (link.session, link.conn, link.greeted, link.caught_up) = (None, None, false, false);
        (link.clock_noted, link.synced_noted) = (None, None);
        link.in_flight.clear();
        link.timer += 1;
        link.attempt += 1;
        link.attempting = false;
        self.hand_over = None;
    }
}
