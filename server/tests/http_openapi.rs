//! The document says what the server does.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod http_support;

use axum::http::Method;
use http_support::{API, Office};
use serde_json::Value;
use std::collections::BTreeSet;

/// The calls that a back office needs, fixed or expected.
const CALLS: [&str; 35] = [
    "GET /audit",
    "GET /devices",
    "GET /events",
    "GET /exceptions",
    "GET /locations",
    "GET /locations/{locationId}",
    "GET /reports/sla",
    "GET /requests",
    "GET /skills",
    "GET /sync",
    "GET /technicians",
    "GET /technicians/available",
    "GET /technicians/{technicianId}",
    "GET /{dispatchId}",
    "GET /{dispatchId}/audit",
    "GET /{dispatchId}/report",
    "POST /devices/{deviceId}/revoke",
    "POST /events",
    "POST /exceptions/{exceptionId}/resolve",
    "POST /requests",
    "POST /technicians/{technicianId}/absences",
    "POST /technicians/{technicianId}/status",
    "POST /{dispatchId}/assign",
    "POST /{dispatchId}/cancel",
    "POST /{dispatchId}/confirm",
    "POST /{dispatchId}/priority",
    "POST /{dispatchId}/reassign",
    "POST /{dispatchId}/reject",
    "POST /{dispatchId}/reschedule",
    "POST /{dispatchId}/unassign",
    "POST /{dispatchId}/reinstate",
    "POST /{dispatchId}/end-stop-work",
    "PUT /locations/{locationId}",
    "PUT /technicians/{technicianId}",
    "PUT /technicians/{technicianId}/availability",
];

fn operations(document: &Value) -> Vec<(String, String, Value)> {
    let mut found = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            if ["get", "post", "put", "delete", "patch"].contains(&method.as_str()) {
                found.push((method.to_uppercase(), path.clone(), operation.clone()));
            }
        }
    }
    found
}

#[tokio::test]
async fn every_call_is_documented_and_every_documented_call_is_served() {
    let office = Office::open().await;
    let document = office.get("//openapi.json").send().await.ok(200);
    let documented: BTreeSet<String> = operations(&document)
        .iter()
        .filter_map(|(method, path, _)| path.strip_prefix(API).map(|path| format!("{method} {path}")))
        .collect();
    let expected: BTreeSet<String> = CALLS
        .iter()
        .map(|call| (*call).to_owned())
        .chain(["PUT /technicians/{technicianId}/skills".to_owned()])
        .collect();
    assert_eq!(documented, expected);
    for (method, path, _) in operations(&document) {
        let path = path.replace(['{', '}'], "");
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let answer = office.call(method.clone(), &format!("/{path}")).send().await;
        // Without a token: the call is there, and it is guarded; health is for everybody.
        if path.starts_with(API) {
            answer.error(401, "TOKEN_MISSING");
        } else {
            answer.ok(200);
        }
    }
}

#[tokio::test]
async fn the_document_from_the_command_line_is_the_one_that_is_served() {
    let office = Office::open().await;
    let served = office.get("//openapi.json").send().await.ok(200);
    assert_eq!(serde_json::to_value(crm_dispatch_server::http::openapi()).unwrap(), served);
}

#[tokio::test]
async fn every_call_tells_its_errors_and_its_headers() {
    let office = Office::open().await;
    let document = office.get("//openapi.json").send().await.ok(200);
    for (method, path, operation) in operations(&document) {
        let name = format!("{method} {path}");
        assert!(operation["summary"].as_str().is_some_and(|text| !text.is_empty()), "{name} has no summary");
        let mut statuses = vec!["500", "503", "504"];
        if path.starts_with(API) {
            statuses.extend(["401", "403"]);
        }
        if ["POST", "PUT"].contains(&method.as_str()) {
            statuses.extend(["400", "412", "413", "415", "422"]);
            for header in ["Idempotency-Key", "If-Match"] {
                let named = operation["parameters"].as_array().unwrap().iter().any(|p| p["name"] == header);
                assert!(named, "{name} does not name {header}");
            }
            assert!(!operation["requestBody"].is_null(), "{name} has no body");
        }
        for status in statuses {
            assert!(!operation["responses"][status].is_null(), "{name} does not tell {status}");
        }
        for (status, response) in operation["responses"].as_object().unwrap() {
            if status.starts_with('4') || status.starts_with('5') {
                let schema = &response["content"]["application/json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/ErrorBody", "{name} {status}");
            }
        }
    }
    assert_eq!(document["components"]["securitySchemes"]["bearer"]["scheme"], "bearer");
}

#[tokio::test]
async fn no_reference_leads_nowhere() {
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let document = serde_json::to_value(crm_dispatch_server::http::openapi()).unwrap();
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 50);
    for reference in found {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference}");
    }
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let office = Office::open().await;
    let redirect = office.get("//docs").send().await;
    assert_eq!((redirect.status.as_u16(), redirect.header("location")), (303, "/docs/"));
    let page = office.get("//docs/").send().await;
    assert_eq!(page.status.as_u16(), 200);
    let html = String::from_utf8(page.bytes).unwrap();
    let linked: Vec<&str> =
        html.split(['"', '\'']).filter(|text| [".js", ".css", ".png"].iter().any(|end| text.ends_with(end))).collect();
    assert!(linked.len() >= 3, "{html}");
    for file in linked {
        assert!(!file.contains("//"), "{file} comes from elsewhere");
        let path = format!("//docs/{}", file.trim_start_matches("./"));
        let answer = office.get(&path).send().await;
        assert!(answer.status.is_success() && !answer.bytes.is_empty(), "{file}");
    }
    let start = String::from_utf8(office.get("//docs/swagger-initializer.js").send().await.bytes).unwrap();
    assert!(start.contains("/openapi.json"), "{start}");
}
