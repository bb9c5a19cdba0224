//! The driver around a phone's session: as the shipped one, it connects, carries out and gives up.

use super::{CONNECT_TIMEOUT_MS, Conn, Due, IDLE_MS, TOKEN_MS, World};
use crate::node::ServerEnd;
use crate::phone::{HandOver, phone_state};
use crate::scenario::SECOND;
use rand::RngExt as _;
use std::collections::VecDeque;
use sync_core::protocol::limits::{PUSH_BYTES_MAX, PUSH_CHANGES_MAX, PUSH_LANES_MAX};
use sync_core::protocol::{ByeCode, PhoneMessage, PushLane, encode_phone};
use sync_core::session::phone::{BatchStored, Disconnect};
use sync_core::session::{PhoneEffect, PhoneInput, PhoneSession};
use sync_core::store::{FeedBatch, PageLimits};

impl World<'_> {
    pub(super) fn wake(&mut self, phone: usize) {
        let now = self.now;
        let state = &mut self.phones[phone];
        let idle = state.store.is_some() && !state.revoked && !state.away;
        if idle && state.link.conn.is_none() && !state.link.attempting {
            state.active_at = now;
            self.attempt(phone);
        }
    }

    pub(super) fn attempt(&mut self, phone: usize) {
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

    pub(super) fn connected(&mut self, phone: usize, node: usize, reachable: bool) {
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
    pub(super) fn drop_conn(&mut self, phone: usize) {
        if let Some(conn) = self.phones[phone].link.conn {
            self.conns[conn].phone_open = false;
            if self.rng.random_bool(0.5) {
                self.at(self.now + 200, Due::ServerHearsClose(conn));
            }
        }
    }

    pub(super) fn hang_up(&mut self, phone: usize, server_hears: bool) {
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
    pub(super) fn lost(&mut self, phone: usize, retry_after_ms: Option<i64>) {
        let good = self.phones[phone].link.greeted;
        self.drop_conn(phone);
        self.phones[phone].hang_up();
        self.again(phone, retry_after_ms, good);
    }

    pub(super) fn again(&mut self, phone: usize, retry_after_ms: Option<i64>, good: bool) {
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

    pub(super) fn phone_input(&mut self, phone: usize, input: PhoneInput) {
        let Some(mut session) = self.phones[phone].link.session.take() else { return };
        let now = self.phones[phone].clock.session(self.now);
        let effects = session.handle(now, input);
        self.carry_out(phone, session, effects);
    }

    pub(super) fn carry_out(&mut self, phone: usize, mut session: PhoneSession, effects: Vec<PhoneEffect>) {
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

    pub(super) fn effect(&mut self, phone: usize, effect: PhoneEffect) -> Result<Option<PhoneInput>, ()> {
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
            PhoneEffect::Introduce(_) if self.owes_proof(phone) => {
                // The server's database is from before the revocation, say: nobody waits for a proof.
                self.ask(phone, |store, _| store.wipe_proven())?;
                self.note(format_args!("phone {phone} owes nothing any more"));
                self.hang_up(phone, true);
                self.is_revoked(phone);
                return Err(());
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

    /// The phone was wiped, and nobody has signed in since: the office waits for the proof.
    fn owes_proof(&self, phone: usize) -> bool {
        let state = self.phones[phone].store.as_ref().map(sync_core::store::Store::sync_state);
        matches!(state, Some(Ok(state)) if state.farewell.is_some() && state.user.is_none())
    }

    /// The technician signs in again after a while.
    fn is_revoked(&mut self, phone: usize) {
        let state = &mut self.phones[phone];
        state.revoked = true;
        state.seen.clear();
        let back = if self.healing { SECOND } else { state.sign_in_ms };
        self.at(self.now + back, Due::SignIn(phone));
    }

    pub(super) fn disconnected(&mut self, phone: usize, conn: usize, why: Disconnect) {
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
                    self.phones[phone].leaving = true;
                    let wiped = self.ask(phone, |store, rng| store.wipe_after_revocation(rng));
                    if self.owes_proof(phone) {
                        // Also where the disk had no room for what follows the wipe's transaction: the next connection goes on.
                        self.phones[phone].seen.clear();
                    }
                    let Ok(wiped) = wiped else { return };
                    self.count("phones wiped", 1);
                    self.note(format_args!("phone {phone} is wiped, {} changes sealed", wiped.sealed));
                    self.is_revoked(phone);
                    self.hand_over(phone, HandOver { conn, turn: 0, sent: Vec::new() });
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
}
