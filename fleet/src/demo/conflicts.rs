//! Which conflict rule decided what: read off the server's record, not off the script.

use super::world::Note;
use crate::office::{ChecklistView, DispatchSummary, FactLine, ReportView};
use std::collections::BTreeMap;
use sync_core::domain::plan::CancellationEffect;
use sync_core::domain::{DispatchId, TechnicianId, VisitStatus};

/// The conflict rules by number: the situation in a few words.
pub const SITUATIONS: [(u8, &str); 18] = [
    (1, "cancelled while the phone was offline, not started"),
    (2, "completed a visit that was cancelled"),
    (3, "re-assigned while the phone was offline"),
    (4, "late accept or reject of an old epoch"),
    (5, "two crew members, one visit"),
    (6, "wrong clock"),
    (7, "a part used twice, or out of stock"),
    (8, "photo half-way"),
    (9, "phone lost"),
    (10, "new phone or other user"),
    (11, "facts of another release"),
    (12, "arrived offline before the deadline"),
    (13, "window moved while travelling"),
    (14, "access lost with unsent work"),
    (15, "poison"),
    (16, "predecessor missing"),
    (17, "cancelled after arrival"),
    (18, "the same event or fact twice"),
];

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conflict {
    /// The rule's number.
    pub rule: u8,
    /// On which dispatch (or device).
    pub on: String,
    /// Whose fact, if one was judged.
    pub technician: Option<TechnicianId>,
    /// What came of it.
    pub outcome: String,
}

impl Conflict {
    /// The situation that the rule is about.
    #[must_use]
    pub fn situation(&self) -> &'static str {
        SITUATIONS.iter().find(|(rule, _)| *rule == self.rule).map_or("", |(_, text)| text)
    }
}

/// Every decision that the record shows, by rule.
#[must_use]
pub fn read_off(
    visits: &[DispatchSummary],
    reports: &BTreeMap<DispatchId, ReportView>,
    notes: &[Note],
) -> Vec<Conflict> {
    let mut conflicts: Vec<Conflict> = notes
        .iter()
        .filter(|note| note.rule > 0)
        .map(|note| Conflict {
            rule: note.rule,
            on: note.dispatch.clone(),
            technician: None,
            outcome: note.outcome.clone(),
        })
        .collect();
    for visit in visits {
        conflicts.extend(of_visit(visit));
    }
    let mut wrong_clocks: BTreeMap<&TechnicianId, u32> = BTreeMap::new();
    for (dispatch, report) in reports {
        conflicts.extend(of_facts(dispatch, &report.facts));
        // Who answered the same is of one mind.
        let differ = |item: &&ChecklistView| item.answers.windows(2).any(|pair| pair[0].value != pair[1].value);
        for item in report.checklist.iter().filter(differ) {
            let answers: Vec<_> = item.answers.iter().map(|a| format!("{} {:?}", a.by, a.value)).collect();
            conflicts.push(Conflict {
                rule: 5,
                on: dispatch.to_string(),
                technician: None,
                outcome: format!("item {}: both answers kept, the lead is asked: {}", item.id, answers.join(" / ")),
            });
        }
        for fact in report.facts.iter().filter(|fact| fact.clock_flagged) {
            *wrong_clocks.entry(&fact.technician_id).or_default() += 1;
        }
    }
    for (technician, facts) in wrong_clocks {
        conflicts.push(Conflict {
            rule: 6,
            on: format!("{technician}'s phone"),
            technician: Some(technician.clone()),
            outcome: format!("{facts} facts accepted, times corrected by the measured offset, flagged"),
        });
    }
    conflicts.sort();
    conflicts.dedup();
    conflicts
}

fn of_visit(visit: &DispatchSummary) -> Vec<Conflict> {
    let mut conflicts = Vec::new();
    let mut push = |rule, outcome: &str| {
        let technician = visit.assignment.as_ref().map(|assignment| assignment.technician_id.clone());
        conflicts.push(Conflict { rule, on: visit.dispatch_id.to_string(), technician, outcome: outcome.to_owned() });
    };
    if let Some(cancellation) = &visit.cancellation
        && cancellation.effect == CancellationEffect::StopWork
        && visit.status == VisitStatus::CannotComplete
    {
        push(17, "request to stop; ended as cannot complete, labour recorded");
    }
    if visit.sla.as_ref().is_some_and(|sla| sla.status == "RETRACTED") {
        push(12, "breach announced as provisional, retracted when the arrival came; both kept");
    }
    conflicts
}

/// Facts whose ruling names a rule; equal ones of a visit in one line.
fn of_facts(dispatch: &DispatchId, facts: &[FactLine]) -> Vec<Conflict> {
    let mut grouped: BTreeMap<(u8, &TechnicianId, String), Vec<&str>> = BTreeMap::new();
    for fact in facts {
        if let (Some(rule), Some(verdict), Some(reason)) = (fact.rule, fact.verdict, fact.reason) {
            let ruling = format!("{}: {}", name(&reason), name(&verdict));
            grouped.entry((rule, &fact.technician_id, ruling)).or_default().push(&fact.kind);
        }
        if fact.gap_flagged {
            let ruling = "earlier facts were missing: flagged".to_owned();
            grouped.entry((16, &fact.technician_id, ruling)).or_default().push(&fact.kind);
        }
    }
    grouped
        .into_iter()
        .map(|((rule, technician, ruling), kinds)| Conflict {
            rule,
            on: dispatch.to_string(),
            technician: Some(technician.clone()),
            outcome: format!("{ruling} ({})", kinds.join(", ")),
        })
        .collect()
}

/// The stable name of a ruling's verdict or reason.
fn name(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use sync_core::domain::{FactId, RulingReason, Timestamp, Verdict};

    fn fact(kind: &str, reason: RulingReason, verdict: Verdict) -> FactLine {
        FactLine {
            fact_id: FactId::new(format!("f-{kind}")).unwrap(),
            kind: kind.to_owned(),
            technician_id: TechnicianId::new("TECH-13").unwrap(),
            occurred_at: Timestamp::default(),
            recorded_at: None,
            verdict: Some(verdict),
            reason: Some(reason),
            rule: reason.rule().map(|rule| rule.0),
            clock_flagged: kind == "completed",
            gap_flagged: false,
        }
    }

    #[test]
    fn the_record_tells_which_rule_decided() {
        let facts = vec![
            fact("arrived", RulingReason::AfterCancellation, Verdict::Stale),
            fact("work_started", RulingReason::AfterCancellation, Verdict::Stale),
            fact("completed", RulingReason::CompletedAfterCancellation, Verdict::Exception),
            fact("photo", RulingReason::InOrder, Verdict::Accepted),
        ];
        let report = ReportView { notes: String::new(), summary: None, checklist: Vec::new(), facts };
        let reports = BTreeMap::from([(DispatchId::new("DSP-1").unwrap(), report)]);
        let notes = [Note { rule: 18, dispatch: "DSP-2".into(), outcome: "second event: DUPLICATE".into() }];
        let conflicts = read_off(&[], &reports, &notes);
        let rules: Vec<_> = conflicts.iter().map(|conflict| conflict.rule).collect();
        assert_eq!(rules, [1, 2, 6, 18]);
        assert_eq!(conflicts[0].outcome, "AFTER_CANCELLATION: stale (arrived, work_started)");
        assert_eq!(conflicts[1].situation(), "completed a visit that was cancelled");
        assert!(conflicts[2].on.contains("TECH-13"));
    }
}
