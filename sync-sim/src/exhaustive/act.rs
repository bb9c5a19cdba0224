//! What a technician does on a phone, offline.

use super::model::Deed;
use super::stage::{MINUTE, Stage, at};
use super::step::{Act, Phone, id};
use super::world::{Handset, Queued, World, Written};
use std::rc::Rc;
use sync_core::document::Edit;
use sync_core::domain::fact::FACT_SCHEMA;
use sync_core::domain::rules::legal::legal_next;
use sync_core::domain::{Answer, BootId, ClockReading, Fact, FactId, TechnicianId, fold};

impl Stage {
    pub(super) fn act(&self, world: &mut World, phone: Phone, act: Act) -> Result<bool, String> {
        let (now, made) = (world.now, world.taken.len());
        let knew_exchange = world.exchanged.get(&phone).copied().unwrap_or(0);
        let uncertainty_ms = self.uncertainty_ms;
        let other = act == Act::ArriveElsewhere;
        let visit = if other { self.other.clone() } else { Some(self.visit.clone()) };
        let Some(visit) = visit else { return Ok(false) };
        let handset = world.handset(phone)?;
        let repeats = handset.done.get(&act).copied().unwrap_or(0);
        let Some(doc) = handset.visits.get(&visit).filter(|_| !handset.dead) else { return Ok(false) };
        let view = doc.view();
        let who: TechnicianId = id(phone.who().id());
        let wall = at(now + handset.ahead_ms);
        let window = view.plan.proposed_window.as_ref().map_or(0, |proposal| proposal.window_revision);
        let fact = act.fact(window);
        let asked = !matches!(act, Act::CompleteUnasked | Act::ClaimForeign | Act::Newer);
        if let Some(kind) = &fact
            && asked
            && legal_next(&view.plan, &fold(view), &who, kind).is_err()
        {
            return Ok(false);
        }
        let mut written = None;
        let (edit, deed) = if let Some(kind) = fact {
            let own = view.plan.epoch_for(&who);
            let epoch = if act == Act::ClaimForeign {
                let assignments = view.plan.assignment.iter().chain(view.plan.former.iter().map(|f| &f.assignment));
                assignments.filter(|assignment| !assignment.includes(&who)).map(|assignment| assignment.epoch).max()
            } else {
                own
            };
            let Some(epoch) = epoch else { return Ok(false) };
            handset.seq += 1;
            let clock = ClockReading {
                wall,
                monotonic_ms: now.unsigned_abs(),
                boot: id::<BootId>("boot-1"),
                offset_ms: Some(-handset.measured_ms),
                uncertainty_ms: Some(uncertainty_ms),
            };
            let name = format!("{}-{}", handset.session.device, handset.seq);
            let fact = Fact {
                schema: if act == Act::Newer { FACT_SCHEMA + 1 } else { FACT_SCHEMA },
                id: id::<FactId>(name.clone()),
                epoch,
                technician: who,
                device: handset.session.device.clone(),
                seq: handset.seq,
                clock,
                position: None,
                kind,
            };
            let deed = Deed {
                fact: name,
                phone,
                act,
                at: now + handset.ahead_ms - handset.measured_ms,
                unsure: i64::from(uncertainty_ms),
                knew: handset.knew,
                turn: usize::try_from(epoch).unwrap_or(usize::MAX),
                seq: handset.seq,
                window,
                clock_off: handset.measured_ms.abs() > 2 * MINUTE,
            };
            (Some(Edit::Fact { fact }), (!other).then_some(deed))
        } else {
            let text = format!("{}-{}-{made}", phone.who().id(), repeats);
            let edit = match act {
                Act::Note => Edit::Note { at: 0, delete: 0, insert: format!("[{text}]") },
                Act::Answer => {
                    let answer = Answer { value: text.clone(), by: who, at: wall };
                    Edit::Answer { item: id("pressure"), answer }
                }
                _ => {
                    poison(handset);
                    return Ok(true);
                }
            };
            written = Some(Written {
                phone,
                note: (act == Act::Note).then(|| format!("[{text}]")),
                answer: (act == Act::Answer).then_some(text),
                made,
                heard: None,
                knew: knew_exchange,
            });
            (Some(edit), None)
        };
        let Some(edit) = edit else { return Ok(false) };
        let mut doc = doc.doc.clone();
        let change =
            doc.edit(handset.actor, &edit, wall).map_err(|refusal| format!("the phone refuses {act:?}: {refusal}"))?;
        handset.visits.insert(visit, Rc::new(doc.into()));
        let seq = matches!(edit, Edit::Fact { .. }).then_some(handset.seq);
        handset.outbox.push(Queued {
            other_visit: other,
            bytes: change.bytes,
            seq,
            deed,
            poison: false,
            heard: false,
            aside: false,
        });
        *handset.done.entry(act).or_default() += 1;
        world.written.extend(written);
        world.elsewhere += usize::from(other);
        Ok(true)
    }
}

/// The damaged row.
fn poison(handset: &mut Handset) {
    handset.done.insert(Act::Poison, 1);
    handset.outbox.push(Queued {
        other_visit: false,
        bytes: b"not a change, but a damaged row".to_vec(),
        seq: None,
        deed: None,
        poison: true,
        heard: false,
        aside: false,
    });
}
