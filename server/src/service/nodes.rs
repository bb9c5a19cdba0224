//! Several nodes on one database: the phones connected here get to know what was accepted elsewhere.
//!
//! After a commit is durable, its node tells the others which feeds grew ([`Hint`]); each of them has its own connected phones
//! pull. A hint may be lost (a broken connection, a node that died between its commit and the hint), so every node also looks: one
//! query an interval for the ends of the feeds of those who are connected here. So a change reaches a phone of another node at
//! once as a rule, and after one interval and one pull at the latest.
//!
//! **Architecture invariant:** nothing depends on a hint. What is told is only ever *look there*; what is there is read from the
//! database.

use crate::service::commit::{Commit, CommitError, Committed};
use crate::service::{PhoneSession, Service};
use crate::store::{Heard, Hint, StoreError};
use crate::telemetry::metrics::{FEEDS_FOUND_GROWN, HINTS};
use std::time::Duration;
use sync_core::domain::{DeviceId, TechnicianId, TenantId};
use sync_core::protocol::ByeCode;

/// Most technicians that one query looks after.
const LOOK_TECHNICIANS_MAX: usize = 2_000;
/// A connection that is younger is not ended by the hint that its phone has connected elsewhere: a phone that came from there
/// may be faster than the hint.
const REPLACED_OLDER_THAN: Duration = Duration::from_secs(5);

/// What the other nodes are told once a commit is durable.
pub(crate) struct Tidings {
    tenant: TenantId,
    revoked: Vec<(TechnicianId, DeviceId)>,
}

impl Tidings {
    pub(crate) fn of(commit: &Commit) -> Self {
        let revoked = commit.devices.iter().filter(|write| write.revoked_at.is_some());
        Self {
            tenant: commit.tenant.clone(),
            revoked: revoked.map(|write| (write.technician.clone(), write.device.clone())).collect(),
        }
    }
}

impl Service {
    /// Follows what other nodes do, until dropped: carries out their hints, and looks every `look_every` for what they did not
    /// say.
    pub async fn follow_other_nodes(&self, look_every: Duration) {
        let mut look = tokio::time::interval(look_every);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut blind = false;
        loop {
            tokio::select! {
                heard = self.store().heard() => match heard {
                    Heard::Hint(hint) => {
                        self.carry_out(hint);
                        continue;
                    }
                    Heard::Missed => {}
                },
                _ = look.tick() => {}
            }
            match self.look_for_growth().await {
                Ok(_) => blind = false,
                Err(error) if blind => tracing::debug!(%error, "still cannot look for what other nodes did"),
                Err(error) => {
                    blind = true;
                    tracing::warn!(%error, "cannot look for what other nodes did; it is tried again");
                }
            }
        }
    }

    /// Looks once for feeds of connected technicians that grew without a word, and for connected phones that were revoked; how
    /// many feeds there were.
    ///
    /// # Errors
    /// When the store does not answer.
    pub async fn look_for_growth(&self) -> Result<u32, StoreError> {
        let mut found = 0;
        for connected in self.hub().connected().chunks(LOOK_TECHNICIANS_MAX) {
            let feeds: Vec<_> = connected.iter().map(|one| (one.tenant.clone(), one.technician.clone())).collect();
            for ((tenant, technician), head) in feeds.iter().zip(self.store().feed_heads(&feeds).await?) {
                if self.hub().grew(tenant, technician, head) {
                    found += 1;
                }
            }
            let devices: Vec<_> = connected
                .iter()
                .flat_map(|one| one.devices.iter().map(|device| (one.tenant.clone(), device.clone())))
                .collect();
            for (tenant, device) in self.store().revoked(&devices).await? {
                let owners = connected.iter().filter(|one| one.tenant == tenant && one.devices.contains(&device));
                for owner in owners {
                    self.hub().disconnect(&tenant, &owner.technician, &device, ByeCode::DeviceRevoked);
                }
            }
        }
        metrics::counter!(FEEDS_FOUND_GROWN).increment(found.into());
        Ok(found)
    }

    /// A phone has connected to this node: an older connection of it elsewhere is dead, whatever it looks like there.
    pub(crate) fn announce_connected(&self, phone: &PhoneSession) {
        self.store().announce(vec![Hint::Connected {
            tenant: phone.tenant.clone(),
            technician: phone.technician.clone(),
            device: phone.device.clone(),
        }]);
    }

    /// Tells the other nodes what is durable now.
    pub(crate) fn announce(&self, tidings: Vec<Tidings>, results: &[Result<Committed, CommitError>]) {
        let mut hints = Vec::new();
        for (Tidings { tenant, revoked }, result) in tidings.into_iter().zip(results) {
            let Ok(committed) = result else { continue };
            hints.extend(committed.feed.iter().map(|entry| Hint::Grew {
                tenant: tenant.clone(),
                technician: entry.technician.clone(),
                seq: entry.seq,
            }));
            hints.extend(revoked.into_iter().map(|(technician, device)| Hint::Revoked {
                tenant: tenant.clone(),
                technician,
                device,
            }));
        }
        if !hints.is_empty() {
            self.store().announce(hints);
        }
    }

    fn carry_out(&self, hint: Hint) {
        let (kind, mattered) = match hint {
            Hint::Grew { tenant, technician, seq } => ("grew", self.hub().grew(&tenant, &technician, seq)),
            Hint::Connected { tenant, technician, device } => {
                ("connected", self.hub().replace(&tenant, &technician, &device, REPLACED_OLDER_THAN))
            }
            Hint::Revoked { tenant, technician, device } => {
                ("revoked", self.hub().disconnect(&tenant, &technician, &device, ByeCode::DeviceRevoked))
            }
        };
        if mattered {
            metrics::counter!(HINTS, "kind" => kind).increment(1);
        }
    }
}
