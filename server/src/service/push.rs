//! What a phone's connection asks of the service.

use crate::service::commit::FeedEntry;
use crate::service::{PhoneSession, Service, ServiceError};
use sync_core::domain::DispatchId;
use sync_core::protocol::{Ack, Cursor, Digest, FeedItem, Hello, OutboxMark, Push, PushAck, Welcome};

/// What a push did.
#[derive(Debug, Clone, PartialEq)]
pub struct PushOutcome {
    /// The answer; its `feed` is left to the session layer, which knows the phone's cursor.
    pub ack: PushAck,
    /// The entries that the push made in this technician's own feed, in order.
    pub feed: Vec<FeedEntry>,
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
        let _ = (session, hello);
        unimplemented!()
    }

    /// A phone says what it still holds (pings). Writes only what the office should see; call it when the mark has changed,
    /// or once a minute.
    ///
    /// # Errors
    /// [`ServiceError::DeviceRevoked`], ….
    pub async fn heard(&self, session: &PhoneSession, outbox: &OutboxMark) -> Result<(), ServiceError> {
        let _ = (session, outbox);
        unimplemented!()
    }

    /// A phone has durably stored its feed up to here: makes `ASSIGNED` `DISPATCHED`.
    ///
    /// # Errors
    /// [`ServiceError::Busy`], [`ServiceError::Internal`].
    pub async fn ack(&self, session: &PhoneSession, ack: &Ack) -> Result<(), ServiceError> {
        let _ = (session, ack);
        unimplemented!()
    }

    /// A phone's changes: admitted, judged, committed; each visit is its own lane. An error means that nothing was kept
    /// and the phone shall send again.
    ///
    /// # Errors
    /// [`ServiceError::DeviceForeign`], [`ServiceError::Internal`].
    pub async fn push(&self, session: &PhoneSession, push: &Push) -> Result<PushOutcome, ServiceError> {
        let _ = (session, push);
        unimplemented!()
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
        let _ = (session, after, limit);
        unimplemented!()
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
        let _ = (session, after, limit, bytes);
        unimplemented!()
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
        let _ = (session, dispatches);
        unimplemented!()
    }

    /// The phone of a revoked device has removed what it held.
    ///
    /// # Errors
    /// [`ServiceError::Busy`], [`ServiceError::Internal`].
    pub async fn wiped(&self, session: &PhoneSession) -> Result<(), ServiceError> {
        let _ = session;
        unimplemented!()
    }
}
