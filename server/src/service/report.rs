//! What a visit left behind: notes, checklist answers, and every fact with its ruling. The one read that opens a document.

use crate::service::{Caller, Service, ServiceError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use sync_core::document::VisitDoc;
use sync_core::domain::state::{PartUse, TimeWorked};
use sync_core::domain::{
    Answer, ChecklistItemId, DeviceId, DispatchId, Fact, FactId, Plan, Report, Ruling, RulingReason, TechnicianId,
    Timestamp, Verdict, VisitView,
};

/// A visit's report.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ReportView {
    /// Which visit.
    pub dispatch_id: DispatchId,
    /// Of which revision.
    pub revision: u64,
    /// Free text of everybody on the visit.
    pub notes: String,
    /// Closing summary.
    pub summary: Option<String>,
    /// The checklist, in its order, with its answers.
    pub checklist: Vec<ChecklistLine>,
    /// Parts used, one entry a fact.
    pub parts: Vec<PartUse>,
    /// Time worked, one entry a fact.
    pub time: Vec<TimeWorked>,
    /// Every fact, in the order of its device.
    pub facts: Vec<FactLine>,
}

/// One checklist item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ChecklistLine {
    /// Which.
    pub id: ChecklistItemId,
    /// The question; `None` where the plan has dropped it and the answers are kept.
    pub label: Option<String>,
    /// True when the visit should not be completed without an answer.
    pub required: bool,
    /// More than one: crew members answered at the same time, and the lead is asked (rule 5).
    pub answers: Vec<Answer>,
}

/// One fact, with the server's word on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FactLine {
    /// Which.
    pub fact_id: FactId,
    /// `arrived`, `part_used`, ….
    pub kind: String,
    /// What belongs to the kind: a reason, a part, a photo's hash.
    pub content: serde_json::Value,
    /// Who stated it.
    pub technician_id: TechnicianId,
    /// On which device.
    pub device_id: DeviceId,
    /// The device's number for it.
    pub seq: u64,
    /// The assignment it was stated under.
    pub epoch: u64,
    /// When, corrected by the device's measured clock offset (rule 6).
    pub occurred_at: Timestamp,
    /// Half-width of the interval around it, milliseconds.
    pub uncertainty_ms: i64,
    /// When the server ruled on it; `None` while it waits.
    pub recorded_at: Option<Timestamp>,
    /// The ruling; `None` while it waits.
    pub verdict: Option<Verdict>,
    /// Why.
    pub reason: Option<RulingReason>,
    /// The conflict rule that decided, where there was a conflict.
    pub rule: Option<u8>,
    /// The plan revision that the technician knew.
    pub knew_revision: Option<u64>,
    /// The device's clock was off by more than two minutes (rule 6).
    pub clock_flagged: bool,
    /// Earlier facts of the device had not all arrived (rule 16).
    pub gap_flagged: bool,
}

impl Service {
    /// A visit's report. Roles: as for [`Self::dispatch`].
    ///
    /// # Errors
    /// [`ServiceError::DispatchNotFound`].
    pub async fn report(&self, caller: &Caller, dispatch: &DispatchId) -> Result<ReportView, ServiceError> {
        self.dispatch(caller, dispatch).await?;
        let found = self.store().documents(&caller.tenant, std::slice::from_ref(dispatch)).await?;
        let Some((stored, bytes)) = found.into_iter().next() else {
            return Err(ServiceError::DispatchNotFound(dispatch.clone()));
        };
        let document = VisitDoc::load(&bytes).map_err(|error| ServiceError::Internal(error.to_string()))?;
        let row = stored.row;
        Ok(view(&row.dispatch_id, row.revision, &document.view(), document.report(), row.state.parts, row.state.time))
    }
}

fn view(
    dispatch: &DispatchId,
    revision: u64,
    visit: &VisitView,
    report: Report,
    parts: Vec<PartUse>,
    time: Vec<TimeWorked>,
) -> ReportView {
    let mut facts: Vec<_> = visit.facts.values().map(|fact| line(fact, visit.rulings.get(&fact.id))).collect();
    facts.sort_by(|a, b| (&a.device_id, a.seq, &a.fact_id).cmp(&(&b.device_id, b.seq, &b.fact_id)));
    ReportView {
        dispatch_id: dispatch.clone(),
        revision,
        notes: report.notes,
        summary: report.summary,
        checklist: checklist(&visit.plan, report.answers),
        parts,
        time,
        facts,
    }
}

fn checklist(plan: &Plan, mut answers: BTreeMap<ChecklistItemId, Vec<Answer>>) -> Vec<ChecklistLine> {
    let mut lines: Vec<_> = plan
        .checklist
        .iter()
        .map(|item| ChecklistLine {
            id: item.id.clone(),
            label: Some(item.label.clone()),
            required: item.required,
            answers: answers.remove(&item.id).unwrap_or_default(),
        })
        .collect();
    lines.extend(answers.into_iter().map(|(id, answers)| ChecklistLine { id, label: None, required: false, answers }));
    lines
}

fn line(fact: &Fact, ruling: Option<&Ruling>) -> FactLine {
    let mut content = serde_json::to_value(&fact.kind).unwrap_or_default();
    if let Some(fields) = content.as_object_mut() {
        fields.remove("kind");
    }
    FactLine {
        fact_id: fact.id.clone(),
        kind: fact.kind.name().to_owned(),
        content,
        technician_id: fact.technician.clone(),
        device_id: fact.device.clone(),
        seq: fact.seq,
        epoch: fact.epoch,
        occurred_at: fact.occurred_at(),
        uncertainty_ms: fact.clock.uncertainty_millis(),
        recorded_at: ruling.map(|ruling| ruling.recorded_at),
        verdict: ruling.map(|ruling| ruling.verdict),
        reason: ruling.map(|ruling| ruling.reason),
        rule: ruling.and_then(|ruling| ruling.reason.rule()).map(|rule| rule.0),
        knew_revision: ruling.map(|ruling| ruling.knew_revision),
        clock_flagged: ruling.is_some_and(|ruling| ruling.clock_flagged),
        gap_flagged: ruling.is_some_and(|ruling| ruling.gap_flagged),
    }
}
