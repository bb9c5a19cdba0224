//! Several nodes on one PostgreSQL: real processes, real phones, an office that goes on working, and what an operator or a failure does
//! to them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a story that is not as told shall fail")]

mod cluster_support;
mod support;

use cluster_support::work::{check, work_through};
use cluster_support::{BASE, Cluster, LONG, now, until};
use crm_dispatch_server::service::Role;
use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::StatusCode;
use serde_json::json;
use sqlx::Executor as _;
use sync_core::client::Phase;
use sync_core::domain::FactKind;
use sync_core::protocol::limits::{SUBPROTOCOL, SYNC_PATH};
use sync_core::protocol::{
    Bye, ByeCode, Cursor, Hello, OutboxMark, PhoneMessage, ServerMessage, decode_server, encode_phone,
};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Message, http::HeaderValue};

/// How nodes look for what they were not told: so rarely that only a hint explains what arrives.
const ONLY_HINTS: u64 = 60_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_visit_assigned_at_one_node_is_announced_to_the_phone_at_another() {
    let cluster = Cluster::start(ONLY_HINTS).await;
    let office = cluster.office(0);
    office.furnish(&["TECH-10"]).await;
    let phone = cluster.phone("TECH-10", cluster.nodes[1].url());
    phone.caught_up().await;
    let dispatch = office.assigned("SO-1", 0, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    phone.does(&dispatch, FactKind::Accepted { eta: None }).await;
    phone.caught_up().await;
    assert_eq!(office.get(&format!("/{dispatch}")).await["status"], "CONFIRMED");
    assert!(cluster.nodes[1].figure("crm_dispatch_node_hints_total{kind=\"grew\"}").await >= 1.0);
    // The office sees that the phone is connected, whichever node it asks.
    for node in [0, 1] {
        let devices = cluster.office(node).get("/devices").await;
        assert_eq!(devices["items"][0]["connected"], true, "{devices}");
    }

    // Two nodes, one list of remembered answers and one count of revisions.
    let (other, body) = (cluster.office(1), json!({ "reason": "customer called" }));
    let send = |url: &str| {
        let request = office.http.post(format!("{url}{BASE}/{dispatch}/cancel")).bearer_auth(&office.token);
        request.header("Idempotency-Key", "cancel-once").json(&body).send()
    };
    let (one, two) = tokio::join!(send(&office.url), send(&other.url));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((one.status(), two.status()), (StatusCode::OK, StatusCode::OK));
    assert_eq!(one.headers()["etag"], two.headers()["etag"]);
    assert_eq!(one.text().await.unwrap(), two.text().await.unwrap());
    phone.until_without(&dispatch).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_revoked_at_one_node_is_emptied_at_another() {
    let cluster = Cluster::start(ONLY_HINTS).await;
    let office = cluster.office(0);
    office.furnish(&["TECH-10"]).await;
    let phone = cluster.phone("TECH-10", cluster.nodes[1].url());
    let dispatch = office.assigned("SO-1", 0, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    phone.caught_up().await;
    let device = phone.store().sync_state().unwrap().device;
    office.post(&format!("/devices/{device}/revoke"), json!({})).await;
    phone.until_phase(Phase::Revoked).await;
    assert!(phone.visits().is_empty());
    until("wiped", async || office.get("/devices").await["items"][0]["wipedAt"].is_string()).await;
}

/// PostgreSQL refuses to notify: nobody is told anything, and a visit is at most one look late.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_node_was_told_is_found_by_looking() {
    let cluster = Cluster::start(500).await;
    let mut admin = cluster.database().connect().await;
    admin.execute("REVOKE EXECUTE ON FUNCTION pg_notify(text, text) FROM PUBLIC").await.unwrap();
    let office = cluster.office(0);
    office.furnish(&["TECH-10"]).await;
    let phone = cluster.phone("TECH-10", cluster.nodes[1].url());
    phone.caught_up().await;
    let dispatch = office.assigned("SO-1", 0, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    assert!(cluster.nodes[1].figure("crm_dispatch_feeds_found_grown_total").await >= 1.0);
    assert_eq!(cluster.nodes[1].figure("crm_dispatch_node_hints_total{kind=\"grew\"}").await, 0.0);
    // A revoked phone learns of it the same way.
    let device = phone.store().sync_state().unwrap().device;
    office.post(&format!("/devices/{device}/revoke"), json!({})).await;
    phone.until_phase(Phase::Revoked).await;
}

/// The connection that listens is cut just before something happens: once it listens again, the node looks for what it has missed.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_could_not_listen_looks_for_what_it_missed() {
    let cluster = Cluster::start(ONLY_HINTS).await;
    let office = cluster.office(0);
    office.furnish(&["TECH-10"]).await;
    let phone = cluster.phone("TECH-10", cluster.nodes[1].url());
    phone.caught_up().await;
    let mut admin = cluster.database().connect().await;
    for round in 0..5 {
        let dispatch = office.request(&format!("SO-{round}"), round).await;
        let cut = sqlx::query(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
             WHERE datname = current_database() AND query LIKE 'LISTEN%'",
        );
        let cut = cut.fetch_all(&mut admin).await.unwrap();
        assert!(round > 0 || cut.len() == 2, "both nodes listen");
        office.assign(&dispatch, "TECH-10").await;
        phone.until_holding(&dispatch).await;
    }
}

/// A phone made by hand, so that nothing but the farewell itself explains what it knows: thirty of them, and each is told when to come
/// back, not all at the same moment.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_is_told_to_end_says_goodbye_to_each_phone_with_a_time_to_come_back() {
    const PHONES: usize = 30;
    let mut cluster = Cluster::start(ONLY_HINTS).await;
    cluster.office(0).furnish(&["TECH-10"]).await;
    let token = cluster.token("TECH-10", &[Role::Technician], Some("TECH-10"));
    let mut phones = Vec::new();
    for number in 0..PHONES {
        let mut request = format!("ws://127.0.0.1:{}{SYNC_PATH}", cluster.nodes[0].port).into_client_request().unwrap();
        request.headers_mut().insert("authorization", HeaderValue::from_str(&format!("Bearer {token}")).unwrap());
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
        let (mut socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        let hello = PhoneMessage::Hello(Hello {
            device: format!("dev-{number}").parse().unwrap(),
            app: "handmade".into(),
            generation: None,
            cursor: Cursor(0),
            outbox: OutboxMark::default(),
            now: now(),
        });
        socket.send(Message::Binary(encode_phone(&hello).into())).await.unwrap();
        phones.push(socket);
    }
    until("connected", async || cluster.nodes[0].figure("crm_dispatch_phones_connected").await as usize == PHONES)
        .await;
    let node = cluster.nodes.remove(0);
    node.terminate();
    let mut times = std::collections::BTreeSet::new();
    for mut socket in phones {
        let farewell = async {
            while let Some(Ok(message)) = socket.next().await {
                let Message::Binary(frame) = message else { continue };
                if let ServerMessage::Bye(bye) = decode_server(&frame).unwrap() {
                    return Some(bye);
                }
            }
            None
        };
        let bye = tokio::time::timeout(LONG, farewell).await.unwrap();
        let Some(Bye { code: ByeCode::GoingAway, retry_after_ms: Some(after), .. }) = bye else { panic!("{bye:?}") };
        times.insert(after);
    }
    assert!(times.first().is_some_and(|first| *first >= 1_000) && times.last().is_some_and(|last| *last <= 2_000));
    assert!(times.len() > PHONES / 3, "they do not come back all at once: {times:?}");
    assert!(node.ended().await.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn both_nodes_are_restarted_in_turn_and_nobody_loses_anything() {
    let mut cluster = Cluster::start(1_000).await;
    let (work, most_tries, phones) = work_through(&mut cluster, async |cluster| {
        for number in 0..2 {
            let node = cluster.nodes.remove(number);
            let port = node.port;
            node.terminate();
            assert!(node.ended().await.success(), "it ends in good order");
            let again = cluster.node(number, port);
            cluster.nodes.insert(number, again);
            let ready = cluster.nodes[number].url() + "/health/ready";
            until("ready", async || reqwest::get(&ready).await.is_ok_and(|answer| answer.status() == 200)).await;
        }
    })
    .await;
    assert!(most_tries <= 2, "no dispatcher's call needs more than one retry; one needed {most_tries} tries");
    check(&cluster, &work, &phones).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_dies_under_load_and_the_other_goes_on_with_all_that_was_acknowledged() {
    let mut cluster = Cluster::start(1_000).await;
    let (work, _, phones) = work_through(&mut cluster, async |cluster| {
        let node = cluster.nodes.remove(0);
        let port = node.port;
        node.kill().await;
        // All phones are with the other node before this one is back.
        until("with the other", async || cluster.nodes[0].figure("crm_dispatch_phones_connected").await >= 4.0).await;
        cluster.nodes.insert(0, cluster.node(0, port));
    })
    .await;
    check(&cluster, &work, &phones).await;
}
