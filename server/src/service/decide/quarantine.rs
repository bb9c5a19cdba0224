//! What is not let into a document is kept beside it, with its payload, for the office to look at (rules 9, 14, 15).

use super::draft::{Draft, Frame, bare_commit};
use super::office::settled;
use crate::service::actor::PhoneSession;
use crate::service::commit::Commit;
use crate::service::error::ServiceError;
use crate::service::model::ExceptionRow;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sync_core::document::Refusal;
use sync_core::domain::{DispatchId, RulingReason, UserId};
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
    let (row, detail) = row(&draft.frame, draft.dispatch(), session, payload, code, reason);
    draft.exceptions.push(row);
    draft.audit("CHANGE_QUARANTINED", detail);
}

/// Keeps the payloads of a visit that is not here: another database may have had it, before this one came back from a copy.
pub(crate) fn keep_apart(
    frame: &Frame,
    dispatch: &DispatchId,
    session: &PhoneSession,
    payloads: &[impl AsRef<[u8]>],
) -> Commit {
    let mut commit = bare_commit(frame);
    for payload in payloads {
        let (row, mut detail) =
            row(frame, dispatch, session, payload.as_ref(), "DISPATCH_NOT_FOUND", RulingReason::NoRightAtEpoch);
        detail["dispatchId"] = json!(dispatch);
        commit.exceptions.push(row);
        commit.audit.push(frame.audit(format!("device:{}", session.device), "CHANGE_QUARANTINED", detail));
    }
    commit
}

/// Settles an exception of a visit that is not here.
pub(crate) fn resolve(
    frame: &Frame,
    mut row: ExceptionRow,
    by: &UserId,
    resolution: &str,
) -> Result<Commit, ServiceError> {
    settled(&mut row, frame.now, by, resolution)?;
    let mut commit = bare_commit(frame);
    let detail = json!({
        "exceptionId": row.exception_id,
        "dispatchId": row.dispatch_id,
        "resolution": resolution,
    });
    commit.audit.push(frame.audit(format!("dispatch:{}", row.dispatch_id), "EXCEPTION_RESOLVED", detail));
    commit.exceptions.push(row);
    Ok(commit)
}

/// The exception, and what the audit trail says of it.
fn row(
    frame: &Frame,
    dispatch: &DispatchId,
    session: &PhoneSession,
    payload: &[u8],
    code: &str,
    reason: RulingReason,
) -> (ExceptionRow, Value) {
    let hash = hex(&Sha256::digest(payload));
    let kept = &payload[..payload.len().min(CHANGE_BYTES_MAX)];
    let poison = reason == RulingReason::Unknown;
    let row = ExceptionRow {
        exception_id: id(dispatch, &hash),
        dispatch_id: dispatch.clone(),
        fact_id: None,
        reason,
        rule: if poison { Some(15) } else { reason.rule().map(|rule| rule.0) },
        technician_id: Some(session.technician.clone()),
        raised_at: frame.now,
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
    let detail = json!({
        "code": code,
        "technicianId": session.technician,
        "deviceId": session.device,
        "bytes": payload.len(),
        "sha256": hash,
    });
    (row, detail)
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
