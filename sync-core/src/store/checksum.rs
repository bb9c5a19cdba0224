//! Row checksums: a flash cell that lost a bit must not become a fact.

use sha2::{Digest as _, Sha256};

/// The first 8 bytes of a SHA-256 over the parts, each behind its length, so that no two splits give one sum.
pub(super) fn sum(parts: &[&[u8]]) -> [u8; 8] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let full: [u8; 32] = hash.finalize().into();
    let mut first = [0; 8];
    first.copy_from_slice(&full[..8]);
    first
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn the_same_bytes_split_elsewhere_have_another_sum() {
        assert_ne!(sum(&[b"DSP-1", b"00"]), sum(&[b"DSP-10", b"0"]));
        assert_eq!(sum(&[b"DSP-1", b"00"]), sum(&[b"DSP-1", b"00"]));
    }
}
