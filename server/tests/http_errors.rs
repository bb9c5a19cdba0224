//! Whatever goes wrong on the way in, the caller gets the one error body, and nothing of the inside.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod http_support;

use axum::Router;
use axum::body::Body;
use axum::http::Method;
use axum::routing::get;
use http_support::{Office, Setup};
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use tokio::sync::Notify;

#[tokio::test]
async fn what_is_not_there_has_the_error_body_too() {
    let office = Office::open().await;
    office.get("//nowhere").send().await.error(404, "ROUTE_NOT_FOUND");
    office.get("/technicians/TECH-10/pets").send().await.error(404, "ROUTE_NOT_FOUND");
    office.get("//docs/no-such-file.js").send().await.error(404, "ROUTE_NOT_FOUND");
    let answer = office.call(Method::DELETE, "/requests").send().await;
    answer.error(405, "METHOD_NOT_ALLOWED");
    assert!(answer.header("allow").contains("POST"), "{:?}", answer.headers);
}

#[tokio::test]
async fn a_body_that_is_no_json_is_refused() {
    let office = Office::open().await;
    let token = office.dispatcher();
    let post = || office.post("/requests").token(&token);
    for text in [
        "{",
        "{\"serviceOrderId\":",
        "[1,2",
        "nonsense",
        r#"{"serviceOrderId":"SO-1","locationId":"LOC-1"} {}"#,
        "\u{0}",
    ] {
        let body = post().text(text).send().await.error(400, "JSON_MALFORMED");
        assert!(body["details"]["line"].is_u64(), "{body}");
    }
    // Deep enough to overflow the stack of a reader that does not count.
    let deep = format!("{{\"requiredSkills\":{}", "[".repeat(100_000));
    let answer = post().text(&deep).send().await;
    answer.error(422, "VALIDATION_FAILED");
    assert!(answer.bytes.len() < 2_000, "what was sent is not sent back");
    let name = "n".repeat(100_000);
    let answer = post().json(&json!({ name: 1 })).send().await;
    answer.error(422, "VALIDATION_FAILED");
    assert!(answer.bytes.len() < 2_000, "what was sent is not sent back");
    post().raw("text/plain", "{}").send().await.error(415, "UNSUPPORTED_MEDIA_TYPE");
    post().raw("application/x-www-form-urlencoded", "a=b").send().await.error(415, "UNSUPPORTED_MEDIA_TYPE");
}

#[tokio::test]
async fn a_field_that_is_unknown_missing_or_of_another_kind_is_named() {
    let office = Office::open().await;
    let token = office.dispatcher();
    let cases = [
        (json!({}), "body", "serviceOrderId"),
        (json!({ "serviceOrderId": "SO-1", "locationId": "LOC-1", "colour": "red" }), "colour", "unknown field"),
        (json!({ "serviceOrderId": "SO-1", "locationId": 7 }), "locationId", "string"),
        (json!({ "serviceOrderId": "no spaces", "locationId": "LOC-1" }), "serviceOrderId", "an id has only"),
        (json!({ "serviceOrderId": "", "locationId": "LOC-1" }), "serviceOrderId", "must not be empty"),
        (json!({ "serviceOrderId": "S".repeat(65), "locationId": "LOC-1" }), "serviceOrderId", "at most 64"),
        (
            json!({ "serviceOrderId": "SO-1", "locationId": "LOC-1", "requiredSkills": ["HVAC", 3] }),
            "requiredSkills[1]",
            "a skill is a code",
        ),
        (
            json!({ "serviceOrderId": "SO-1", "locationId": "LOC-1", "scheduled": { "end": "2026-02-03T10:00:00Z", "start": "soon" } }),
            "scheduled.start",
            "RFC 3339",
        ),
        (
            json!({ "serviceOrderId": "SO-1", "locationId": "LOC-1",
                "scheduled": { "start": "2026-02-03T10:00:00Z", "end": "2026-02-03T09:00:00Z" } }),
            "scheduled",
            "must end after it starts",
        ),
        (json!({ "serviceOrderId": "SO-1", "locationId": "LOC-1", "priority": "URGENT" }), "priority", "EMERGENCY"),
        (
            json!({ "serviceOrderId": "SO-1", "locationId": "LOC-1", "title": "t".repeat(1_001) }),
            "title",
            "at most 1000",
        ),
        (json!(["SO-1", "LOC-1"]), "body", "must be a JSON object"),
        (json!("SO-1"), "body", "must be a JSON object"),
    ];
    for (request, field, words) in cases {
        let body = office.post("/requests").token(&token).json(&request).send().await.error(422, "VALIDATION_FAILED");
        assert_eq!(body["details"]["field"], field, "{body}");
        assert!(body["message"].as_str().unwrap().contains(words), "{body}");
    }
}

#[tokio::test]
async fn a_path_or_query_that_makes_no_sense_is_refused() {
    let office = Office::open().await;
    let token = office.dispatcher();
    for path in [
        "/no%20id",
        "/requests?limit=0",
        "/requests?limit=201",
        "/requests?limit=many",
        "/requests?cursor=made-up",
        "/requests?status=LOST",
        "/requests?colour=red",
        "/technicians/available",
        "/technicians/available?locationId=LOC-1&from=2026-02-03T08:00:00Z",
        "/technicians/available?locationId=LOC-1&skills=HVAC:high",
        "/reports/sla?from=2026-02-03T08:00:00Z&to=2026-02-02T08:00:00Z",
        "/audit",
    ] {
        office.get(path).token(&token).send().await.error(422, "VALIDATION_FAILED");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_announced_or_not() {
    let office = Office::open().await;
    let token = office.dispatcher();
    let large = format!("{{\"title\":\"{}\"}}", "x".repeat(300_000));
    office.post("/requests").token(&token).text(&large).send().await.error(413, "BODY_TOO_LARGE");
    let chunks = (0..300).map(|_| Ok::<_, Infallible>(vec![b' '; 1024]));
    let stream = Body::from_stream(futures_util::stream::iter(chunks));
    office.post("/requests").token(&token).stream(stream).send().await.error(413, "BODY_TOO_LARGE");
}

#[tokio::test]
async fn a_header_that_makes_no_sense_is_refused() {
    let office = Office::open().await;
    let token = office.dispatcher();
    let post = || office.post("/DSP-1/cancel").token(&token).json(&json!({ "reason": "test" }));
    for key in ["", "two words", "ü", &"k".repeat(129)] {
        post().header("idempotency-key", key).send().await.error(400, "IDEMPOTENCY_KEY_INVALID");
    }
    post()
        .header("idempotency-key", "a")
        .header("idempotency-key", "b")
        .send()
        .await
        .error(400, "IDEMPOTENCY_KEY_INVALID");
    for tag in ["7", "W/\"7\"", "\"seven\"", "\"7\", \"8\"", "\"\""] {
        post().header("if-match", tag).send().await.error(412, "REVISION_MISMATCH");
    }
}

#[tokio::test]
async fn a_panic_answers_500_and_tells_nothing() {
    async fn broken() -> &'static str {
        panic!("the password is hunter2")
    }
    let office = Office::with(Setup { more: Router::new().route("/broken", get(broken)), ..Setup::default() }).await;
    let answer = office.get("//broken").send().await;
    answer.error(500, "INTERNAL");
    assert!(!String::from_utf8_lossy(&answer.bytes).contains("hunter2"));
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_given_up() {
    let never = get(|| async { std::future::pending::<()>().await });
    let office = Office::with(Setup {
        settings: vec![("CRM_DISPATCH__SERVER__REQUEST_TIMEOUT_MS", "100".to_owned())],
        more: Router::new().route("/never", never),
        ..Setup::default()
    })
    .await;
    let body = office.get("//never").send().await.error(504, "SERVER_TIMEOUT");
    assert!(body["message"].as_str().unwrap().contains("Idempotency-Key"));
}

#[tokio::test]
async fn more_requests_than_the_server_takes_are_told_to_come_back() {
    let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let slow = get({
        let (entered, leave) = (Arc::clone(&entered), Arc::clone(&leave));
        move || async move {
            entered.notify_one();
            leave.notified().await;
            "done"
        }
    });
    let office = Office::with(Setup {
        settings: vec![("CRM_DISPATCH__SERVER__REQUESTS_CONCURRENT_MAX", "1".to_owned())],
        more: Router::new().route("/slow", slow),
        ..Setup::default()
    })
    .await;
    let (first, second) = tokio::join!(office.get("//slow").send(), async {
        entered.notified().await;
        let second = office.get("//health/live").send().await;
        leave.notify_one();
        second
    });
    second.error(503, "SERVER_BUSY");
    assert_eq!(second.header("retry-after"), "1");
    assert_eq!((first.status.as_u16(), first.bytes.as_slice()), (200, b"done".as_slice()));
    office.get("//health/live").send().await.ok(200);
}

#[tokio::test]
async fn a_trace_is_carried_through_and_a_request_keeps_its_id() {
    let office = Office::open().await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let answer = office
        .get("/requests")
        .header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"))
        .header("x-request-id", "office-42")
        .send()
        .await;
    assert_eq!(answer.error(401, "TOKEN_MISSING")["traceId"], trace);
    assert!(answer.header("traceparent").starts_with(&format!("00-{trace}-")));
    assert_eq!(answer.header("x-request-id"), "office-42");

    let answer = office
        .get("/requests")
        .header("x-request-id", "not fit for a log\u{7f}".trim_end_matches('\u{7f}'))
        .send()
        .await;
    let body = answer.error(401, "TOKEN_MISSING");
    assert_eq!(answer.header("x-request-id"), body["traceId"].as_str().unwrap(), "one of its own instead");
}

#[tokio::test]
async fn only_the_named_pages_may_call_from_a_browser() {
    let office = Office::with(Setup {
        settings: vec![("CRM_DISPATCH__SERVER__CORS_ORIGINS", "https://office.example.com".to_owned())],
        ..Setup::default()
    })
    .await;
    let preflight = |origin: &'static str| {
        office
            .call(Method::OPTIONS, "/requests")
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization,idempotency-key")
            .send()
    };
    let answer = preflight("https://office.example.com").await;
    assert_eq!(answer.header("access-control-allow-origin"), "https://office.example.com");
    assert!(answer.header("access-control-allow-headers").contains("idempotency-key"));
    assert_eq!(preflight("https://elsewhere.example.com").await.header("access-control-allow-origin"), "");
    // An error can be read by the page as well.
    let refused = office.get("/requests").header("origin", "https://office.example.com").send().await;
    refused.error(401, "TOKEN_MISSING");
    assert_eq!(refused.header("access-control-allow-origin"), "https://office.example.com");
}

#[tokio::test]
async fn health_says_alive_ready_and_draining() {
    let office = Office::open().await;
    assert_eq!(office.get("//health/live").send().await.ok(200)["status"], "UP");
    assert_eq!(office.get("//health/ready").send().await.ok(200)["status"], "UP");
    office.app.drain();
    office.get("//health/ready").send().await.error(503, "NOT_READY");
    office.get("//health/live").send().await.ok(200);
}

#[tokio::test]
async fn a_phone_without_a_handshake_is_told_so() {
    let office = Office::open().await;
    office.get("/sync").send().await.error(401, "TOKEN_MISSING");
    office.get("/sync").token(&office.dispatcher()).send().await.error(403, "FORBIDDEN");
    office.get("/sync").token(&office.technician("TECH-10")).send().await.error(400, "BAD_REQUEST");
}
