//! The lifecycle fold.

use super::{VisitState, VisitView};

/// Computes a visit's state from its plan, facts and rulings. Total, and the same for any merge order.
#[must_use]
pub fn fold(view: &VisitView) -> VisitState {
    let _ = view;
    unimplemented!()
}
