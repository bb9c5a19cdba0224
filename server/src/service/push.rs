//! What a phone's connection asks of the service.

use crate::service::commit::{CommitError, DeviceWrite, FeedEntry, FeedNews};
use crate::service::decide::{audience, bare_commit};
use crate::service::lanes::Round;
use crate::service::model::Device;
use crate::service::shell::ATTEMPTS_MAX;
use crate::service::{PhoneSession, Service, ServiceError};
use crate::store::{FeedNewsItem, FeedPage};
use crate::telemetry::metrics::{LANES_REFUSED, PUSH_SECONDS};
use serde_bytes::ByteBuf;
use serde_json::json;
use std::time::Instant;
use sync_core::domain::{DispatchId, Timestamp, Tombstone, TombstoneReason};
use sync_core::protocol::limits::{DOCUMENT_BYTES_MAX, FETCH_VISITS_MAX, PUSH_CHANGES_MAX, PUSH_LANES_MAX};
use sync_core::protocol::{
    Ack, Cursor, Digest, FeedItem, Hello, LaneAck, LaneRefusal, OutboxMark, Push, PushAck, Remedy, Welcome,
};

/// A phone that says the same again within this time is not written down again.
const SEEN_AGAIN_AFTER_MS: i64 = 60_000;

/// What a push did.
#[derive(Debug, Clone, PartialEq)]
pub struct PushOutcome {
    /// The answer; its `feed` is left to the session layer, which knows the phone's cursor.
    pub ack: PushAck,
    /// The entries that the push made in this technician's own feed, in order.
    pub feed: Vec<FeedEntry>,
}

impl PushOutcome {
    /// The positions in the technician's feed that the answer itself tells. None when a visit left, as it does when its
    /// technician rejects it: the answer has no tombstones, so that the phone is told by the feed.
    #[must_use]
    pub fn told(&self) -> Vec<Cursor> {
        if self.feed.iter().any(|entry| entry.news != FeedNews::Held) {
            return Vec::new();
        }
        self.feed.iter().map(|entry| Cursor(entry.seq)).collect()
    }
}

/// A page of a phone's feed.
#[derive(Debug, Clone, PartialEq)]
pub enum FeedAnswer {
    /// News, one item a visit.
    Items {
        /// The items.
        items: Vec<FeedItem>,
        /// The position that they lead to.
        to: Cursor,
        /// The feed's end; more pages follow while it is beyond `to`.
        head: Cursor,
        /// At `head`.
        digest: Digest,
    },
    /// The cursor is too old: only everything anew helps ([`Service::held`]).
    TooOld,
}

/// A page of everything that a phone should hold.
#[derive(Debug, Clone, PartialEq)]
pub struct HeldAnswer {
    /// Snapshots, in id order.
    pub items: Vec<FeedItem>,
    /// True when there are more; ask again after the last item's visit.
    pub more: bool,
    /// The feed's end.
    pub head: Cursor,
    /// At `head`.
    pub digest: Digest,
}

impl Service {
    /// A phone connects: registers the device or renews what is known of it.
    ///
    /// # Errors
    /// [`ServiceError::DeviceForeign`], [`ServiceError::DeviceRevoked`].
    pub async fn hello(&self, session: &PhoneSession, hello: &Hello) -> Result<Welcome, ServiceError> {
        let store = self.store();
        let identity = store.identity();
        // A cursor of another database says nothing about this one's feed (invariant 11).
        let cursor = (hello.generation == Some(identity.generation)).then_some(hello.cursor.0);
        // Not every database can hold every control character, and nobody wants to read one.
        let app: String = hello.app.chars().filter(|c| !c.is_control()).take(APP_CHARS_MAX).collect();
        for _ in 0..ATTEMPTS_MAX {
            let known = self.own_device(session).await?;
            let (head, digest) = store.feed_head(&session.tenant, &session.technician).await?;
            let welcome = Welcome {
                generation: identity.generation,
                server_time: self.now(),
                head: Cursor(head),
                digest: Digest(digest),
            };
            let now = welcome.server_time;
            let receipt = cursor.filter(|cursor| *cursor <= head);
            if let Some(device) = &known {
                let same = device.ledger.announced >= hello.outbox.high_water
                    && (device.pending, device.oldest_pending) == (hello.outbox.pending, hello.outbox.oldest)
                    && receipt.is_none_or(|receipt| receipt <= device.acknowledged)
                    && device.app == app
                    && now.millis_since(device.seen_at) < SEEN_AGAIN_AFTER_MS;
                if same {
                    return Ok(welcome);
                }
            }
            let mut write = seen(session, known.as_ref(), now, &hello.outbox);
            write.app = Some(app.clone());
            write.acknowledged = receipt;
            let registered = known.is_none();
            if self.write_device(session, write, registered.then_some("DEVICE_REGISTERED")).await? {
                return Ok(welcome);
            }
        }
        Err(ServiceError::Busy)
    }

    /// A phone says what it still holds (pings). Writes only what the office should see; call it when the mark has changed,
    /// or once a minute.
    ///
    /// # Errors
    /// [`ServiceError::DeviceRevoked`], ….
    pub async fn heard(&self, session: &PhoneSession, outbox: &OutboxMark) -> Result<(), ServiceError> {
        self.update_device(session, |device, now| Some(seen(session, device, now, outbox))).await
    }

    /// A phone has durably stored its feed up to here: makes `ASSIGNED` `DISPATCHED`.
    ///
    /// # Errors
    /// [`ServiceError::Busy`], [`ServiceError::Internal`].
    pub async fn ack(&self, session: &PhoneSession, ack: &Ack) -> Result<(), ServiceError> {
        self.update_device(session, |device, now| {
            let news = device.is_none_or(|device| device.acknowledged < ack.cursor.0) || !ack.digest_matched;
            news.then(|| DeviceWrite {
                acknowledged: Some(ack.cursor.0),
                digest_mismatch: !ack.digest_matched,
                ..touch(session, now)
            })
        })
        .await
    }

    /// A phone's changes: admitted, judged, committed; each visit is its own lane. An error means that nothing was kept
    /// and the phone shall send again.
    ///
    /// # Errors
    /// [`ServiceError::DeviceForeign`], [`ServiceError::Internal`].
    pub async fn push(&self, session: &PhoneSession, push: &Push) -> Result<PushOutcome, ServiceError> {
        let changes: usize = push.lanes.iter().map(|lane| lane.changes.len()).sum();
        if push.lanes.len() > PUSH_LANES_MAX || changes > PUSH_CHANGES_MAX {
            return Err(ServiceError::invalid("push", "too many visits or changes in one push"));
        }
        let began = Instant::now();
        let mut round = Round::new(session, push);
        for _ in 0..ATTEMPTS_MAX {
            if round.is_settled() {
                break;
            }
            self.push_round(&mut round).await?;
        }
        if !round.device_written {
            self.heard(session, &push.outbox).await?;
        }
        let Round { acks, feed, .. } = round;
        let lanes = acks.into_iter().zip(&push.lanes).map(|(ack, lane)| {
            ack.unwrap_or_else(|| LaneAck {
                dispatch: lane.dispatch.clone(),
                accepted: 0,
                refusal: Some(later()),
                verdicts: Vec::new(),
                update: None,
            })
        });
        let mut lanes: Vec<_> = lanes.collect();
        ration_grounds(&mut lanes);
        metrics::histogram!(PUSH_SECONDS).record(began.elapsed());
        for refusal in lanes.iter().filter_map(|lane| lane.refusal.as_ref()) {
            metrics::counter!(LANES_REFUSED, "code" => refusal.code.clone()).increment(1);
        }
        Ok(PushOutcome { ack: PushAck { id: push.id, lanes, feed: None }, feed })
    }

    /// What a phone at `after` lacks, at most `limit` visits.
    ///
    /// # Errors
    /// [`ServiceError::Internal`].
    pub async fn feed_page(
        &self,
        session: &PhoneSession,
        after: Cursor,
        limit: u32,
    ) -> Result<FeedAnswer, ServiceError> {
        let store = self.store();
        let page = store.feed_page(&session.tenant, &session.technician, &session.device, after.0, limit).await?;
        let FeedPage { to, head, digest, news, too_old } = page;
        if too_old {
            return Ok(FeedAnswer::TooOld);
        }
        let items = news.into_iter().map(item).collect();
        Ok(FeedAnswer::Items { items, to: Cursor(to), head: Cursor(head), digest: Digest(digest) })
    }

    /// Everything that the technician should hold, from `after` on in id order.
    ///
    /// # Errors
    /// [`ServiceError::Internal`].
    pub async fn held(
        &self,
        session: &PhoneSession,
        after: Option<&DispatchId>,
        limit: u32,
        bytes: usize,
    ) -> Result<HeldAnswer, ServiceError> {
        let page = self.store().held(&session.tenant, &session.technician, after, limit, bytes).await?;
        Ok(HeldAnswer {
            items: page.visits.into_iter().map(|visit| item(FeedNewsItem::Whole(visit))).collect(),
            more: page.more,
            head: Cursor(page.head),
            digest: Digest(page.digest),
        })
    }

    /// These visits whole; [`FeedItem::Gone`] for those the technician does not hold.
    ///
    /// # Errors
    /// [`ServiceError::Internal`].
    pub async fn fetch(
        &self,
        session: &PhoneSession,
        dispatches: &[DispatchId],
    ) -> Result<Vec<FeedItem>, ServiceError> {
        let ids = &dispatches[..dispatches.len().min(FETCH_VISITS_MAX)];
        let held = self.store().held_some(&session.tenant, &session.technician, ids).await?;
        let mut items: Vec<FeedItem> = held.into_iter().map(|visit| item(FeedNewsItem::Whole(visit))).collect();
        for id in ids {
            if !items.iter().any(|item| item.dispatch() == id) {
                let tombstone = self.tombstone(session, id).await?;
                items.push(FeedItem::Gone { tombstone });
            }
        }
        Ok(items)
    }

    /// The phone of a revoked device has removed what it held; `sealed` unsent changes it keeps.
    ///
    /// # Errors
    /// [`ServiceError::Busy`], [`ServiceError::Internal`].
    pub async fn wiped(&self, session: &PhoneSession, sealed: u32) -> Result<(), ServiceError> {
        self.update_device(session, |_, now| {
            Some(DeviceWrite { wiped_at: Some(now), pending: Some((sealed, None)), ..touch(session, now) })
        })
        .await
    }

    /// The session's device, if it is known, and belongs to the session's technician.
    pub(crate) async fn own_device(&self, session: &PhoneSession) -> Result<Option<Device>, ServiceError> {
        let device = self.store().device(&session.tenant, &session.device).await?;
        match device {
            Some(device) if device.technician != session.technician => {
                Err(ServiceError::DeviceForeign(session.device.clone()))
            }
            Some(device) if device.revoked_at.is_some() => Err(ServiceError::DeviceRevoked(session.device.clone())),
            device => Ok(device),
        }
    }

    /// Writes a device's row; false when somebody else was faster.
    pub(crate) async fn write_device(
        &self,
        session: &PhoneSession,
        write: DeviceWrite,
        action: Option<&'static str>,
    ) -> Result<bool, ServiceError> {
        let frame = self.frame(&session.tenant, session.user.as_str());
        let mut commit = bare_commit(&frame);
        if let Some(action) = action {
            let detail = json!({ "technicianId": session.technician, "app": write.app });
            commit.audit.push(frame.audit(format!("device:{}", session.device), action, detail));
        }
        commit.devices.push(write);
        match self.commit_one(commit).await {
            Ok(_) => Ok(true),
            Err(CommitError::Conflict(_) | CommitError::AlreadyDone(_)) => Ok(false),
            Err(CommitError::ForeignDevice) => Err(ServiceError::DeviceForeign(session.device.clone())),
            Err(error) => Err(ServiceError::Internal(error.to_string())),
        }
    }

    /// Reads, decides, writes a device's row. A revoked device's last words are written too.
    async fn update_device(
        &self,
        session: &PhoneSession,
        decide: impl Fn(Option<&Device>, Timestamp) -> Option<DeviceWrite> + Send,
    ) -> Result<(), ServiceError> {
        for _ in 0..ATTEMPTS_MAX {
            let device = self.store().device(&session.tenant, &session.device).await?;
            if device.as_ref().is_some_and(|device| device.technician != session.technician) {
                return Err(ServiceError::DeviceForeign(session.device.clone()));
            }
            let Some(write) = decide(device.as_ref(), self.now()) else { return Ok(()) };
            if self.write_device(session, write, None).await? {
                return Ok(());
            }
        }
        Err(ServiceError::Busy)
    }

    /// Why a technician does not hold a visit; nothing about visits that were never theirs.
    async fn tombstone(&self, session: &PhoneSession, id: &DispatchId) -> Result<Tombstone, ServiceError> {
        let now = self.now();
        let stored = self.store().dispatch(&session.tenant, id).await?;
        Ok(match stored {
            Some(stored) if stored.row.plan.epoch_for(&session.technician).is_some() => {
                audience::tombstone(id, &stored.row.plan, &session.technician, now)
            }
            _ => Tombstone {
                dispatch_id: id.clone(),
                title: String::new(),
                reason: TombstoneReason::OutOfWindow,
                note: None,
                by: "system".to_owned(),
                at: now,
            },
        })
    }
}

/// Nothing is wrong with the lane; it is to be sent again.
fn later() -> LaneRefusal {
    LaneRefusal {
        code: ServiceError::Busy.code().to_owned(),
        message: ServiceError::Busy.to_string(),
        remedy: Remedy::Retry,
        ground: None,
    }
}

/// What the refusals of one answer bring must fit into its frame: as much as the largest document. The lanes beyond that are
/// to be sent again, and get theirs then.
fn ration_grounds(lanes: &mut [LaneAck]) {
    let mut left = DOCUMENT_BYTES_MAX;
    for refusal in lanes.iter_mut().filter_map(|lane| lane.refusal.as_mut()) {
        let Some(bytes) = refusal.ground.as_ref().map(|ground| ground.len()) else { continue };
        match left.checked_sub(bytes) {
            Some(rest) => left = rest,
            None => *refusal = later(),
        }
    }
}

/// Longest app name and version, characters.
const APP_CHARS_MAX: usize = 100;

/// A device row's write that only says that it was heard.
pub(crate) fn touch(session: &PhoneSession, now: Timestamp) -> DeviceWrite {
    DeviceWrite {
        device: session.device.clone(),
        technician: session.technician.clone(),
        app: None,
        seen_at: Some(now),
        ledger: None,
        expected_ledger: None,
        pending: None,
        acknowledged: None,
        revoked_at: None,
        wiped_at: None,
        digest_mismatch: false,
    }
}

/// A device row's write with what the phone says of its outbox.
fn seen(session: &PhoneSession, device: Option<&Device>, now: Timestamp, outbox: &OutboxMark) -> DeviceWrite {
    let mut write = DeviceWrite { pending: Some((outbox.pending, outbox.oldest)), ..touch(session, now) };
    let mut ledger = device.map(|device| device.ledger.clone()).unwrap_or_default();
    if ledger.announced < outbox.high_water {
        ledger.announce(outbox.high_water);
        write.ledger = Some(ledger);
        write.expected_ledger = device.map(|device| device.ledger_version);
    }
    write
}

/// News as the protocol says it.
fn item(news: FeedNewsItem) -> FeedItem {
    match news {
        FeedNewsItem::Changes { visit, changes } => FeedItem::Changes {
            dispatch: visit.dispatch,
            changes: changes.into_iter().map(ByteBuf::from).collect(),
            card: visit.card,
            tag: visit.tag,
        },
        FeedNewsItem::Whole(visit) => FeedItem::Snapshot {
            dispatch: visit.dispatch,
            document: ByteBuf::from(visit.document),
            card: visit.card,
            tag: visit.tag,
        },
        FeedNewsItem::Gone(entry) => match entry.news {
            FeedNews::Gone(tombstone) => FeedItem::Gone { tombstone },
            // The store answers a tombstone with every entry that it calls gone.
            FeedNews::Held => FeedItem::Gone {
                tombstone: Tombstone {
                    dispatch_id: entry.dispatch,
                    title: String::new(),
                    reason: TombstoneReason::OutOfWindow,
                    note: None,
                    by: "system".to_owned(),
                    at: Timestamp::default(),
                },
            },
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_bring_no_more_than_one_frame_carries() {
        let refused = |n: usize| LaneAck {
            dispatch: DispatchId::new(format!("DSP-{n}")).unwrap(),
            accepted: 0,
            refusal: Some(LaneRefusal {
                code: "CHANGE_CAUSALLY_OPEN".to_owned(),
                message: String::new(),
                remedy: Remedy::Resend,
                ground: Some(ByteBuf::from(vec![0; DOCUMENT_BYTES_MAX / 2])),
            }),
            verdicts: Vec::new(),
            update: None,
        };
        let mut lanes: Vec<_> = (1..=4).map(refused).collect();
        ration_grounds(&mut lanes);
        let remedies: Vec<_> = lanes.iter().filter_map(|lane| lane.refusal.as_ref()).map(|it| it.remedy).collect();
        assert_eq!(remedies, [Remedy::Resend, Remedy::Resend, Remedy::Retry, Remedy::Retry]);
        assert!(lanes[2].refusal.as_ref().is_some_and(|refusal| refusal.ground.is_none()));
    }
}
