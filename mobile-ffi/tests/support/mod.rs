//! What the stories of the phone library share: what an app gives to it, and a phone with a day on it.
//!
//! Helpers panic when the world is not as the story needs it; that is what makes the story fail.
#![allow(dead_code, unreachable_pub, missing_docs, clippy::unwrap_used, reason = "shared by several story files")]

use crm_dispatch_mobile::{
    ClientOptions, DispatchClient, Encryption, HostError, LogLevel, PhoneError, SecureStorage, TokenProvider,
    VisitFilter,
};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[path = "../../examples/sample-store.rs"]
#[allow(dead_code, reason = "its main writes the store that a test opens")]
mod sample_store;

/// Long enough for a loaded machine; a test that waits this long has failed.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A keychain in memory that survives the app.
#[derive(Default)]
pub struct Keychain {
    pub values: Mutex<HashMap<String, Vec<u8>>>,
    pub broken: Mutex<Option<HostError>>,
}

impl Keychain {
    fn check(&self) -> Result<(), HostError> {
        self.broken.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    pub fn only_key(&self) -> Vec<u8> {
        let values = self.values.lock().unwrap();
        assert_eq!(values.len(), 1, "{:?}", values.keys());
        values.values().next().unwrap().clone()
    }
}

impl SecureStorage for Keychain {
    fn get(&self, name: String) -> Result<Option<Vec<u8>>, HostError> {
        self.check()?;
        Ok(self.values.lock().unwrap().get(&name).cloned())
    }

    fn put(&self, name: String, value: Vec<u8>) -> Result<(), HostError> {
        self.check()?;
        self.values.lock().unwrap().insert(name, value);
        Ok(())
    }

    fn remove(&self, name: String) -> Result<(), HostError> {
        self.check()?;
        self.values.lock().unwrap().remove(&name);
        Ok(())
    }
}

/// Tokens as the test wants them.
pub struct Tokens(pub fn() -> Result<String, HostError>);

#[async_trait::async_trait]
impl TokenProvider for Tokens {
    async fn fetch_token(&self, _rejected: bool) -> Result<String, HostError> {
        (self.0)()
    }
}

pub fn no_tokens() -> Arc<dyn TokenProvider> {
    Arc::new(Tokens(|| Err(HostError::Unavailable { reason: "no network".into() })))
}

pub fn options(path: &Path, encryption: Encryption) -> ClientOptions {
    ClientOptions {
        path: path.to_str().unwrap().to_owned(),
        server_url: "http://127.0.0.1:9".into(),
        app: "tests 1.0".into(),
        encryption,
        network_at_start: true,
        log_level: LogLevel::Debug,
    }
}

pub fn open(path: &Path, encryption: Encryption, keychain: &Arc<Keychain>) -> Result<Arc<DispatchClient>, PhoneError> {
    DispatchClient::open(options(path, encryption), no_tokens(), Arc::clone(keychain) as _, None)
}

/// A phone with the sample day, not encrypted, and its folder.
pub fn sample() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("phone.db");
    write_sample(&path);
    (folder, path)
}

pub fn write_sample(path: &Path) {
    sample_store::write(path).unwrap();
}

pub fn open_sample(path: &Path) -> Arc<DispatchClient> {
    open(path, Encryption::Off, &Arc::default()).unwrap()
}

pub fn everything() -> VisitFilter {
    VisitFilter::default()
}

pub fn bytes_of_folder(folder: &Path) -> Vec<u8> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    files.flatten().collect()
}

pub fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}
