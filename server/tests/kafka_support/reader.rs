//! Reads topics from their beginning, as another system would.

use super::PATIENCE;
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// A message, as it lies on a topic.
#[derive(Debug, Clone)]
pub struct Seen {
    pub topic: String,
    pub partition: i32,
    pub offset: i64,
    pub key: String,
    pub headers: BTreeMap<String, String>,
    pub value: Vec<u8>,
}

impl Seen {
    pub fn event_id(&self) -> &str {
        &self.headers["event-id"]
    }
}

fn consumer(brokers: &str) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "reader")
        .set("enable.auto.commit", "false")
        .set("allow.auto.create.topics", "false")
        .set("auto.offset.reset", "earliest")
        .create()
        .unwrap()
}

/// The partitions of the topics whose names begin so.
pub async fn partitions(brokers: &str, prefix: &str) -> BTreeMap<String, usize> {
    let (brokers, prefix) = (brokers.to_owned(), prefix.to_owned());
    tokio::task::spawn_blocking(move || topics(&consumer(&brokers), &prefix)).await.unwrap()
}

fn topics(consumer: &BaseConsumer, prefix: &str) -> BTreeMap<String, usize> {
    let metadata = consumer.fetch_metadata(None, Duration::from_secs(30)).unwrap();
    let ours = metadata.topics().iter().filter(|topic| topic.name().starts_with(prefix));
    ours.map(|topic| (topic.name().to_owned(), topic.partitions().len())).collect()
}

/// Everything on the topics whose names begin so, once `ids` different events are there.
pub async fn read(brokers: &str, prefix: &str, ids: usize) -> Vec<Seen> {
    let (brokers, prefix) = (brokers.to_owned(), prefix.to_owned());
    tokio::task::spawn_blocking(move || read_blocking(&brokers, &prefix, ids)).await.unwrap()
}

fn read_blocking(brokers: &str, prefix: &str, ids: usize) -> Vec<Seen> {
    let consumer = consumer(brokers);
    let mut assignment = TopicPartitionList::new();
    let mut ends = HashMap::new();
    for (topic, count) in topics(&consumer, prefix) {
        for partition in 0..i32::try_from(count).unwrap() {
            assignment.add_partition_offset(&topic, partition, Offset::Beginning).unwrap();
            ends.insert((topic.clone(), partition), 0);
        }
    }
    consumer.assign(&assignment).unwrap();
    let (mut seen, mut known) = (Vec::new(), BTreeSet::new());
    let deadline = Instant::now() + PATIENCE;
    loop {
        assert!(Instant::now() < deadline, "{} of {ids} events within {PATIENCE:?}", known.len());
        let Some(message) = consumer.poll(Duration::from_millis(200)) else {
            // Only an end that was reached is an end.
            if known.len() >= ids && at_end(&consumer, &ends) {
                return seen;
            }
            continue;
        };
        let message = message.unwrap();
        let headers = message.headers().unwrap();
        let headers = headers
            .iter()
            .map(|header| (header.key.to_owned(), String::from_utf8(header.value.unwrap().to_vec()).unwrap()));
        let one = Seen {
            topic: message.topic().to_owned(),
            partition: message.partition(),
            offset: message.offset(),
            key: String::from_utf8(message.key().unwrap().to_vec()).unwrap(),
            headers: headers.collect(),
            value: message.payload().unwrap().to_vec(),
        };
        ends.insert((one.topic.clone(), one.partition), one.offset + 1);
        known.insert(one.event_id().to_owned());
        seen.push(one);
    }
}

fn at_end(consumer: &BaseConsumer, read_to: &HashMap<(String, i32), i64>) -> bool {
    read_to.iter().all(|((topic, partition), read_to)| {
        let (_, end) = consumer.fetch_watermarks(topic, *partition, Duration::from_secs(30)).unwrap();
        *read_to >= end
    })
}

/// The event ids of each topic and key, by offset, each at its first place only: what a consumer that remembers ids sees.
pub fn first_sights(seen: &[Seen]) -> BTreeMap<(String, String), Vec<String>> {
    let mut by_offset: Vec<&Seen> = seen.iter().collect();
    by_offset.sort_by_key(|one| (&one.topic, one.partition, one.offset));
    let mut partitions = BTreeMap::new();
    let (mut known, mut sights) = (BTreeSet::new(), BTreeMap::<_, Vec<String>>::new());
    for one in by_offset {
        let place = (one.topic.clone(), one.key.clone());
        let partition = partitions.entry(place.clone()).or_insert(one.partition);
        assert_eq!(*partition, one.partition, "a key stays in its partition");
        if known.insert((one.topic.clone(), one.event_id().to_owned())) {
            sights.entry(place).or_default().push(one.event_id().to_owned());
        }
    }
    sights
}
