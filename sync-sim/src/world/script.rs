//! What the script says.

use super::{Due, World};
use crate::scenario::{SECOND, What};
use rand::RngExt as _;

impl World<'_> {
    pub(super) fn script(&mut self, index: usize) {
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
                self.fault(if power { "phones that lost their power" } else { "phone processes killed" }, 1);
                if after_io == 0 {
                    self.kill_phone(phone, power, restart_ms);
                } else {
                    self.phones[phone].disk.dies_in(after_io);
                    self.phones[phone].dies = Some((power, restart_ms));
                }
            }
            What::DiskFull { phone, after_io, for_ms } => {
                self.fault("full disks", 1);
                self.phones[who(phone)].disk.fills_in(after_io);
                self.at(now + for_ms, Due::FreeDisk(who(phone)));
            }
            What::ClockJump { phone, by_ms } => {
                self.fault("clocks set", 1);
                self.phones[who(phone)].clock.offset_ms += by_ms;
            }
            What::Drift { phone, ppm } => {
                self.fault("clocks that drift", 1);
                self.phones[who(phone)].clock.set_speed(now, ppm);
            }
            What::Reboot { phone, for_ms } => {
                let phone = who(phone);
                if self.phones[phone].store.is_some() {
                    self.fault("phones switched off and on", 1);
                    self.close_phone(phone);
                    self.at(now + for_ms, Due::StartPhone { phone, reboot: true });
                }
            }
            What::Update { phone } => {
                let phone = who(phone);
                if self.phones[phone].store.is_some() {
                    self.fault("app updates", 1);
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
                    self.fault("connections cut", 1);
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
                self.fault("partitions", 1);
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
                    self.fault("half-open connections", 1);
                    self.conns[conn].up_lost |= up;
                    self.conns[conn].down_lost |= down;
                }
            }
            What::Scramble { phone, for_ms } => {
                if let Some(conn) = self.phones[who(phone)].link.conn {
                    self.fault("connections that deliver twice and out of order", 1);
                    self.conns[conn].scrambled_until = now + for_ms;
                    self.conns[conn].scrambled = true;
                }
            }
            What::Slow { phone, latency_ms, for_ms } => {
                self.fault("slow networks", 1);
                let link = &mut self.phones[who(phone)].link;
                link.slow_until = now + for_ms;
                link.latency_ms = link.latency_ms.max(latency_ms);
            }
            What::TokenOutage { phone, for_ms } => {
                self.fault("token outages", 1);
                self.phones[who(phone)].link.no_token_until = now + for_ms;
            }
            What::TokenEnds { phone } => {
                let link = &mut self.phones[who(phone)].link;
                link.token_until = now;
                if let Some(conn) = link.conn {
                    self.fault("tokens that ended", 1);
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
                    self.fault(if after { "nodes killed after a commit" } else { "nodes killed before a commit" }, 1);
                    self.nodes[node].switch.dies_at(commits, after);
                    self.nodes_restart.insert(node, restart_ms);
                }
            }
            What::KillNodeAt { node, call, restart_ms } => {
                let node = usize::from(node) % self.nodes.len();
                if self.nodes[node].service.is_some() {
                    self.fault("nodes killed at a call to the store", 1);
                    self.nodes[node].switch.dies_at_call(call);
                    self.nodes_restart.insert(node, restart_ms);
                }
            }
            What::StoreFault { node, calls, written } => {
                let node = usize::from(node) % self.nodes.len();
                self.fault("store faults", 1);
                self.nodes[node].switch.fails(calls, written);
            }
            What::Backup => self.backup = self.memory.as_ref().map(|memory| memory.copy()),
            What::Restore { restart_ms } => self.restore(restart_ms),
            What::Office { .. } => self.office_call(index, 0),
        }
    }
}
