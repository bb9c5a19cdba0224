//! What everybody can see happening: how far each visit is on the phones, and which phones have a network. Scripted
//! incidents wait for a step here instead of guessing at times.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use sync_core::domain::{ServiceOrderId, TechnicianId};
use tokio::sync::watch;

/// How far a technician is with a visit, in the order of a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// On the phone.
    Seen,
    /// Taken.
    Accepted,
    /// On the way.
    Travelling,
    /// On site.
    Arrived,
    /// At work.
    Working,
    /// Over, one way or the other.
    Ended,
}

#[derive(Debug, Default)]
struct State {
    steps: BTreeMap<(ServiceOrderId, TechnicianId), Step>,
    offline: BTreeMap<TechnicianId, bool>,
    cards: Vec<(TechnicianId, String)>,
}

/// Shared by technicians, incidents and the progress line.
#[derive(Debug, Clone)]
pub struct Board {
    state: Arc<Mutex<State>>,
    changed: watch::Sender<u64>,
}

impl Default for Board {
    fn default() -> Self {
        Self { state: Arc::default(), changed: watch::Sender::new(0) }
    }
}

impl Board {
    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_modify(|count| *count += 1);
    }

    fn read<T>(&self, read: impl FnOnce(&State) -> T) -> T {
        read(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A technician is this far with a visit.
    pub fn step(&self, order: &ServiceOrderId, technician: &TechnicianId, step: Step) {
        self.change(|state| {
            state.steps.insert((order.clone(), technician.clone()), step);
        });
    }

    /// A phone's network went or came.
    pub fn network(&self, technician: &TechnicianId, online: bool) {
        self.change(|state| {
            state.offline.insert(technician.clone(), !online);
        });
    }

    /// A card told a technician why a visit is gone.
    pub fn card(&self, technician: &TechnicianId, text: String) {
        self.change(|state| state.cards.push((technician.clone(), text)));
    }

    /// Every such card.
    #[must_use]
    pub fn cards(&self) -> Vec<(TechnicianId, String)> {
        self.read(|state| state.cards.clone())
    }

    /// How many phones have no network, of how many.
    #[must_use]
    pub fn offline(&self) -> (usize, usize) {
        self.read(|state| (state.offline.values().filter(|offline| **offline).count(), state.offline.len()))
    }

    /// True when the phone has no network.
    #[must_use]
    pub fn is_offline(&self, technician: &TechnicianId) -> bool {
        self.read(|state| state.offline.get(technician).copied().unwrap_or(true))
    }

    async fn wait(&self, patience: Duration, mut met: impl FnMut(&State) -> bool) -> bool {
        let mut changes = self.changed.subscribe();
        let wait = async {
            while !self.read(&mut met) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        tokio::time::timeout(patience, wait).await.is_ok()
    }

    /// Waits until a technician is at least this far with a visit. False when that took longer than `patience`.
    pub async fn reached(
        &self,
        order: &ServiceOrderId,
        technician: &TechnicianId,
        step: Step,
        patience: Duration,
    ) -> bool {
        let key = (order.clone(), technician.clone());
        self.wait(patience, |state| state.steps.get(&key).is_some_and(|reached| *reached >= step)).await
    }

    /// Waits until a phone has lost its network. False when that took longer than `patience`.
    pub async fn went_offline(&self, technician: &TechnicianId, patience: Duration) -> bool {
        self.wait(patience, |state| state.offline.get(technician) == Some(&true)).await
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn an_incident_waits_for_its_step_and_gives_up_without_it() {
        let board = Board::default();
        let (order, anna) = (ServiceOrderId::new("SO-100").unwrap(), TechnicianId::new("TECH-10").unwrap());
        let waiting = tokio::spawn({
            let (board, order, anna) = (board.clone(), order.clone(), anna.clone());
            async move { board.reached(&order, &anna, Step::Arrived, Duration::from_secs(5)).await }
        });
        board.step(&order, &anna, Step::Travelling);
        board.step(&order, &anna, Step::Working);
        assert!(waiting.await.unwrap(), "working implies arrived");
        assert!(!board.reached(&order, &anna, Step::Ended, Duration::from_millis(1)).await);
        board.network(&anna, false);
        assert!(board.went_offline(&anna, Duration::ZERO).await || board.is_offline(&anna));
        assert_eq!(board.offline(), (1, 1));
    }
}
