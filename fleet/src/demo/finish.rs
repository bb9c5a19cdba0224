//! The evening: everybody is online, and the office's record is held against what was done.

use super::Phones;
use super::report::DemoReport;
use super::world::World;
use crate::ledger::ServerRecord;
use crate::office::{AuditLine, Office, ReportView};
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use sync_core::domain::DispatchId;

/// How long the server may take for what it does in its own time (service levels, held facts).
const SETTLING: Duration = Duration::from_secs(3);

/// Waits for the phones, then reads everything.
pub(super) async fn look_back(world: &World, phones: &Phones, patience: Duration) -> DemoReport {
    let mut report = DemoReport {
        names: world.city.technicians.values().map(|t| (t.technician_id.clone(), t.name.clone())).collect(),
        ..DemoReport::default()
    };
    let deadline = Instant::now() + patience;
    phones.values().for_each(|phone| phone.set_network(true));
    for (technician, phone) in phones {
        let caught_up = phone.caught_up(deadline.saturating_duration_since(Instant::now())).await;
        let status = phone.status().borrow().clone();
        if !caught_up || status.pending > 0 || status.parked > 0 {
            report.left_on_phones.push((technician.clone(), status.pending, status.parked));
            for item in phone.parked().await.unwrap_or_default() {
                let text = format!("parked on {technician}'s phone: {} {}: {}", item.code, item.message, item.dispatch);
                world.observe(15, &item.dispatch, text);
            }
        }
        for card in phone.read_tombstones().await.unwrap_or_default() {
            let text = format!("{}: {:?} by {}", card.tombstone.title, card.tombstone.reason, card.tombstone.by);
            world.board.card(technician, text);
        }
    }
    settle(&world.office).await;
    read_everything(world, &mut report).await;
    report.deeds = world.ledger.deeds();
    let records = report.reports.iter().map(|(dispatch, report)| (dispatch.clone(), record(report))).collect();
    report.missing = world.ledger.missing(&records);
    report.notes = world.notes();
    report.cards = world.board.cards();
    (report.assign_to_phone, report.replay) = world.latencies();
    report
}

/// Waits until no breach is provisional any more; every phone has spoken, so that each can be decided.
async fn settle(office: &Office) {
    let until = Instant::now() + SETTLING;
    while Instant::now() < until {
        let visits = office.search_all("").await.unwrap_or_default();
        if !visits.iter().any(|visit| visit.sla.as_ref().is_some_and(|sla| sla.status == "PROVISIONAL")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn read_everything(world: &World, report: &mut DemoReport) {
    let office = &world.office;
    match office.search_all("").await {
        Ok(visits) => report.visits = visits,
        Err(error) => report.unread.push(error.to_string()),
    }
    match office.events().await {
        Ok(events) => report.events = events,
        Err(error) => report.unread.push(error.to_string()),
    }
    match office.exceptions().await {
        Ok(exceptions) => report.exceptions = exceptions,
        Err(error) => report.unread.push(error.to_string()),
    }
    let dispatches: BTreeSet<DispatchId> =
        world.dispatches.values().cloned().chain(world.ledger.dispatches()).collect();
    for dispatch in dispatches {
        match office.report(&dispatch).await {
            Ok(found) => {
                report.reports.insert(dispatch.clone(), found);
            }
            Err(error) => report.unread.push(error.to_string()),
        }
        match office.audit(&dispatch).await {
            Ok(lines) => {
                report.audit_chains += 1;
                if !links(&lines) {
                    report.audit_broken.push(dispatch.to_string());
                }
                lines.into_iter().for_each(|line| *report.audit.entry(line.action).or_default() += 1);
            }
            Err(error) => report.unread.push(error.to_string()),
        }
    }
}

/// True when every line names the hash of the one before, without gaps.
fn links(lines: &[AuditLine]) -> bool {
    let starts = lines.first().is_some_and(|line| line.seq == 1 && line.previous_hash.bytes().all(|byte| byte == b'0'));
    starts && lines.windows(2).all(|pair| pair[1].seq == pair[0].seq + 1 && pair[1].previous_hash == pair[0].hash)
}

fn record(report: &ReportView) -> ServerRecord {
    let mut answers: BTreeMap<_, BTreeSet<String>> = BTreeMap::new();
    for item in &report.checklist {
        for answer in &item.answers {
            answers.entry(item.id.clone()).or_default().insert(answer.value.clone());
        }
    }
    ServerRecord {
        facts: report.facts.iter().map(|fact| fact.fact_id.clone()).collect(),
        notes: report.notes.clone(),
        answers,
        summary: report.summary.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(seq: u64, previous: &str, hash: &str) -> AuditLine {
        AuditLine { seq, action: "A".into(), previous_hash: previous.into(), hash: hash.into() }
    }

    #[test]
    fn a_chain_with_a_line_taken_out_does_not_link() {
        let whole = [line(1, "000", "a1"), line(2, "a1", "b2"), line(3, "b2", "c3")];
        assert!(links(&whole));
        assert!(!links(&[whole[0].clone(), whole[2].clone()]));
        assert!(!links(&whole[1..]), "the first line is missing");
        assert!(!links(&[]), "every dispatch has at least the line of its making");
    }
}
