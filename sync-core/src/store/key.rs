//! The database key, and telling an encrypted file from others.

use super::StoreError;
use rusqlite::{Connection, OptionalExtension as _};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use zeroize::Zeroizing;

/// A key of 256 random bits. Wiped from memory when dropped, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseKey(Zeroizing<[u8; DatabaseKey::BYTES]>);

impl std::fmt::Debug for DatabaseKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("DatabaseKey(…)")
    }
}

/// Whether the file is encrypted at rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// With this key: the database, its log, and every copy that is set aside.
    Key(DatabaseKey),
    /// Not at all; an explicit choice.
    Unencrypted,
}

impl DatabaseKey {
    /// Length in bytes.
    pub const BYTES: usize = 32;

    /// A fresh key. `rng` must be cryptographically secure.
    #[must_use]
    pub fn random(rng: &mut dyn rand::Rng) -> Self {
        let mut bytes = Zeroizing::new([0; Self::BYTES]);
        rng.fill_bytes(&mut bytes[..]);
        Self(bytes)
    }

    /// From where it is kept; `None` when it is no key.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Some(Self(Zeroizing::new(bytes.try_into().ok()?)))
    }

    /// For those who keep it.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0[..]
    }

    /// A statement with the raw key: it is random already, so no time is spent on deriving one from it.
    fn statement(&self, pragma: &str) -> Zeroizing<String> {
        use std::fmt::Write as _;
        // All of it fits, so that no copy is left behind by a growing string.
        let mut text = Zeroizing::new(String::with_capacity(pragma.len() + 4 * Self::BYTES));
        text.push_str("PRAGMA ");
        text.push_str(pragma);
        text.push_str(" = \"x'");
        for byte in self.as_bytes() {
            let _ = write!(text, "{byte:02x}");
        }
        text.push_str("'\"");
        text
    }

    /// Gives the key to a connection that was just opened.
    ///
    /// SQLite without SQLCipher ignores such a statement and would write everything in the clear, so it is asked first. Key
    /// material is wiped by SQLCipher in any case; wiping and locking *all* of SQLite's memory (`cipher_memory_security`)
    /// would not keep a reader of this process's memory from the visits that the app shows, and phones lock little memory.
    pub(super) fn unlock(&self, conn: &Connection) -> Result<(), StoreError> {
        let version: Option<String> = conn.query_row("PRAGMA cipher_version", [], |row| row.get(0)).optional()?;
        if version.is_none_or(|version| version.is_empty()) {
            return Err(StoreError::NoCipher);
        }
        // What it has to say comes as an error; a library does not write to the app's console.
        conn.execute_batch("PRAGMA cipher_log_level = NONE")?;
        Ok(conn.execute_batch(&self.statement("key"))?)
    }

    /// Encrypts everything anew with this key, in one transaction.
    pub(super) fn take_over(&self, conn: &Connection) -> Result<(), StoreError> {
        Ok(conn.execute_batch(&self.statement("rekey"))?)
    }
}

/// The first bytes of a SQLite file that is not encrypted.
pub(super) const PLAIN_HEADER: &[u8] = b"SQLite format 3\0";
/// SQLCipher's page.
pub(super) const PAGE_BYTES: usize = 4_096;
/// A page of random bytes has nearly all of the 256 values (one is missing once in 10,000,000 draws); a page of SQLite's, a
/// text, or a damaged header far fewer.
const DISTINCT_BYTES_MIN: usize = 248;

/// What lies at `path`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing, or an empty file.
    Nothing,
    /// A SQLite database in the clear.
    Plain,
    /// What a cipher would write.
    Cipher,
    /// Neither.
    Other,
}

/// Looks at the first page: an encrypted file must never be taken for a damaged one.
pub(super) fn look(path: &Path) -> std::io::Result<Found> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Found::Nothing),
        Err(error) => return Err(error),
    };
    let mut page = Vec::with_capacity(PAGE_BYTES);
    file.take(PAGE_BYTES as u64).read_to_end(&mut page)?;
    let mut seen = [false; 256];
    page.iter().for_each(|byte| seen[usize::from(*byte)] = true);
    let distinct = seen.iter().filter(|seen| **seen).count();
    Ok(if page.is_empty() {
        Found::Nothing
    } else if page.starts_with(PLAIN_HEADER) {
        Found::Plain
    } else if page.len() == PAGE_BYTES && distinct >= DISTINCT_BYTES_MIN {
        Found::Cipher
    } else {
        Found::Other
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng as _;

    #[test]
    fn a_key_shows_itself_to_nobody() {
        let key = DatabaseKey::from_bytes(&[0xab; 32]).unwrap();
        assert!(!format!("{key:?} {:?}", Protection::Key(key.clone())).contains("abab"));
        assert_eq!(key.statement("key").as_str(), format!("PRAGMA key = \"x'{}'\"", "ab".repeat(32)));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        assert_eq!(DatabaseKey::from_bytes(&[1; 31]), None);
        assert_eq!(DatabaseKey::from_bytes(&[1; 33]), None);
    }

    #[test]
    fn two_draws_differ() {
        let mut rng = rand::rngs::StdRng::seed_from_u64(1);
        assert_ne!(DatabaseKey::random(&mut rng), DatabaseKey::random(&mut rng));
    }
}
