//! Frames: one byte of version, one byte of kind, a CBOR map. Batches are compressed together.

use super::limits::{
    BATCH_BYTES_MAX, BATCH_ITEMS_MAX, FETCH_VISITS_MAX, FRAME_BYTES_MAX, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN,
    PUSH_BYTES_MAX, PUSH_CHANGES_MAX, PUSH_LANES_MAX,
};
use super::message::{FeedItem, PhoneMessage, ServerMessage};
use serde::{Serialize, de::DeserializeOwned};
use std::cell::RefCell;
use std::io::Read;

/// A frame or batch that makes no sense, or is over a limit. The connection it came from is closed with a `Bye`; nothing
/// else happens.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    /// Shorter than its two leading bytes.
    #[error("a frame has at least a version and a kind byte")]
    Short,
    /// A version that is no longer, or not yet, understood.
    #[error("protocol version {0} is not understood; versions {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION} are")]
    Version(u8),
    /// The body is no CBOR of the expected shape.
    #[error("the body of a {kind} frame makes no sense: {detail}")]
    Body {
        /// Name of the kind.
        kind: &'static str,
        /// Position and cause.
        detail: String,
    },
    /// Over a named limit.
    #[error("{actual} {what}, at most {limit} are allowed")]
    TooLarge {
        /// `frame bytes`, `lanes`, ….
        what: &'static str,
        /// The limit.
        limit: usize,
        /// What came.
        actual: usize,
    },
}

mod kind {
    pub(super) const HELLO: u8 = 1;
    pub(super) const PUSH: u8 = 2;
    pub(super) const PULL: u8 = 3;
    pub(super) const FETCH: u8 = 4;
    pub(super) const ACK: u8 = 5;
    pub(super) const PING: u8 = 6;
    pub(super) const WIPED: u8 = 7;
    pub(super) const WELCOME: u8 = 65;
    pub(super) const BATCH: u8 = 66;
    pub(super) const PUSH_ACK: u8 = 67;
    pub(super) const PONG: u8 = 69;
    pub(super) const BYE: u8 = 70;
}

/// A batch smaller than this is sent as it is: compressing it would cost more than it saves.
const COMPRESS_FROM_BYTES: usize = 400;
/// zstd's own default: the knee of its speed and ratio.
const COMPRESSION_LEVEL: i32 = 3;

fn frame<T: Serialize>(kind: u8, body: &T) -> Vec<u8> {
    let mut serializer = minicbor_serde::Serializer::new(vec![PROTOCOL_VERSION, kind]);
    // Writing to a Vec cannot fail, and every message type serialises; an empty body would be refused by the other end.
    let _ = body.serialize(&mut serializer);
    serializer.into_encoder().into_writer()
}

fn body<T: DeserializeOwned>(kind: &'static str, bytes: &[u8]) -> Result<T, CodecError> {
    minicbor_serde::from_slice(bytes).map_err(|e| CodecError::Body { kind, detail: e.to_string() })
}

fn within(what: &'static str, limit: usize, actual: usize) -> Result<(), CodecError> {
    if actual > limit { Err(CodecError::TooLarge { what, limit, actual }) } else { Ok(()) }
}

fn open(frame: &[u8]) -> Result<(u8, &[u8]), CodecError> {
    within("frame bytes", FRAME_BYTES_MAX, frame.len())?;
    match frame {
        [version, kind, body @ ..] if (PROTOCOL_VERSION_MIN..=PROTOCOL_VERSION).contains(version) => Ok((*kind, body)),
        [version, _, ..] => Err(CodecError::Version(*version)),
        _ => Err(CodecError::Short),
    }
}

/// Encodes what a phone says.
#[must_use]
pub fn encode_phone(message: &PhoneMessage) -> Vec<u8> {
    match message {
        PhoneMessage::Hello(m) => frame(kind::HELLO, m),
        PhoneMessage::Push(m) => frame(kind::PUSH, m),
        PhoneMessage::Pull(m) => frame(kind::PULL, m),
        PhoneMessage::Fetch(m) => frame(kind::FETCH, m),
        PhoneMessage::Ack(m) => frame(kind::ACK, m),
        PhoneMessage::Ping(m) => frame(kind::PING, m),
        PhoneMessage::Wiped(m) => frame(kind::WIPED, m),
        PhoneMessage::Unknown(kind) => vec![PROTOCOL_VERSION, *kind],
    }
}

/// Decodes what a phone says, and holds it against the limits.
///
/// # Errors
/// [`CodecError`].
pub fn decode_phone(frame: &[u8]) -> Result<PhoneMessage, CodecError> {
    let (kind, bytes) = open(frame)?;
    Ok(match kind {
        kind::HELLO => PhoneMessage::Hello(body("hello", bytes)?),
        kind::PUSH => {
            let push: super::Push = body("push", bytes)?;
            within("lanes", PUSH_LANES_MAX, push.lanes.len())?;
            within("changes", PUSH_CHANGES_MAX, push.lanes.iter().map(|lane| lane.changes.len()).sum())?;
            within("change bytes", PUSH_BYTES_MAX, push.lanes.iter().flat_map(|l| &l.changes).map(|c| c.len()).sum())?;
            PhoneMessage::Push(push)
        }
        kind::PULL => PhoneMessage::Pull(body("pull", bytes)?),
        kind::FETCH => {
            let fetch: super::Fetch = body("fetch", bytes)?;
            within("visits", FETCH_VISITS_MAX, fetch.dispatches.len())?;
            PhoneMessage::Fetch(fetch)
        }
        kind::ACK => PhoneMessage::Ack(body("ack", bytes)?),
        kind::PING => PhoneMessage::Ping(body("ping", bytes)?),
        kind::WIPED => PhoneMessage::Wiped(body("wiped", bytes)?),
        other => PhoneMessage::Unknown(other),
    })
}

/// Encodes what a server says.
#[must_use]
pub fn encode_server(message: &ServerMessage) -> Vec<u8> {
    match message {
        ServerMessage::Welcome(m) => frame(kind::WELCOME, m),
        ServerMessage::Batch(m) => frame(kind::BATCH, m),
        ServerMessage::PushAck(m) => frame(kind::PUSH_ACK, m),
        ServerMessage::Pong(m) => frame(kind::PONG, m),
        ServerMessage::Bye(m) => frame(kind::BYE, m),
        ServerMessage::Unknown(kind) => vec![PROTOCOL_VERSION, *kind],
    }
}

/// Decodes what a server says, and holds it against the limits.
///
/// # Errors
/// [`CodecError`].
pub fn decode_server(frame: &[u8]) -> Result<ServerMessage, CodecError> {
    let (kind, bytes) = open(frame)?;
    Ok(match kind {
        kind::WELCOME => ServerMessage::Welcome(body("welcome", bytes)?),
        kind::BATCH => ServerMessage::Batch(body("batch", bytes)?),
        kind::PUSH_ACK => ServerMessage::PushAck(body("push acknowledgement", bytes)?),
        kind::PONG => ServerMessage::Pong(body("pong", bytes)?),
        kind::BYE => ServerMessage::Bye(body("bye", bytes)?),
        other => ServerMessage::Unknown(other),
    })
}

/// A batch's items as bytes, and whether they are compressed: saved documents repeat each other, so they are compressed
/// together, never one by one.
#[must_use]
pub fn encode_items(items: &[FeedItem]) -> (Vec<u8>, bool) {
    let mut serializer = minicbor_serde::Serializer::new(Vec::new());
    // As in `frame`: writing to a Vec cannot fail.
    let _ = items.serialize(&mut serializer);
    let plain = serializer.into_encoder().into_writer();
    if plain.len() < COMPRESS_FROM_BYTES {
        return (plain, false);
    }
    match PACKER.with_borrow_mut(|packer| pack(packer, &plain)) {
        Ok(packed) if packed.len() < plain.len() => (packed, true),
        _ => (plain, false),
    }
}

thread_local! {
    // Making one costs more than what most batches need of it.
    static PACKER: RefCell<Option<zstd::bulk::Compressor<'static>>> = const { RefCell::new(None) };
    static UNPACKER: RefCell<zstd::zstd_safe::DCtx<'static>> = RefCell::new(zstd::zstd_safe::DCtx::create());
}

fn pack(packer: &mut Option<zstd::bulk::Compressor<'static>>, plain: &[u8]) -> std::io::Result<Vec<u8>> {
    let packer = match packer {
        Some(packer) => packer,
        None => packer.insert(zstd::bulk::Compressor::new(COMPRESSION_LEVEL)?),
    };
    packer.compress(plain)
}

fn unpack(unpacker: &mut zstd::zstd_safe::DCtx<'static>, packed: &[u8]) -> std::io::Result<Vec<u8>> {
    let mut plain = Vec::new();
    // A batch that was cut off leaves the context in the middle of it.
    let reset = unpacker.reset(zstd::zstd_safe::ResetDirective::SessionOnly);
    reset.map_err(|_| std::io::Error::other("the decompressor cannot begin anew"))?;
    let decoder = zstd::stream::read::Decoder::with_context(packed, unpacker);
    decoder.take(BATCH_BYTES_MAX as u64 + 1).read_to_end(&mut plain)?;
    Ok(plain)
}

/// Reads a batch's items back, and holds them against the limits before they cost memory.
///
/// # Errors
/// [`CodecError`].
pub fn decode_items(bytes: &[u8], compressed: bool) -> Result<Vec<FeedItem>, CodecError> {
    let items: Vec<FeedItem> = if compressed {
        let failed = |e: std::io::Error| CodecError::Body { kind: "batch", detail: e.to_string() };
        let plain = UNPACKER.with_borrow_mut(|unpacker| unpack(unpacker, bytes)).map_err(failed)?;
        within("batch bytes", BATCH_BYTES_MAX, plain.len())?;
        body("batch", &plain)?
    } else {
        body("batch", bytes)?
    };
    within("feed items", BATCH_ITEMS_MAX, items.len())?;
    Ok(items)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::StateTag;
    use crate::domain::{Timestamp, Tombstone, TombstoneReason};
    use crate::protocol::{Ack, Bye, ByeCode, Cursor, Digest, Generation, Hello, OutboxMark, Push, PushLane, Welcome};
    use serde_bytes::ByteBuf;

    fn hello() -> Hello {
        Hello {
            device: "dev-00112233445566778899aabbccddeeff".parse().unwrap(),
            app: "field 1.4.2 (android)".into(),
            generation: Some(Generation(u64::MAX)),
            cursor: Cursor(123_456),
            outbox: OutboxMark { high_water: 99_999, pending: 0, oldest: None },
            now: Timestamp::from_millis(1_770_000_000_000),
        }
    }

    /// Invariant 1: a reconnect with nothing new is one round trip of under 300 bytes.
    #[test]
    fn a_reconnect_with_nothing_new_is_under_300_bytes() {
        let there = encode_phone(&PhoneMessage::Hello(hello()));
        let back = encode_server(&ServerMessage::Welcome(Welcome {
            generation: Generation(u64::MAX),
            server_time: Timestamp::from_millis(1_770_000_000_000),
            head: Cursor(123_456),
            digest: Digest(u64::MAX),
        }));
        assert!(there.len() + back.len() < 200, "{} + {}", there.len(), back.len());
    }

    #[test]
    fn every_phone_message_comes_back_as_it_was() {
        let messages = [
            PhoneMessage::Hello(hello()),
            PhoneMessage::Push(Push {
                id: 7,
                lanes: vec![PushLane {
                    dispatch: "DSP-1".parse().unwrap(),
                    changes: vec![ByteBuf::from(vec![1, 2, 3])],
                }],
                outbox: OutboxMark { high_water: 3, pending: 1, oldest: Some(Timestamp::from_millis(5)) },
            }),
            PhoneMessage::Ack(Ack { cursor: Cursor(9), digest_matched: false }),
            PhoneMessage::Unknown(200),
        ];
        for message in messages {
            assert_eq!(decode_phone(&encode_phone(&message)), Ok(message));
        }
    }

    #[test]
    fn a_tombstone_batch_comes_back_as_it_was_small_or_large() {
        let gone = |n: usize| FeedItem::Gone {
            tombstone: Tombstone {
                dispatch_id: format!("DSP-{n}").parse().unwrap(),
                title: "Boiler out".into(),
                reason: TombstoneReason::Reassigned,
                note: None,
                by: "dispatcher@example".into(),
                at: Timestamp::from_millis(1_770_000_000_000),
            },
        };
        for count in [1, 300] {
            let items: Vec<_> = (0..count).map(gone).collect();
            let (bytes, packed) = encode_items(&items);
            assert_eq!(packed, count > 1);
            assert_eq!(decode_items(&bytes, packed), Ok(items));
        }
    }

    #[test]
    fn frames_that_make_no_sense_are_typed_errors() {
        assert_eq!(decode_phone(&[]), Err(CodecError::Short));
        assert_eq!(decode_phone(&[1]), Err(CodecError::Short));
        assert_eq!(decode_phone(&[9, 1]), Err(CodecError::Version(9)));
        assert!(matches!(decode_phone(&[1, 1, 0xff, 0xff]), Err(CodecError::Body { kind: "hello", .. })));
        assert!(matches!(
            decode_phone(&vec![1; FRAME_BYTES_MAX + 1]),
            Err(CodecError::TooLarge { what: "frame bytes", .. })
        ));
        let many = PhoneMessage::Push(Push {
            id: 1,
            lanes: vec![PushLane { dispatch: "D".parse().unwrap(), changes: vec![] }; PUSH_LANES_MAX + 1],
            outbox: OutboxMark::default(),
        });
        assert!(matches!(decode_phone(&encode_phone(&many)), Err(CodecError::TooLarge { what: "lanes", .. })));
    }

    /// A compressed batch that would unpack to more than the limit is refused while it is still small.
    #[test]
    fn a_decompression_bomb_is_refused() {
        let bomb = zstd::bulk::compress(&vec![0; BATCH_BYTES_MAX + 2], 3).unwrap();
        assert!(bomb.len() < 10_000);
        assert!(matches!(decode_items(&bomb, true), Err(CodecError::TooLarge { what: "batch bytes", .. })));
    }

    #[test]
    fn a_batch_that_is_cut_off_leaves_nothing_behind_for_the_next_one() {
        let items: Vec<_> = (0..20).map(|n| gone(&format!("DSP-{n}"))).collect();
        let (packed, compressed) = encode_items(&items);
        assert!(compressed);
        assert!(matches!(decode_items(&packed[..packed.len() / 2], true), Err(CodecError::Body { .. })));
        assert_eq!(decode_items(&packed, true).as_ref(), Ok(&items));
        assert_eq!(encode_items(&items), (packed, true));
    }

    fn gone(dispatch: &str) -> FeedItem {
        let tombstone = Tombstone {
            dispatch_id: dispatch.parse().unwrap(),
            title: "Boiler".into(),
            reason: TombstoneReason::Unassigned,
            note: None,
            by: "office".into(),
            at: Timestamp::from_millis(1),
        };
        FeedItem::Gone { tombstone }
    }

    /// Invariant 8: what a newer release adds is ignored.
    #[test]
    fn unknown_fields_and_codes_of_a_newer_release_are_ignored() {
        #[derive(serde::Serialize)]
        struct NewerBye {
            c: &'static str,
            r: u32,
            zz: Vec<u8>,
        }
        let bytes = frame(kind::BYE, &NewerBye { c: "moved_to_the_moon", r: 5, zz: vec![1, 2] });
        assert_eq!(
            decode_server(&bytes),
            Ok(ServerMessage::Bye(Bye { code: ByeCode::Unknown, retry_after_ms: Some(5), message: String::new() }))
        );
    }

    #[test]
    fn the_digest_forgets_what_was_toggled_twice() {
        let id = "DSP-1".parse().unwrap();
        let digest = Digest(42).toggled(&id, StateTag(7));
        assert_ne!(digest, Digest(42));
        assert_eq!(digest.toggled(&id, StateTag(7)), Digest(42));
    }
}
