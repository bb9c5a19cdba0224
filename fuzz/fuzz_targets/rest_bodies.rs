//! Requests as any caller could send them: every path, query, header and body that the server reads, on the real router.

#![no_main]

mod back_office;
mod signer;

use axum::http::{Method, StatusCode};
use back_office::{Asked, Office};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use std::cell::RefCell;
use sync_core::domain::Timestamp;

/// Ends a request in an input that holds several.
const NEXT: u8 = 0x1e;
/// Requests of an input at most.
const REQUESTS_MAX: usize = 4;

thread_local! {
    static OFFICE: RefCell<Office> = RefCell::new(Office::new());
}

fuzz_target!(|data: &[u8]| {
    OFFICE.with_borrow_mut(|office| {
        let mut changed = false;
        for asked in data.split(|byte| *byte == NEXT).take(REQUESTS_MAX).filter_map(Asked::read) {
            let Some((status, body)) = office.ask(&asked) else { continue };
            check(&asked, status, &body);
            changed |= asked.method != Method::GET && !status.is_client_error();
        }
        // Each input meets the same office, so that a finding can be played again.
        if changed {
            office.start_over();
        }
    });
});

fn check(asked: &Asked, status: StatusCode, body: &[u8]) {
    let said = String::from_utf8_lossy(body);
    let what = format!("{} {}: {status} {said}", asked.method, asked.path);
    assert!(!status.is_server_error(), "the server's own fault: {what}");
    if asked.method == Method::HEAD {
        return;
    }
    if status.is_client_error() {
        let error: Value = serde_json::from_slice(body).unwrap_or_else(|_| panic!("no error body: {what}"));
        let mut fields: Vec<_> = error.as_object().unwrap().keys().map(String::as_str).collect();
        fields.sort_unstable();
        assert_eq!(fields, ["details", "error", "message", "timestamp", "traceId"], "{what}");
        let code = error["error"].as_str().unwrap();
        assert!(code.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_') && code.len() > 2, "{what}");
        assert!(!error["message"].as_str().unwrap().is_empty() && error["details"].is_object(), "{what}");
        assert!(error["timestamp"].as_str().unwrap().parse::<Timestamp>().is_ok(), "{what}");
        assert_eq!(error["traceId"].as_str().unwrap().len(), 32, "{what}");
        assert!(body.len() < 4_000, "what was sent is sent back: {what}");
    } else if status.is_success() && asked.path.starts_with("/events") && asked.method == Method::POST {
        // Events fail one by one, in a list that succeeds as a whole.
        let answer: Value = serde_json::from_slice(body).unwrap();
        for line in answer["items"].as_array().unwrap() {
            assert_ne!(line["error"]["code"], "INTERNAL", "{what}");
        }
    }
}
