//! What can be said of changes without opening the document that they belong to.

use super::{ChangeHash, StateTag, chunk};
use sha2::{Digest as _, Sha256};

/// A change with more dependencies is not looked at closely: a visit has a handful of writers.
const HEADS_MAX: usize = 16;

/// The tag of a document after `changes`, when they follow one another on exactly the content that `before` names; `None`
/// when they do not, which says nothing against them.
///
/// So a phone that has nothing of its own can append the server's changes to the saved document, and open it later or
/// never. The changes' checksums are verified.
#[must_use]
pub fn chained(before: StateTag, changes: &[impl AsRef<[u8]>]) -> Option<StateTag> {
    let mut tag = before;
    for change in changes {
        let bytes = change.as_ref();
        let hash = chunk::identify_any_size(bytes).ok()?;
        if !builds_on(tag, chunk::dependencies(bytes)?) {
            return None;
        }
        tag = tag_of(&[hash]);
    }
    Some(tag)
}

/// True when the dependencies are the heads that `tag` names. An actor names its own last change besides, even where that
/// lies behind the heads already; then it was in the document that had these heads, and so it is in this one.
fn builds_on(tag: StateTag, mut dependencies: Vec<ChangeHash>) -> bool {
    dependencies.sort_unstable();
    let without = |left_out: usize| {
        let mut heads = dependencies.clone();
        heads.remove(left_out);
        tag_of(&heads)
    };
    tag_of(&dependencies) == tag
        || (2..=HEADS_MAX).contains(&dependencies.len()) && (0..dependencies.len()).any(|at| without(at) == tag)
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
