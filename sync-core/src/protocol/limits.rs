//! Every bound of the protocol, by name. What comes from outside is held against one of these before it costs anything.

/// The protocol version that this release speaks.
pub const PROTOCOL_VERSION: u8 = 1;
/// The oldest version that is still understood.
pub const PROTOCOL_VERSION_MIN: u8 = 1;
/// The WebSocket path.
pub const SYNC_PATH: &str = "/api/v1/crm/dispatch/sync";
/// The WebSocket subprotocol.
pub const SUBPROTOCOL: &str = "crm-dispatch-sync.v1";

/// Largest frame in either direction.
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;
/// Largest batch after decompression.
pub const BATCH_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Most feed items in one batch.
pub const BATCH_ITEMS_MAX: usize = 1_000;
/// Most uncompressed document bytes that a server puts into one batch before it starts the next.
pub const BATCH_BYTES_TARGET: usize = 2 * 1024 * 1024;
/// Most changes in one push.
pub const PUSH_CHANGES_MAX: usize = 1_000;
/// Most change bytes in one push; a phone splits a larger outbox.
pub const PUSH_BYTES_MAX: usize = 768 * 1024;
/// Most visits in one push.
pub const PUSH_LANES_MAX: usize = 500;
/// Most visits in one fetch.
pub const FETCH_VISITS_MAX: usize = 100;
/// Largest change.
pub const CHANGE_BYTES_MAX: usize = 64 * 1024;
/// Most operations in a change.
pub const CHANGE_OPS_MAX: usize = 10_000;
/// Largest saved document; smaller than a frame, so that any document can travel whole.
pub const DOCUMENT_BYTES_MAX: usize = 768 * 1024;
/// Most facts in one visit; so many, and a ruling on each, fit into a document.
pub const FACTS_MAX: usize = 2_000;
/// Longest notes, characters.
pub const NOTE_CHARS_MAX: usize = 50_000;
/// Longest checklist answer or summary, bytes.
pub const ANSWER_BYTES_MAX: usize = 4_000;
/// Batches sent and not yet acknowledged; beyond it the server waits, so that a slow phone holds nothing but its place.
pub const BATCHES_UNACKNOWLEDGED_MAX: u32 = 8;
/// Pushes sent and not yet acknowledged.
pub const PUSHES_UNACKNOWLEDGED_MAX: u32 = 1;
/// Frames per second that a phone may send on average, and at once; a flood is closed with `Bye`.
pub const FRAMES_PER_SECOND_MAX: u32 = 50;
/// Burst over [`FRAMES_PER_SECOND_MAX`].
pub const FRAMES_BURST_MAX: u32 = 500;

/// A phone pings when it has heard nothing for this long.
pub const PING_AFTER_IDLE_MS: i64 = 25_000;
/// No answer for this long after a ping: half-open, reconnect.
pub const PONG_TIMEOUT_MS: i64 = 10_000;
/// A server closes a connection that has been silent for this long.
pub const SILENCE_MAX_MS: i64 = 90_000;
/// No `Hello` for this long after the upgrade: closed.
pub const HELLO_TIMEOUT_MS: i64 = 10_000;
/// Most pushes with which a revoked phone hands over what is unsent.
pub const LATE_PUSHES_MAX: u32 = 64;
/// A revoked phone has this long to report that it has removed what it held, from the last that it handed over.
pub const WIPE_TIMEOUT_MS: i64 = 10_000;
/// No acknowledgement of a push for this long: reconnect and send again.
pub const PUSH_TIMEOUT_MS: i64 = 30_000;
/// First reconnect delay; doubles up to [`BACKOFF_MAX_MS`], with full jitter.
pub const BACKOFF_MIN_MS: i64 = 500;
/// Longest reconnect delay.
pub const BACKOFF_MAX_MS: i64 = 60_000;
/// Longest retry-after that a phone believes.
pub const RETRY_AFTER_MAX_MS: i64 = 15 * 60 * 1000;
/// A phone keeps acknowledged changes for this long, and gives them again to a server that came back from an older copy.
pub const ACKNOWLEDGED_KEPT_MS: i64 = 14 * 24 * 60 * 60 * 1000;
