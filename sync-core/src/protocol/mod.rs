//! What phone and server say to each other: binary WebSocket frames, versioned.
//!
//! A frame is one byte of protocol version, one byte of message kind, and a CBOR map. Unknown kinds and unknown map
//! keys are ignored, so that old phones stay in the field for years.

pub mod codec;
pub mod limits;
pub mod message;

pub use codec::{CodecError, decode_items, decode_phone, decode_server, encode_items, encode_phone, encode_server};
pub use message::*;
