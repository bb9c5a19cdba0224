//! Frames and batches as a broken or hostile peer could send them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use sync_core::protocol::codec::{
    decode_items, decode_phone, decode_server, encode_items, encode_phone, encode_server,
};
use sync_core::protocol::{PhoneMessage, ServerMessage};

fuzz_target!(|data: &[u8]| {
    let Some((door, bytes)) = data.split_first() else { return };
    // Bytes are compared, not messages: a position may hold a number that is none, and equals nothing.
    match door % 4 {
        0 => {
            let Ok(message) = decode_phone(bytes) else { return };
            if !matches!(message, PhoneMessage::Unknown(_)) {
                let encoded = encode_phone(&message);
                assert_eq!(encode_phone(&decode_phone(&encoded).unwrap()), encoded);
            }
        }
        1 => {
            let Ok(message) = decode_server(bytes) else { return };
            if let ServerMessage::Batch(batch) = &message {
                let _ = decode_items(&batch.items, batch.zstd);
            }
            if !matches!(message, ServerMessage::Unknown(_)) {
                let encoded = encode_server(&message);
                assert_eq!(encode_server(&decode_server(&encoded).unwrap()), encoded);
            }
        }
        form => {
            let Ok(items) = decode_items(bytes, form == 3) else { return };
            let encoded = encode_items(&items);
            assert_eq!(encode_items(&decode_items(&encoded.0, encoded.1).unwrap()), encoded);
        }
    }
});
