//! Where the database key is kept, and how it is changed without a moment in which no key opens the file.

use super::engine::EngineError;
use crate::store::{DatabaseKey, OpenOptions, Opened, Protection, Store, StoreError};
use std::path::Path;
use std::sync::Arc;
use zeroize::Zeroizing;

/// The phone's secure storage. Every call may block, and may fail.
pub trait KeyVault: Send + Sync {
    /// What was put under `name`.
    ///
    /// # Errors
    /// [`VaultError`].
    fn get(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, VaultError>;

    /// Keeps `value` under `name`, in place of what was there; durable when it returns.
    ///
    /// # Errors
    /// [`VaultError`].
    fn put(&self, name: &str, value: &[u8]) -> Result<(), VaultError>;

    /// Forgets what is under `name`.
    ///
    /// # Errors
    /// [`VaultError`].
    fn remove(&self, name: &str) -> Result<(), VaultError>;
}

/// The secure storage failed. The text is for the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the secure storage failed: {0}")]
pub struct VaultError(pub String);

/// Whether the phone's file is encrypted at rest.
#[derive(Clone)]
pub enum AtRest {
    /// With a key that is drawn at the first opening and kept in there.
    Encrypted(Arc<dyn KeyVault>),
    /// Not at all; an explicit choice.
    Unencrypted,
}

/// The names under which a file's keys are kept. The folder is no part of them: it moves when an app is updated.
struct Names {
    current: String,
    /// The key of a rotation that is under way.
    next: String,
}

impl Names {
    fn of(path: &Path) -> Self {
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        Self { current: format!("crm-dispatch.key.{file}"), next: format!("crm-dispatch.next-key.{file}") }
    }
}

/// Opens the store with the key that opens it. The first opening draws one, and the vault must have it before the file is
/// made: a file whose key was lost is lost too.
pub(super) fn open(path: &Path, at_rest: &AtRest, options: OpenOptions) -> Result<Opened, EngineError> {
    let AtRest::Encrypted(vault) = at_rest else {
        let options = OpenOptions { protection: Protection::Unencrypted, ..options };
        return Ok(Store::open(path, &options, &mut rand::rng())?);
    };
    let with = |key: &DatabaseKey| {
        let options = OpenOptions { protection: Protection::Key(key.clone()), ..options.clone() };
        Store::open(path, &options, &mut rand::rng())
    };
    let names = Names::of(path);
    let (current, next) = (read(&**vault, &names.current)?, read(&**vault, &names.next)?);
    match (current, next) {
        (Some(current), None) => Ok(with(&current)?),
        (None, None) => {
            if Store::is_in_the_clear(path)? {
                return Err(StoreError::NotEncrypted.into());
            }
            if Store::exists(path)? {
                return Err(EngineError::KeyMissing);
            }
            let key = DatabaseKey::random(&mut rand::rng());
            keep(&**vault, &names.current, &key)?;
            Ok(with(&key)?)
        }
        // A rotation was cut off: one of the two opens the file.
        (current, Some(next)) => {
            if let Some(current) = current {
                match with(&current) {
                    Err(StoreError::WrongKey) => {}
                    opened => {
                        let opened = opened?;
                        vault.remove(&names.next)?;
                        return Ok(opened);
                    }
                }
            }
            let opened = with(&next)?;
            promote(&**vault, &names, &next)?;
            Ok(opened)
        }
    }
}

/// Encrypts the file anew with a fresh key. Cut off anywhere, the next opening finds the key that fits.
pub(super) fn rotate(path: &Path, vault: &dyn KeyVault, store: &Store) -> Result<(), EngineError> {
    let names = Names::of(path);
    let next = DatabaseKey::random(&mut rand::rng());
    keep(vault, &names.next, &next)?;
    store.change_key(&next)?;
    promote(vault, &names, &next)
}

/// The file is gone for good: so are its keys.
pub(super) fn destroy(path: &Path, vault: &dyn KeyVault) -> Result<(), EngineError> {
    let names = Names::of(path);
    vault.remove(&names.current)?;
    Ok(vault.remove(&names.next)?)
}

fn promote(vault: &dyn KeyVault, names: &Names, key: &DatabaseKey) -> Result<(), EngineError> {
    keep(vault, &names.current, key)?;
    Ok(vault.remove(&names.next)?)
}

/// Puts a key and reads it again: a vault that forgets is found out before anything is encrypted with it.
fn keep(vault: &dyn KeyVault, name: &str, key: &DatabaseKey) -> Result<(), EngineError> {
    vault.put(name, key.as_bytes())?;
    if read(vault, name)?.as_ref() == Some(key) {
        Ok(())
    } else {
        Err(VaultError("it does not answer what it was given".into()).into())
    }
}

fn read(vault: &dyn KeyVault, name: &str) -> Result<Option<DatabaseKey>, EngineError> {
    let Some(bytes) = vault.get(name)? else { return Ok(None) };
    let key = DatabaseKey::from_bytes(&bytes);
    key.map(Some).ok_or_else(|| VaultError("what it answers is no key".into()).into())
}
