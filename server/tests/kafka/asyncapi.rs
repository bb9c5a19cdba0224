//! The document for other systems' developers says what the code does.

use crm_dispatch_server::events::kafka::consume::DEAD_LETTER_HEADERS;
use crm_dispatch_server::events::kafka::encoding::{
    CONTENT_TYPE_AVRO, CONTENT_TYPE_JSON, HEADER_CONTENT_TYPE, HEADER_EVENT_ID, HEADER_EVENT_TYPE, HEADER_TRACEPARENT,
    SCHEMAS,
};
use crm_dispatch_server::events::{Event, Payload, TOPICS};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use yaml_rust2::{Yaml, YamlLoader};

fn json(yaml: &Yaml) -> Value {
    match yaml {
        Yaml::Hash(fields) => {
            let fields = fields.iter().map(|(name, value)| (name.as_str().unwrap().to_owned(), json(value)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
        Yaml::Array(values) => values.iter().map(json).collect(),
        Yaml::String(text) => json!(text),
        Yaml::Integer(number) => json!(number),
        Yaml::Real(number) => json!(number.parse::<f64>().unwrap()),
        Yaml::Boolean(value) => json!(value),
        Yaml::Null => Value::Null,
        other => panic!("{other:?}"),
    }
}

fn one_of_each() -> [Event; TOPICS.len()] {
    let at = "2026-02-02T13:05:00Z".parse().unwrap();
    let payloads = [
        Payload::TechnicianAssigned {
            dispatch_id: "DSP-100".parse().unwrap(),
            service_order_id: "SO-100".parse().unwrap(),
            technician_id: "TECH-10".parse().unwrap(),
            status: "ASSIGNED".to_owned(),
        },
        Payload::DispatchConfirmed {
            dispatch_id: "DSP-100".parse().unwrap(),
            technician_id: "T".parse().unwrap(),
            eta: at,
        },
        Payload::DispatchRejected {
            dispatch_id: "DSP-100".parse().unwrap(),
            technician_id: "TECH-10".parse().unwrap(),
            reason: "The road is closed".to_owned(),
        },
        Payload::RouteOptimized {
            dispatch_id: "DSP-100".parse().unwrap(),
            route_id: "ROUTE-200".parse().unwrap(),
            distance_km: 42.5,
        },
        Payload::TechnicianStatusChanged {
            technician_id: "TECH-10".parse().unwrap(),
            dispatch_id: Some("DSP-100".parse().unwrap()),
            status: "ON_SITE".to_owned(),
            occurred_at: at,
            recorded_at: at,
        },
    ];
    payloads.map(|payload| Event {
        event_id: "evt-4501".parse().unwrap(),
        timestamp: at,
        aggregate_id: "DSP-100".to_owned(),
        tenant_id: "tenant-001".parse().unwrap(),
        payload,
    })
}

fn names(object: &Value) -> BTreeSet<&str> {
    object.as_object().unwrap().keys().map(String::as_str).collect()
}

fn listed(list: &Value) -> BTreeSet<&str> {
    list.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect()
}

#[test]
fn the_document_names_the_topics_the_partitions_and_every_field() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(folder.join("asyncapi.yaml")).unwrap();
    let document = json(&YamlLoader::load_from_str(&text).unwrap()[0]);
    assert_eq!(document["asyncapi"], "3.0.0");

    // Every reference leads somewhere.
    let follow = |reference: &Value| -> Value {
        let place = reference["$ref"].as_str().unwrap_or_else(|| panic!("no reference: {reference}"));
        match place.strip_prefix('#') {
            Some(pointer) => document.pointer(pointer).unwrap_or_else(|| panic!("{place} leads nowhere")).clone(),
            None => serde_json::from_str(&std::fs::read_to_string(folder.join(place)).unwrap()).unwrap(),
        }
    };
    let channels = document["channels"].as_object().unwrap();
    let mut topics: Vec<_> = channels
        .values()
        // What is taken in has as many as its owner chose.
        .filter_map(|channel| {
            let partitions = channel["bindings"]["kafka"]["partitions"].as_u64()?;
            Some((channel["address"].as_str().unwrap(), u16::try_from(partitions).unwrap()))
        })
        .collect();
    topics.sort_unstable();
    let mut expected = TOPICS.to_vec();
    expected.sort_unstable();
    assert_eq!(topics, expected);
    let sent: BTreeSet<String> = document["operations"]
        .as_object()
        .unwrap()
        .values()
        .filter(|operation| operation["action"] == "send")
        .map(|operation| follow(&operation["channel"])["address"].as_str().unwrap().to_owned())
        .collect();
    let consume = crm_dispatch_server::config::Config::load(None, Default::default()).unwrap().kafka.consume;
    let mut expected: BTreeSet<String> = TOPICS.iter().map(|(topic, _)| (*topic).to_owned()).collect();
    expected.insert(consume.dead_letter_topic.clone());
    assert_eq!(sent, expected, "each channel has its operation");

    let mut consumed = BTreeSet::new();
    for operation in document["operations"].as_object().unwrap().values() {
        if operation["action"] == "send" {
            continue;
        }
        assert_eq!(operation["action"], "receive");
        let channel = follow(&operation["channel"]);
        consumed.insert(channel["address"].as_str().unwrap().to_owned());
        let mut messages = channel["messages"].as_object().unwrap().iter();
        let ((name, json), (_, avro)) = (messages.next().unwrap(), messages.next().unwrap());
        let (json, avro) = (follow(json), follow(avro));
        let schema = follow(&json["payload"]);
        assert_eq!(schema["properties"]["eventType"]["const"], **name);
        let written = follow(&avro["payload"]["schema"]);
        assert_eq!(written["name"], **name);
        // Both encodings have the same fields: the flattened form those of envelope and payload.
        let payload = &schema["properties"]["payload"]["properties"];
        let fields: BTreeSet<_> =
            written["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap()).collect();
        let head = BTreeSet::from(["eventId", "timestamp", "tenantId"]);
        assert_eq!(fields, head.union(&names(payload)).copied().collect(), "{name}");
    }
    assert_eq!(consumed, consume.topics.all().map(str::to_owned).into_iter().collect());
    let letter = &channels["deadLetter"]["messages"]["DeadLetter"];
    let headers = follow(&follow(letter)["headers"]);
    assert_eq!(names(&headers["properties"]), BTreeSet::from(DEAD_LETTER_HEADERS));

    for (index, event) in one_of_each().iter().enumerate() {
        let (topic, name) = (TOPICS[index].0, event.payload.event_type());
        let channel = channels.values().find(|channel| channel["address"] == topic).unwrap();
        let avro_name = format!("{name}Avro");
        assert_eq!(names(&channel["messages"]), BTreeSet::from([name, avro_name.as_str()]));

        let message = follow(&channel["messages"][name]);
        assert_eq!((&message["name"], &message["contentType"]), (&json!(name), &json!(CONTENT_TYPE_JSON)));
        let headers = follow(&message["headers"]);
        assert_eq!(
            names(&headers["properties"]),
            BTreeSet::from([HEADER_CONTENT_TYPE, HEADER_EVENT_ID, HEADER_EVENT_TYPE, HEADER_TRACEPARENT])
        );
        let schema = follow(&message["payload"]);
        let envelope = serde_json::to_value(event).unwrap();
        assert_eq!(names(&schema["properties"]), names(&envelope));
        assert_eq!(listed(&schema["required"]), names(&envelope));
        assert_eq!(schema["properties"]["eventType"]["const"], name);
        let payload = &schema["properties"]["payload"];
        assert_eq!(names(&payload["properties"]), names(&envelope["payload"]));
        assert_eq!(listed(&payload["required"]), names(&envelope["payload"]));
        for (field, value) in envelope["payload"].as_object().unwrap() {
            let kind = if value.is_number() { "number" } else { "string" };
            let said = &payload["properties"][field]["type"];
            assert!(*said == kind || listed(said) == BTreeSet::from(["null", kind]), "{name}.{field}: {said}");
        }

        let message = follow(&channel["messages"][&avro_name]);
        assert_eq!(message["contentType"], CONTENT_TYPE_AVRO);
        let schema = follow(&message["payload"]["schema"]);
        assert_eq!(schema, serde_json::from_str::<Value>(SCHEMAS[index]).unwrap());
        assert_eq!(schema["name"], name);
        let fields: BTreeSet<_> =
            schema["fields"].as_array().unwrap().iter().map(|field| field["name"].as_str().unwrap()).collect();
        let head = BTreeSet::from(["eventId", "timestamp", "tenantId"]);
        assert_eq!(fields, head.union(&names(&envelope["payload"])).copied().collect());
    }
}
