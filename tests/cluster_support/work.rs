//! An office that assigns and technicians who accept while something happens to the nodes, and what must be true afterwards.

use super::{Balancer, Cluster, LONG, Office, until};
use crate::support::Phone;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use sync_core::domain::{DispatchId, FactKind, VisitStatus};
use sync_core::store::NewEdit;

/// What an office and its technicians did while something happened to the nodes, as it was acknowledged to them.
pub struct Work {
    /// Acknowledged by REST: dispatch to technician.
    pub assigned: BTreeMap<DispatchId, String>,
    /// Durable on a phone, and so promised to its technician.
    pub accepted: BTreeSet<DispatchId>,
}

pub const TECHNICIANS: [&str; 4] = ["TECH-10", "TECH-20", "TECH-30", "TECH-40"];

/// The office assigns and the technicians accept, through the balancer, until `happening` is over and some more.
pub async fn work_through(
    cluster: &mut Cluster,
    happening: impl AsyncFnOnce(&mut Cluster),
) -> (Work, u64, Vec<Arc<Phone>>) {
    let ports: Vec<_> = cluster.nodes.iter().map(|node| node.port).collect();
    let balancer = Balancer::before(&ports).await;
    let office = Arc::new(Office::at(cluster, balancer.url()));
    office.furnish(&TECHNICIANS).await;
    let phones: Vec<_> =
        TECHNICIANS.iter().map(|technician| Arc::new(cluster.phone(technician, balancer.url()))).collect();
    for phone in &phones {
        phone.caught_up().await;
    }
    let over = Arc::new(AtomicBool::new(false));
    let (done, office_over) = (Arc::new(AtomicU64::new(0)), Arc::clone(&over));
    let (working, counted) = (Arc::clone(&office), Arc::clone(&done));
    let assigning = tokio::spawn(async move {
        let mut assigned = BTreeMap::new();
        let mut beat = tokio::time::interval(Duration::from_millis(40));
        let mut number = 0;
        while !office_over.load(Ordering::SeqCst) {
            beat.tick().await;
            let technician = TECHNICIANS[number % TECHNICIANS.len()];
            let slot = i64::try_from(number / TECHNICIANS.len()).unwrap();
            let dispatch = working.assigned(&format!("SO-{number}"), slot, technician).await;
            assigned.insert(dispatch, technician.to_owned());
            number += 1;
            counted.store(number as u64, Ordering::SeqCst);
        }
        assigned
    });
    let accepted = Arc::new(Mutex::new(BTreeSet::new()));
    let acting: Vec<_> = phones
        .iter()
        .map(|phone| {
            let (phone, accepted, over) = (Arc::clone(phone), Arc::clone(&accepted), Arc::clone(&over));
            let mut events = phone.client.events();
            tokio::spawn(async move {
                while !over.load(Ordering::SeqCst) {
                    for card in phone.visits().into_iter().filter(|card| card.status == VisitStatus::Assigned) {
                        let fact = NewEdit::Fact(FactKind::Accepted { eta: None });
                        if phone.client.act(&card.dispatch_id, fact, None).await.is_ok() {
                            accepted.lock().unwrap().insert(card.dispatch_id);
                        }
                    }
                    let _ = tokio::time::timeout(Duration::from_millis(100), events.recv()).await;
                }
            })
        })
        .collect();
    let some_more = async |more: u64| {
        let from = done.load(Ordering::SeqCst);
        until("some more visits", async || done.load(Ordering::SeqCst) >= from + more).await;
    };
    some_more(10).await;
    happening(cluster).await;
    some_more(10).await;
    over.store(true, Ordering::SeqCst);
    let assigned = assigning.await.unwrap();
    for acting in acting {
        acting.await.unwrap();
    }
    let accepted = std::mem::take(&mut *accepted.lock().unwrap());
    (Work { assigned, accepted }, office.most_tries.load(Ordering::SeqCst), phones)
}

/// Everything that was acknowledged is there, on every node, and phones hold what the server says.
pub async fn check(cluster: &Cluster, work: &Work, phones: &[Arc<Phone>]) {
    assert!(work.assigned.len() >= 20 && work.accepted.len() >= 10, "the story has substance");
    for phone in phones {
        tokio::time::timeout(LONG, phone.client.caught_up()).await.expect("the phone catches up");
    }
    for (node, office) in [cluster.office(0), cluster.office(1)].into_iter().enumerate() {
        for (dispatch, technician) in &work.assigned {
            let seen = office.get(&format!("/{dispatch}")).await;
            assert_eq!(seen["assignment"]["technicianId"], technician.as_str(), "node {node}: {seen}");
            let confirmed = seen["status"] == "CONFIRMED";
            assert_eq!(confirmed, work.accepted.contains(dispatch), "node {node}, {dispatch}: {}", seen["status"]);
        }
    }
    let office = cluster.office(1);
    for dispatch in &work.accepted {
        let report = office.get(&format!("/{dispatch}/report")).await;
        assert_eq!(report["facts"].as_array().unwrap().len(), 1, "{dispatch}: once, and once only");
    }
    for (technician, phone) in TECHNICIANS.iter().zip(phones) {
        let holds: BTreeMap<_, _> =
            phone.visits().into_iter().map(|card| (card.dispatch_id, card.status == VisitStatus::Confirmed)).collect();
        let should: BTreeMap<_, _> = work
            .assigned
            .iter()
            .filter(|(_, assigned)| assigned == technician)
            .map(|(dispatch, _)| (dispatch.clone(), work.accepted.contains(dispatch)))
            .collect();
        assert_eq!(holds, should, "{technician}");
    }
}
