//! The phones' processes, and their stores.

use super::{Due, World};
use crate::scenario::{MINUTE, SECOND};
use rand::rngs::SmallRng;
use sync_core::store::StoreError;

impl World<'_> {
    pub(super) fn start_phone(&mut self, phone: usize) {
        if self.phones[phone].store.is_some() {
            return;
        }
        let now = self.now;
        self.looked("the phone starts");
        match self.phones[phone].start(now) {
            Ok((report, forgotten)) => {
                self.looked("the phone's file is sound");
                let lost = report.set_aside.is_some() || report.rows_quarantined > 0 || report.restored;
                self.note(format_args!("phone {phone} starts"));
                if lost || forgotten {
                    self.violates("the phone's file is sound", format!("phone {phone}: {report:?}, {forgotten}"));
                }
                self.wake(phone);
            }
            Err(error) => {
                let faulty = self.phones[phone].disk.is_dead() || self.phones[phone].disk.is_full();
                if self.phones[phone].disk.is_dead() {
                    self.phones[phone].die(false);
                } else {
                    self.phones[phone].store = None;
                }
                if !faulty {
                    self.violates("the phone starts", format!("phone {phone}: {error}"));
                }
                self.note(format_args!("phone {phone} does not start"));
                self.at(now + MINUTE, Due::StartPhone { phone, reboot: false });
            }
        }
    }

    pub(super) fn kill_phone(&mut self, phone: usize, power: bool, restart_ms: i64) {
        self.note(format_args!("phone {phone} dies"));
        self.drop_conn(phone);
        self.phones[phone].die(power);
        self.phones[phone].dies = None;
        let now = self.now;
        self.at(now + restart_ms, Due::StartPhone { phone, reboot: power });
    }

    /// The app ends as it should.
    pub(super) fn close_phone(&mut self, phone: usize) {
        self.hang_up(phone, true);
        if let Some(store) = self.phones[phone].store.take() {
            let result = store.close();
            if self.phones[phone].disk.is_dead() {
                let (power, _) = self.phones[phone].dies.take().unwrap_or((false, 0));
                self.phones[phone].die(power);
            } else {
                self.stored(phone, result);
            }
        }
    }

    /// Looks at what a call of the store came to. False when it failed, as it may with such a disk.
    pub(super) fn stored(&mut self, phone: usize, result: Result<(), StoreError>) -> bool {
        if self.phones[phone].disk.is_dead() {
            let (power, restart_ms) = self.phones[phone].dies.unwrap_or((false, SECOND));
            self.kill_phone(phone, power, restart_ms);
            return false;
        }
        match result {
            Ok(()) => true,
            Err(_) if self.phones[phone].disk.is_full() => false,
            Err(error) => {
                self.violates("the phone's store answers", format!("phone {phone}: {error}"));
                false
            }
        }
    }

    /// A call of the phone's store; the connection ends when it fails.
    pub(super) fn ask<T>(
        &mut self,
        phone: usize,
        call: impl FnOnce(&sync_core::store::Store, &mut SmallRng) -> Result<T, StoreError>,
    ) -> Result<T, ()> {
        let state = &mut self.phones[phone];
        let Some(store) = &state.store else { return Err(()) };
        let result = call(store, &mut state.rng);
        self.looked("the phone's store answers");
        // A process that died in the middle of it has not answered.
        match result {
            Ok(done) if !self.phones[phone].disk.is_dead() => Ok(done),
            Ok(_) => {
                self.stored(phone, Ok(()));
                Err(())
            }
            Err(error) => {
                self.stored(phone, Err(error));
                if self.phones[phone].link.conn.is_some() {
                    self.lost(phone, None);
                }
                Err(())
            }
        }
    }
}
