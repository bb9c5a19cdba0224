//! Walking the whole audit trail: every line of every chain of every tenant, a page at a time, against the line before it and
//! against what the database says is the chain's end.
//!
//! **What it finds:** a line that was changed, removed, moved or slipped in; a chain whose end, or all of which, was cut
//! off. **What it cannot see:** that somebody who may write to the database cut off an end and set the chain's head back to match,
//! removed a chain together with its head, or computed all hashes from a line on anew: hashes have no secret. Against that
//! helps a copy which that person cannot write to, compared by length and last hash.

use crate::store::audit::{AUDIT_GENESIS, AuditLine, audit_hash};
use crate::store::{Journal, StoreError};
use std::collections::BTreeMap;
use sync_core::domain::{TenantId, Timestamp};

/// Lines, or heads, read at once. With the largest detail that a call can write, some megabytes.
const PAGE: u32 = 500;
/// Broken chains that a report names; further ones are counted.
pub const BREAKS_NAMED_MAX: usize = 1_000;

/// A place in the trail. Lines are ordered by tenant, chain and number.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AuditPlace {
    /// Whose.
    pub tenant: String,
    /// The chain.
    pub aggregate: String,
    /// The line.
    pub seq: i64,
}

/// A line as it lies in the database, nothing of it believed, and the end of its chain as of the same look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAuditLine {
    /// Where.
    pub place: AuditPlace,
    /// When, milliseconds since the Unix epoch.
    pub at_ms: i64,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// JSON.
    pub detail: String,
    /// The hash of the line before.
    pub previous_hash: Vec<u8>,
    /// Its own.
    pub hash: Vec<u8>,
    /// The number and hash of the chain's last line.
    pub head: Option<(i64, Vec<u8>)>,
}

/// What the database says is the end of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredAuditHead {
    /// The chain, and its last line.
    pub place: AuditPlace,
    /// False when the chain has no line at all.
    pub has_lines: bool,
}

/// Which chains are walked.
#[derive(Debug, Clone, Default)]
pub struct AuditScope {
    /// Of one tenant; of all.
    pub tenant: Option<TenantId>,
    /// One chain of that tenant, as `dispatch:DSP-7`; all.
    pub aggregate: Option<String>,
}

impl AuditScope {
    /// Before its first line.
    fn start(&self) -> AuditPlace {
        AuditPlace {
            tenant: self.tenant.as_ref().map(ToString::to_string).unwrap_or_default(),
            aggregate: self.aggregate.clone().unwrap_or_default(),
            seq: i64::MIN,
        }
    }

    fn covers(&self, place: &AuditPlace) -> bool {
        self.tenant.as_ref().is_none_or(|tenant| tenant.as_str() == place.tenant)
            && self.aggregate.as_ref().is_none_or(|aggregate| *aggregate == place.aggregate)
    }
}

/// Where a chain breaks: its first line that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditBreak {
    /// The chain, and the line.
    pub place: AuditPlace,
    /// What is wrong there.
    pub fault: AuditFault,
}

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuditFault {
    /// Its content is not what was hashed.
    #[error("the line was changed: its content is not what its hash was made of")]
    Changed,
    /// A stretch before it is gone.
    #[error("lines {from} to {to} are missing before it")]
    Missing {
        /// The first that is missing.
        from: i64,
        /// The last.
        to: i64,
    },
    /// It names another line before it.
    #[error("it does not follow the line before it: one of the two was moved, slipped in or exchanged")]
    Unlinked,
    /// A part of it cannot be read.
    #[error("its {0} cannot be read: it was changed")]
    Unreadable(&'static str),
    /// The chain goes on to here, the database says.
    #[error("the chain ends with this line, and {0} later ones were written: they are missing")]
    EndMissing(i64),
    /// All of the chain is gone.
    #[error("all {0} lines of the chain are missing")]
    AllMissing(i64),
    /// The head names an earlier line, another one, or does not exist.
    #[error("it is the last line, and the recorded end of the chain is another one, or missing")]
    HeadDiffers,
}

/// What was walked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct AuditTally {
    /// Chains.
    pub chains: u64,
    /// Lines.
    pub lines: u64,
    /// Chains that break somewhere.
    pub broken: u64,
}

/// What a walk found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditReport {
    /// By tenant.
    pub tenants: BTreeMap<String, AuditTally>,
    /// In the order of the walk; at most [`BREAKS_NAMED_MAX`].
    pub breaks: Vec<AuditBreak>,
}

impl AuditReport {
    /// All tenants together.
    #[must_use]
    pub fn total(&self) -> AuditTally {
        self.tenants.values().fold(AuditTally::default(), |sum, one| AuditTally {
            chains: sum.chains + one.chains,
            lines: sum.lines + one.lines,
            broken: sum.broken + one.broken,
        })
    }
}

/// Walks. Memory does not grow with the trail; the server may go on writing. `progress` is told how much was walked, once a page.
///
/// # Errors
/// The database's: nothing is known then.
pub async fn verify_audit(
    store: &(impl Journal + ?Sized),
    scope: &AuditScope,
    mut progress: impl FnMut(AuditTally),
) -> Result<AuditReport, StoreError> {
    let mut walk = Walk { report: AuditReport::default(), chain: None };
    let mut after = scope.start();
    loop {
        let page = store.audit_walk(&after, PAGE).await?;
        let covered = page.iter().take_while(|line| scope.covers(&line.place));
        covered.for_each(|line| walk.line(line));
        progress(walk.report.total());
        match page.last() {
            Some(last) if scope.covers(&last.place) => after = last.place.clone(),
            _ => break,
        }
    }
    walk.end_of_chain();
    let mut from = scope.start();
    let mut already = None;
    loop {
        let page = store.audit_heads(&from, PAGE).await?;
        let covered = page.iter().take_while(|head| scope.covers(&head.place));
        for head in covered.filter(|head| !head.has_lines && already.as_ref() != Some(&head.place)) {
            walk.without_lines(&head.place);
        }
        match page.last() {
            Some(last) if scope.covers(&last.place) && already.as_ref() != Some(&last.place) => {
                from = last.place.clone();
                already = Some(last.place.clone());
            }
            _ => break,
        }
    }
    Ok(walk.report)
}

struct Walk {
    report: AuditReport,
    chain: Option<Chain>,
}

/// The chain that is being walked.
struct Chain {
    last: AuditPlace,
    last_hash: Vec<u8>,
    head: Option<(i64, Vec<u8>)>,
    is_broken: bool,
}

impl Walk {
    fn line(&mut self, line: &StoredAuditLine) {
        let place = &line.place;
        let follows =
            self.chain.as_ref().filter(|it| it.last.tenant == place.tenant && it.last.aggregate == place.aggregate);
        let (before, was_broken) = match follows {
            Some(chain) => ((chain.last.seq, chain.last_hash.as_slice()), chain.is_broken),
            None => ((0, AUDIT_GENESIS.as_slice()), false),
        };
        // Behind its first break a chain says nothing more.
        let fault = if was_broken { None } else { fault(line, before) };
        if follows.is_none() {
            self.end_of_chain();
            self.tally(&place.tenant).chains += 1;
        }
        self.tally(&place.tenant).lines += 1;
        let is_broken = was_broken || fault.is_some();
        if let Some(fault) = fault {
            self.breaks(place.clone(), fault);
        }
        let (head, last_hash) = (line.head.clone(), line.hash.clone());
        self.chain = Some(Chain { last: place.clone(), last_hash, head, is_broken });
    }

    /// The last line's head is of the same look as the line, so that a server that goes on writing is not taken for a forger.
    fn end_of_chain(&mut self) {
        let Some(Chain { last, last_hash, head, is_broken: false }) = self.chain.take() else { return };
        match head {
            Some((seq, _)) if seq > last.seq => {
                let missing = seq.saturating_sub(last.seq);
                self.breaks(last, AuditFault::EndMissing(missing));
            }
            Some((seq, hash)) if seq == last.seq && hash == last_hash => {}
            _ => self.breaks(last, AuditFault::HeadDiffers),
        }
    }

    fn without_lines(&mut self, head: &AuditPlace) {
        self.tally(&head.tenant).chains += 1;
        self.breaks(head.clone(), AuditFault::AllMissing(head.seq));
    }

    fn tally(&mut self, tenant: &str) -> &mut AuditTally {
        self.report.tenants.entry(tenant.to_owned()).or_default()
    }

    fn breaks(&mut self, place: AuditPlace, fault: AuditFault) {
        self.tally(&place.tenant).broken += 1;
        if self.report.breaks.len() < BREAKS_NAMED_MAX {
            self.report.breaks.push(AuditBreak { place, fault });
        }
    }
}

/// What is wrong with a line that comes after line `before.0`, whose hash is `before.1`.
fn fault(line: &StoredAuditLine, before: (i64, &[u8])) -> Option<AuditFault> {
    let place = &line.place;
    let (Ok(seq), true) = (u64::try_from(place.seq), place.seq > before.0) else {
        return Some(AuditFault::Unreadable("number"));
    };
    if place.seq > before.0 + 1 {
        return Some(AuditFault::Missing { from: before.0 + 1, to: place.seq - 1 });
    }
    if line.previous_hash != before.1 {
        return Some(AuditFault::Unlinked);
    }
    let Ok(tenant) = place.tenant.parse::<TenantId>() else { return Some(AuditFault::Unreadable("tenant")) };
    let Ok(detail) = serde_json::from_str(&line.detail) else { return Some(AuditFault::Unreadable("detail")) };
    let Ok(previous_hash) = line.previous_hash.as_slice().try_into() else {
        return Some(AuditFault::Unreadable("previous hash"));
    };
    let hash = audit_hash(&AuditLine {
        tenant: &tenant,
        aggregate: &place.aggregate,
        seq,
        at: Timestamp::from_millis(line.at_ms),
        actor: &line.actor,
        action: &line.action,
        detail: &detail,
        previous_hash: &previous_hash,
    });
    (hash.as_slice() != line.hash).then_some(AuditFault::Changed)
}
