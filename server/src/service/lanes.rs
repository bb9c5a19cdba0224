//! A phone's push: one commit a visit, all in one transaction, each visit its own lane (invariant 4).
//!
//! A round loads the documents of all lanes that are not settled, admits their changes, judges the new facts, and commits.
//! A lane whose visit somebody else changed meanwhile goes into the next round; the others are done.

use crate::service::commit::{CommitError, DeviceWrite, FeedEntry, FeedNews};
use crate::service::decide::draft::Finished;
use crate::service::decide::facts::{Books, Judged, Stated, judge_all};
use crate::service::decide::quarantine;
use crate::service::decide::{Draft, Opened};
use crate::service::model::Device;
use crate::service::push::touch;
use crate::service::shell::News;
use crate::service::{PhoneSession, Service, ServiceError};
use crate::store::FactKeyQuery;
use futures_util::TryFutureExt as _;
use futures_util::future::try_join3;
use serde_bytes::ByteBuf;
use serde_json::json;
use std::collections::{BTreeMap, HashSet};
use sync_core::document::{Admission, Author, Refusal};
use sync_core::domain::rules::sequence::SequenceLedger;
use sync_core::domain::{DispatchId, FactKind, RulingReason, Verdict};
use sync_core::protocol::{FactVerdict, LaneAck, LaneRefusal, LaneUpdate, Push, PushLane, Remedy};

/// A push on its way.
pub(crate) struct Round<'a> {
    session: &'a PhoneSession,
    push: &'a Push,
    /// One a lane; `None` while it is not settled.
    pub(crate) acks: Vec<Option<LaneAck>>,
    /// Lanes whose calendar entries collide: the facts count, the calendar is left to the office.
    unbooked: HashSet<usize>,
    /// The entries made in the technician's own feed.
    pub(crate) feed: Vec<FeedEntry>,
    /// What the phone says of its outbox is written.
    pub(crate) device_written: bool,
}

impl<'a> Round<'a> {
    pub(crate) fn new(session: &'a PhoneSession, push: &'a Push) -> Self {
        Self {
            session,
            push,
            acks: vec![None; push.lanes.len()],
            unbooked: HashSet::new(),
            feed: Vec::new(),
            device_written: false,
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.acks.iter().all(Option::is_some)
    }

    fn accepted(&self) -> u32 {
        self.acks.iter().flatten().map(|ack| ack.accepted).sum()
    }

    /// The lanes to work on: not settled, one a visit, since a visit's second lane builds upon its first.
    fn chosen(&self) -> Vec<usize> {
        let mut seen = HashSet::new();
        (0..self.acks.len())
            .filter(|index| self.acks[*index].is_none() && seen.insert(&self.push.lanes[*index].dispatch))
            .collect()
    }

    fn refuse(&mut self, index: usize, refusal: LaneRefusal) {
        self.acks[index] = Some(LaneAck {
            dispatch: self.push.lanes[index].dispatch.clone(),
            accepted: 0,
            refusal: Some(refusal),
            verdicts: Vec::new(),
            update: None,
        });
    }
}

/// One visit's part of a round.
struct Work {
    /// Which lane; `None` for a visit that is in no lane, whose held facts have got their predecessors.
    lane: Option<usize>,
    draft: Draft,
    stated: Vec<Stated>,
    accepted: u32,
    refusal: Option<LaneRefusal>,
    verdicts: Vec<FactVerdict>,
}

/// A commit that is to be answered.
struct Pending {
    lane: Option<usize>,
    accepted: u32,
    refusal: Option<LaneRefusal>,
    verdicts: Vec<FactVerdict>,
    update: Option<LaneUpdate>,
    after: Opened,
    news: News,
}

impl Service {
    /// One round.
    pub(crate) async fn push_round(&self, round: &mut Round<'_>) -> Result<(), ServiceError> {
        let session = round.session;
        let chosen = round.chosen();
        let ids: Vec<_> = chosen.iter().map(|index| round.push.lanes[*index].dispatch.clone()).collect();
        // All are only read, so they are read at once.
        let (device, technician, opened) = try_join3(
            self.pushing_device(session),
            self.store().technician(&session.tenant, &session.technician).map_err(ServiceError::from),
            self.open_many(session, &ids),
        )
        .await?;
        self.keep_apart(round, &chosen, &opened).await;
        let mut works = self.admit_lanes(round, &device, chosen, opened);
        let mut arrived = device.ledger.clone();
        for stated in works.iter().flat_map(|work| &work.stated) {
            arrived.observe(stated.fact.seq);
        }
        arrived.announce(round.push.outbox.high_water);
        if !device.ledger.runs.is_empty() {
            self.add_held(round, &arrived, &mut works).await?;
        }
        let mut books = self.books(session, &works).await?;
        books.technician = technician;
        books.arrived = arrived;
        books.device_revoked_at = device.revoked_at;
        let pending = self.decide_lanes(round, works, &device, &mut books);
        let (commits, pending): (Vec<_>, Vec<_>) = pending.into_iter().unzip();
        if commits.is_empty() {
            return Ok(());
        }
        let results = self.commit_all(commits).await;
        for (result, pending) in results.into_iter().zip(pending) {
            self.settle_lane(round, result, pending)?;
        }
        Ok(())
    }

    /// The session's device; registered now if it never said hello. A revoked one may speak: what it says is quarantined.
    async fn pushing_device(&self, session: &PhoneSession) -> Result<Device, ServiceError> {
        for _ in 0..2 {
            match self.store().device(&session.tenant, &session.device).await? {
                Some(device) if device.technician != session.technician => {
                    return Err(ServiceError::DeviceForeign(session.device.clone()));
                }
                Some(device) => return Ok(device),
                None => {
                    self.write_device(session, touch(session, self.now()), Some("DEVICE_REGISTERED")).await?;
                }
            }
        }
        Err(ServiceError::Busy)
    }

    /// Admits the changes of the chosen lanes to their visits.
    fn admit_lanes(
        &self,
        round: &mut Round<'_>,
        device: &Device,
        chosen: Vec<usize>,
        mut opened: BTreeMap<DispatchId, Result<Opened, ServiceError>>,
    ) -> Vec<Work> {
        let session = round.session;
        let mut works = Vec::with_capacity(chosen.len());
        for index in chosen {
            let lane = &round.push.lanes[index];
            let opened = match opened.remove(&lane.dispatch) {
                Some(Ok(opened)) => opened,
                Some(Err(error)) => {
                    tracing::error!(dispatch = %lane.dispatch, %error, code = error.code(), "a document cannot be opened");
                    round.refuse(index, internal());
                    continue;
                }
                // Answered by `keep_apart`.
                None => continue,
            };
            let frame = self.frame(&session.tenant, session.user.as_str());
            let draft = Draft::open(frame, self.ids(), opened);
            works.push(admit_lane(draft, index, lane, session, device.revoked_at.is_some()));
        }
        works
    }

    /// Lanes of visits that are not here: their payloads are kept for the office, and only then refused for good.
    async fn keep_apart(
        &self,
        round: &mut Round<'_>,
        chosen: &[usize],
        opened: &BTreeMap<DispatchId, Result<Opened, ServiceError>>,
    ) {
        let session = round.session;
        for index in chosen.iter().copied() {
            let lane = &round.push.lanes[index];
            if opened.contains_key(&lane.dispatch) {
                continue;
            }
            let frame = self.frame(&session.tenant, session.user.as_str());
            let commit = quarantine::keep_apart(&frame, &lane.dispatch, session, &lane.changes);
            match self.commit_one(commit).await {
                Ok(_) => round.refuse(index, not_found(&lane.dispatch)),
                Err(error) => {
                    tracing::error!(dispatch = %lane.dispatch, %error, "the work on an unknown visit was not kept");
                    round.refuse(index, internal());
                }
            }
        }
    }

    /// Opens many as they are in the store now; documents may come from the cache, and then nothing of them is read again. What
    /// is missing is unknown.
    ///
    /// A document that another node has changed is not good enough to refuse a change by: the change may build on what is
    /// missing here, and a refusal writes nothing that would find that out.
    async fn open_many(
        &self,
        session: &PhoneSession,
        ids: &[DispatchId],
    ) -> Result<BTreeMap<DispatchId, Result<Opened, ServiceError>>, ServiceError> {
        let tenant = &session.tenant;
        let mut opened = BTreeMap::new();
        let mut kept: BTreeMap<&DispatchId, Opened> =
            ids.iter().filter_map(|id| Some((id, self.0.documents.take(tenant, id)?))).collect();
        if !kept.is_empty() {
            let at_hand: Vec<DispatchId> = kept.keys().map(|id| (*id).clone()).collect();
            for standing in self.store().standings(tenant, &at_hand).await? {
                let id = standing.dispatch.clone();
                if let Some(document) = kept.remove(&id).and_then(|kept| kept.if_it_still_is(standing)) {
                    opened.insert(id, Ok(document));
                }
            }
        }
        let rest: Vec<DispatchId> = ids.iter().filter(|id| !opened.contains_key(*id)).cloned().collect();
        if !rest.is_empty() {
            for (stored, saved) in self.store().documents(tenant, &rest).await? {
                opened.insert(stored.row.dispatch_id.clone(), Opened::load(stored, &saved));
            }
        }
        Ok(opened)
    }

    /// Adds the facts that waited for what has arrived now (rule 16), also those of visits that are in no lane.
    async fn add_held(
        &self,
        round: &Round<'_>,
        arrived: &SequenceLedger,
        works: &mut Vec<Work>,
    ) -> Result<(), ServiceError> {
        let session = round.session;
        let held = self.store().held_facts(&session.tenant, Some(&session.device), None).await?;
        let ready: Vec<_> = held.into_iter().filter(|held| arrived.has_all_before(held.seq)).collect();
        let in_no_lane: HashSet<_> = ready
            .iter()
            .map(|held| &held.dispatch)
            .filter(|dispatch| !works.iter().any(|work| work.draft.dispatch() == *dispatch))
            .cloned()
            .collect();
        let ids: Vec<_> = in_no_lane.into_iter().collect();
        for opened in self.open_many(session, &ids).await?.into_values().flatten() {
            let frame = self.frame(&session.tenant, session.user.as_str());
            works.push(Work {
                lane: None,
                draft: Draft::open(frame, self.ids(), opened),
                stated: Vec::new(),
                accepted: 0,
                refusal: None,
                verdicts: Vec::new(),
            });
        }
        for held in ready {
            if let Some(work) = works.iter_mut().find(|work| *work.draft.dispatch() == held.dispatch)
                && let Some(fact) = work.draft.view().facts.get(&held.fact)
            {
                let fact = fact.clone();
                work.stated.push(Stated { fact, knew_revision: held.knew_revision, held_since: Some(held.since) });
            }
        }
        Ok(())
    }

    /// What is known of the new facts by natural key: one query for the whole push.
    async fn books(&self, session: &PhoneSession, works: &[Work]) -> Result<Books, ServiceError> {
        let mut query = FactKeyQuery::default();
        for Stated { fact, .. } in works.iter().flat_map(|work| &work.stated) {
            query.sequence.push((fact.device.clone(), fact.seq));
            if let FactKind::PartUsed { serial: Some(serial), .. } = &fact.kind {
                query.serials.push(serial.clone());
            }
        }
        if query.sequence.is_empty() {
            return Ok(Books::default());
        }
        let keys = self.store().fact_keys(&session.tenant, &query).await?;
        Ok(Books {
            sequence: keys.sequence.into_iter().collect(),
            serials: keys.serials.into_iter().collect(),
            ..Books::default()
        })
    }

    /// Judges, and makes the commits. Each carries the device's ledger and the technician's row as they are after it, so
    /// that a commit which fails takes nothing of those before it with it. Those after it were decided on what it would have left.
    fn decide_lanes(
        &self,
        round: &mut Round<'_>,
        works: Vec<Work>,
        device: &Device,
        books: &mut Books,
    ) -> Vec<(crate::service::commit::Commit, Pending)> {
        let mut durable = device.ledger.clone();
        durable.announce(round.push.outbox.high_water);
        let mut ledger_version = device.ledger_version;
        let mut accepted = round.accepted();
        let mut commits = Vec::with_capacity(works.len());
        for Work { lane, mut draft, stated, accepted: lane_accepted, refusal, mut verdicts } in works {
            for stated in &stated {
                durable.observe(stated.fact.seq);
            }
            let judged: Judged = judge_all(&mut draft, stated, books);
            verdicts.extend(judged.verdicts);
            accepted += lane_accepted;
            if draft.is_idle() {
                if let Some(index) = lane {
                    let dispatch = draft.dispatch().clone();
                    round.acks[index] =
                        Some(LaneAck { dispatch, accepted: lane_accepted, refusal, verdicts, update: None });
                }
                if let Some(opened) = draft.abandon() {
                    self.0.documents.put(&round.session.tenant, opened);
                }
                continue;
            }
            if lane.is_some_and(|index| round.unbooked.contains(&index)) {
                draft.bookings = Some(Vec::new());
                draft.audit("CALENDAR_COLLISION", json!({ "technicianId": round.session.technician }));
            }
            if judged.technician_changed
                && let Some(technician) = &mut books.technician
            {
                let expected = technician.revision;
                technician.revision += 1;
                draft.technicians.push((Some(expected), technician.clone()));
            }
            let outbox = &round.push.outbox;
            let unsent = outbox.pending.saturating_sub(accepted);
            draft.devices.push(DeviceWrite {
                ledger: Some(durable.clone()),
                expected_ledger: Some(ledger_version),
                pending: Some((unsent, outbox.oldest.filter(|_| unsent > 0))),
                ..touch(round.session, draft.frame.now)
            });
            ledger_version += 1;
            let finished = draft.finish();
            let news = self.news(&finished, Some(&round.session.device));
            let update = update(&finished, round.session);
            let Finished { mut commit, after, .. } = finished;
            commit.follows = !commits.is_empty();
            let pending = Pending { lane, accepted: lane_accepted, refusal, verdicts, update, after, news };
            commits.push((commit, pending));
        }
        commits
    }

    /// What a commit's result means for its lane.
    fn settle_lane(
        &self,
        round: &mut Round<'_>,
        result: Result<crate::service::commit::Committed, CommitError>,
        pending: Pending,
    ) -> Result<(), ServiceError> {
        let dispatch = pending.after.stored.row.dispatch_id.clone();
        match result {
            Ok(committed) => {
                self.tell(pending.news, &committed.feed);
                let own = committed.feed.into_iter().filter(|entry| entry.technician == round.session.technician);
                round.feed.extend(own);
                round.device_written = true;
                self.0.documents.put(&round.session.tenant, pending.after);
                if let Some(index) = pending.lane {
                    let Pending { accepted, refusal, verdicts, update, .. } = pending;
                    round.acks[index] = Some(LaneAck { dispatch, accepted, refusal, verdicts, update });
                }
            }
            // Somebody else was faster: the next round loads the visit anew.
            Err(CommitError::Conflict(_) | CommitError::AlreadyDone(_)) => {}
            Err(CommitError::Overlap { .. }) => round.unbooked.extend(pending.lane),
            Err(CommitError::ForeignDevice) => {
                return Err(ServiceError::DeviceForeign(round.session.device.clone()));
            }
            Err(error @ (CommitError::KeyUsed(_) | CommitError::Store(_))) => {
                tracing::error!(%dispatch, %error, "a lane was not committed");
                if let Some(index) = pending.lane {
                    round.refuse(index, internal());
                }
            }
        }
        Ok(())
    }
}

/// Admits a lane's changes, or quarantines them: those of somebody who never had the visit, and those of a revoked device
/// that do more than state facts (rules 9, 14, 15).
fn admit_lane(mut draft: Draft, index: usize, lane: &PushLane, session: &PhoneSession, revoked: bool) -> Work {
    let work = |draft, stated, accepted, refusal, verdicts| Work {
        lane: Some(index),
        draft,
        stated,
        accepted,
        refusal,
        verdicts,
    };
    if draft.plan().epoch_for(&session.technician).is_none() {
        for payload in &lane.changes {
            quarantine::keep(&mut draft, session, payload, "DISPATCH_NOT_FOUND", RulingReason::NoRightAtEpoch);
        }
        let refusal = not_found(&lane.dispatch);
        return work(draft, Vec::new(), 0, Some(refusal), Vec::new());
    }
    let author = Author { technician: &session.technician, device: &session.device };
    let untouched = revoked.then(|| draft.document_mut().clone());
    let (admissions, refusal) = draft.document_mut().admit_batch(&author, &lane.changes);
    if let Some(untouched) = untouched
        && admissions.iter().any(|admission| !admission.duplicate && admission.edits_report)
    {
        *draft.document_mut() = untouched;
        for payload in &lane.changes {
            quarantine::keep(&mut draft, session, payload, "DEVICE_REVOKED", RulingReason::DeviceRevoked);
        }
        let refusal = LaneRefusal {
            code: "DEVICE_REVOKED".to_owned(),
            message: "the device was revoked; what it sends is kept for the office".to_owned(),
            remedy: Remedy::Park,
            ground: None,
        };
        return work(draft, Vec::new(), 0, Some(refusal), Vec::new());
    }
    let accepted = u32::try_from(admissions.len()).unwrap_or(u32::MAX);
    let verdicts = known_verdicts(&draft, &admissions);
    let mut stated = Vec::new();
    for Admission { change, duplicate, facts, .. } in admissions {
        if !duplicate {
            draft.push_change(change, Some(session.device.clone()));
            let new = facts.into_iter().map(|(fact, knew_revision)| Stated { fact, knew_revision, held_since: None });
            stated.extend(new);
        }
    }
    let refusal = refusal.map(|refusal| {
        if let (Some(payload), Some(reason)) = (lane.changes.get(accepted as usize), quarantine::reason(&refusal)) {
            quarantine::keep(&mut draft, session, payload, refusal.code(), reason);
        }
        let remedy = remedy(&refusal);
        let ground = match remedy {
            Remedy::Rebase | Remedy::Resend => {
                draft.document_mut().ground(&session.technician, &lane.changes).ok().map(ByteBuf::from)
            }
            Remedy::Retry | Remedy::Park | Remedy::Unknown => None,
        };
        LaneRefusal { code: refusal.code().to_owned(), message: refusal.to_string(), remedy, ground }
    });
    work(draft, stated, accepted, refusal, verdicts)
}

/// What was ruled on facts that come again because an acknowledgement was lost.
fn known_verdicts(draft: &Draft, admissions: &[Admission]) -> Vec<FactVerdict> {
    let again = admissions.iter().filter(|admission| admission.duplicate).flat_map(|admission| &admission.facts);
    again
        .filter_map(|(fact, _)| Some((fact, draft.view().rulings.get(&fact.id)?)))
        .filter(|(_, ruling)| !(ruling.verdict == Verdict::Accepted && ruling.reason == RulingReason::InOrder))
        .map(|(fact, ruling)| FactVerdict { fact: fact.id.clone(), verdict: ruling.verdict, reason: ruling.reason })
        .collect()
}

/// What the server added, while the phone still holds the visit.
fn update(finished: &Finished, session: &PhoneSession) -> Option<LaneUpdate> {
    let write = finished.commit.dispatch.as_ref()?;
    let holds = write.feed.iter().any(|entry| entry.technician == session.technician && entry.news == FeedNews::Held);
    holds.then(|| LaneUpdate {
        changes: finished.decided.iter().map(|change| ByteBuf::from(change.bytes.clone())).collect(),
        card: write.row.card.clone(),
        tag: write.tag,
        base: Some(finished.base),
    })
}

fn remedy(refusal: &Refusal) -> Remedy {
    match refusal {
        Refusal::CausallyOpen => Remedy::Resend,
        Refusal::Forbidden(_) | Refusal::DuplicateSequence(_) | Refusal::BadFact(_) => Remedy::Rebase,
        Refusal::Malformed(_) | Refusal::TooLarge { .. } => Remedy::Park,
    }
}

/// The same answer for a dispatch that does not exist, another tenant's, and one that was never the sender's.
fn not_found(dispatch: &DispatchId) -> LaneRefusal {
    let error = ServiceError::DispatchNotFound(dispatch.clone());
    LaneRefusal { code: error.code().to_owned(), message: error.to_string(), remedy: Remedy::Park, ground: None }
}

fn internal() -> LaneRefusal {
    let error = ServiceError::Internal(String::new());
    LaneRefusal { code: error.code().to_owned(), message: error.to_string(), remedy: Remedy::Retry, ground: None }
}
