//! What is not let into a document is kept beside it, with its payload, for the office to look at (rules 9, 14, 15).

use super::draft::Draft;
use crate::service::actor::PhoneSession;
use crate::service::model::ExceptionRow;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use sync_core::document::Refusal;
use sync_core::domain::{DispatchId, RulingReason};
use sync_core::protocol::limits::CHANGE_BYTES_MAX;

/// Why a refused change is kept; `None` where the phone will bring it again in an acceptable form.
pub(crate) fn reason(refusal: &Refusal) -> Option<RulingReason> {
    match refusal {
        Refusal::Forbidden(_) | Refusal::BadFact(_) => Some(RulingReason::NoRightAtEpoch),
        Refusal::Malformed(_) | Refusal::TooLarge { .. } => Some(RulingReason::Unknown),
        Refusal::CausallyOpen | Refusal::DuplicateSequence(_) => None,
    }
}

/// Keeps a payload as an exception of the visit. The same payload again is the same exception.
pub(crate) fn keep(draft: &mut Draft, session: &PhoneSession, payload: &[u8], code: &str, reason: RulingReason) {
    let hash = hex(&Sha256::digest(payload));
    let kept = &payload[..payload.len().min(CHANGE_BYTES_MAX)];
    let poison = reason == RulingReason::Unknown;
    let row = ExceptionRow {
        exception_id: id(draft.dispatch(), &hash),
        dispatch_id: draft.dispatch().clone(),
        fact_id: None,
        reason,
        rule: if poison { Some(15) } else { reason.rule().map(|rule| rule.0) },
        technician_id: Some(session.technician.clone()),
        raised_at: draft.frame.now,
        detail: json!({
            "code": code,
            "deviceId": session.device,
            "bytes": payload.len(),
            "sha256": hash,
            "payloadHex": hex(kept),
        }),
        resolved_at: None,
        resolved_by: None,
        resolution: None,
    };
    draft.exceptions.push(row);
    let detail = json!({
        "code": code,
        "technicianId": session.technician,
        "deviceId": session.device,
        "bytes": payload.len(),
        "sha256": hash,
    });
    draft.audit("CHANGE_QUARANTINED", detail);
}

/// One id for one payload on one visit.
fn id(dispatch: &DispatchId, hash: &str) -> String {
    format!("quarantine-{dispatch}-{}", &hash[..32])
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}
