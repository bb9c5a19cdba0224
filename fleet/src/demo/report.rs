//! What the demo tells at the end.

use super::conflicts::{Conflict, read_off};
use super::world::Note;
use crate::latency::Latency;
use crate::ledger::{Deed, Missing, What};
use crate::office::{DispatchSummary, Exception, JournalEntry, ReportView};
use crate::tables::table;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use sync_core::domain::{DispatchId, TechnicianId, VisitStatus};

/// Most missing deeds that are listed one by one.
const MISSING_SHOWN_MAX: usize = 50;

/// Everything that was found out.
#[derive(Debug, Clone, Default)]
pub struct DemoReport {
    /// Technicians' names.
    pub names: BTreeMap<TechnicianId, String>,
    /// Every dispatch at the end.
    pub visits: Vec<DispatchSummary>,
    /// Every dispatch's report, as far as anybody did anything.
    pub reports: BTreeMap<DispatchId, ReportView>,
    /// The event journal.
    pub events: Vec<JournalEntry>,
    /// What waits for a person.
    pub exceptions: Vec<Exception>,
    /// Lines of the audit trail, by action.
    pub audit: BTreeMap<String, u64>,
    /// How many audit chains were followed.
    pub audit_chains: usize,
    /// Chains whose hashes do not link.
    pub audit_broken: Vec<String>,
    /// Everything done on a phone.
    pub deeds: Vec<Deed>,
    /// What of it the server does not know.
    pub missing: Vec<Missing>,
    /// Observations of the day.
    pub notes: Vec<Note>,
    /// Cards that told a technician why a visit is gone.
    pub cards: Vec<(TechnicianId, String)>,
    /// From the office's call until the visit was durable on the phone; phones with a network only.
    pub assign_to_phone: Latency,
    /// From the network's return until the last offline action was acknowledged.
    pub replay: Latency,
    /// Unsent and parked changes left on phones at the end.
    pub left_on_phones: Vec<(TechnicianId, u32, u32)>,
    /// What the final look could not read.
    pub unread: Vec<String>,
}

impl DemoReport {
    /// True when nothing that was done on a phone is missing on the server, nothing is left on a phone, every audit
    /// chain links, and everything could be read.
    #[must_use]
    pub fn passed(&self) -> bool {
        self.missing.is_empty()
            && self.left_on_phones.is_empty()
            && self.audit_broken.is_empty()
            && self.unread.is_empty()
            && !self.deeds.is_empty()
    }

    /// Every decision of a conflict rule.
    #[must_use]
    pub fn conflicts(&self) -> Vec<Conflict> {
        read_off(&self.visits, &self.reports, &self.notes)
    }

    /// The report as text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        let mut section = |title: &str, body: String| {
            // Writing to a string cannot fail.
            let _ = write!(text, "\n{title}\n{body}\n");
        };
        section("Visits by status", self.visits_by_status());
        section("Facts and edits by technician", self.by_technician());
        let conflicts = self.conflicts();
        let rules: BTreeSet<_> = conflicts.iter().map(|conflict| conflict.rule).collect();
        section(
            &format!("Conflicts: {} decisions by {} rules", conflicts.len(), rules.len()),
            conflict_rows(&conflicts),
        );
        section("Why is my job gone? Cards that technicians were shown", self.card_rows());
        section("Events by topic", self.events_by_topic());
        section("Latencies (real time)", self.latency_rows());
        section("Exceptions that wait for a person", self.exception_rows());
        section("Audit trail", self.audit_rows());
        let remarks: Vec<_> = self.notes.iter().filter(|note| note.rule == 0).collect();
        if !remarks.is_empty() {
            let rows = remarks.iter().map(|note| vec![note.dispatch.clone(), note.outcome.clone()]).collect();
            section("Remarks", table(&["On", "What"], &[], rows));
        }
        section("Check: is everything that was done on a phone on the server?", self.verdict());
        text
    }

    fn visits_by_status(&self) -> String {
        let mut rows: Vec<Vec<String>> = VisitStatus::ALL
            .into_iter()
            .filter_map(|status| {
                let count = self.visits.iter().filter(|visit| visit.status == status).count();
                (count > 0).then(|| vec![status.name().to_owned(), count.to_string()])
            })
            .collect();
        let held = self.visits.iter().filter(|visit| visit.billing_hold).count();
        let late = self.visits.iter().filter(|visit| visit.on_time == Some(false)).count();
        rows.push(vec!["all".to_owned(), self.visits.len().to_string()]);
        let tail = format!("billing holds: {held}; arrived outside the confirmed window: {late}");
        format!("{}\n{tail}", table(&["Status", "Visits"], &[1], rows))
    }

    fn by_technician(&self) -> String {
        let mut rows = Vec::new();
        let mut total = [0_usize; 4];
        for (technician, name) in &self.names {
            let mine: Vec<_> = self.deeds.iter().filter(|deed| deed.technician == *technician).collect();
            let fact = |deed: &&&Deed| matches!(deed.what, What::Fact { .. });
            let facts = mine.iter().filter(fact).count();
            let offline = mine.iter().filter(fact).filter(|deed| deed.offline).count();
            let edits = mine.len() - facts;
            let edits_offline = mine.iter().filter(|deed| deed.offline).count() - offline;
            let counts = [facts, offline, edits, edits_offline];
            total.iter_mut().zip(counts).for_each(|(sum, count)| *sum += count);
            let mut row = vec![format!("{technician} {name}")];
            row.extend(counts.map(|count| count.to_string()));
            rows.push(row);
        }
        let mut row = vec!["all".to_owned()];
        row.extend(total.map(|count| count.to_string()));
        rows.push(row);
        let headings = ["Technician", "Facts", "of them offline", "Notes and answers", "of them offline"];
        table(&headings, &[1, 2, 3, 4], rows)
    }

    fn card_rows(&self) -> String {
        let rows = self.cards.iter().map(|(who, text)| vec![who.to_string(), text.clone()]).collect();
        table(&["Technician", "Card"], &[], rows)
    }

    fn events_by_topic(&self) -> String {
        let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        for entry in &self.events {
            *counts.entry((&entry.topic, &entry.event.event_type)).or_default() += 1;
        }
        let ids: BTreeSet<_> = self.events.iter().map(|entry| &entry.event.event_id).collect();
        let rows = counts
            .into_iter()
            .map(|((topic, name), count)| vec![topic.to_owned(), name.to_owned(), count.to_string()])
            .collect();
        let tail = format!("{} events, {} different ids", self.events.len(), ids.len());
        format!("{}\n{tail}", table(&["Topic", "Event", "Count"], &[2], rows))
    }

    fn latency_rows(&self) -> String {
        let row = |name: &str, latency: &Latency| {
            let ms = |value: f64| format!("{value:.1}");
            vec![
                name.to_owned(),
                latency.count().to_string(),
                ms(latency.quantile_ms(0.5)),
                ms(latency.quantile_ms(0.95)),
                ms(latency.max_ms()),
            ]
        };
        let rows = vec![
            row("office assigns -> durable on the phone", &self.assign_to_phone),
            row("network back -> everything made offline acknowledged", &self.replay),
        ];
        table(&["Path", "Count", "p50 ms", "p95 ms", "max ms"], &[1, 2, 3, 4], rows)
    }

    fn exception_rows(&self) -> String {
        let rows = self
            .exceptions
            .iter()
            .map(|exception| {
                let who = exception.technician_id.as_ref().map(ToString::to_string).unwrap_or_default();
                let rule = exception.rule.map(|rule| rule.to_string()).unwrap_or_default();
                let state = if exception.resolved_at.is_some() { "resolved" } else { "open" };
                vec![exception.dispatch_id.to_string(), rule, format!("{:?}", exception.reason), who, state.to_owned()]
            })
            .collect();
        table(&["Dispatch", "Rule", "Reason", "Technician", "State"], &[1], rows)
    }

    fn audit_rows(&self) -> String {
        let rows = self.audit.iter().map(|(action, count)| vec![action.clone(), count.to_string()]).collect();
        let lines: u64 = self.audit.values().sum();
        let broken = if self.audit_broken.is_empty() {
            "every hash links to the line before".to_owned()
        } else {
            format!("BROKEN: {}", self.audit_broken.join(", "))
        };
        format!("{}\n{lines} lines in {} chains; {broken}", table(&["Action", "Lines"], &[1], rows), self.audit_chains)
    }

    fn verdict(&self) -> String {
        let mut text = String::new();
        for Missing(deed) in self.missing.iter().take(MISSING_SHOWN_MAX) {
            let offline = if deed.offline { "offline" } else { "online" };
            let _ = writeln!(
                text,
                "MISSING  {} on {}: {}, made {} at {}",
                deed.technician,
                deed.dispatch,
                deed.what.label(),
                offline,
                deed.at
            );
        }
        if self.missing.len() > MISSING_SHOWN_MAX {
            let _ = writeln!(text, "… and {} more", self.missing.len() - MISSING_SHOWN_MAX);
        }
        for (technician, pending, parked) in &self.left_on_phones {
            let _ = writeln!(text, "LEFT     on {technician}'s phone: {pending} unsent, {parked} parked");
        }
        for what in &self.unread {
            let _ = writeln!(text, "UNREAD   {what}");
        }
        let offline = self.deeds.iter().filter(|deed| deed.offline).count();
        let verdict = if self.passed() { "PASSED" } else { "FAILED" };
        let _ = write!(
            text,
            "{verdict}: {} facts and edits were made on phones, {offline} of them without a network; {} are missing on the server",
            self.deeds.len(),
            self.missing.len()
        );
        text
    }
}

fn conflict_rows(conflicts: &[Conflict]) -> String {
    let rows = conflicts
        .iter()
        .map(|conflict| {
            let who = conflict.technician.as_ref().map(ToString::to_string).unwrap_or_default();
            vec![
                conflict.rule.to_string(),
                conflict.situation().to_owned(),
                conflict.on.clone(),
                who,
                conflict.outcome.clone(),
            ]
        })
        .collect();
    table(&["Rule", "Situation", "On", "Technician", "Decided"], &[0], rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use sync_core::domain::{FactId, Timestamp};

    fn deed() -> Deed {
        Deed {
            technician: TechnicianId::new("TECH-10").unwrap(),
            dispatch: DispatchId::new("DSP-7").unwrap(),
            what: What::Fact { id: FactId::new("fact-1").unwrap(), kind: "completed" },
            at: "2026-02-03T09:04:00Z".parse::<Timestamp>().unwrap(),
            offline: true,
        }
    }

    fn report() -> DemoReport {
        DemoReport {
            names: BTreeMap::from([(TechnicianId::new("TECH-10").unwrap(), "Anna Gruber".to_owned())]),
            deeds: vec![deed()],
            audit: BTreeMap::from([("DISPATCH_ASSIGNED".to_owned(), 3)]),
            ..DemoReport::default()
        }
    }

    #[test]
    fn a_day_without_loss_passes_and_says_so() {
        let report = report();
        let text = report.render();
        assert!(report.passed());
        assert!(
            text.contains("PASSED: 1 facts and edits were made on phones, 1 of them without a network; 0 are missing")
        );
        assert!(text.contains("TECH-10 Anna Gruber"));
        assert!(text.contains("DISPATCH_ASSIGNED"));
    }

    #[test]
    fn a_lost_fact_fails_the_day_and_is_named() {
        let report = DemoReport { missing: vec![Missing(deed())], ..report() };
        let text = report.render();
        assert!(!report.passed());
        assert!(text.contains("MISSING  TECH-10 on DSP-7: fact completed (fact-1), made offline"), "{text}");
        assert!(text.contains("FAILED"));
    }

    #[test]
    fn a_day_on_which_nothing_was_done_proves_nothing() {
        assert!(!DemoReport { deeds: Vec::new(), ..report() }.passed());
        assert!(
            !DemoReport { left_on_phones: vec![(TechnicianId::new("TECH-10").unwrap(), 2, 0)], ..report() }.passed()
        );
    }
}
