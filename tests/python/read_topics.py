"""Reads what a server has published with clients that know nothing of it, and compares it with the server's journal.

Standard input: {"brokers", "prefix", "registry": URL or null, "topics": {name: partitions}, "told": [{"topic", "event"}],
"eachOnce": whether no event may come twice}.
"""

import datetime
import io
import json
import re
import sys
import time

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.schema_registry import SchemaRegistryClient

expected = json.load(sys.stdin)
prefix, told = expected["prefix"], expected["told"]

metadata = AdminClient({"bootstrap.servers": expected["brokers"]}).list_topics(timeout=30)
partitions = {
    name[len(prefix):]: len(topic.partitions)
    for name, topic in metadata.topics.items()
    if name.startswith(prefix + "crm.dispatch.")
}
assert partitions == expected["topics"], partitions

consumer = Consumer({
    "bootstrap.servers": expected["brokers"],
    "group.id": "another-system",
    "enable.auto.commit": False,
    "enable.partition.eof": False,
})
places = [TopicPartition(prefix + topic, number) for topic, count in partitions.items() for number in range(count)]
ends = {(place.topic, place.partition): consumer.get_watermark_offsets(place, timeout=30)[1] for place in places}
consumer.assign([TopicPartition(place.topic, place.partition, OFFSET_BEGINNING) for place in places])
messages, deadline = [], time.monotonic() + 120
while len(messages) < sum(ends.values()):
    assert time.monotonic() < deadline, f"{len(messages)} of {sum(ends.values())} messages"
    for message in consumer.consume(1000, timeout=1):
        assert message.error() is None, message.error()
        messages.append(message)
consumer.close()

registry = SchemaRegistryClient({"url": expected["registry"]}) if expected["registry"] else None
schemas = {}


def murmur2(key):
    """As Java's clients hash a key to choose its partition: a producer in another language puts it into the same one."""
    m, mask = 0x5BD1E995, 0xFFFFFFFF
    h = (0x9747B28C ^ len(key)) & mask
    whole = len(key) - len(key) % 4
    for start in range(0, whole, 4):
        k = (int.from_bytes(key[start:start + 4], "little") * m) & mask
        k ^= k >> 24
        h = ((h * m) & mask) ^ ((k * m) & mask)
    if whole < len(key):
        h = ((h ^ int.from_bytes(key[whole:], "little")) * m) & mask
    h ^= h >> 13
    h = (h * m) & mask
    return h ^ h >> 15


# Of Apache Kafka's own tests.
assert (murmur2(b"21"), murmur2(b"foobar")) == (-973932308 & 0xFFFFFFFF, -790332482 & 0xFFFFFFFF)


def read_avro(value):
    assert value[0] == 0, value[:5]
    number = int.from_bytes(value[1:5], "big")
    if number not in schemas:
        schemas[number] = fastavro.parse_schema(json.loads(registry.get_schema(number).schema_str))
    source = io.BytesIO(value[5:])
    record = fastavro.schemaless_reader(source, schemas[number])
    assert source.read() == b"", "bytes follow the record"
    return schemas[number]["name"], record


def check_avro(value, event):
    name, record = read_avro(value)
    assert name == "com.erp.crm.dispatch.events." + event["eventType"], name
    assert record.pop("eventId") == event["eventId"]
    assert record.pop("tenantId") == event["tenantId"]
    happened = record.pop("timestamp")
    assert isinstance(happened, datetime.datetime), f"the logical type counts: {happened!r}"
    assert happened == datetime.datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00"))
    assert record == event["payload"], (record, event["payload"])


envelopes = {(entry["topic"], entry["event"]["eventId"]): entry["event"] for entry in told}
assert len(envelopes) == len(told)
by_place, seen = {}, set()
for message in sorted(messages, key=lambda message: (message.topic(), message.partition(), message.offset())):
    topic, key = message.topic()[len(prefix):], message.key().decode()
    headers = {name: value.decode() for name, value in message.headers()}
    identity = (topic, headers["event-id"])
    event = envelopes[identity]
    assert headers["event-type"] == event["eventType"]
    if expected["eachOnce"] and event["eventType"] == "TechnicianAssignedEvent":
        # A dispatcher's call caused it.
        assert re.fullmatch("00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", headers["traceparent"]), headers
    assert message.partition() == (murmur2(message.key()) & 0x7FFFFFFF) % partitions[topic], (topic, key)
    assert key == event["aggregateId"] == (event["payload"].get("dispatchId") or event["payload"]["technicianId"])
    if registry:
        assert headers["content-type"] == "application/avro"
        check_avro(message.value(), event)
    else:
        assert headers["content-type"] == "application/json"
        envelope = json.loads(message.value())
        assert envelope == event, (envelope, event)
        assert set(envelope) == {"eventType", "eventId", "timestamp", "aggregateId", "tenantId", "payload"}
    assert not (expected["eachOnce"] and identity in seen), f"{identity} came twice"
    if identity not in seen:
        seen.add(identity)
        by_place.setdefault((topic, key), []).append(headers["event-id"])

in_order = {}
for entry in told:
    in_order.setdefault((entry["topic"], entry["event"]["aggregateId"]), []).append(entry["event"]["eventId"])
for place, ids in in_order.items():
    assert by_place.get(place) == ids, (place, by_place.get(place), ids)
assert seen == set(envelopes)
print(f"{len(messages)} messages, {len(seen)} events: as the journal says")
