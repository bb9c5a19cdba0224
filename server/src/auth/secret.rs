//! The shared secret: never printed, never a built-in constant.

use rand::Rng as _;
use serde::{Deserialize, Deserializer};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Shortest shared secret, bytes: HS256 is as strong as its key, up to the hash's 32 bytes.
pub const SECRET_BYTES_MIN: usize = 32;

/// A shared secret. `Debug` shows nothing of it, and it cannot be serialised.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps.
    ///
    /// # Errors
    /// [`SecretError::TooShort`] under [`SECRET_BYTES_MIN`] bytes.
    pub fn new(text: impl Into<String>) -> Result<Self, SecretError> {
        let secret = Self(text.into());
        secret.check()?;
        Ok(secret)
    }

    /// The bytes, for signing and checking only.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The text, for signing in elsewhere only.
    #[cfg(feature = "kafka")]
    #[must_use]
    pub(crate) fn expose_text(&self) -> &str {
        &self.0
    }

    /// # Errors
    /// [`SecretError::TooShort`] under [`SECRET_BYTES_MIN`] bytes.
    pub(crate) fn check(&self) -> Result<(), SecretError> {
        if self.0.len() < SECRET_BYTES_MIN { Err(SecretError::TooShort(self.0.len())) } else { Ok(()) }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl<'de> Deserialize<'de> for Secret {
    /// Takes any text; the length is checked with the rest of the configuration, so that the message can name the key.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self)
    }
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Too short to be safe.
    #[error("must have at least {SECRET_BYTES_MIN} bytes, has {0}; make one with `openssl rand -hex 32`")]
    TooShort(usize),
    /// Somebody else may have read it.
    #[error("{path} can be read by others (mode {mode:o}); delete it to have a new one made, or `chmod 600` it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file could not be read or written.
    #[error("{path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The secret of a server that was given none: drawn at random once, and kept in `path` for its owner's eyes only, so that
/// tokens outlive a restart. Only for a server that listens on the loopback interface; the configuration sees to that.
///
/// # Errors
/// [`SecretError`] when the file cannot be made or read, is readable by others, or holds too little.
pub fn development_secret(path: &Path) -> Result<Secret, SecretError> {
    let io = |source| SecretError::Io { path: path.to_owned(), source };
    if !path.exists() {
        create(path).map_err(io)?;
    }
    check_mode(path)?;
    Secret::new(fs::read_to_string(path).map_err(io)?.trim())
}

/// Writes a new secret beside `path` and links it there, so that of two processes that start at once one wins and both
/// read the same, whole file.
fn create(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder)?;
    }
    let mut bytes = [0_u8; 32 + 8];
    rand::rng().fill_bytes(&mut bytes);
    let (secret, suffix) = bytes.split_at(32);
    let draft = path.with_extension(format!("draft-{}", hex(suffix)));
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let written = options.open(&draft).and_then(|mut file| {
        writeln!(file, "{}", hex(secret))?;
        file.sync_all()
    });
    let linked = written.and_then(|()| fs::hard_link(&draft, path));
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

#[cfg(unix)]
fn check_mode(path: &Path) -> Result<(), SecretError> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = fs::metadata(path).map_err(|source| SecretError::Io { path: path.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(SecretError::Exposed { path: path.to_owned(), mode }) }
}

#[cfg(not(unix))]
fn check_mode(_: &Path) -> Result<(), SecretError> {
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_never_printed() {
        let secret = Secret::new("correct horse battery staple, twice over").unwrap();
        assert_eq!(format!("{secret:?}"), "Secret(redacted)");
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert!(matches!(Secret::new("short"), Err(SecretError::TooShort(5))));
    }

    #[test]
    fn a_development_secret_is_made_once_and_kept_for_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("var").join("dev.secret");
        let first = development_secret(&path).unwrap();
        assert_eq!(development_secret(&path).unwrap(), first, "the second start reads what the first one made");
        assert_ne!(development_secret(&folder.path().join("other.secret")).unwrap(), first, "drawn at random");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no draft is left");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
            assert!(matches!(development_secret(&path), Err(SecretError::Exposed { mode: 0o644, .. })));
        }
    }
}
