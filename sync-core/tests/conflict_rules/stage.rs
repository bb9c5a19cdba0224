//! The stage: an office with one visit, and phones that are mostly offline.

use std::collections::BTreeMap;
use sync_core::domain::fold::fold_ruled;
use sync_core::domain::plan::CancellationEffect;
use sync_core::domain::rules::admission::validate_fact;
use sync_core::domain::rules::facts::{FactContext, judge};
use sync_core::domain::rules::office::{self, Command, OfficeError, Reschedule};
use sync_core::domain::rules::sequence::SequenceLedger;
use sync_core::domain::{
    BootId, ClockReading, DeviceId, Fact, FactId, FactKind, PartNumber, Plan, Ruling, RulingReason, SerialNumber,
    TechnicianId, Timestamp, UserId, Verdict, VisitState, VisitStatus, VisitView, Window,
};

pub(crate) const SECOND: i64 = 1_000;
pub(crate) const MINUTE: i64 = 60 * SECOND;

/// A time on the day of the stories: `at("09:30")`.
pub(crate) fn at(clock: &str) -> Timestamp {
    format!("2026-02-03T{clock}:00Z").parse().unwrap()
}

pub(crate) fn window(from: &str, to: &str) -> Window {
    Window { start: at(from), end: at(to) }
}

pub(crate) fn tech(name: &str) -> TechnicianId {
    TechnicianId::new(name).unwrap()
}

/// The office and the server: one plan, everything that arrived, every ruling.
#[derive(Default)]
pub(crate) struct Visit {
    pub(crate) view: VisitView,
    pub(crate) dispatcher: Option<UserId>,
    pub(crate) ledgers: BTreeMap<DeviceId, SequenceLedger>,
    pub(crate) used: BTreeMap<(DeviceId, u64), FactId>,
    pub(crate) revoked: BTreeMap<DeviceId, Timestamp>,
    pub(crate) stock: BTreeMap<PartNumber, i64>,
}

impl Visit {
    pub(crate) fn planned() -> Self {
        let plan = Plan {
            revision: 1,
            title: "Replace compressor".to_owned(),
            arrival_window: Some(window("09:00", "10:00")),
            confirmed_window: Some(window("09:00", "10:00")),
            sla_deadline: Some(at("10:00")),
            ..Plan::default()
        };
        Self {
            view: VisitView { plan, ..VisitView::default() },
            dispatcher: Some(UserId::new("dora").unwrap()),
            ..Self::default()
        }
    }

    pub(crate) fn assigned_to(lead: &TechnicianId, crew: &[TechnicianId]) -> Self {
        let mut visit = Self::planned();
        visit.assign("08:00", lead, crew).unwrap();
        visit
    }

    pub(crate) fn state(&self) -> VisitState {
        fold_ruled(&self.view)
    }

    pub(crate) fn status(&self) -> VisitStatus {
        self.state().status
    }

    pub(crate) fn command(
        &mut self,
        now: &str,
        command: impl FnOnce(&Plan, &VisitState, &Command<'_>) -> Result<Plan, OfficeError>,
    ) -> Result<(), OfficeError> {
        let by = self.dispatcher.clone().unwrap();
        let before = self.view.plan.revision;
        self.view.plan = command(&self.view.plan, &self.state(), &Command { by: &by, now: at(now) })?;
        assert_eq!(self.view.plan.revision, before + 1, "every command is one revision");
        Ok(())
    }

    pub(crate) fn assign(&mut self, now: &str, lead: &TechnicianId, crew: &[TechnicianId]) -> Result<(), OfficeError> {
        self.command(now, |plan, state, command| office::assign(plan, state, command, lead, crew))
    }

    pub(crate) fn cancel(&mut self, now: &str) -> Result<(), OfficeError> {
        self.command(now, |plan, state, command| office::cancel(plan, state, command, "customer called it off"))
    }

    pub(crate) fn propose(&mut self, now: &str, arrival: Window, customer_confirmed: bool) {
        let change = Reschedule { arrival_window: Some(arrival), customer_confirmed, ..Reschedule::default() };
        self.command(now, |plan, state, command| office::reschedule(plan, state, command, &change)).unwrap();
    }

    pub(crate) fn effect(&self) -> Option<CancellationEffect> {
        self.view.plan.cancellation.as_ref().map(|cancellation| cancellation.effect)
    }

    /// The phone is online at last: its outbox is judged in order, as one push.
    pub(crate) fn receives(&mut self, phone: &mut Phone, now: &str) -> Vec<(Verdict, RulingReason)> {
        let outbox = std::mem::take(&mut phone.outbox);
        let rulings: Vec<Ruling> = outbox.iter().map(|(fact, knew)| self.receives_one(fact, *knew, at(now))).collect();
        rulings.into_iter().map(|ruling| (ruling.verdict, ruling.reason)).collect()
    }

    pub(crate) fn receives_one(&mut self, fact: &Fact, knew_revision: u64, now: Timestamp) -> Ruling {
        assert_eq!(validate_fact(fact), Ok(()));
        if let Some(ruling) = self.view.rulings.get(&fact.id) {
            return ruling.clone();
        }
        let ledger = self.ledgers.entry(fact.device.clone()).or_default();
        let gap = !ledger.has_all_before(fact.seq);
        ledger.observe(fact.seq);
        let owner = self.used.entry((fact.device.clone(), fact.seq)).or_insert_with(|| fact.id.clone());
        let sequence_reused = *owner != fact.id;
        let mut stock_falls_negative = false;
        let mut serial_used_before = false;
        if let FactKind::PartUsed { part, quantity, serial } = &fact.kind {
            let stock = self.stock.entry(part.clone()).or_insert(10);
            *stock -= i64::from(*quantity);
            stock_falls_negative = *stock < 0;
            serial_used_before =
                self.state().parts.iter().any(|used| used.part == *part && serial.is_some() && used.serial == *serial);
        }
        let state = self.state();
        let judgement = judge(&FactContext {
            plan: &self.view.plan,
            state: &state,
            fact,
            knew_revision,
            now,
            device_revoked_at: self.revoked.get(&fact.device).copied(),
            sequence_reused,
            gap,
            serial_used_before,
            stock_falls_negative,
        });
        if let Some(plan) = judgement.plan {
            assert_eq!(plan.revision, self.view.plan.revision + 1);
            self.view.plan = plan;
        }
        self.view.facts.insert(fact.id.clone(), fact.clone());
        self.view.rulings.insert(fact.id.clone(), judgement.ruling.clone());
        judgement.ruling
    }
}

/// A technician's phone. It knows the plan as of its last sync.
pub(crate) struct Phone {
    pub(crate) technician: TechnicianId,
    pub(crate) device: DeviceId,
    pub(crate) knows: Plan,
    pub(crate) seq: u64,
    /// How far the wall clock runs ahead, and whether the phone has measured it.
    pub(crate) ahead_ms: i64,
    pub(crate) measured: bool,
    pub(crate) uncertainty_ms: u32,
    pub(crate) outbox: Vec<(Fact, u64)>,
}

impl Phone {
    pub(crate) fn of(technician: &TechnicianId, visit: &Visit) -> Self {
        Self::named(technician, &format!("PHONE-{technician}"), visit)
    }

    pub(crate) fn named(technician: &TechnicianId, device: &str, visit: &Visit) -> Self {
        Self {
            technician: technician.clone(),
            device: DeviceId::new(device).unwrap(),
            knows: visit.view.plan.clone(),
            seq: 0,
            ahead_ms: 0,
            measured: true,
            uncertainty_ms: 500,
            outbox: Vec::new(),
        }
    }

    pub(crate) fn syncs(&mut self, visit: &Visit) {
        self.knows = visit.view.plan.clone();
    }

    pub(crate) fn does(&mut self, when: &str, kind: FactKind) -> Fact {
        self.seq += 1;
        let fact = Fact {
            schema: 1,
            id: FactId::new(format!("{}-{}", self.device, self.seq)).unwrap(),
            epoch: self.knows.epoch_for(&self.technician).unwrap_or_default(),
            technician: self.technician.clone(),
            device: self.device.clone(),
            seq: self.seq,
            clock: ClockReading {
                wall: at(when).plus_millis(self.ahead_ms),
                monotonic_ms: self.seq * 1_000,
                boot: BootId::new("boot-1").unwrap(),
                offset_ms: self.measured.then_some(-self.ahead_ms),
                uncertainty_ms: self.measured.then_some(self.uncertainty_ms),
            },
            position: None,
            kind,
        };
        self.outbox.push((fact.clone(), self.knows.revision));
        fact
    }
}

pub(crate) fn accepted() -> FactKind {
    FactKind::Accepted { eta: Some(at("09:30")) }
}

pub(crate) fn travel() -> FactKind {
    FactKind::TravelStarted { eta: None }
}

pub(crate) fn rejected(reason: &str) -> FactKind {
    FactKind::Rejected { reason: reason.to_owned() }
}

pub(crate) fn cannot_complete(reason: &str) -> FactKind {
    FactKind::CannotComplete { reason: reason.to_owned() }
}

pub(crate) fn labour(minutes: u32) -> FactKind {
    FactKind::TimeEntry { category: "labour".to_owned(), minutes }
}

pub(crate) fn part(quantity: u32, serial: Option<&str>) -> FactKind {
    FactKind::PartUsed {
        part: PartNumber::new("PART-55").unwrap(),
        quantity,
        serial: serial.map(|serial| SerialNumber::new(serial).unwrap()),
    }
}

pub(crate) const IN_ORDER: (Verdict, RulingReason) = (Verdict::Accepted, RulingReason::InOrder);
