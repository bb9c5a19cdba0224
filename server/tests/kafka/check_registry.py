"""Holds the tests' schema registry against Confluent's own client: check_registry.py URL"""

import json
import sys

from confluent_kafka.schema_registry import Schema, SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.error import SchemaRegistryError
from confluent_kafka.serialization import MessageField, SerializationContext


def visit(*more):
    fields = [{"name": "dispatchId", "type": "string"}, *more]
    return Schema(json.dumps({"type": "record", "name": "Visit", "fields": fields}), "AVRO")


def refused(status, code, call, *arguments):
    try:
        call(*arguments)
    except SchemaRegistryError as error:
        assert (error.http_status_code, error.error_code) == (status, code), error
    else:
        raise AssertionError(f"{call} was not refused")


client = SchemaRegistryClient({"url": sys.argv[1]})
optional = visit({"name": "note", "type": "string", "default": ""})
required = visit({"name": "note", "type": "string"})

refused(404, 40401, client.get_latest_version, "visits-value")
refused(404, 40401, client.lookup_schema, "visits-value", visit())
first = client.register_schema("visits-value", visit())
assert client.register_schema("visits-value", visit()) == first
assert client.register_schema("others-value", visit()) == first, "an id is global"
assert json.loads(client.get_schema(first).schema_str) == json.loads(visit().schema_str)
refused(404, 40403, client.get_schema, 999)
refused(404, 40403, client.lookup_schema, "visits-value", optional)
refused(422, 42201, client.register_schema, "visits-value", Schema('{"type": "visit"}', "AVRO"))

assert client.get_compatibility() == "BACKWARD"
assert client.test_compatibility("visits-value", optional)
assert not client.test_compatibility("visits-value", required)
refused(409, 409, client.register_schema, "visits-value", required)
second = client.register_schema("visits-value", optional)
assert second != first
assert client.get_versions("visits-value") == [1, 2]
latest = client.get_latest_version("visits-value")
assert (latest.version, latest.schema_id, latest.subject) == (2, second, "visits-value")
assert client.get_version("visits-value", 1).schema_id == first
refused(404, 40402, client.get_version, "visits-value", 9)
assert client.lookup_schema("visits-value", optional).version == 2

client.set_compatibility("others-value", "NONE")
assert client.get_compatibility("others-value") == "NONE"
client.register_schema("others-value", required)
client.set_compatibility("others-value", "FULL")
refused(409, 409, client.register_schema, "others-value", visit({"name": "other", "type": "int"}))
refused(422, 42203, client.set_compatibility, "others-value", "SOMETIMES")
assert sorted(client.get_subjects()) == ["others-value", "visits-value"]
assert client.delete_subject("others-value") == [1, 2]
assert client.get_subjects() == ["visits-value"]
refused(404, 40401, client.get_versions, "others-value")

# What serialisers do with it.
context = SerializationContext("visits", MessageField.VALUE)
serialize = AvroSerializer(client, optional.schema_str, conf={"auto.register.schemas": False})
message = serialize({"dispatchId": "DSP-1", "note": "Ring twice."}, context)
assert message[:5] == b"\0" + second.to_bytes(4, "big")
assert AvroDeserializer(client)(message, context) == {"dispatchId": "DSP-1", "note": "Ring twice."}
print("the registry keeps its word")
