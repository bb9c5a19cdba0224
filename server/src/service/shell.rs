//! The way of every change: load, decide, commit, tell; again on a conflict, a bounded number of times.

use crate::service::clock::Ids;
use crate::service::commit::{Commit, CommitError, Committed, FeedEntry, FeedNews, IdempotencyRecord};
use crate::service::decide::draft::Finished;
use crate::service::decide::fit::{Candidate, NEIGHBOURS_WITHIN_MS, Neighbour};
use crate::service::decide::{Draft, Frame, Opened};
use crate::service::hub::FeedNotice;
use crate::service::model::Technician;
use crate::service::nodes::Tidings;
use crate::service::view::DispatchView;
use crate::service::{Action, Caller, Outcome, Request, Service, ServiceError};
use crate::store::StoreError;
use crate::telemetry::metrics::{COMMIT_SECONDS, COMMITS};
use futures_util::future::{join, try_join, try_join_all};
use serde::Serialize;
use serde_bytes::ByteBuf;
use std::sync::Arc;
use std::time::Instant;
use sync_core::domain::{DeviceId, DispatchId, LocationId, TechnicianId, TenantId, Window};
use sync_core::protocol::FeedItem;

/// How often a decision is made anew because somebody else was faster.
pub(crate) const ATTEMPTS_MAX: u32 = 8;

/// What a commit leads to, told after it is durable.
pub(crate) struct News {
    tenant: TenantId,
    origin: Option<DeviceId>,
    /// One for each feed entry of the commit, in order; `None` where nobody is connected.
    items: Vec<Option<FeedItem>>,
    /// Before the commit was handed over.
    since: Instant,
}

/// Whom to look at before a command is decided: the lead, then the crew, and when they are needed.
pub(crate) type Needed = Option<(Vec<TechnicianId>, Option<Window>)>;

impl Service {
    /// What every decision needs.
    pub(crate) fn frame(&self, tenant: &TenantId, by: &str) -> Frame {
        let now = self.now();
        Frame {
            tenant: tenant.clone(),
            now,
            by: by.to_owned(),
            actor: self.0.store.identity().actor,
            oldest_held: now.plus_millis(-self.0.config.held_after_end_ms),
        }
    }

    /// Ids for one decision.
    pub(crate) fn ids(&self) -> Ids {
        self.0.ids.fork()
    }

    /// Opens a dispatch as it is in the store now; the document may come from the cache.
    pub(crate) async fn open(&self, tenant: &TenantId, dispatch: &DispatchId) -> Result<Opened, ServiceError> {
        let missing = || ServiceError::DispatchNotFound(dispatch.clone());
        if let Some(kept) = self.0.documents.take(tenant, dispatch) {
            let standing = self.0.store.standings(tenant, std::slice::from_ref(dispatch)).await?.pop();
            if let Some(opened) = kept.if_it_still_is(standing.ok_or_else(missing)?) {
                return Ok(opened);
            }
        }
        let mut found = self.0.store.documents(tenant, std::slice::from_ref(dispatch)).await?;
        let (stored, saved) = found.pop().ok_or_else(missing)?;
        Opened::load(stored, &saved)
    }

    /// The answer that is remembered under the request's idempotency key, if there is one.
    pub(crate) async fn replay<T>(&self, request: &Request<'_>) -> Result<Option<Outcome<T>>, ServiceError> {
        let Some(key) = request.idempotency else { return Ok(None) };
        match self.0.store.remembered(&request.caller.tenant, key.key).await? {
            None => Ok(None),
            Some(record) => replayed(request, record).map(Some),
        }
    }

    /// Changes one dispatch on behalf of the office.
    pub(crate) async fn change(
        &self,
        request: Request<'_>,
        action: Action,
        dispatch: &DispatchId,
        needed: impl Fn(&Draft) -> Needed + Send,
        decide: impl Fn(&mut Draft, &[Candidate]) -> Result<(), ServiceError> + Send,
    ) -> Result<Outcome<DispatchView>, ServiceError> {
        request.caller.may(action)?;
        let tenant = &request.caller.tenant;
        // Both are only read, so they are read at once; a remembered answer counts before anything else.
        let (replayed, opened) = join(self.replay(&request), self.open(tenant, dispatch)).await;
        if let Some(outcome) = replayed? {
            return Ok(outcome);
        }
        let mut first = Some(opened?);
        for _ in 0..ATTEMPTS_MAX {
            let opened = match first.take() {
                Some(opened) => opened,
                None => self.open(tenant, dispatch).await?,
            };
            request.check_revision(opened.stored.row.revision)?;
            let mut draft = Draft::open(self.frame(tenant, request.caller.user.as_str()), self.ids(), opened);
            let candidates = match needed(&draft) {
                Some((technicians, window)) => self.candidates(tenant, &technicians, window, Some(dispatch)).await?,
                None => Vec::new(),
            };
            decide(&mut draft, &candidates)?;
            if let Some(outcome) = self.settle(&request, draft.finish()).await? {
                return Ok(outcome);
            }
        }
        Err(ServiceError::Busy)
    }

    /// Commits a decision about a dispatch, with its answer; `None` when somebody else was faster.
    pub(crate) async fn settle(
        &self,
        request: &Request<'_>,
        finished: Finished,
    ) -> Result<Option<Outcome<DispatchView>>, ServiceError> {
        let created = finished.after.stored.row.revision == 1;
        let revision = finished.after.stored.row.revision;
        let value = DispatchView::new(&finished.after.stored);
        let outcome = Outcome::Done { value, revision, created };
        let news = self.news(&finished, None);
        let mut commit = finished.commit;
        commit.idempotency = remember(request, &outcome);
        commit.traceparent = request.traceparent.map(str::to_owned);
        match self.commit_one(commit).await {
            Ok(committed) => {
                self.tell(news, &committed.feed);
                self.0.documents.put(&request.caller.tenant, finished.after);
                Ok(Some(outcome))
            }
            Err(error) => refused(request, error),
        }
    }

    /// Commits a decision that is not about a dispatch, with its answer.
    pub(crate) async fn settle_other<T: Serialize>(
        &self,
        request: &Request<'_>,
        mut commit: Commit,
        outcome: Outcome<T>,
    ) -> Result<Option<Outcome<T>>, ServiceError> {
        commit.idempotency = remember(request, &outcome);
        commit.traceparent = request.traceparent.map(str::to_owned);
        match self.commit_one(commit).await {
            Ok(_) => Ok(Some(outcome)),
            Err(error) => refused(request, error),
        }
    }

    /// Commits one.
    pub(crate) async fn commit_one(&self, commit: Commit) -> Result<Committed, CommitError> {
        let mut results = self.commit_all(vec![commit]).await;
        results.pop().unwrap_or_else(|| Err(CommitError::Store("the store gave no answer".to_owned())))
    }

    /// Commits several, each for itself, and tells the other nodes; one result each, in order.
    pub(crate) async fn commit_all(&self, commits: Vec<Commit>) -> Vec<Result<Committed, CommitError>> {
        let began = Instant::now();
        let tidings = commits.iter().map(Tidings::of).collect();
        let results = self.0.store.commit(commits).await;
        metrics::histogram!(COMMIT_SECONDS).record(began.elapsed());
        for result in &results {
            metrics::counter!(COMMITS, "result" => outcome(result)).increment(1);
        }
        self.announce(tidings, &results);
        results
    }

    /// Prepares what the connected phones get, before the commit is handed over.
    pub(crate) fn news(&self, finished: &Finished, origin: Option<&DeviceId>) -> News {
        let tenant = &finished.commit.tenant;
        let items = match &finished.commit.dispatch {
            None => Vec::new(),
            Some(write) => write
                .feed
                .iter()
                .map(|entry| {
                    if !self.0.hub.is_connected(tenant, &entry.technician) {
                        return None;
                    }
                    Some(match &entry.news {
                        FeedNews::Gone(tombstone) => FeedItem::Gone { tombstone: tombstone.clone() },
                        FeedNews::Held if finished.held_before.contains(&entry.technician) => FeedItem::Changes {
                            dispatch: write.row.dispatch_id.clone(),
                            changes: write.changes.iter().map(|change| ByteBuf::from(change.bytes.clone())).collect(),
                            card: write.row.card.clone(),
                            tag: write.tag,
                        },
                        FeedNews::Held => FeedItem::Snapshot {
                            dispatch: write.row.dispatch_id.clone(),
                            document: ByteBuf::from(write.document.clone()),
                            card: write.row.card.clone(),
                            tag: write.tag,
                        },
                    })
                })
                .collect(),
        };
        News { tenant: tenant.clone(), origin: origin.cloned(), items, since: Instant::now() }
    }

    /// Tells the connected phones what is durable now. A phone that connected meanwhile learns that there is something to pull.
    pub(crate) fn tell(&self, news: News, feed: &[FeedEntry]) {
        for (entry, item) in feed.iter().zip(news.items) {
            match item {
                Some(item) => self.0.hub.publish(
                    &news.tenant,
                    &entry.technician,
                    &FeedNotice {
                        from_seq: entry.seq.saturating_sub(1),
                        to_seq: entry.seq,
                        digest: entry.digest,
                        items: Arc::from([item]),
                        origin_device: news.origin.clone(),
                        since: news.since,
                    },
                ),
                None => {
                    self.0.hub.grew(&news.tenant, &entry.technician, entry.seq);
                }
            }
        }
    }

    /// Technicians with their calendars around a window, the given visit left out.
    pub(crate) async fn candidates(
        &self,
        tenant: &TenantId,
        technicians: &[TechnicianId],
        window: Option<Window>,
        except: Option<&DispatchId>,
    ) -> Result<Vec<Candidate>, ServiceError> {
        let each = technicians.iter().map(|id| async move {
            let (technician, booked) =
                try_join(self.0.store.technician(tenant, id), self.booked(tenant, id, window)).await?;
            let technician = technician.ok_or_else(|| ServiceError::TechnicianNotFound(id.clone()))?;
            self.calendar(tenant, technician, booked, window, except).await
        });
        try_join_all(each).await
    }

    /// One technician with their calendar.
    pub(crate) async fn candidate(
        &self,
        tenant: &TenantId,
        technician: Technician,
        window: Option<Window>,
        except: Option<&DispatchId>,
    ) -> Result<Candidate, ServiceError> {
        let booked = self.booked(tenant, &technician.technician_id, window).await?;
        self.calendar(tenant, technician, booked, window, except).await
    }

    /// A technician's bookings around a window; none where no window matters.
    async fn booked(
        &self,
        tenant: &TenantId,
        technician: &TechnicianId,
        window: Option<Window>,
    ) -> Result<Vec<(DispatchId, Window, LocationId)>, StoreError> {
        let Some(window) = window else { return Ok(Vec::new()) };
        let around = Window {
            start: window.start.plus_millis(-NEIGHBOURS_WITHIN_MS),
            end: window.end.plus_millis(NEIGHBOURS_WITHIN_MS),
        };
        self.0.store.bookings(tenant, technician, around).await
    }

    /// A technician with what they are booked for.
    async fn calendar(
        &self,
        tenant: &TenantId,
        technician: Technician,
        booked: Vec<(DispatchId, Window, LocationId)>,
        window: Option<Window>,
        except: Option<&DispatchId>,
    ) -> Result<Candidate, ServiceError> {
        let Some(window) = window else { return Ok(Candidate { technician, calendar: Vec::new() }) };
        let others = booked.into_iter().filter(|(dispatch, ..)| except != Some(dispatch));
        // Neighbours are independent of each other: looked up at once, a full calendar costs what one entry costs.
        let neighbours =
            others.map(|(dispatch, busy, location)| self.neighbour(tenant, window, dispatch, busy, location));
        let calendar = try_join_all(neighbours).await?;
        Ok(Candidate { technician, calendar })
    }

    /// One entry of a calendar: where it is, and when the work itself starts.
    async fn neighbour(
        &self,
        tenant: &TenantId,
        window: Window,
        dispatch: DispatchId,
        busy: Window,
        location: LocationId,
    ) -> Result<Neighbour, ServiceError> {
        let store = &self.0.store;
        let site = store.location(tenant, &location).await?.map(|location| location.coordinates);
        let starts = if busy.start >= window.end {
            let next = store.dispatch(tenant, &dispatch).await?;
            next.and_then(|stored| stored.row.scheduled).map_or(busy.start, |scheduled| scheduled.start)
        } else {
            busy.start
        };
        Ok(Neighbour { dispatch, busy, site, starts })
    }
}

impl Request<'_> {
    /// Compares `If-Match`.
    pub(crate) fn check_revision(&self, actual: u64) -> Result<(), ServiceError> {
        match self.expected_revision {
            Some(expected) if expected != actual => Err(ServiceError::RevisionMismatch { expected, actual }),
            _ => Ok(()),
        }
    }
}

/// A commit's result, for the figures.
fn outcome(result: &Result<Committed, CommitError>) -> &'static str {
    match result {
        Ok(_) => "committed",
        Err(CommitError::Conflict(_)) => "conflict",
        Err(CommitError::Overlap { .. }) => "overlap",
        Err(CommitError::AlreadyDone(_) | CommitError::KeyUsed(_)) => "repeated",
        Err(CommitError::ForeignDevice | CommitError::Store(_)) => "failed",
    }
}

/// The record that goes into the effect's own transaction.
fn remember<T: Serialize>(request: &Request<'_>, outcome: &Outcome<T>) -> Option<IdempotencyRecord> {
    let key = request.idempotency?;
    let reply = outcome.reply();
    Some(IdempotencyRecord {
        key: key.key.to_owned(),
        request_hash: key.request_hash.to_owned(),
        status: reply.status,
        etag: reply.etag,
        body: reply.body,
    })
}

/// The remembered answer, to the same request only.
fn replayed<T>(request: &Request<'_>, record: IdempotencyRecord) -> Result<Outcome<T>, ServiceError> {
    match request.idempotency {
        Some(key) if key.request_hash == record.request_hash => Ok(Outcome::Replayed(record)),
        _ => Err(ServiceError::IdempotencyKeyReused),
    }
}

/// What a refused commit means to the caller; `None`: decide again.
fn refused<T>(request: &Request<'_>, error: CommitError) -> Result<Option<Outcome<T>>, ServiceError> {
    match error {
        CommitError::Conflict(_) | CommitError::AlreadyDone(_) => Ok(None),
        CommitError::Overlap { technician, dispatch } => Err(ServiceError::AssignmentConflict { technician, dispatch }),
        CommitError::KeyUsed(record) => replayed(request, record).map(Some),
        CommitError::ForeignDevice => Err(ServiceError::Internal("a foreign device in an office command".to_owned())),
        CommitError::Store(detail) => Err(ServiceError::Internal(detail)),
    }
}

/// A technician's own visit, or [`ServiceError::DispatchNotFound`]: what is not theirs does not exist for them.
pub(crate) fn theirs(draft: &Draft, technician: &TechnicianId) -> Result<(), ServiceError> {
    if draft.plan().epoch_for(technician).is_some() {
        Ok(())
    } else {
        Err(ServiceError::DispatchNotFound(draft.dispatch().clone()))
    }
}

/// The technician that a caller is.
pub(crate) fn own_technician(caller: &Caller, action: Action) -> Result<TechnicianId, ServiceError> {
    caller.may(action)?;
    caller.technician.clone().ok_or_else(|| ServiceError::Forbidden { action, needs: action.roles().to_vec() })
}
