"""Publishes events as another system does, with Confluent's client and fastavro: one record a line of standard input, as JSON.

{"topic", "partition"?, "key"?, "headers"?: [[name, text or null]], "json" | "base64" | "avro"?: {"id", "schema", "record"}, "registered"?: {"url", "schema",
"record"}, "codec"?}

Ends when the broker has acknowledged all of them. Two other lines: {"make": topic, "partitions"} makes a topic, and
{"behind": group, "topics": [...]} prints how many records of these the group has not committed.
"""

import base64
import io
import json
import struct
import sys

import fastavro
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

producers = {}
serializers = {}


def producer(codec):
    if codec not in producers:
        producers[codec] = Producer(
            {
                "bootstrap.servers": sys.argv[1],
                "enable.idempotence": True,
                "compression.type": codec,
                "linger.ms": 20,
                "message.max.bytes": 900000,
            }
        )
    return producers[codec]


def value(record):
    if "json" in record:
        return json.dumps(record["json"]).encode()
    if "base64" in record:
        return base64.b64decode(record["base64"])
    if "avro" in record:
        avro = record["avro"]
        out = io.BytesIO()
        out.write(struct.pack(">bI", 0, avro["id"]))
        fastavro.schemaless_writer(out, fastavro.parse_schema(avro["schema"]), avro["record"])
        return out.getvalue()
    if "registered" in record:
        told = record["registered"]
        key = (told["url"], json.dumps(told["schema"]))
        if key not in serializers:
            serializers[key] = AvroSerializer(SchemaRegistryClient({"url": told["url"]}), key[1])
        return serializers[key](told["record"], SerializationContext(record["topic"], MessageField.VALUE))
    return None


def make(topic, partitions):
    # Kept until the answer is there: the client takes its questions with it.
    admin = AdminClient({"bootstrap.servers": sys.argv[1]})
    admin.create_topics([NewTopic(topic, partitions)])[topic].result()


def behind(group, topics):
    consumer = Consumer({"bootstrap.servers": sys.argv[1], "group.id": group, "enable.auto.commit": False})
    partitions = []
    for topic in topics:
        known = consumer.list_topics(topic, timeout=30).topics[topic].partitions
        partitions += [TopicPartition(topic, partition) for partition in known]
    total = 0
    for partition in consumer.committed(partitions, timeout=30):
        low, high = consumer.get_watermark_offsets(partition, timeout=30)
        total += high - (partition.offset if partition.offset >= 0 else low)
    consumer.close()
    return total


failures = []
for line in sys.stdin:
    record = json.loads(line)
    if "make" in record:
        make(record["make"], record["partitions"])
        continue
    if "behind" in record:
        print(behind(record["behind"], record["topics"]))
        continue
    out = producer(record.get("codec", "none"))
    options = {"partition": record["partition"]} if "partition" in record else {}
    headers = [(name, None if text is None else text.encode()) for name, text in record.get("headers", [])]
    out.produce(
        record["topic"],
        key=record.get("key"),
        value=value(record),
        headers=headers,
        on_delivery=lambda error, _: failures.append(str(error)) if error else None,
        **options,
    )
    out.poll(0)
for out in producers.values():
    out.flush()
if failures:
    sys.exit("\n".join(failures))
