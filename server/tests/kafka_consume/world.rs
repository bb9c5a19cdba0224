//! A real broker, a service on a real store, members of the group, and another system that publishes.

use async_trait::async_trait;
use crm_dispatch_server::app::open_store;
use crm_dispatch_server::config::{Config, ConsumeConfig, ConsumeTopics};
use crm_dispatch_server::events::kafka;
use crm_dispatch_server::events::kafka::consume::{Consumers, SchemaError, SchemaSource};
use crm_dispatch_server::service::directory::{LocationInput, TechnicianInput};
use crm_dispatch_server::service::model::{AuditRecord, DispatchSearch, StoredDispatch};
use crm_dispatch_server::service::{Caller, IdSource, Request, Role, Service, ServiceConfig, SystemClock};
use crm_dispatch_server::store::Store;
use crm_dispatch_server::store::sqlite::SqliteStore;
use metrics_exporter_prometheus::PrometheusHandle;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message, OwnedMessage};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use sync_core::domain::geo::Coordinates;
use sync_core::domain::{ServiceOrderId, TenantId};
use tempfile::TempDir;

/// Nothing here takes so long unless it never comes.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);
pub(crate) const TENANT: &str = "tenant-001";

/// A variable that `scripts/services` sets.
pub(crate) fn service(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set; start the test services: eval \"$(scripts/services up)\""))
}

pub(crate) fn id<T: TryFrom<String>>(text: &str) -> T
where
    T::Error: std::fmt::Debug,
{
    T::try_from(text.to_owned()).unwrap()
}

/// Waits until it holds, looking again and again.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < PATIENCE, "never {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// What the metrics say, over the whole test process; topics have names of their own in each test.
fn metrics() -> &'static PrometheusHandle {
    crm_dispatch_server::telemetry::metrics::start().expect("nothing else collects in this process")
}

/// The sum of a metric's series whose labels have all of these parts.
pub(crate) fn metric(name: &str, parts: &[&str]) -> f64 {
    let text = metrics().render();
    let lines = text.lines().filter(|line| line.starts_with(&format!("{name}{{")));
    let lines = lines.filter(|line| parts.iter().all(|part| line.contains(part)));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Schemas by id, behind a network that can be cut.
#[derive(Default)]
pub(crate) struct Schemas {
    pub(crate) away: AtomicBool,
    pub(crate) by_id: BTreeMap<u32, String>,
}

#[async_trait]
impl SchemaSource for Schemas {
    async fn schema(&self, id: u32) -> Result<String, SchemaError> {
        if self.away.load(Ordering::SeqCst) {
            return Err(SchemaError::Unreachable("connection refused".into()));
        }
        self.by_id.get(&id).cloned().ok_or_else(|| SchemaError::Unknown("there is no such schema".into()))
    }
}

/// The event names, in the order of the topics; a schema's id is its place plus 101.
pub(crate) const EVENTS: [&str; 4] =
    ["ServiceOrderScheduledEvent", "ServiceOrderCancelledEvent", "SlaBreachedEvent", "StockChangedEvent"];

pub(crate) fn schema_text(event: &str) -> String {
    let path = format!("{}/schemas/consumed/{event}.avsc", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).unwrap()
}

pub(crate) struct World {
    pub(crate) service: Service,
    pub(crate) config: ConsumeConfig,
    pub(crate) schemas: Arc<Schemas>,
    pub(crate) brokers: String,
    pub(crate) database: PathBuf,
    partitions: i32,
    _directory: TempDir,
}

impl World {
    /// On the embedded database.
    pub(crate) async fn new(partitions: i32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&directory.path().join("dispatch.db")).await.unwrap();
        Self::on(partitions, store, directory).await
    }

    /// On PostgreSQL.
    pub(crate) async fn on_postgres(partitions: i32, url: String) -> Self {
        Self::on(partitions, postgres(url).await, tempfile::tempdir().unwrap()).await
    }

    /// A group and topics of its own on the shared broker, an office with a site and technicians.
    async fn on(partitions: i32, store: Arc<dyn Store>, directory: TempDir) -> Self {
        metrics();
        let _ = tracing_subscriber::fmt().with_test_writer().with_env_filter("info").try_init();
        let database = directory.path().join("dispatch.db");
        let service_ = node(store);
        let mark = format!("{:08x}", rand::random::<u32>());
        let name = |topic: &str| format!("test-{mark}.{topic}");
        let config = ConsumeConfig {
            enabled: true,
            group: name("crm-dispatch-cg"),
            tenants: vec![TENANT.into()],
            topics: ConsumeTopics {
                service_order_scheduled: name("crm.serviceorders.scheduled"),
                service_order_cancelled: name("crm.serviceorders.cancelled"),
                sla_breached: name("crm.serviceorders.sla.breached"),
                stock_changed: name("inventory.stock.changed"),
            },
            dead_letter_topic: name("crm.dispatch.dead-letter"),
            parallel_max: 4,
            queue_events_max: 100,
            commit_every_ms: 50,
            retry_delay_ms_max: 200,
            stop_timeout_ms: 5_000,
            session_timeout_ms: 6_000,
            max_poll_interval_ms: 60_000,
            dead_letter_copies: 0,
        };
        let by_id = (101..).zip(EVENTS.map(schema_text)).collect();
        let schemas = Arc::new(Schemas { by_id, ..Schemas::default() });
        let brokers = service("TEST_KAFKA_BROKERS");
        let world = Self { service: service_, config, schemas, brokers, database, partitions, _directory: directory };
        world.make_topics().await;
        world.furnish().await;
        world
    }

    async fn make_topics(&self) {
        let admin: AdminClient<DefaultClientContext> = self.client().create().unwrap();
        let topics =
            self.config.topics.all().map(|name| NewTopic::new(name, self.partitions, TopicReplication::Fixed(1)));
        for made in admin.create_topics(&topics, &AdminOptions::new()).await.unwrap() {
            made.unwrap();
        }
    }

    async fn furnish(&self) {
        let admin = self.caller(Role::Admin);
        let site = LocationInput {
            name: "Bakery".into(),
            address: "Ring 1, 1010 Wien".into(),
            coordinates: Coordinates { latitude: 48.2082, longitude: 16.3738 },
            access_notes: None,
        };
        self.service.put_location(Request::plain(&admin), &id("LOC-1"), site).await.unwrap();
        for number in 0..10 {
            let input = TechnicianInput { name: Some(format!("Technician {number}")), ..TechnicianInput::default() };
            self.service.put_technician(Request::plain(&admin), &id(&format!("TECH-{number}")), input).await.unwrap();
        }
    }

    pub(crate) fn caller(&self, role: Role) -> Caller {
        Caller { tenant: id(TENANT), user: id("dora"), roles: vec![role], technician: None }
    }

    pub(crate) fn client(&self) -> ClientConfig {
        let mut client = ClientConfig::new();
        client.set("bootstrap.servers", &self.brokers);
        client
    }

    /// A member of the group, on a node of its own.
    pub(crate) fn member(&self) -> Consumers {
        let schemas: Arc<dyn SchemaSource> = self.schemas.clone();
        Consumers::start(&self.config, &self.client(), Some(schemas), self.service.clone()).unwrap()
    }

    /// A member on another node.
    pub(crate) fn member_on(&self, service: &Service) -> Consumers {
        Consumers::start(&self.config, &self.client(), None, service.clone()).unwrap()
    }

    /// A member that asks a schema registry.
    pub(crate) fn member_with(&self, registry_url: &str) -> Consumers {
        let settings = HashMap::from([
            ("CRM_DISPATCH__KAFKA__BROKERS".to_owned(), self.brokers.clone()),
            ("CRM_DISPATCH__KAFKA__SCHEMA_REGISTRY_URL".to_owned(), registry_url.to_owned()),
        ]);
        let kafka = Config::load(None, settings).unwrap().kafka;
        let (client, schemas) = (kafka::client(&kafka), kafka::schemas(&kafka).unwrap());
        Consumers::start(&self.config, &client, schemas, self.service.clone()).unwrap()
    }

    /// Another system publishes; the broker has all of it when this returns.
    pub(crate) fn publish(&self, records: &[Value]) {
        publish(&self.brokers, records);
    }

    /// An event in its envelope, to its topic, keyed by what it is about.
    pub(crate) fn event(&self, name: &str, event_id: &str, payload: Value) -> Value {
        self.event_at(name, event_id, 1_770_098_400_000, payload)
    }

    pub(crate) fn event_at(&self, name: &str, event_id: &str, at: i64, payload: Value) -> Value {
        let key = key_of(&payload);
        json!({
            "topic": self.topic(name),
            "key": key,
            "json": {
                "eventType": name, "eventId": event_id, "timestamp": at, "aggregateId": key, "tenantId": TENANT,
                "payload": payload,
            },
        })
    }

    /// The same in Avro, as the schema registry would have it.
    pub(crate) fn avro(&self, name: &str, event_id: &str, mut payload: Value) -> Value {
        let key = key_of(&payload);
        let place = EVENTS.iter().position(|event| *event == name).unwrap();
        payload["eventId"] = json!(event_id);
        payload["timestamp"] = json!(1_770_098_400_000_i64);
        payload["tenantId"] = json!(TENANT);
        let schema: Value = serde_json::from_str(&schema_text(name)).unwrap();
        json!({ "topic": self.topic(name), "key": key, "avro": { "id": place + 101, "schema": schema, "record": payload } })
    }

    pub(crate) fn topic(&self, event: &str) -> &str {
        self.config.topics.all()[EVENTS.iter().position(|name| *name == event).unwrap()]
    }

    /// How many events of all topics have no committed offset yet.
    pub(crate) fn behind(&self) -> i64 {
        let consumer = self.reader();
        let mut list = TopicPartitionList::new();
        for topic in self.config.topics.all() {
            list.add_partition_range(topic, 0, self.partitions - 1);
        }
        let began = Instant::now();
        let committed = loop {
            match consumer.committed_offsets(list.clone(), Duration::from_secs(10)) {
                Ok(committed) => break committed,
                // A broker that is new to the group has to load it first.
                Err(error) => assert!(began.elapsed() < PATIENCE, "no committed offsets: {error}"),
            }
        };
        let mut behind = 0;
        for element in committed.elements() {
            let (low, high) = consumer.fetch_watermarks(element.topic(), element.partition(), PATIENCE).unwrap();
            behind += high - element.offset().to_raw().filter(|offset| *offset >= 0).unwrap_or(low);
        }
        behind
    }

    /// Waits until everything published is consumed, and committed.
    pub(crate) async fn caught_up(&self) {
        until("caught up", || async { self.behind() == 0 }).await;
    }

    fn reader(&self) -> BaseConsumer {
        let mut client = self.client();
        client.set("group.id", &self.config.group).set("enable.auto.commit", "false").create().unwrap()
    }

    /// Everything in the dead-letter topic, `count` letters at least.
    pub(crate) fn dead_letters(&self, count: usize) -> Vec<OwnedMessage> {
        let mut client = self.client();
        let reader: BaseConsumer =
            client.set("group.id", "nobody").set("enable.auto.commit", "false").create().unwrap();
        let topic = self.config.dead_letter_topic.as_str();
        let began = Instant::now();
        let partitions = loop {
            let metadata = reader.fetch_metadata(Some(topic), PATIENCE).unwrap();
            let partitions = metadata.topics().first().map_or(0, |topic| topic.partitions().len());
            if partitions > 0 || count == 0 {
                break partitions;
            }
            assert!(began.elapsed() < PATIENCE, "there is no dead-letter topic");
        };
        let mut list = TopicPartitionList::new();
        let mut ends = 0;
        for partition in 0..partitions {
            let partition = i32::try_from(partition).unwrap();
            list.add_partition_offset(topic, partition, Offset::Beginning).unwrap();
            ends += reader.fetch_watermarks(topic, partition, PATIENCE).unwrap().1;
        }
        reader.assign(&list).unwrap();
        let mut letters = Vec::new();
        while letters.len() < count.max(usize::try_from(ends).unwrap()) {
            assert!(began.elapsed() < PATIENCE, "{} dead letters of {count}", letters.len());
            if let Some(letter) = reader.poll(Duration::from_millis(100)) {
                letters.push(letter.unwrap().detach());
            }
        }
        letters
    }

    pub(crate) async fn dispatch_of(&self, order: &str) -> Option<StoredDispatch> {
        let tenant: TenantId = id(TENANT);
        let found = self.service.store().by_service_order(&tenant, &id::<ServiceOrderId>(order)).await.unwrap()?;
        self.service.store().dispatch(&tenant, &found).await.unwrap()
    }

    pub(crate) async fn dispatches(&self) -> usize {
        let search = DispatchSearch {
            tenant: id(TENANT),
            statuses: Vec::new(),
            technician: None,
            location: None,
            service_order: None,
            scheduled: None,
            priority_min: None,
            after: None,
            limit: 10_000,
        };
        self.service.store().search(&search).await.unwrap().len()
    }

    pub(crate) async fn audit(&self, chain: &str) -> Vec<AuditRecord> {
        self.service.store().audit(&id(TENANT), chain, 0, 10_000).await.unwrap()
    }

    pub(crate) async fn stock(&self, technician: &str, part: &str) -> i64 {
        let row = self.service.store().technician(&id(TENANT), &id(technician)).await.unwrap().unwrap();
        row.van_stock.get(&id(part)).copied().unwrap_or_default()
    }

    /// How many events came to this, over all topics of this world.
    pub(crate) fn consumed(&self, outcome: &str) -> f64 {
        let label = format!("outcome=\"{outcome}\"");
        let topics = self.config.topics.all();
        topics.iter().map(|topic| metric("crm_dispatch_consumed_events_total", &[topic, &label])).sum()
    }
}

/// A connection to PostgreSQL that soon says when the database is away.
pub(crate) async fn postgres(url: String) -> Arc<dyn Store> {
    let settings = HashMap::from([
        ("CRM_DISPATCH__DATABASE__URL".to_owned(), url),
        ("CRM_DISPATCH__DATABASE__RETRY_MS".to_owned(), "1000".to_owned()),
        ("CRM_DISPATCH__AUTH__SECRET".to_owned(), "a shared secret for tests only, long enough to be one".to_owned()),
    ]);
    open_store(&Config::load(None, settings).unwrap()).await.unwrap().0
}

/// A node on this store.
pub(crate) fn node(store: Arc<dyn Store>) -> Service {
    Service::new(store, Arc::new(SystemClock), IdSource::random(), ServiceConfig::default())
}

fn key_of(payload: &Value) -> String {
    let of = |name: &str| payload.get(name).and_then(Value::as_str).map(str::to_owned);
    of("serviceOrderId").or_else(|| of("technicianId")).unwrap_or_else(|| "nobody".to_owned())
}

pub(crate) fn publish(brokers: &str, records: &[Value]) {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka_consume/produce.py");
    let mut python = Command::new(service("TEST_PYTHON"));
    let mut python = python.arg(script).arg(brokers).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines: Vec<String> = records.iter().map(|record| format!("{record}\n")).collect();
    let mut input = python.stdin.take().unwrap();
    let written = input.write_all(lines.concat().as_bytes());
    drop(input);
    let output = python.wait_with_output().unwrap();
    assert!(output.status.success(), "publishing failed: {}", String::from_utf8_lossy(&output.stderr));
    written.unwrap();
}

pub(crate) fn header(letter: &OwnedMessage, name: &str) -> Option<String> {
    let headers = letter.headers()?;
    let found = headers.iter().find(|header| header.key == name)?;
    found.value.map(|value| String::from_utf8_lossy(value).into_owned())
}
