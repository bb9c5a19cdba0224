//! Facts, rulings and answers as CBOR.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Deepest nesting that is read; a fact of this release has 3 levels.
const DEPTH_MAX: usize = 16;

pub(super) fn to_cbor<T: Serialize>(value: &T) -> Option<Vec<u8>> {
    minicbor_serde::to_vec(value).ok()
}

/// Reads exactly one value. A fact's flattened fields make serde buffer what it does not know, one stack frame a level:
/// so the nesting is held against [`DEPTH_MAX`] first, or a few bytes could end the process.
pub(super) fn from_cbor<T: DeserializeOwned>(bytes: &[u8]) -> Option<T> {
    is_one_shallow_item(bytes)?;
    minicbor_serde::from_slice(bytes).ok()
}

fn is_one_shallow_item(mut bytes: &[u8]) -> Option<()> {
    // What is open, each with the number of items still to come; `None` until a break.
    let mut open: Vec<Option<u64>> = Vec::new();
    loop {
        let (head, rest) = bytes.split_first()?;
        bytes = rest;
        let contains = match (head >> 5, head & 0x1f) {
            (7, 31) => {
                // A break ends what has no length.
                if open.pop()?.is_some() {
                    return None;
                }
                Some(0)
            }
            (2..=5, 31) => None,
            (major, info) => {
                let argument = match info {
                    0..=23 => u64::from(info),
                    24..=27 => {
                        let (argument, rest) = bytes.split_at_checked(1 << (info - 24))?;
                        bytes = rest;
                        argument.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
                    }
                    _ => return None,
                };
                match major {
                    2 | 3 => {
                        bytes = bytes.get(usize::try_from(argument).ok()?..)?;
                        Some(0)
                    }
                    4 => Some(argument),
                    5 => Some(argument.checked_mul(2)?),
                    6 => Some(1),
                    _ => Some(0),
                }
            }
        };
        if contains != Some(0) {
            if open.len() == DEPTH_MAX {
                return None;
            }
            open.push(contains);
            continue;
        }
        // An item is complete, and with it everything of which it was the last one.
        while let Some(Some(left)) = open.last_mut() {
            *left -= 1;
            if *left > 0 {
                break;
            }
            open.pop();
        }
        if open.is_empty() {
            return bytes.is_empty().then_some(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{DEPTH_MAX, is_one_shallow_item};

    #[test]
    fn whole_items_of_every_form_are_shallow() {
        for bytes in [
            &[0x00][..],
            &[0x18, 0xff],
            &[0x1b, 0, 0, 0, 0, 0, 0, 0, 1],
            &[0x20],
            &[0x43, 1, 2, 3],
            &[0x5f, 0x41, 1, 0x41, 2, 0xff],
            &[0x62, b'o', b'k'],
            &[0x80],
            &[0x82, 1, 2],
            &[0x9f, 0xff],
            &[0x9f, 1, 0x81, 2, 0xff],
            &[0xa1, 0x61, b'k', 0x9f, 0xff],
            &[0xbf, 0x61, b'k', 0xf6, 0xff],
            &[0xc1, 0x00],
            &[0xfb, 0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(is_one_shallow_item(bytes), Some(()), "{bytes:02x?}");
        }
    }

    #[test]
    fn pieces_and_depths_are_not() {
        for bytes in [
            &[][..],
            &[0x18],
            &[0x42, 1],
            &[0x82, 1],
            &[0x9f, 1],
            &[0xff],
            &[0x81, 0xff],
            &[0x1f],
            &[0x1c],
            &[0x00, 0x00],
            &[0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0xbb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(is_one_shallow_item(bytes), None, "{bytes:02x?}");
        }
        let nested = |depth| [vec![0x81; depth], vec![0x00]].concat();
        assert_eq!(is_one_shallow_item(&nested(DEPTH_MAX)), Some(()));
        assert_eq!(is_one_shallow_item(&nested(DEPTH_MAX + 1)), None);
    }
}
