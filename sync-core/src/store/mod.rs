//! The phone store.
