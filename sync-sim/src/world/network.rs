//! The network between phones and nodes.

use super::{Due, World};
use crate::scenario::SECOND;
use rand::RngExt as _;
use sha2::{Digest as _, Sha256};
use sync_core::session::PhoneInput;

impl World<'_> {
    pub(super) fn latency(&mut self, phone: usize) -> i64 {
        let now = self.now;
        let link = &mut self.phones[phone].link;
        if link.slow_until <= now && link.latency_ms > 250 {
            link.latency_ms = 120;
        }
        let base = link.latency_ms;
        let wait = (link.no_network_until - now).max(0);
        wait + base + self.rng.random_range(0..=base)
    }

    pub(super) fn send_up(&mut self, conn: usize, frame: Vec<u8>) {
        let phone = self.conns[conn].phone;
        self.phones[phone].exchanges += 1;
        if self.conns[conn].up_lost {
            self.fault("frames lost", 1);
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

    pub(super) fn send_down(&mut self, conn: usize, frame: Vec<u8>) {
        if self.conns[conn].down_lost {
            self.fault("frames lost", 1);
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

    pub(super) fn comes_twice(&mut self, conn: usize) -> bool {
        let twice = self.now < self.conns[conn].scrambled_until && self.rng.random_bool(0.25);
        if twice {
            self.fault("frames delivered twice", 1);
        }
        twice
    }

    pub(super) fn comes_out_of_order(&mut self, conn: usize) -> bool {
        let overtakes = self.now < self.conns[conn].scrambled_until && self.rng.random_bool(0.5);
        if overtakes {
            self.fault("frames that may overtake others", 1);
        }
        overtakes
    }

    pub(super) fn close_down(&mut self, conn: usize) {
        if !self.conns[conn].down_lost && self.conns[conn].phone_open {
            let at = (self.now + 30).max(self.conns[conn].down_at);
            self.at(at, Due::PhoneHearsClose(conn));
        }
    }

    pub(super) fn reach_server(&mut self, conn: usize, frame: Vec<u8>) {
        let Some(end) = self.conns[conn].end.clone() else { return };
        if self.conns[conn].up_lost && self.rng.random_bool(0.5) {
            self.fault("frames lost", 1);
            return;
        }
        self.note(format_args!("conn {conn} up {} {:02x?}", frame.len(), digest(&frame)));
        self.looked("no phone offends");
        end.borrow_mut().frames.push_back(frame);
        self.feed_server(conn, None);
    }

    pub(super) fn reach_phone(&mut self, conn: usize, frame: Vec<u8>) {
        if self.conns[conn].down_lost || !self.conns[conn].phone_open {
            self.fault("frames lost", 1);
            return;
        }
        let phone = self.conns[conn].phone;
        self.note(format_args!("conn {conn} down {} {:02x?}", frame.len(), digest(&frame)));
        if self.phones[phone].hand_over.as_ref().is_some_and(|work| work.conn == conn) {
            return self.handed_over(phone, &frame);
        }
        self.looked("every frame makes sense");
        self.phone_input(phone, PhoneInput::Frame(frame));
    }
}

fn digest(frame: &[u8]) -> [u8; 4] {
    let hash = Sha256::digest(frame);
    [hash[0], hash[1], hash[2], hash[3]]
}
