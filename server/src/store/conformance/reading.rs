//! Reading dispatches.

use super::fixture::*;
use crate::service::commit::{Commit, DeviceWrite};
use crate::service::model::{DispatchSearch, SearchPosition, SlaRow, Standing, StoredDispatch};
use crate::store::{StandingOf, Store};
use std::sync::Arc;
use sync_core::domain::plan::Priority;
use sync_core::domain::rules::sla::BreachStatus;
use sync_core::domain::state::Moment;
use sync_core::domain::{DispatchId, VisitStatus};

pub async fn documents_of_several(store: Arc<dyn Store>) {
    for n in 1..=3 {
        commit_dispatch(&*store, 0, write(&visit(&format!("DSP-{n}")), 1)).await;
    }
    commit_dispatch(&*store, 0, write(&visit("DSP-3"), 2)).await;
    let ids = ["DSP-3", "DSP-1", "DSP-9"].map(visit);
    let mut found = store.documents(&acme(), &ids).await.unwrap();
    found.sort_by(|a, b| a.0.row.dispatch_id.cmp(&b.0.row.dispatch_id));
    let found: Vec<_> = found.into_iter().map(|(stored, document)| (stored.row.revision, document)).collect();
    assert_eq!(found, [(1, b"DSP-1@1".to_vec()), (2, b"DSP-3@2".to_vec())]);
    assert_eq!(store.documents(&acme(), &[]).await.unwrap(), []);
}

pub async fn where_several_stand(store: Arc<dyn Store>) {
    let anna = tech("TECH-10");
    for n in 1..=3 {
        commit_dispatch(&*store, 0, assigned(&visit(&format!("DSP-{n}")), 1, &anna, 1)).await;
    }
    let mut late = assigned(&visit("DSP-3"), 2, &anna, 2);
    late.sla = Some(sla(&visit("DSP-3"), 61, BreachStatus::Provisional));
    let exceptions = vec![exception("x1", &visit("DSP-3"), 1)];
    commit(&*store, Commit { dispatch: Some(late), exceptions, ..blank(1) }).await;
    let stored = DeviceWrite { acknowledged: Some(1), ..device(&phone("phone-a"), &anna) };
    commit(&*store, Commit { devices: vec![stored], ..blank(2) }).await;
    let ids = ["DSP-3", "DSP-1", "DSP-9"].map(visit);
    let mut found = store.standings(&acme(), &ids).await.unwrap();
    found.sort_by(|a, b| a.dispatch.cmp(&b.dispatch));
    let mut whole = Vec::new();
    for id in ["DSP-1", "DSP-3"].map(visit) {
        let StoredDispatch { row, tag, delivered_epoch, delivered_at, undelivered_to, sla, open_exceptions } =
            store.dispatch(&acme(), &id).await.unwrap().unwrap();
        let standing = Standing { delivered_epoch, delivered_at, undelivered_to, sla, open_exceptions };
        whole.push(StandingOf { dispatch: id, revision: row.revision, tag, standing });
    }
    assert_eq!(found, whole);
    let (first, last) = (&found[0].standing, &found[1].standing);
    assert_eq!((first.delivered_epoch, &first.undelivered_to, first.open_exceptions), (Some(1), &vec![], 0));
    assert_eq!((last.delivered_epoch, &last.undelivered_to, last.open_exceptions), (None, &vec![anna], 1));
    assert_eq!((found[1].revision, last.sla.as_ref().map(|sla| sla.status)), (2, Some(BreachStatus::Provisional)));
    assert_eq!(store.standings(&acme(), &[]).await.unwrap(), []);
}

fn everything(limit: u32) -> DispatchSearch {
    DispatchSearch {
        tenant: acme(),
        statuses: Vec::new(),
        technician: None,
        location: None,
        service_order: None,
        scheduled: None,
        priority_min: None,
        after: None,
        limit,
    }
}

async fn found(store: &dyn Store, search: DispatchSearch) -> Vec<String> {
    let found = store.search(&search).await.unwrap();
    found.into_iter().map(|stored| stored.row.dispatch_id.to_string()).collect()
}

/// Turns all pages.
async fn leafed(store: &dyn Store, search: &DispatchSearch) -> Vec<String> {
    let mut search = search.clone();
    let mut all = Vec::new();
    loop {
        let page = store.search(&search).await.unwrap();
        assert!(page.len() <= search.limit as usize);
        let Some(last) = page.last() else { return all };
        search.after = Some(SearchPosition {
            start_ms: last.row.scheduled.map_or(i64::MAX, |span| span.start.millis()),
            dispatch_id: last.row.dispatch_id.clone(),
        });
        all.extend(page.into_iter().map(|stored| stored.row.dispatch_id.to_string()));
        assert!(all.len() < 1_000);
    }
}

pub async fn a_search_turns_its_pages(store: Arc<dyn Store>) {
    let (anna, ben) = (tech("TECH-10"), tech("TECH-11"));
    let statuses = [VisitStatus::Pending, VisitStatus::Confirmed, VisitStatus::Completed];
    for n in 0..30_i64 {
        let id = visit(&format!("DSP-{n:02}"));
        let mut draft = write(&id, 1);
        // Several at one time, some unscheduled.
        draft.row.scheduled = (n % 5 != 4).then(|| window(n / 4 * 10, n / 4 * 10 + 5));
        draft.row.technician_id = [Some(anna.clone()), Some(ben.clone()), None][n as usize % 3].clone();
        draft.row.status = statuses[n as usize % 3];
        draft.row.location_id = site(if n % 2 == 0 { "LOC-even" } else { "LOC-odd" });
        draft.row.priority = if n % 10 == 0 { Priority::High } else { Priority::Low };
        commit_dispatch(&*store, 0, draft).await;
    }
    let key = |n: &i64| (if n % 5 == 4 { i64::MAX } else { n / 4 * 10 }, *n);
    let expected = |keep: &dyn Fn(i64) -> bool| {
        let mut numbers: Vec<_> = (0..30).filter(|n| keep(*n)).collect();
        numbers.sort_by_key(key);
        numbers.into_iter().map(|n| format!("DSP-{n:02}")).collect::<Vec<_>>()
    };
    for limit in [1, 4, 7, 100] {
        let all = everything(limit);
        assert_eq!(leafed(&*store, &all).await, expected(&|_| true));
        let of_anna = DispatchSearch { technician: Some(anna.clone()), ..all.clone() };
        assert_eq!(leafed(&*store, &of_anna).await, expected(&|n| n % 3 == 0));
        let even = DispatchSearch { location: Some(site("LOC-even")), ..all.clone() };
        assert_eq!(leafed(&*store, &even).await, expected(&|n| n % 2 == 0));
        let two = DispatchSearch { statuses: vec![statuses[0], statuses[2], statuses[0]], ..all.clone() };
        assert_eq!(leafed(&*store, &two).await, expected(&|n| n % 3 != 1));
        let mid_day = DispatchSearch { scheduled: Some(window(10, 40)), ..all.clone() };
        assert_eq!(leafed(&*store, &mid_day).await, expected(&|n| n % 5 != 4 && (4..16).contains(&n)));
        let urgent = DispatchSearch { priority_min: Some(Priority::Normal), ..all.clone() };
        assert_eq!(leafed(&*store, &urgent).await, expected(&|n| n % 10 == 0));
        let narrow = DispatchSearch {
            technician: Some(anna.clone()),
            location: Some(site("LOC-even")),
            statuses: vec![VisitStatus::Pending],
            scheduled: Some(window(0, 50)),
            ..all.clone()
        };
        assert_eq!(leafed(&*store, &narrow).await, expected(&|n| n % 6 == 0 && n % 5 != 4 && n < 20));
    }
    let order = DispatchSearch { service_order: Some(order_of(&visit("DSP-07"))), ..everything(10) };
    assert_eq!(found(&*store, order.clone()).await, ["DSP-07"]);
    assert_eq!(found(&*store, DispatchSearch { technician: Some(anna), ..order }).await, [""; 0]);

    // Stable: what changes behind the page's end does not shift the pages that follow.
    let first = store.search(&everything(10)).await.unwrap();
    let last = &first[9].row;
    let after =
        SearchPosition { start_ms: last.scheduled.unwrap().start.millis(), dispatch_id: last.dispatch_id.clone() };
    commit_dispatch(&*store, 0, scheduled(write(&visit("DSP-new"), 1), window(-10, -5))).await;
    let second = found(&*store, DispatchSearch { after: Some(after), ..everything(10) }).await;
    assert_eq!(second, expected(&|_| true)[10..20]);
}

pub async fn a_search_by_status_tells_delivered_ones(store: Arc<dyn Store>) {
    let anna = tech("TECH-10");
    for n in 1..=3 {
        commit_dispatch(&*store, 0, assigned(&visit(&format!("DSP-{n}")), 1, &anna, 1)).await;
    }
    let stored = DeviceWrite { acknowledged: Some(2), ..device(&phone("phone-a"), &anna) };
    commit(&*store, Commit { devices: vec![stored], ..blank(1) }).await;
    let with = |statuses: &[VisitStatus]| DispatchSearch { statuses: statuses.to_vec(), ..everything(10) };
    assert_eq!(found(&*store, with(&[VisitStatus::Dispatched])).await, ["DSP-1", "DSP-2"]);
    assert_eq!(found(&*store, with(&[VisitStatus::Assigned])).await, ["DSP-3"]);
    let both = [VisitStatus::Assigned, VisitStatus::Dispatched];
    assert_eq!(found(&*store, with(&both)).await, ["DSP-1", "DSP-2", "DSP-3"]);
    // A re-assignment has not reached a phone.
    commit_dispatch(&*store, 2, assigned(&visit("DSP-1"), 2, &anna, 2)).await;
    assert_eq!(found(&*store, with(&[VisitStatus::Dispatched])).await, ["DSP-2"]);
    let of_anna = DispatchSearch { technician: Some(anna), ..with(&[VisitStatus::Dispatched]) };
    assert_eq!(found(&*store, of_anna).await, ["DSP-2"]);
}

pub async fn exceptions_newest_first(store: Arc<dyn Store>) {
    let (one, two) = (visit("DSP-1"), visit("DSP-2"));
    let raise = async |at, write, exceptions| {
        commit(&*store, Commit { dispatch: Some(write), exceptions, ..blank(at) }).await;
    };
    raise(0, write(&one, 1), vec![exception("x1", &one, 1), exception("x3", &one, 3)]).await;
    raise(0, write(&two, 1), vec![exception("x2", &two, 2)]).await;
    assert_eq!(store.dispatch(&acme(), &one).await.unwrap().unwrap().open_exceptions, 2);

    let mut resolved = exception("x3", &one, 3);
    resolved.resolved_at = Some(at(9));
    resolved.resolved_by = Some("dispatcher@acme".into());
    resolved.resolution = Some("billed".into());
    raise(9, write(&one, 2), vec![resolved.clone()]).await;

    let ids = async |dispatch, open_only, limit| {
        let found = store.exceptions(&acme(), dispatch, open_only, limit).await.unwrap();
        found.into_iter().map(|row| row.exception_id).collect::<Vec<_>>()
    };
    assert_eq!(ids(None, false, 10).await, ["x3", "x2", "x1"]);
    assert_eq!(ids(None, true, 10).await, ["x2", "x1"]);
    assert_eq!(ids(None, false, 2).await, ["x3", "x2"]);
    assert_eq!(ids(Some(&one), false, 10).await, ["x3", "x1"]);
    assert_eq!(ids(Some(&one), true, 10).await, ["x1"]);
    let whole = store.exceptions(&acme(), None, false, 10).await.unwrap();
    assert_eq!((&whole[0], &whole[2]), (&resolved, &exception("x1", &one, 1)));
    assert_eq!(store.dispatch(&acme(), &one).await.unwrap().unwrap().open_exceptions, 1);
}

fn sla(dispatch: &DispatchId, announced: i64, status: BreachStatus) -> SlaRow {
    SlaRow {
        dispatch_id: dispatch.clone(),
        deadline: at(60),
        status,
        announced_at: at(announced),
        decided_at: (status != BreachStatus::Provisional).then(|| at(announced + 5)),
        arrived_at: (status == BreachStatus::Retracted).then(|| at(50)),
    }
}

pub async fn what_needs_a_look(store: Arc<dyn Store>) {
    let due = async |now, held_before, limit| {
        let found = store.due(at(now), at(held_before), limit).await.unwrap();
        found.into_iter().map(|(tenant, id)| (tenant == acme()).then(|| id.to_string()).unwrap()).collect::<Vec<_>>()
    };
    let promised = |id: &str, status| {
        let mut draft = write(&visit(id), 1);
        draft.row.status = status;
        draft.row.sla_deadline = Some(at(60));
        draft
    };
    commit_dispatch(&*store, 0, promised("DSP-late", VisitStatus::EnRoute)).await;
    let mut arrived = promised("DSP-arrived", VisitStatus::Arrived);
    arrived.row.state.arrived = Some(Moment { at: at(50), uncertainty_ms: 0 });
    commit_dispatch(&*store, 0, arrived).await;
    commit_dispatch(&*store, 0, promised("DSP-cancelled", VisitStatus::Cancelled)).await;
    let mut decided = promised("DSP-decided", VisitStatus::EnRoute);
    decided.sla = Some(sla(&visit("DSP-decided"), 61, BreachStatus::Confirmed));
    commit_dispatch(&*store, 0, decided).await;
    for (id, technician) in [("DSP-silent", "TECH-10"), ("DSP-spoke", "TECH-11")] {
        let mut provisional = promised(id, VisitStatus::Confirmed);
        provisional.row.technician_id = Some(tech(technician));
        provisional.sla = Some(sla(&visit(id), 61, BreachStatus::Provisional));
        commit_dispatch(&*store, 0, provisional).await;
    }
    let spoke = DeviceWrite { pending: Some((0, None)), ..device(&phone("p"), &tech("TECH-11")) };
    commit(&*store, Commit { devices: vec![spoke], ..blank(70) }).await;
    let mut waiting = write(&visit("DSP-waiting"), 1);
    waiting.facts = vec![fact("f2", &phone("p"), 2, None), fact("f3", &phone("p"), 3, None)];
    commit_dispatch(&*store, 20, waiting).await;

    assert_eq!(due(60, 20, 10).await, ["DSP-spoke", "DSP-silent"], "the deadline itself is in time");
    assert_eq!(due(61, 21, 10).await, ["DSP-late", "DSP-waiting", "DSP-spoke", "DSP-silent"]);
    assert_eq!(due(61, 21, 3).await, ["DSP-late", "DSP-waiting", "DSP-spoke"], "the silent one can wait");
}

pub async fn service_levels_of_a_window(store: Arc<dyn Store>) {
    let rows: Vec<_> = [(10, BreachStatus::Provisional), (20, BreachStatus::Retracted), (30, BreachStatus::Confirmed)]
        .into_iter()
        .map(|(announced, status)| sla(&visit(&format!("DSP-{announced}")), announced, status))
        .collect();
    for row in &rows {
        let mut draft = write(&row.dispatch_id, 1);
        draft.sla = Some(row.clone());
        commit_dispatch(&*store, 0, draft).await;
    }
    assert_eq!(store.sla(&acme(), window(0, 100)).await.unwrap(), rows);
    assert_eq!(store.sla(&acme(), window(10, 30)).await.unwrap(), rows[..2]);
    assert_eq!(store.dispatch(&acme(), &visit("DSP-20")).await.unwrap().unwrap().sla.as_ref(), Some(&rows[1]));
    let mut decided = write(&visit("DSP-10"), 2);
    decided.sla = Some(sla(&visit("DSP-10"), 10, BreachStatus::Confirmed));
    commit_dispatch(&*store, 0, decided).await;
    let found = store.sla(&acme(), window(10, 11)).await.unwrap();
    assert_eq!(found[0].status, BreachStatus::Confirmed);
}
