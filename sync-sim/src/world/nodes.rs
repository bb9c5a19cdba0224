//! Server nodes: their processes, their work, and what that leads to.

use super::{Due, LOOK_EVERY_MS, Task, Work, World};
use crate::node::{Node, Out, serve};
use crate::scenario::{MINUTE, SECOND};
use rand::{Rng as _, RngExt as _};
use std::sync::Arc;
use std::task::{Context, Waker};
use sync_core::document::ActorKey;
use sync_core::protocol::Generation;
use sync_core::session::ServerInput;

impl World<'_> {
    pub(super) fn start_node(&mut self, node: usize) {
        if self.nodes[node].service.is_none() {
            self.note(format_args!("node {node} starts"));
            let (life, seed) = (self.nodes[node].life + 1, self.rng.next_u64());
            self.nodes[node] = Node::start(Arc::clone(&self.store), &self.clock, seed, life);
            if self.runtime.is_none() && self.rng.random_bool(0.5) {
                self.nodes[node].switch.slows();
            }
        }
    }

    pub(super) fn kill_node(&mut self, node: usize, restart_ms: i64) {
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

    pub(super) fn restore(&mut self, restart_ms: i64) {
        let (Some(backup), Some(memory)) = (self.backup.take(), self.memory.clone()) else { return };
        self.fault("databases restored from an old copy", 1);
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

    pub(super) fn sweep(&mut self) {
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

    pub(super) fn spawn(&mut self, node: usize, work: Work) {
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

    pub(super) fn poll_tasks(&mut self) {
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
    pub(super) fn after_work(&mut self, node: usize) {
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
                    self.fault("hints between nodes lost", 1);
                    LOOK_EVERY_MS
                };
                self.at(self.now + wait, Due::Look(other));
            }
        }
    }

    /// Sends what a connection's work has put out, and gives it the next thing to do.
    pub(super) fn drain(&mut self, conn: usize) {
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
    pub(super) fn feed_server(&mut self, conn: usize, input: Option<ServerInput>) {
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
}
