//! The audit trail's hash chain: every line of an aggregate's trail names the line before it, so that a line that was
//! changed, removed or slipped in later is found.

use crate::service::model::AuditRecord;
use sha2::{Digest as _, Sha256};
use sync_core::domain::{TenantId, Timestamp};

/// What the first line of a chain has for a previous hash.
pub const AUDIT_GENESIS: [u8; 32] = [0; 32];

/// One line, as it is hashed.
#[derive(Debug, Clone, Copy)]
pub struct AuditLine<'a> {
    /// Whose.
    pub tenant: &'a TenantId,
    /// The chain.
    pub aggregate: &'a str,
    /// Position in the chain, from 1.
    pub seq: u64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: &'a str,
    /// What.
    pub action: &'a str,
    /// Machine-readable detail.
    pub detail: &'a serde_json::Value,
    /// The line before, or [`AUDIT_GENESIS`].
    pub previous_hash: &'a [u8; 32],
}

/// SHA-256 over all fields, each preceded by its length (8 bytes, big endian), so that no two lines have the same bytes.
/// The detail's members are taken in the order of their names, whatever order they were written in.
#[must_use]
pub fn audit_hash(line: &AuditLine<'_>) -> [u8; 32] {
    let mut detail = String::new();
    canonical(line.detail, &mut detail);
    let (seq, at) = (line.seq.to_be_bytes(), line.at.millis().to_be_bytes());
    let fields: [&[u8]; 8] = [
        line.tenant.as_str().as_bytes(),
        line.aggregate.as_bytes(),
        &seq,
        &at,
        line.actor.as_bytes(),
        line.action.as_bytes(),
        detail.as_bytes(),
        line.previous_hash,
    ];
    let mut hash = Sha256::new();
    for field in fields {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field);
    }
    hash.finalize().into()
}

/// Checks a stretch of one chain, oldest first. A stretch that begins at line 1 must begin the chain; one that begins
/// later is trusted as to the line before it.
///
/// # Errors
/// The index of the first line that does not fit.
pub fn verify_chain(tenant: &TenantId, lines: &[AuditRecord]) -> Result<(), usize> {
    let mut before: Option<&AuditRecord> = None;
    for (index, line) in lines.iter().enumerate() {
        let follows = match before {
            Some(before) => {
                line.aggregate == before.aggregate && line.seq == before.seq + 1 && line.previous_hash == before.hash
            }
            None => line.seq > 1 || (line.seq == 1 && line.previous_hash == to_hex(&AUDIT_GENESIS)),
        };
        let previous_hash = from_hex(&line.previous_hash).ok_or(index)?;
        let hash = audit_hash(&AuditLine {
            tenant,
            aggregate: &line.aggregate,
            seq: line.seq,
            at: line.at,
            actor: &line.actor,
            action: &line.action,
            detail: &line.detail,
            previous_hash: &previous_hash,
        });
        if !follows || to_hex(&hash) != line.hash {
            return Err(index);
        }
        before = Some(line);
    }
    Ok(())
}

/// Lower-case hex.
pub(crate) fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn from_hex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let high = char::from(pair[0]).to_digit(16)?;
        let low = char::from(pair[1]).to_digit(16)?;
        *byte = u8::try_from(high * 16 + low).ok()?;
    }
    Some(bytes)
}

/// JSON without spaces, members sorted by name.
fn canonical(value: &serde_json::Value, out: &mut String) {
    match value {
        serde_json::Value::Array(items) => {
            out.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                canonical(item, out);
            }
            out.push(']');
        }
        serde_json::Value::Object(members) => {
            let mut sorted: Vec<_> = members.iter().collect();
            sorted.sort_by(|a, b| a.0.cmp(b.0));
            out.push('{');
            for (index, (name, member)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                out.push_str(&serde_json::Value::from(name.as_str()).to_string());
                out.push(':');
                canonical(member, out);
            }
            out.push('}');
        }
        leaf => out.push_str(&leaf.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn chain(tenant: &TenantId, details: &[serde_json::Value]) -> Vec<AuditRecord> {
        let mut previous_hash = AUDIT_GENESIS;
        let mut lines = Vec::new();
        for (index, detail) in details.iter().enumerate() {
            let seq = index as u64 + 1;
            let line = AuditLine {
                tenant,
                aggregate: "dispatch:DSP-1",
                seq,
                at: Timestamp::from_millis(1_000 * seq as i64),
                actor: "dispatcher@acme",
                action: "DISPATCH_ASSIGNED",
                detail,
                previous_hash: &previous_hash,
            };
            let hash = audit_hash(&line);
            lines.push(AuditRecord {
                aggregate: line.aggregate.into(),
                seq,
                at: line.at,
                actor: line.actor.into(),
                action: line.action.into(),
                detail: detail.clone(),
                previous_hash: to_hex(&previous_hash),
                hash: to_hex(&hash),
            });
            previous_hash = hash;
        }
        lines
    }

    #[test]
    fn a_line_that_was_changed_removed_moved_or_slipped_in_is_found() {
        let tenant = TenantId::new("acme").unwrap();
        let lines = chain(&tenant, &[json!({"epoch": 1}), json!({"epoch": 2}), json!({"km": 42.5}), json!(null)]);
        assert_eq!(verify_chain(&tenant, &lines), Ok(()));
        assert_eq!(verify_chain(&tenant, &lines[2..]), Ok(()), "a later stretch is a chain too");
        assert_eq!(verify_chain(&TenantId::new("other").unwrap(), &lines), Err(0), "another tenant's trail");

        let mut changed = lines.clone();
        changed[1].detail = json!({"epoch": 3});
        assert_eq!(verify_chain(&tenant, &changed), Err(1));
        let mut backdated = lines.clone();
        backdated[2].at = Timestamp::from_millis(1);
        assert_eq!(verify_chain(&tenant, &backdated), Err(2));
        let mut removed = lines.clone();
        removed.remove(1);
        assert_eq!(verify_chain(&tenant, &removed), Err(1));
        let mut moved = lines.clone();
        moved.swap(1, 2);
        assert_eq!(verify_chain(&tenant, &moved), Err(1));
        let mut slipped_in = lines.clone();
        slipped_in.insert(2, lines[1].clone());
        assert_eq!(verify_chain(&tenant, &slipped_in), Err(2));
        let mut headless = lines[1..].to_vec();
        headless[0].seq = 1;
        assert_eq!(verify_chain(&tenant, &headless), Err(0), "a chain begins with its genesis");
    }

    #[test]
    fn the_order_of_members_does_not_matter_and_lengths_keep_fields_apart() {
        let tenant = TenantId::new("acme").unwrap();
        let one: serde_json::Value = serde_json::from_str(r#"{"b":[1,{"y":2,"x":"é"}],"a":null}"#).unwrap();
        let other: serde_json::Value = serde_json::from_str(r#"{"a":null,"b":[1,{"x":"é","y":2}]}"#).unwrap();
        assert_eq!(chain(&tenant, &[one]), chain(&tenant, &[other]));

        let detail = json!({});
        let line = |actor, action| AuditLine {
            tenant: &tenant,
            aggregate: "dispatch:DSP-1",
            seq: 1,
            at: Timestamp::from_millis(0),
            actor,
            action,
            detail: &detail,
            previous_hash: &AUDIT_GENESIS,
        };
        assert_ne!(audit_hash(&line("ab", "c")), audit_hash(&line("a", "bc")));
    }
}
