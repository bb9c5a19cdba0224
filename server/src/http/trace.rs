//! W3C trace context: the caller's trace id is carried through the log and into every error body.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use rand::RngExt as _;

/// The request's own id, echoed in the answer.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The W3C header.
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
/// Longest request id that is taken over from a caller.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Which trace a request belongs to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    trace_id: String,
    span_id: String,
    flags: u8,
}

impl TraceContext {
    /// From the caller's `traceparent`, with a span of its own; a new trace where there is none, or none that is
    /// well-formed.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let parsed = headers.get(TRACEPARENT).and_then(|value| value.to_str().ok()).and_then(parse);
        let (trace_id, flags) =
            parsed.unwrap_or_else(|| (format!("{:032x}", rand::rng().random_range(1..=u128::MAX)), 1));
        Self { trace_id, span_id: format!("{:016x}", rand::rng().random_range(1..=u64::MAX)), flags }
    }

    /// 32 hexadecimal digits.
    #[must_use]
    pub fn trace_id(&self) -> &str {
        &self.trace_id
    }

    /// As a header, for the answer and for calls made on the request's behalf.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

impl Default for TraceContext {
    /// A new trace.
    fn default() -> Self {
        Self::of(&HeaderMap::new())
    }
}

/// Trace id and flags of a `traceparent`. Later versions may append fields; version `ff` is forbidden, and so are ids of
/// zeros.
fn parse(text: &str) -> Option<(String, u8)> {
    fn hex(part: &str, digits: usize) -> Option<&str> {
        let fine = part.len() == digits && part.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'a'..=b'f'));
        fine.then_some(part)
    }
    let mut parts = text.split('-');
    let version = hex(parts.next()?, 2)?;
    let trace_id = hex(parts.next()?, 32)?;
    let parent_id = hex(parts.next()?, 16)?;
    let flags = u8::from_str_radix(hex(parts.next()?, 2)?, 16).ok()?;
    let whole = parts.next().is_none() || version != "00";
    let real = version != "ff" && trace_id.bytes().any(|b| b != b'0') && parent_id.bytes().any(|b| b != b'0');
    (whole && real).then(|| (trace_id.to_owned(), flags & 1))
}

/// Finds the trace, drops a request id that is not fit for a log, and tells the caller the trace.
pub(super) async fn follow(mut request: Request, next: Next) -> Response {
    let trace = TraceContext::of(request.headers());
    let fit = |id: &HeaderValue| {
        id.len() <= REQUEST_ID_BYTES_MAX
            && id.as_bytes().iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':'))
    };
    if request.headers().get(REQUEST_ID).is_some_and(|id| id.is_empty() || !fit(id)) {
        request.headers_mut().remove(REQUEST_ID);
    }
    let traceparent = HeaderValue::from_str(&trace.traceparent());
    request.extensions_mut().insert(trace);
    let mut response = next.run(request).await;
    if let Ok(value) = traceparent {
        response.headers_mut().insert(TRACEPARENT, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn of(text: &str) -> TraceContext {
        let mut headers = HeaderMap::new();
        headers.insert(TRACEPARENT, HeaderValue::from_str(text).unwrap());
        TraceContext::of(&headers)
    }

    #[test]
    fn the_callers_trace_goes_on_under_a_span_of_its_own() {
        let trace = of(PARENT);
        assert_eq!(trace.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert!(trace.traceparent().starts_with("00-4bf92f3577b34da6a3ce929d0e0e4736-"));
        assert!(!trace.traceparent().contains("00f067aa0ba902b7"));
        assert!(trace.traceparent().ends_with("-01"));
    }

    #[test]
    fn a_later_version_with_more_fields_is_understood() {
        assert_eq!(of(&PARENT.replacen("00", "cc", 1).replace("-01", "-01-more")).trace_id(), of(PARENT).trace_id());
    }

    #[test]
    fn what_is_not_well_formed_starts_a_new_trace() {
        for text in [
            "",
            "garbage",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7",
        ] {
            let trace = of(text);
            assert_eq!(trace.trace_id().len(), 32);
            assert_ne!(trace.trace_id(), of(PARENT).trace_id(), "{text}");
            assert_ne!(trace.trace_id(), of(text).trace_id(), "drawn anew each time: {text}");
        }
    }
}
