//! What can be said of changes without opening the document that they belong to.

use super::{ChangeHash, StateTag, chunk};
use sha2::{Digest as _, Sha256};

/// A change with more dependencies is not looked at closely: a visit has a handful of writers.
const HEADS_MAX: usize = 16;

/// The tag of a document after `changes`, when they follow one another on exactly the content that `before` names; `None`
/// when they do not, or when that cannot be told, which says nothing against them.
///
/// So a phone that has nothing of its own can append the server's changes to the saved document, and open it later or
/// never. The changes' checksums are verified. `base` is the content that the server says it made them on, where it says so.
#[must_use]
pub fn chained(before: StateTag, base: Option<StateTag>, changes: &[impl AsRef<[u8]>]) -> Option<StateTag> {
    let mut tag = before;
    let mut seen = Vec::with_capacity(changes.len());
    for change in changes {
        let bytes = change.as_ref();
        let hash = chunk::identify_any_size(bytes).ok()?;
        let same_content = seen.is_empty() && base == Some(before);
        if !builds_on(tag, chunk::dependencies(bytes)?, |left_out| same_content || seen.contains(left_out)) {
            return None;
        }
        tag = tag_of(&[hash]);
        seen.push(hash);
    }
    Some(tag)
}

/// True when the dependencies are the heads that `tag` names. An actor names its own last change besides, even where that
/// lies behind the heads already. Whether it does cannot be seen: it may as well be a head that is missing here, as after an
/// acknowledgement that was lost. So it must be known to be `there`.
fn builds_on(tag: StateTag, mut dependencies: Vec<ChangeHash>, there: impl Fn(&ChangeHash) -> bool) -> bool {
    dependencies.sort_unstable();
    let without = |left_out: usize| {
        let mut heads = dependencies.clone();
        let left_out = heads.remove(left_out);
        there(&left_out) && tag_of(&heads) == tag
    };
    tag_of(&dependencies) == tag
        || (2..=HEADS_MAX).contains(&dependencies.len()) && (0..dependencies.len()).any(without)
}

/// Names a content by its heads, which are sorted, as in [`super::VisitDoc::tag`].
fn tag_of(heads: &[ChangeHash]) -> StateTag {
    let mut hash = Sha256::new();
    for head in heads {
        hash.update(head.0);
    }
    let [a, b, c, d, e, f, g, h, ..]: [u8; 32] = hash.finalize().into();
    StateTag(u64::from_be_bytes([a, b, c, d, e, f, g, h]))
}
