//! What a fact must look like to be let in at all (rules 11 and 15).
//!
//! As little as possible: facts of every released version are accepted, and what happened is never dropped for being
//! incomplete. What is refused here could not be stored, ordered, or shown.

use crate::domain::fact::{FACT_TEXT_BYTES_MAX, Position};
use crate::domain::geo::Coordinates;
use crate::domain::{Fact, FactKind};

/// The highest sequence number, epoch or count: databases keep them as signed 64-bit numbers.
pub const NUMBER_MAX: u64 = i64::MAX.unsigned_abs();

/// Length of a SHA-256 in hex.
const SHA256_HEX_LEN: usize = 64;

/// Checks the form of a fact: schema and sequence number from 1, texts within [`FACT_TEXT_BYTES_MAX`], quantities from
/// 1, hashes and positions well-formed. A kind that this release does not know has nothing more to check.
///
/// # Errors
/// What is wrong, for people.
pub fn validate_fact(fact: &Fact) -> Result<(), String> {
    if fact.schema == 0 {
        return Err("the schema version starts at 1".to_owned());
    }
    if fact.seq == 0 || fact.seq > NUMBER_MAX {
        return Err("a sequence number lies between 1 and 2^63-1".to_owned());
    }
    if fact.epoch > NUMBER_MAX {
        return Err("an epoch lies between 0 and 2^63-1".to_owned());
    }
    if let Some(position) = fact.position {
        validate_position(position)?;
    }
    match &fact.kind {
        FactKind::Rejected { reason } | FactKind::CannotComplete { reason } => within_limit("reason", reason),
        FactKind::Paused { reason } => reason.as_deref().map_or(Ok(()), |reason| within_limit("reason", reason)),
        FactKind::TimeEntry { category, .. } => within_limit("category", category),
        FactKind::PartUsed { quantity: 0, .. } => Err("a part is used at least once".to_owned()),
        FactKind::PartUsed { quantity: 2.., serial: Some(_), .. } => {
            Err("a serial number stands for one part, not for several".to_owned())
        }
        FactKind::Photo { sha256, bytes, media_type } => {
            if *bytes > NUMBER_MAX {
                return Err("a photo's length lies below 2^63".to_owned());
            }
            within_limit("media type", media_type)?;
            sha256_hex(sha256)
        }
        FactKind::Signature { signer, sha256 } => {
            within_limit("signer", signer)?;
            sha256_hex(sha256)
        }
        FactKind::Accepted { .. }
        | FactKind::TravelStarted { .. }
        | FactKind::Arrived
        | FactKind::WorkStarted
        | FactKind::Resumed
        | FactKind::Completed
        | FactKind::PartUsed { .. }
        | FactKind::WindowAcknowledged { .. }
        | FactKind::Unknown => Ok(()),
    }
}

fn validate_position(position: Position) -> Result<(), String> {
    let place = Coordinates { latitude: position.latitude, longitude: position.longitude };
    if !place.is_valid() {
        return Err("a position lies within 90 degrees north or south and 180 degrees east or west".to_owned());
    }
    if !position.accuracy_m.is_finite() || position.accuracy_m < 0.0 {
        return Err("a position's accuracy is a finite number of metres, not negative".to_owned());
    }
    Ok(())
}

fn within_limit(what: &str, text: &str) -> Result<(), String> {
    if text.len() > FACT_TEXT_BYTES_MAX {
        return Err(format!("the {what} has {} bytes, at most {FACT_TEXT_BYTES_MAX} are allowed", text.len()));
    }
    Ok(())
}

fn sha256_hex(text: &str) -> Result<(), String> {
    let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if text.len() == SHA256_HEX_LEN && is_hex {
        Ok(())
    } else {
        Err(format!("a SHA-256 has {SHA256_HEX_LEN} lower-case hexadecimal digits"))
    }
}
