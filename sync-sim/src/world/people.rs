//! People: technicians that act, come and go, and the office that calls.

use super::{Answer, Due, HAND_OVER_PATIENCE_MS, World};
use crate::phone::{DAWN, Done, HandOver};
use crate::scenario::{MINUTE, SECOND, What};
use crate::staff;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};
use std::rc::Rc;
use sync_core::domain::VisitCard;
use sync_core::protocol::limits::LATE_PUSHES_MAX;
use sync_core::protocol::{PhoneMessage, Push, ServerMessage, Wiped, decode_server, encode_phone};
use sync_core::session::PhoneInput;
use sync_core::store::{ActError, NewEdit, PageLimits, VisitQuery};

impl World<'_> {
    /// Gives the next part of what a revoked phone has sealed to the server, as the shipped driver does; or the proof that
    /// nothing of the visits is left.
    pub(super) fn hand_over(&mut self, phone: usize, mut work: HandOver) {
        let user = (self.tenant.clone(), self.phones[phone].technician.clone());
        let conn = work.conn;
        if work.turn < LATE_PUSHES_MAX {
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
        let Ok(sealed) = self.ask(phone, |store, _| store.sealed()) else { return };
        let theirs = sealed.into_iter().find(|(tenant, technician, _)| (tenant, technician) == (&user.0, &user.1));
        let sealed = theirs.map_or(0, |(.., sealed)| sealed);
        self.send_up(conn, encode_phone(&PhoneMessage::Wiped(Wiped { sealed })));
        self.hang_up(phone, true);
    }

    pub(super) fn handed_over(&mut self, phone: usize, frame: &[u8]) {
        let Ok(ServerMessage::PushAck(ack)) = decode_server(frame) else { return };
        let waits_for = |work: &mut HandOver| ack.id == u32::MAX - work.turn;
        let Some(mut work) = self.phones[phone].hand_over.take_if(waits_for) else { return };
        let Ok(taken) = self.ask(phone, |store, _| store.sealed_taken(&work.sent, &ack.lanes)) else { return };
        self.count("changes handed over by revoked phones", u64::from(taken));
        if taken > 0 {
            self.phones[phone].done.iter_mut().for_each(|done| done.given_up = true);
        }
        work.turn = if taken == 0 { LATE_PUSHES_MAX } else { work.turn + 1 };
        self.hand_over(phone, work);
    }

    pub(super) fn sign_in(&mut self, phone: usize) {
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
            self.phones[phone].leaving = false;
            self.wake(phone);
        }
    }

    /// The disk was full, say: the technician tries again.
    pub(super) fn bind_again(&mut self, phone: usize) {
        if self.phones[phone].store.is_some() {
            self.phones[phone].away = true;
            self.at(self.now + MINUTE, Due::UserBack(phone));
        }
    }

    pub(super) fn switch_user(&mut self, phone: usize, for_ms: i64) {
        if self.phones[phone].store.is_none() || self.phones[phone].revoked || self.phones[phone].away {
            return;
        }
        self.fault("users switched", 1);
        self.hang_up(phone, true);
        let (tenant, guest) = (self.tenant.clone(), staff::technician("TECH-GUEST"));
        self.phones[phone].leaving = true;
        if self.ask(phone, |store, rng| store.bind_user(&tenant, &guest, rng)).is_ok() {
            self.phones[phone].seen.clear();
        }
        self.phones[phone].away = true;
        self.at(self.now + for_ms, Due::UserBack(phone));
    }

    pub(super) fn user_back(&mut self, phone: usize) {
        if !self.phones[phone].away {
            return;
        }
        self.phones[phone].away = false;
        let (tenant, technician) = (self.tenant.clone(), self.phones[phone].technician.clone());
        if self.phones[phone].store.is_some() && !self.phones[phone].revoked {
            match self.ask(phone, |store, rng| store.bind_user(&tenant, &technician, rng)) {
                Ok(_) => {
                    self.phones[phone].leaving = false;
                    self.wake(phone);
                }
                Err(()) => self.bind_again(phone),
            }
        }
    }

    /// The technician looks at the list: what is in it must not vanish unexplained.
    pub(super) fn look_at_list(&mut self, phone: usize) -> Result<Vec<VisitCard>, ()> {
        let query = VisitQuery { unscheduled: true, ..VisitQuery::default() };
        let cards = self.ask(phone, |store, _| store.visits(&query))?;
        self.phones[phone].seen.extend(cards.iter().map(|card| card.dispatch_id.clone()));
        Ok(cards)
    }

    pub(super) fn act(&mut self, phone: usize, salt: u64) {
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

    pub(super) fn revoke(&mut self, index: usize, phone: usize, sign_in_ms: i64) {
        self.phones[phone].sign_in_ms = sign_in_ms;
        self.fault("revocations", 1);
        self.office_call(index, 0);
    }

    pub(super) fn office_call(&mut self, event: usize, turn: u32) {
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

    pub(super) fn office_answered(&mut self, event: usize, answer: &Answer) {
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
}
