//! What a broken, hostile or greedy phone may send: a typed answer each, nothing lost, and nobody else notices.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a story that is not as told shall fail")]

mod support;

use crm_dispatch_server::service::Role;
use futures_util::{SinkExt, StreamExt};
use reqwest::StatusCode;
use serde_bytes::ByteBuf;
use support::World;
use sync_core::document::{ActorKey, Edit, VisitDoc};
use sync_core::domain::{ClockReading, DispatchId, Fact, FactKind, Plan, Timestamp};
use sync_core::protocol::limits::{FRAME_BYTES_MAX, SUBPROTOCOL, SYNC_PATH};
use sync_core::protocol::{
    Batch, ByeCode, Cursor, FeedItem, Hello, OutboxMark, PhoneMessage, Ping, Push, PushAck, PushLane, Remedy,
    ServerMessage, decode_items, decode_server, encode_phone,
};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message, http::HeaderValue};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

const DEVICE: &str = "dev-handmade";

/// Opens the sync socket by hand.
async fn open(world: &World, token: Option<&str>) -> Result<Socket, tungstenite::Error> {
    let url = format!("ws://127.0.0.1:{}{SYNC_PATH}", world.port);
    let mut request = url.into_client_request().unwrap();
    if let Some(token) = token {
        let bearer = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        request.headers_mut().insert("authorization", bearer);
    }
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
    tokio_tungstenite::connect_async(request).await.map(|(socket, _)| socket)
}

async fn refused(world: &World, token: Option<&str>) -> StatusCode {
    match open(world, token).await {
        Err(tungstenite::Error::Http(response)) => StatusCode::from_u16(response.status().as_u16()).unwrap(),
        other => panic!("expected a refusal, got {other:?}"),
    }
}

async fn send(socket: &mut Socket, message: &PhoneMessage) {
    socket.send(Message::Binary(encode_phone(message).into())).await.unwrap();
}

async fn hear(socket: &mut Socket) -> Option<ServerMessage> {
    loop {
        let next = tokio::time::timeout(support::PATIENCE, socket.next()).await.unwrap();
        match next {
            Some(Ok(Message::Binary(frame))) => return Some(decode_server(&frame).unwrap()),
            Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
            Some(Ok(_)) => {}
        }
    }
}

fn hello(device: &str) -> PhoneMessage {
    PhoneMessage::Hello(Hello {
        device: device.parse().unwrap(),
        app: "handmade".into(),
        generation: None,
        cursor: Cursor(0),
        outbox: OutboxMark::default(),
        now: Timestamp::from_millis(support::MORNING),
    })
}

/// A handmade phone of TECH-10 that was greeted and holds `dispatch`.
async fn greeted(world: &World, dispatch: &DispatchId) -> (Socket, VisitDoc) {
    let mut socket = open(world, Some(&world.token("TECH-10"))).await.unwrap();
    send(&mut socket, &hello(DEVICE)).await;
    assert!(matches!(hear(&mut socket).await, Some(ServerMessage::Welcome(_))));
    let Some(ServerMessage::Batch(Batch { items, zstd, .. })) = hear(&mut socket).await else { panic!("no batch") };
    for item in decode_items(&items, zstd).unwrap() {
        if let FeedItem::Snapshot { dispatch: id, document, .. } = item
            && id == *dispatch
        {
            return (socket, VisitDoc::load(&document).unwrap());
        }
    }
    panic!("{dispatch} was not primed");
}

fn fact(seq: u64, id: &str, technician: &str, device: &str) -> Fact {
    Fact {
        schema: 1,
        id: id.parse().unwrap(),
        epoch: 1,
        technician: technician.parse().unwrap(),
        device: device.parse().unwrap(),
        seq,
        clock: ClockReading {
            wall: Timestamp::from_millis(support::MORNING),
            monotonic_ms: 1,
            boot: "boot-1".parse().unwrap(),
            offset_ms: Some(0),
            uncertainty_ms: Some(1),
        },
        position: None,
        kind: FactKind::Accepted { eta: None },
    }
}

async fn push(socket: &mut Socket, dispatch: &DispatchId, changes: Vec<Vec<u8>>) -> PushAck {
    let lane = PushLane { dispatch: dispatch.clone(), changes: changes.into_iter().map(ByteBuf::from).collect() };
    send(socket, &PhoneMessage::Push(Push { id: 1, lanes: vec![lane], outbox: OutboxMark::default() })).await;
    loop {
        match hear(socket).await {
            Some(ServerMessage::PushAck(ack)) => return ack,
            Some(_) => {}
            None => panic!("the connection must survive a bad change"),
        }
    }
}

fn refusal(ack: &PushAck) -> (&str, Remedy, u32) {
    let lane = &ack.lanes[0];
    let refusal = lane.refusal.as_ref().unwrap_or_else(|| panic!("it was taken: {ack:?}"));
    (refusal.code.as_str(), refusal.remedy, lane.accepted)
}

/// After everything else, somebody else's phone works as if nothing had been.
async fn others_are_well(world: &World) {
    let phone = world.phone("TECH-20", "bystander");
    let dispatch = world.assigned("SO-bystander", 5, "TECH-20").await;
    phone.until_holding(&dispatch).await;
    phone.does(&dispatch, FactKind::Accepted { eta: None }).await;
    phone.caught_up().await;
    assert_eq!(world.status(&dispatch).await, "CONFIRMED");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_technicians_good_token_opens_the_socket() {
    let world = World::start().await;
    assert_eq!(refused(&world, None).await, StatusCode::UNAUTHORIZED);
    assert_eq!(refused(&world, Some("not.a.token")).await, StatusCode::UNAUTHORIZED);
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJURUNILTEwIn0.";
    assert_eq!(refused(&world, Some(none)).await, StatusCode::UNAUTHORIZED);
    assert_eq!(refused(&world, Some(&world.token_for("TECH-10", -3600))).await, StatusCode::UNAUTHORIZED);
    let office = support::token_request("office", &[Role::Dispatcher], None);
    let office = world.server().issuer().unwrap().issue(&office).unwrap();
    assert_eq!(refused(&world, Some(&office)).await, StatusCode::FORBIDDEN);
    others_are_well(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_make_no_sense_end_their_connection_with_a_reason() {
    let world = World::start().await;
    let token = world.token("TECH-10");
    let cases: [(Message, ByeCode); 5] = [
        (Message::Binary(vec![].into()), ByeCode::Malformed),
        (Message::Binary(vec![1, 1, 0xff, 0xff].into()), ByeCode::Malformed),
        (Message::Binary(vec![99, 1].into()), ByeCode::Version),
        (Message::Text("hello?".into()), ByeCode::Malformed),
        (
            Message::Binary(encode_phone(&PhoneMessage::Ping(Ping { id: 1, outbox: OutboxMark::default() })).into()),
            ByeCode::OutOfTurn,
        ),
    ];
    for (frame, expected) in cases {
        let mut socket = open(&world, Some(&token)).await.unwrap();
        socket.send(frame).await.unwrap();
        let Some(ServerMessage::Bye(bye)) = hear(&mut socket).await else { panic!("no farewell") };
        assert_eq!(bye.code, expected);
        assert!(hear(&mut socket).await.is_none(), "and it is closed");
    }
    // One that is too large is not even read.
    let mut socket = open(&world, Some(&token)).await.unwrap();
    let _ = socket.send(Message::Binary(vec![1; FRAME_BYTES_MAX + 1].into())).await;
    while hear(&mut socket).await.is_some() {}
    others_are_well(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_hurts_only_itself() {
    let world = World::start().await;
    let dispatch = world.assigned("SO-1", 1, "TECH-10").await;
    let (mut socket, _) = greeted(&world, &dispatch).await;
    let ping = encode_phone(&PhoneMessage::Ping(Ping { id: 1, outbox: OutboxMark::default() }));
    for _ in 0..2_000 {
        if socket.send(Message::Binary(ping.clone().into())).await.is_err() {
            break;
        }
    }
    let mut last = None;
    while let Some(message) = hear(&mut socket).await {
        last = Some(message);
    }
    // The farewell may be lost with the connection; that it ends is what counts.
    if let Some(ServerMessage::Bye(bye)) = last {
        assert_eq!(bye.code, ByeCode::TooFast);
    }
    others_are_well(&world).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_changes_are_refused_by_name_and_the_connection_goes_on() {
    let world = World::start().await;
    let dispatch = world.assigned("SO-1", 1, "TECH-10").await;
    let (mut socket, document) = greeted(&world, &dispatch).await;
    let now = Timestamp::from_millis(support::MORNING);

    let ack = push(&mut socket, &dispatch, vec![b"not a change".to_vec()]).await;
    assert_eq!(refusal(&ack), ("CHANGE_MALFORMED", Remedy::Park, 0));

    let mut forged = document.clone();
    let plan = Plan { title: "Free of charge".into(), ..forged.plan() };
    let change = forged.decide(ActorKey([1; 16]), &plan, &std::collections::BTreeMap::new(), now).unwrap();
    let ack = push(&mut socket, &dispatch, vec![change.bytes]).await;
    assert_eq!(refusal(&ack), ("CHANGE_FORBIDDEN", Remedy::Rebase, 0));
    assert_eq!(world.dispatch(&dispatch).await["title"], "Boiler of SO-1");

    let mut impostor = document.clone();
    let edit = Edit::Fact { fact: fact(1, "fact-1", "TECH-20", DEVICE) };
    let change = impostor.edit(ActorKey([2; 16]), &edit, now).unwrap();
    let ack = push(&mut socket, &dispatch, vec![change.bytes]).await;
    assert_eq!(refusal(&ack), ("FACT_UNACCEPTABLE", Remedy::Rebase, 0));

    let mut ahead = document.clone();
    let first = Edit::Fact { fact: fact(1, "fact-1", "TECH-10", DEVICE) };
    let second = Edit::Summary { text: "done".into() };
    let missing = ahead.edit(ActorKey([3; 16]), &first, now).unwrap();
    let open = ahead.edit(ActorKey([3; 16]), &second, now).unwrap();
    let ack = push(&mut socket, &dispatch, vec![open.bytes.clone()]).await;
    assert_eq!(refusal(&ack), ("CHANGE_CAUSALLY_OPEN", Remedy::Resend, 0));
    let ack = push(&mut socket, &dispatch, vec![missing.bytes.clone(), open.bytes]).await;
    assert_eq!((ack.lanes[0].accepted, &ack.lanes[0].refusal), (2, &None));

    // Sent again, as after a lost acknowledgement: taken, and nothing happens twice (invariant 3).
    let ack = push(&mut socket, &dispatch, vec![missing.bytes]).await;
    assert_eq!((ack.lanes[0].accepted, &ack.lanes[0].refusal), (1, &None));
    assert_eq!(world.facts(&dispatch).await.len(), 1);
    let confirmed = world.events(&dispatch).await.iter().filter(|(name, _)| name == "DispatchConfirmedEvent").count();
    assert_eq!(confirmed, 1);

    // The same sequence number for another fact: kept, and an exception (rule 18).
    let mut reused = document.clone();
    let edit = Edit::Fact { fact: fact(1, "fact-other", "TECH-10", DEVICE) };
    let change = reused.edit(ActorKey([4; 16]), &edit, now).unwrap();
    let ack = push(&mut socket, &dispatch, vec![change.bytes]).await;
    assert_eq!(ack.lanes[0].accepted, 1);
    let facts = world.facts(&dispatch).await;
    let doubted = facts.iter().find(|fact| fact["factId"] == "fact-other").unwrap();
    assert_eq!((doubted["verdict"].as_str(), doubted["reason"].as_str()), (Some("exception"), Some("SEQUENCE_REUSED")));

    let unknown = "DSP-404".parse().unwrap();
    let ack = push(&mut socket, &unknown, vec![vec![1]]).await;
    assert_eq!(refusal(&ack), ("DISPATCH_NOT_FOUND", Remedy::Park, 0));
    others_are_well(&world).await;
}

/// Invariant 4: one bad visit does not hold up the others of the same push.
#[tokio::test(flavor = "multi_thread")]
async fn a_poisoned_visit_does_not_hold_up_the_others() {
    let world = World::start().await;
    let (bad, good) = (world.assigned("SO-1", 1, "TECH-10").await, world.assigned("SO-2", 3, "TECH-10").await);
    let (mut socket, mut document) = greeted(&world, &good).await;
    let edit = Edit::Fact { fact: fact(1, "fact-1", "TECH-10", DEVICE) };
    let now = Timestamp::from_millis(support::MORNING);
    let change = document.edit(ActorKey([1; 16]), &edit, now).unwrap();
    let lanes = vec![
        PushLane { dispatch: bad.clone(), changes: vec![ByteBuf::from(vec![0; 100])] },
        PushLane { dispatch: good.clone(), changes: vec![ByteBuf::from(change.bytes)] },
    ];
    send(&mut socket, &PhoneMessage::Push(Push { id: 9, lanes, outbox: OutboxMark::default() })).await;
    let Some(ServerMessage::PushAck(ack)) = hear(&mut socket).await else { panic!("no acknowledgement") };
    assert!(ack.lanes[0].refusal.is_some());
    assert_eq!((ack.lanes[1].accepted, &ack.lanes[1].refusal), (1, &None));
    assert_eq!(world.status(&good).await, "CONFIRMED");
    let exceptions = world.get("/exceptions").await.to_string();
    assert!(exceptions.contains(bad.as_str()), "the dispatcher sees the poison (rule 15): {exceptions}");
}

/// Invariant 7: a phone that takes nothing holds nobody up, and costs the server nothing but its place.
#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_reads_nothing_hurts_only_itself() {
    let world = World::start().await;
    let shared = world.request("SO-1", 1).await;
    world
        .post(&format!("/{shared}/assign"), serde_json::json!({ "technicianId": "TECH-10", "crew": ["TECH-20"] }))
        .await;
    let (_deaf, _) = greeted(&world, &shared).await;
    let phone = world.phone("TECH-20", "attentive");
    phone.until_holding(&shared).await;
    for n in 0..200 {
        let level = if n % 2 == 0 { "HIGH" } else { "LOW" };
        world.post(&format!("/{shared}/priority"), serde_json::json!({ "priority": level })).await;
    }
    let low = sync_core::domain::plan::Priority::Low;
    phone.until("at the last priority", |visits| visits.iter().any(|card| card.priority == low)).await;
    phone.caught_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_tenants_visit_does_not_exist() {
    let world = World::start().await;
    let dispatch = world.assigned("SO-1", 1, "TECH-10").await;
    let mut request =
        support::token_request("TECH-10", &[Role::Technician, Role::Dispatcher, Role::Admin], Some("TECH-10"));
    request.tenant = "tenant-002".parse().unwrap();
    let stranger = world.server().issuer().unwrap().issue(&request).unwrap();
    let (status, body) = world.call_as(&stranger, reqwest::Method::GET, &format!("/{dispatch}"), None).await;
    assert_eq!((status, body["error"].as_str()), (StatusCode::NOT_FOUND, Some("DISPATCH_NOT_FOUND")));
    let mut socket = open(&world, Some(&stranger)).await.unwrap();
    send(&mut socket, &hello("dev-stranger")).await;
    let Some(ServerMessage::Welcome(welcome)) = hear(&mut socket).await else { panic!("no welcome") };
    assert_eq!(welcome.head, Cursor(0), "a feed of their own, and empty");
    let ack = push(&mut socket, &dispatch, vec![vec![1, 2, 3]]).await;
    assert_eq!(refusal(&ack).0, "DISPATCH_NOT_FOUND");
}
