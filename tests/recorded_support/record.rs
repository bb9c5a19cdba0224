//! Plays a small story on the real server and real phones, and keeps what they leave behind for all later releases. See CONTRIBUTING.md.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a recording that is not as told shall fail"
)]

#[path = "mod.rs"]
mod recorded_support;
#[path = "../support/mod.rs"]
mod support;

use apache_avro::Schema;
use crm_dispatch_server::events::kafka::encoding::{Encoder, SCHEMAS};
use crm_dispatch_server::events::{Event, TOPICS};
use futures_util::{SinkExt as _, StreamExt as _};
use rand::{SeedableRng as _, rngs::StdRng};
use recorded_support::{RecordedPhone, Story, bind, home, open};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use support::postgres_support::Database;
use support::{HOUR, MINUTE, Phone, PhoneSetup, Place, World};
use sync_core::client::Client;
use sync_core::domain::{DispatchId, FactKind, Timestamp};
use sync_core::protocol::limits::{SUBPROTOCOL, SYNC_PATH};
use sync_core::protocol::{
    Ack, Batch, Cursor, Fetch, Hello, LaneAck, LaneRefusal, PhoneMessage, Ping, Pull, Push, Remedy, ServerMessage,
    Wiped, decode_items, decode_server, encode_phone,
};
use sync_core::store::{DatabaseKey, DeviceNow, FeedBatch, NewEdit, PageLimits, Protection, Store};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Message, http::HeaderValue};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

#[tokio::main]
async fn main() -> ExitCode {
    let version = env!("CARGO_PKG_VERSION");
    let folder = home().join(version);
    if folder.exists() {
        eprintln!(
            "error: {version} is recorded already, and what a release wrote is never rewritten; raise the version first"
        );
        return ExitCode::FAILURE;
    }
    // Whole or not at all.
    std::fs::create_dir_all(home()).unwrap();
    let draft = tempfile::tempdir_in(home()).unwrap();
    let (phones, ended_at_ms) = on_sqlite(draft.path()).await;
    let postgres_phones = on_postgres(draft.path()).await;
    let story = Story { version: version.to_owned(), ended_at_ms, phones, postgres_phones };
    let text = serde_json::to_string_pretty(&story).unwrap();
    std::fs::write(draft.path().join("story.json"), text + "\n").unwrap();
    std::fs::rename(draft.keep(), &folder).unwrap();
    println!("recorded {version}: {} phones, in tests/recorded/{version}", story.phones.len() + 1);
    ExitCode::SUCCESS
}

/// A phone in the story: its file lies beside the server's, and goes into the folder when it is put away.
struct Carried {
    phone: Phone,
    name: String,
    technician: String,
    encrypted: bool,
}

fn carry(world: &World, name: &str, technician: &str, protection: Protection) -> Carried {
    let encrypted = protection != Protection::Unencrypted;
    let seed = name.bytes().fold(3, |sum, byte| sum * 31 + u64::from(byte));
    let config = world.client_config(technician, PhoneSetup { seed, ..PhoneSetup::default() });
    let path = world.phone_file(name);
    let opened = open(&path, protection, config.clock.now().wall, seed);
    bind(&opened.store, technician, seed + 1);
    let client = Client::start(Arc::new(opened.store), config);
    Carried { phone: Phone { client, path }, name: name.to_owned(), technician: technician.to_owned(), encrypted }
}

impl Carried {
    async fn does(&self, dispatch: &DispatchId, kinds: impl IntoIterator<Item = FactKind>) {
        for kind in kinds {
            self.phone.does(dispatch, kind).await;
        }
    }

    async fn edits(&self, dispatch: &DispatchId, edit: NewEdit) {
        self.phone.client.act(dispatch, edit, None).await.unwrap();
    }

    fn note(text: &str) -> NewEdit {
        NewEdit::Note { at: 0, delete: 0, insert: text.into() }
    }

    fn described(&self) -> RecordedPhone {
        let file = format!("phone-{}.sqlite", self.name);
        RecordedPhone::of(&file, &self.technician, self.encrypted, self.phone.store())
    }

    /// Closes it and keeps its file.
    async fn put_away(self, folder: &Path, described: RecordedPhone) -> RecordedPhone {
        self.phone.client.stop().await;
        self.phone.store().close().unwrap();
        std::fs::copy(&self.phone.path, folder.join(&described.file)).unwrap();
        described
    }
}

async fn on_sqlite(folder: &Path) -> (Vec<RecordedPhone>, i64) {
    let dir = tempfile::tempdir().unwrap();
    let place = Place::File(dir.path().join("server.db"));
    let mut world = World::at(dir, place, &[]).await;
    let ([first, second, third, fourth], fifth) = visits(&world).await;

    let unsent = carry(&world, "unsent", "TECH-10", Protection::Unencrypted);
    let key = Protection::Key(DatabaseKey::from_bytes(&recorded_support::KEY).unwrap());
    let encrypted = carry(&world, "encrypted", "TECH-10", key);
    let parked = carry(&world, "parked", "TECH-10", Protection::Unencrypted);
    let cards = carry(&world, "cards", "TECH-10", Protection::Unencrypted);
    let working = carry(&world, "working", "TECH-10", Protection::Unencrypted);
    let sealed = carry(&world, "sealed", "TECH-20", Protection::Unencrypted);
    for phone in [&unsent, &encrypted, &parked, &cards, &working] {
        phone.phone.until_holding(&fourth).await;
        phone.phone.caught_up().await;
    }
    sealed.phone.until_holding(&fifth).await;
    sealed.phone.caught_up().await;

    // One visit is under way before the network goes, and one is taken away.
    working.does(&fourth, [FactKind::Accepted { eta: None }, FactKind::TravelStarted { eta: None }]).await;
    working.phone.caught_up().await;
    world.clock.advance(20 * MINUTE);
    working.does(&fourth, [FactKind::Arrived, FactKind::WorkStarted]).await;
    working.phone.caught_up().await;
    world.until_status(&fourth, "IN_PROGRESS").await;
    for phone in [&unsent, &encrypted, &parked] {
        phone.phone.go_offline();
    }
    world.post(&format!("/{third}/cancel"), json!({ "reason": "the customer has postponed" })).await;
    cards.phone.until_without(&third).await;
    cards.phone.caught_up().await;
    frames(&world, &first, folder).await;
    for phone in [&cards, &working, &sealed] {
        phone.phone.go_offline();
    }

    world.clock.advance(10 * MINUTE);
    for phone in [&unsent, &encrypted] {
        phone
            .does(&first, [FactKind::Accepted { eta: None }, FactKind::TravelStarted { eta: None }, FactKind::Arrived])
            .await;
        phone.edits(&first, Carried::note("Pumpe läuft trocken")).await;
        phone.edits(&first, NewEdit::Answer { item: "pressure".parse().unwrap(), value: "0.4".into() }).await;
        phone.does(&second, [FactKind::Accepted { eta: None }]).await;
    }
    working.does(&fourth, in_the_middle()).await;
    working.edits(&fourth, NewEdit::Summary("Ventil getauscht".into())).await;
    cards.does(&second, [FactKind::Accepted { eta: None }]).await;
    parked.does(&first, [FactKind::Accepted { eta: None }]).await;
    parked.edits(&second, Carried::note("Hund im Garten")).await;
    refuse(parked.phone.store(), &first);
    sealed.does(&fifth, [FactKind::Accepted { eta: None }, FactKind::TravelStarted { eta: None }]).await;

    let mut kept = Vec::new();
    for phone in [unsent, encrypted, parked, cards, working] {
        let described = phone.described();
        kept.push(phone.put_away(folder, described).await);
    }
    let described = RecordedPhone { sealed: true, ..sealed.described() };
    sealed.phone.client.stop().await;
    bind(sealed.phone.store(), "TECH-10", 99);
    assert_eq!(sealed.phone.store().sealed().unwrap()[0].2, described.pending);
    kept.push(sealed.put_away(folder, described).await);

    events(&world, folder).await;
    let ended = crm_dispatch_server::service::Clock::now(&world.clock).millis();
    world.stop_server().await;
    let Place::File(path) = &world.place else { panic!("a file") };
    std::fs::copy(path, folder.join("server.sqlite")).unwrap();
    (kept, ended)
}

async fn on_postgres(folder: &Path) -> Vec<RecordedPhone> {
    let place = Place::Postgres(Database::create().await);
    let mut world = World::at(tempfile::tempdir().unwrap(), place, &[]).await;
    let ([first, second, third, fourth], _) = visits(&world).await;
    let phone = carry(&world, "of-postgres", "TECH-10", Protection::Unencrypted);
    phone.phone.until_holding(&fourth).await;
    phone.phone.starts_work(&fourth).await;
    phone.phone.caught_up().await;
    world.post(&format!("/{third}/cancel"), json!({ "reason": "the customer has postponed" })).await;
    phone.phone.until_without(&third).await;
    phone.phone.caught_up().await;
    phone.phone.go_offline();
    phone.does(&fourth, in_the_middle()).await;
    phone.does(&first, [FactKind::Accepted { eta: None }]).await;
    phone.edits(&second, Carried::note("Hund im Garten")).await;
    let described = phone.described();
    let kept = phone.put_away(folder, described).await;
    world.stop_server().await;
    let Place::Postgres(database) = &world.place else { panic!("a database") };
    database.dump_plain(&folder.join("server.sql"));
    vec![kept]
}

/// Four visits of TECH-10 and one of TECH-20; one without anybody; a refusal and a confirmation by telephone.
async fn visits(world: &World) -> ([DispatchId; 4], DispatchId) {
    let mut mine = Vec::new();
    for (order, hour) in [("SO-1", 1), ("SO-2", 3), ("SO-3", 5), ("SO-4", 7)] {
        mine.push(world.assigned(order, hour, "TECH-10").await);
    }
    let other = world.assigned("SO-5", 1, "TECH-20").await;
    world.request("SO-6", 9).await;
    let told = world.assigned("SO-7", 4, "TECH-20").await;
    let token = world.token("TECH-20");
    for (word, body) in [("reject", json!({ "reason": "Straße gesperrt" })), ("confirm", json!({}))] {
        let path = format!("/{told}/{word}");
        let (status, answer) = world.call_as(&token, reqwest::Method::POST, &path, Some(body)).await;
        assert!(status.is_success(), "{path}: {status} {answer}");
        if word == "reject" {
            world.assign(&told, "TECH-20").await;
        }
    }
    world.post("/technicians/TECH-20/status", json!({ "status": "ON_BREAK" })).await;
    (mine.try_into().unwrap(), other)
}

fn in_the_middle() -> [FactKind; 5] {
    [
        FactKind::PartUsed { part: "PART-1".parse().unwrap(), quantity: 2, serial: None },
        FactKind::TimeEntry { category: "labour".into(), minutes: 25 },
        FactKind::Photo { sha256: "ab".repeat(32), bytes: 120_000, media_type: "image/jpeg".into() },
        FactKind::Paused { reason: Some("waits for a part".into()) },
        FactKind::Resumed,
    ]
}

/// A server's refusal that a person has to look at, as rules that this release does not have would bring it.
fn refuse(store: &Store, dispatch: &DispatchId) {
    let page = store.outbox_page(&PageLimits::default()).unwrap();
    let sent: Vec<_> = page.lanes.into_iter().filter(|lane| lane.lane.dispatch == *dispatch).collect();
    let refusal = LaneRefusal {
        code: "LIMIT_EXCEEDED".into(),
        message: "more than this visit takes".into(),
        remedy: Remedy::Park,
        ground: None,
    };
    let ack =
        LaneAck { dispatch: dispatch.clone(), accepted: 0, refusal: Some(refusal), verdicts: vec![], update: None };
    let now = Timestamp::from_millis(support::MORNING + HOUR);
    store.push_acknowledged(&sent, &[ack], None, now, &mut StdRng::seed_from_u64(5)).unwrap();
    assert_eq!(store.parked().unwrap().len(), 1);
}

/// A phone's end of a socket that keeps each frame as it was sent.
struct Wire {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    folder: PathBuf,
    frames: u32,
}

impl Wire {
    async fn open(world: &World, folder: &Path) -> Self {
        let folder = folder.join("frames");
        std::fs::create_dir(&folder).unwrap();
        let mut request = format!("ws://127.0.0.1:{}{SYNC_PATH}", world.port).into_client_request().unwrap();
        let bearer = HeaderValue::from_str(&format!("Bearer {}", world.token("TECH-10"))).unwrap();
        request.headers_mut().insert("authorization", bearer);
        request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static(SUBPROTOCOL));
        let (socket, _) = tokio_tungstenite::connect_async(request).await.unwrap();
        Self { socket, folder, frames: 0 }
    }

    fn keep(&mut self, kind: &str, bytes: &[u8]) {
        self.frames += 1;
        std::fs::write(self.folder.join(format!("{:02}-{kind}.cbor", self.frames)), bytes).unwrap();
    }

    async fn say(&mut self, message: &PhoneMessage) {
        let bytes = encode_phone(message);
        self.keep(phone_kind(message), &bytes);
        self.socket.send(Message::Binary(bytes.into())).await.unwrap();
    }

    /// Hears until such a message has come.
    async fn hear(&mut self, kind: &str) -> ServerMessage {
        loop {
            let next = tokio::time::timeout(support::PATIENCE, self.socket.next()).await.unwrap();
            let Message::Binary(bytes) = next.expect("the server goes on").unwrap() else { continue };
            let message = decode_server(&bytes).unwrap();
            let heard = server_kind(&message);
            self.keep(heard, &bytes);
            if heard == kind {
                return message;
            }
        }
    }
}

/// A phone by hand: every kind of frame.
async fn frames(world: &World, dispatch: &DispatchId, folder: &Path) {
    let mut wire = Wire::open(world, folder).await;
    let wall = Timestamp::from_millis(support::MORNING);
    let now = DeviceNow { wall, monotonic_ms: 1, boot: "boot-1".parse().unwrap() };
    // A phone of its own, so that what it pushes is new.
    let store = open(&world.phone_file("frames"), Protection::Unencrypted, wall, 40).store;
    let mut rng = StdRng::seed_from_u64(41);
    bind(&store, "TECH-10", 42);
    let state = store.sync_state().unwrap();
    let hello = Hello {
        device: state.device,
        app: state.app,
        generation: None,
        cursor: state.cursor,
        outbox: state.outbox,
        now: wall,
    };
    wire.say(&PhoneMessage::Hello(hello.clone())).await;
    let ServerMessage::Welcome(welcome) = wire.hear("server-welcome").await else { panic!("no welcome") };
    store.server_identity(welcome.generation, welcome.head, wall).unwrap();
    let ServerMessage::Batch(batch) = wire.hear("server-batch").await else { panic!("no batch") };
    let items = decode_items(&batch.items, batch.zstd).unwrap();
    let Batch { from, to, reset, more, digest, .. } = batch;
    store.apply_batch(FeedBatch { from, to, reset, more, digest, items }, wall, &mut rng).unwrap();
    wire.say(&PhoneMessage::Ack(Ack { cursor: to, digest_matched: true })).await;
    wire.say(&PhoneMessage::Ping(Ping { id: 1, outbox: store.outbox_mark().unwrap() })).await;
    wire.hear("server-pong").await;
    let spent = FactKind::TimeEntry { category: "travel".into(), minutes: 9 };
    for edit in [Carried::note("Schlüssel beim Nachbarn"), NewEdit::Fact(spent)] {
        store.act(dispatch, edit, &now, None, &mut rng).unwrap();
    }
    let page = store.outbox_page(&PageLimits::default()).unwrap();
    let lanes = page.lanes.into_iter().map(|sent| sent.lane).collect();
    wire.say(&PhoneMessage::Push(Push { id: 1, lanes, outbox: store.outbox_mark().unwrap() })).await;
    wire.hear("server-push-ack").await;
    wire.say(&PhoneMessage::Fetch(Fetch { dispatches: vec![dispatch.clone()] })).await;
    wire.hear("server-batch").await;
    wire.say(&PhoneMessage::Pull(Pull { cursor: Cursor(0) })).await;
    wire.hear("server-batch").await;
    // A second greeting on one connection is a mistake: the server says goodbye, and why.
    wire.say(&PhoneMessage::Hello(Hello { generation: Some(welcome.generation), cursor: to, ..hello })).await;
    wire.hear("server-bye").await;
    let wiped = PhoneMessage::Wiped(Wiped { sealed: 2 });
    wire.keep(phone_kind(&wiped), &encode_phone(&wiped));
}

fn phone_kind(message: &PhoneMessage) -> &'static str {
    match message {
        PhoneMessage::Hello(_) => "phone-hello",
        PhoneMessage::Push(_) => "phone-push",
        PhoneMessage::Pull(_) => "phone-pull",
        PhoneMessage::Fetch(_) => "phone-fetch",
        PhoneMessage::Ack(_) => "phone-ack",
        PhoneMessage::Ping(_) => "phone-ping",
        PhoneMessage::Wiped(_) => "phone-wiped",
        PhoneMessage::Unknown(_) => "phone-unknown",
    }
}

fn server_kind(message: &ServerMessage) -> &'static str {
    match message {
        ServerMessage::Welcome(_) => "server-welcome",
        ServerMessage::Batch(_) => "server-batch",
        ServerMessage::PushAck(_) => "server-push-ack",
        ServerMessage::Pong(_) => "server-pong",
        ServerMessage::Bye(_) => "server-bye",
        ServerMessage::Unknown(_) => "server-unknown",
    }
}

/// One event of each type as it is published: the JSON envelope, the Avro value, and the schema that it was written with.
async fn events(world: &World, folder: &Path) {
    let folder = folder.join("events");
    std::fs::create_dir(&folder).unwrap();
    let schemas: Vec<_> = SCHEMAS.iter().map(|text| Schema::parse_str(text).unwrap()).collect();
    let numbered: Vec<_> = (1_u32..).zip(schemas).collect();
    let avro = Encoder::Avro(Box::new(numbered.try_into().unwrap()));
    let page = world.get("/events?limit=200").await;
    let told = page["items"].as_array().unwrap().iter().map(|entry| entry["event"].clone());
    let mut all: Vec<Value> = told.collect();
    // Routes are not optimised in this release; the event's form is published all the same.
    all.push(
        json!({ "eventType": "RouteOptimizedEvent", "eventId": "evt-route-1", "timestamp": "2026-02-03T08:00:00Z",
        "aggregateId": "DSP-1", "tenantId": support::TENANT,
        "payload": { "dispatchId": "DSP-1", "routeId": "RT-1", "distanceKm": 12.5 } }),
    );
    let mut seen = vec![false; TOPICS.len()];
    for json in all {
        let event: Event = serde_json::from_value(json.clone()).unwrap();
        let index = event.payload.topic_index();
        if std::mem::replace(&mut seen[index], true) {
            continue;
        }
        let name = json["eventType"].as_str().unwrap().to_owned();
        let file = |ending: &str| -> PathBuf { folder.join(format!("{name}.{ending}")) };
        std::fs::write(file("json"), serde_json::to_vec(&event).unwrap()).unwrap();
        std::fs::write(file("avro"), avro.encode(&event).unwrap()).unwrap();
        std::fs::write(file("avsc"), SCHEMAS[index]).unwrap();
    }
    assert!(seen.iter().all(|seen| *seen), "a topic without an event: {seen:?}");
}
