//! What a phone is in for: wrong keys, folders and disks that refuse, newer files, calls at the wrong time and from everywhere,
//! app code that throws or never returns. An error each; no crash, and no fact is lost.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use crm_dispatch_mobile::{
    Action, DispatchClient, Encryption, GoneVisit, GoneVisitObserver, HostError, LogLevel, LogSink, Notice,
    NoticeObserver, PhoneError, SecureStorage, SyncStatus, SyncStatusObserver, TokenProvider, VisitDetails,
    VisitListObserver, VisitObserver, VisitSummary,
};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use support::*;

#[tokio::test]
async fn nothing_readable_lies_on_an_encrypted_phone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("phone.db");
    let keychain = Arc::new(Keychain::default());
    let phone = open(&path, Encryption::SecureStorage, &keychain).unwrap();
    phone.sign_in("tenant-001".into(), "TECH-SECRET-10".into()).await.unwrap();
    // While it is open, with its log, and after it was closed.
    assert!(!contains(&bytes_of_folder(folder.path()), "TECH-SECRET-10"));
    let key = keychain.only_key();
    assert_eq!(key.len(), 32);
    phone.shutdown().await.unwrap();
    assert!(!contains(&bytes_of_folder(folder.path()), "TECH-SECRET-10"));
    let again = open(&path, Encryption::SecureStorage, &keychain).unwrap();
    assert_eq!(again.sync_status().await.unwrap().technician_id.as_deref(), Some("TECH-SECRET-10"));
    assert!(!again.open_notice().created);
    assert_eq!(keychain.only_key(), key, "the same key");
    assert!(again.diagnostics().await.unwrap().contains("\"encrypted\":true"));
}

#[tokio::test]
async fn a_wrong_key_is_an_error_and_the_file_is_untouched() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("phone.db");
    let keychain = Arc::new(Keychain::default());
    let phone = open(&path, Encryption::SecureStorage, &keychain).unwrap();
    phone.sign_in("tenant-001".into(), "TECH-10".into()).await.unwrap();
    phone.shutdown().await.unwrap();
    let before = std::fs::read(&path).unwrap();

    let right = keychain.only_key();
    keychain.values.lock().unwrap().values_mut().for_each(|key| key[0] ^= 1);
    assert_eq!(open(&path, Encryption::SecureStorage, &keychain).unwrap_err(), PhoneError::WrongKey);
    keychain.values.lock().unwrap().clear();
    assert_eq!(open(&path, Encryption::SecureStorage, &keychain).unwrap_err(), PhoneError::KeyMissing);
    let off = open(&path, Encryption::Off, &keychain).unwrap_err();
    assert_eq!(off, PhoneError::EncryptionMismatch { encrypted: true });
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let set_aside =
        |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().to_string_lossy().contains("set-aside");
    assert!(!std::fs::read_dir(folder.path()).unwrap().any(set_aside));

    keychain.values.lock().unwrap().insert("crm-dispatch.key.phone.db".into(), right);
    let phone = open(&path, Encryption::SecureStorage, &keychain).unwrap();
    assert_eq!(phone.sync_status().await.unwrap().technician_id.as_deref(), Some("TECH-10"));
}

#[tokio::test]
async fn a_file_in_the_clear_is_not_taken_for_an_encrypted_one() {
    let (_folder, path) = sample();
    let refused = open(&path, Encryption::SecureStorage, &Arc::default()).unwrap_err();
    assert_eq!(refused, PhoneError::EncryptionMismatch { encrypted: false });
    assert_eq!(open_sample(&path).visits(everything()).await.unwrap().len(), 3);
}

#[tokio::test]
async fn a_key_is_changed_and_the_former_one_opens_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("phone.db");
    let keychain = Arc::new(Keychain::default());
    let phone = open(&path, Encryption::SecureStorage, &keychain).unwrap();
    phone.sign_in("tenant-001".into(), "TECH-10".into()).await.unwrap();
    let former = keychain.only_key();
    phone.rotate_key().await.unwrap();
    let fresh = keychain.only_key();
    assert_ne!(former, fresh);
    // Both connections go on, before and after a restart, and after a sleep.
    phone.sign_in("tenant-001".into(), "TECH-20".into()).await.unwrap();
    phone.suspend().await.unwrap();
    phone.resume().await.unwrap();
    assert_eq!(phone.sync_status().await.unwrap().technician_id.as_deref(), Some("TECH-20"));
    phone.shutdown().await.unwrap();
    let phone = open(&path, Encryption::SecureStorage, &keychain).unwrap();
    assert_eq!(phone.sync_status().await.unwrap().technician_id.as_deref(), Some("TECH-20"));
    phone.shutdown().await.unwrap();
    keychain.values.lock().unwrap().insert("crm-dispatch.key.phone.db".into(), former);
    assert_eq!(open(&path, Encryption::SecureStorage, &keychain).unwrap_err(), PhoneError::WrongKey);
}

/// The phone dies between the file's new key and the keychain's, and between the keychain's promise and the file.
#[tokio::test]
async fn a_rotation_that_was_cut_off_leaves_a_key_that_fits() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("phone.db");
    let keychain = Arc::new(Keychain::default());
    let phone = open(&path, Encryption::SecureStorage, &keychain).unwrap();
    phone.sign_in("tenant-001".into(), "TECH-10".into()).await.unwrap();
    let former = keychain.only_key();
    phone.rotate_key().await.unwrap();
    phone.shutdown().await.unwrap();
    let fresh = keychain.only_key();
    let put = |name: &str, key: &[u8]| {
        keychain.values.lock().unwrap().insert(format!("crm-dispatch.{name}.phone.db"), key.to_vec())
    };

    // The file has the new key; the keychain has it as the next one only.
    put("key", &former);
    put("next-key", &fresh);
    open(&path, Encryption::SecureStorage, &keychain).unwrap().shutdown().await.unwrap();
    assert_eq!(keychain.only_key(), fresh);

    // The keychain was told of a next key, and the file never was.
    put("next-key", &[7; 32]);
    open(&path, Encryption::SecureStorage, &keychain).unwrap().shutdown().await.unwrap();
    assert_eq!(keychain.only_key(), fresh);
}

#[tokio::test]
async fn a_keychain_that_fails_makes_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("phone.db");
    let keychain = Arc::new(Keychain::default());
    *keychain.broken.lock().unwrap() = Some(HostError::Unavailable { reason: "the phone is locked".into() });
    let refused = open(&path, Encryption::SecureStorage, &keychain).unwrap_err();
    assert!(matches!(&refused, PhoneError::KeyUnavailable { reason } if reason.contains("locked")), "{refused}");
    assert!(!path.exists());
    *keychain.broken.lock().unwrap() = None;
    assert!(open(&path, Encryption::SecureStorage, &keychain).is_ok());
}

/// A keychain that says yes and forgets would lose the file with its key.
#[tokio::test]
async fn a_keychain_that_forgets_is_found_out_before_anything_is_encrypted() {
    struct Forgetful;
    impl SecureStorage for Forgetful {
        fn get(&self, _: String) -> Result<Option<Vec<u8>>, HostError> {
            Ok(None)
        }
        fn put(&self, _: String, _: Vec<u8>) -> Result<(), HostError> {
            Ok(())
        }
        fn remove(&self, _: String) -> Result<(), HostError> {
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("phone.db");
    let options = options(&path, Encryption::SecureStorage);
    let refused = DispatchClient::open(options, no_tokens(), Arc::new(Forgetful), None).unwrap_err();
    assert!(matches!(refused, PhoneError::KeyUnavailable { .. }), "{refused}");
    assert!(!path.exists());
}

#[tokio::test]
async fn a_file_of_a_newer_release_is_set_aside_and_reported() {
    let (_folder, path) = sample();
    rusqlite::Connection::open(&path).unwrap().pragma_update(None, "user_version", 9_000).unwrap();
    let phone = open_sample(&path);
    let notice = phone.open_notice();
    assert!(notice.created);
    assert!(notice.set_aside_reason.unwrap().contains("newer release"));
    assert!(Path::new(&notice.set_aside_path.unwrap()).exists());
}

/// A path under a file. What may not be written, and full disks: `hard_disk.rs`.
#[tokio::test]
async fn a_place_where_no_file_can_lie_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("volume"), "no folder").unwrap();
    let refused = open(&folder.path().join("volume/phone.db"), Encryption::Off, &Arc::default()).unwrap_err();
    assert!(matches!(refused, PhoneError::StoreFailed { .. }), "{refused}");
}

#[tokio::test]
async fn every_call_after_the_end_is_the_same_error() {
    let (_folder, path) = sample();
    let phone = open_sample(&path);
    phone.shutdown().await.unwrap();
    phone.shutdown().await.unwrap();
    let id = || "DSP-100".to_owned();
    assert_eq!(phone.visits(everything()).await, Err(PhoneError::Closed));
    assert_eq!(phone.visit(id()).await, Err(PhoneError::Closed));
    assert_eq!(phone.act(id(), Action::Arrive, None).await, Err(PhoneError::Closed));
    assert_eq!(phone.gone_visits().await, Err(PhoneError::Closed));
    assert_eq!(phone.acknowledge_gone(id()).await, Err(PhoneError::Closed));
    assert_eq!(phone.sync_status().await, Err(PhoneError::Closed));
    assert_eq!(phone.parked().await, Err(PhoneError::Closed));
    assert_eq!(phone.retry(id()).await, Err(PhoneError::Closed));
    assert_eq!(phone.start().await, Err(PhoneError::Closed));
    assert_eq!(phone.sync_now(PATIENCE).await, Err(PhoneError::Closed));
    assert_eq!(phone.sign_in("tenant-001".into(), "TECH-10".into()).await, Err(PhoneError::Closed));
    assert_eq!(phone.sign_out().await, Err(PhoneError::Closed));
    assert_eq!(phone.resume().await, Err(PhoneError::Closed));
    assert_eq!(phone.diagnostics().await, Err(PhoneError::Closed));
    assert_eq!(phone.rotate_key().await, Err(PhoneError::Closed));
    assert_eq!(phone.observe_sync_status(Arc::new(Counter::default())).unwrap_err(), PhoneError::Closed);
    assert_eq!(phone.observe_visits(everything(), Arc::new(Deaf)).unwrap_err(), PhoneError::Closed);
    assert_eq!(phone.observe_visit(id(), Arc::new(Deaf)).unwrap_err(), PhoneError::Closed);
    assert_eq!(phone.observe_gone_visits(Arc::new(Deaf)).unwrap_err(), PhoneError::Closed);
    assert_eq!(phone.observe_notices(Arc::new(Deaf)).unwrap_err(), PhoneError::Closed);
    phone.end_sync();
    phone.suspend().await.unwrap();
    phone.stop().await.unwrap();
    phone.network_changed(false);
}

/// Hears everything, and nothing follows from it.
struct Deaf;

impl VisitListObserver for Deaf {
    fn on_visits(&self, _: Vec<VisitSummary>) -> Result<(), HostError> {
        Ok(())
    }
}

impl VisitObserver for Deaf {
    fn on_visit(&self, _: Option<VisitDetails>) -> Result<(), HostError> {
        Ok(())
    }
}

impl GoneVisitObserver for Deaf {
    fn on_gone_visits(&self, _: Vec<GoneVisit>) -> Result<(), HostError> {
        Ok(())
    }
}

impl NoticeObserver for Deaf {
    fn on_notice(&self, _: Notice) -> Result<(), HostError> {
        Ok(())
    }
}

#[derive(Default)]
struct Counter {
    calls: AtomicU32,
    last: Mutex<Option<SyncStatus>>,
    changed: Condvar,
}

impl SyncStatusObserver for Counter {
    fn on_sync_status(&self, status: SyncStatus) -> Result<(), HostError> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        *self.last.lock().unwrap() = Some(status);
        self.changed.notify_all();
        // Each time: an observer that always fails still hears what follows.
        Err(HostError::Failed { reason: "the screen is gone".into() })
    }
}

impl Counter {
    fn until(&self, holds: impl Fn(&SyncStatus) -> bool) {
        let last = self.last.lock().unwrap();
        let (last, waited) =
            self.changed.wait_timeout_while(last, PATIENCE, |last| !last.as_ref().is_some_and(&holds)).unwrap();
        assert!(!waited.timed_out(), "{last:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_that_throws_hears_what_follows() {
    let (_folder, path) = sample();
    let phone = open_sample(&path);
    let observer = Arc::new(Counter::default());
    let subscription = phone.observe_sync_status(Arc::clone(&observer) as _).unwrap();
    observer.until(|status| status.unsent == 0);
    phone.act("DSP-100".into(), Action::Accept { eta: None }, None).await.unwrap();
    observer.until(|status| status.unsent == 1);
    assert!(subscription.is_active());
}

/// An observer that hangs holds up neither the technician, nor other observers, nor the app's end.
#[tokio::test(flavor = "multi_thread")]
async fn an_observer_that_never_returns_holds_up_nobody() {
    struct Stuck(std::sync::mpsc::SyncSender<()>);
    impl VisitListObserver for Stuck {
        fn on_visits(&self, _: Vec<VisitSummary>) -> Result<(), HostError> {
            self.0.send(()).unwrap();
            loop {
                std::thread::park();
            }
        }
    }
    let (_folder, path) = sample();
    let phone = open_sample(&path);
    let (called, calls) = std::sync::mpsc::sync_channel(1);
    let stuck = phone.observe_visits(everything(), Arc::new(Stuck(called))).unwrap();
    calls.recv_timeout(PATIENCE).unwrap();
    let observer = Arc::new(Counter::default());
    let _hears = phone.observe_sync_status(Arc::clone(&observer) as _).unwrap();
    for action in [Action::Accept { eta: None }, Action::StartTravel { eta: None }, Action::Arrive] {
        phone.act("DSP-100".into(), action, None).await.unwrap();
    }
    observer.until(|status| status.unsent == 3);
    stuck.cancel();
    phone.shutdown().await.unwrap();
    drop(phone);
    assert!(open(&path, Encryption::Off, &Arc::default()).is_ok(), "the file is free");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_provider_that_never_answers_holds_up_nobody() {
    struct Silent;
    #[async_trait::async_trait]
    impl TokenProvider for Silent {
        async fn fetch_token(&self, _: bool) -> Result<String, HostError> {
            std::future::pending().await
        }
    }
    let (_folder, path) = sample();
    let phone =
        DispatchClient::open(options(&path, Encryption::Off), Arc::new(Silent), Arc::new(Keychain::default()), None)
            .unwrap();
    phone.start().await.unwrap();
    phone.act("DSP-100".into(), Action::Accept { eta: None }, None).await.unwrap();
    let report = phone.sync_now(Duration::from_millis(50)).await.unwrap();
    assert!(!report.caught_up);
    assert_eq!(report.unsent, 1);
    phone.stop().await.unwrap();
    phone.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_throws_stops_nothing_and_is_told_no_secret() {
    struct Sink(std::sync::mpsc::Sender<String>);
    impl LogSink for Sink {
        fn log(&self, _: LogLevel, message: String) -> Result<(), HostError> {
            self.0.send(message).unwrap();
            Err(HostError::Failed { reason: "no space for logs".into() })
        }
    }
    let (_folder, path) = sample();
    let (sink, lines) = std::sync::mpsc::channel();
    let tokens = Arc::new(Tokens(|| Ok("a-very-secret-token".into())));
    let keychain = Arc::new(Keychain::default());
    let phone =
        DispatchClient::open(options(&path, Encryption::Off), tokens, keychain, Some(Arc::new(Sink(sink)))).unwrap();
    phone.start().await.unwrap();
    phone.act("DSP-100".into(), Action::Accept { eta: None }, None).await.unwrap();
    assert!(!phone.sync_now(Duration::from_millis(200)).await.unwrap().caught_up);
    // Nobody listens on that port, and the log says so, each time that it is tried.
    for _ in 0..2 {
        let line = lines.recv_timeout(PATIENCE).unwrap();
        assert!(line.contains("connection ended") && !line.contains("very-secret"), "{line}");
        phone.start().await.unwrap();
    }
    phone.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_never_returns_costs_its_lines_and_nothing_else() {
    struct Stuck(std::sync::mpsc::SyncSender<()>);
    impl LogSink for Stuck {
        fn log(&self, _: LogLevel, _: String) -> Result<(), HostError> {
            let _ = self.0.send(());
            loop {
                std::thread::park();
            }
        }
    }
    let (_folder, path) = sample();
    let (called, calls) = std::sync::mpsc::sync_channel(1);
    let keychain = Arc::new(Keychain::default());
    let sink = Some(Arc::new(Stuck(called)) as Arc<dyn LogSink>);
    let phone = DispatchClient::open(options(&path, Encryption::Off), no_tokens(), keychain, sink).unwrap();
    phone.start().await.unwrap();
    calls.recv_timeout(PATIENCE).unwrap();
    phone.act("DSP-100".into(), Action::Accept { eta: None }, None).await.unwrap();
    assert!(!phone.sync_now(Duration::from_millis(50)).await.unwrap().caught_up);
    phone.shutdown().await.unwrap();
    assert_eq!(open_sample(&path).sync_status().await.unwrap().unsent, 1);
}

/// The library gives up on it after ten seconds; the file is as it was, and the next opening finds everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_keychain_that_never_answers_is_an_error_and_the_file_is_untouched() {
    struct Silent;
    impl SecureStorage for Silent {
        fn get(&self, _: String) -> Result<Option<Vec<u8>>, HostError> {
            loop {
                std::thread::park();
            }
        }
        fn put(&self, _: String, _: Vec<u8>) -> Result<(), HostError> {
            Ok(())
        }
        fn remove(&self, _: String) -> Result<(), HostError> {
            Ok(())
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("phone.db");
    let keychain = Arc::new(Keychain::default());
    let phone = open(&path, Encryption::SecureStorage, &keychain).unwrap();
    phone.sign_in("tenant-001".into(), "TECH-10".into()).await.unwrap();
    phone.shutdown().await.unwrap();
    let before = std::fs::read(&path).unwrap();
    let opening = options(&path, Encryption::SecureStorage);
    let refused =
        tokio::task::spawn_blocking(move || DispatchClient::open(opening, no_tokens(), Arc::new(Silent), None));
    let refused = refused.await.unwrap().unwrap_err();
    assert!(
        matches!(&refused, PhoneError::KeyUnavailable { reason } if reason.contains("does not answer")),
        "{refused}"
    );
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let phone = open(&path, Encryption::SecureStorage, &keychain).unwrap();
    assert_eq!(phone.sync_status().await.unwrap().technician_id.as_deref(), Some("TECH-10"));
}

/// The lock once was let go of while the log was still being moved into the file: who opened it then took it for damaged.
#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_was_let_go_of_without_an_end_opens_again_with_its_work() {
    for _ in 0..50 {
        let (_folder, path) = sample();
        let phone = open_sample(&path);
        // Enough to make the file longer.
        for minutes in 1..=8 {
            let action = Action::LogTime { category: "labour ".repeat(40), minutes };
            phone.act("DSP-100".into(), action, None).await.unwrap();
        }
        phone.start().await.unwrap();
        drop(phone);
        let again = loop {
            match open(&path, Encryption::Off, &Arc::default()) {
                Err(PhoneError::AlreadyOpen) => tokio::task::yield_now().await,
                other => break other.unwrap(),
            }
        };
        assert_eq!((again.open_notice().set_aside_reason, again.sync_status().await.unwrap().unsent), (None, 8));
    }
}

/// An app that forgets to cancel: letting go is enough.
#[tokio::test(flavor = "multi_thread")]
async fn an_observer_that_the_app_lets_go_of_hears_nothing_more() {
    let (_folder, path) = sample();
    let phone = open_sample(&path);
    let observer = Arc::new(Counter::default());
    let subscription = phone.observe_sync_status(Arc::clone(&observer) as _).unwrap();
    observer.until(|status| status.unsent == 0);
    drop(subscription);
    // The library lets go of the observer in turn: nothing can call it any more.
    let since = std::time::Instant::now();
    while Arc::strong_count(&observer) > 1 {
        assert!(since.elapsed() < PATIENCE, "the observer is still held");
        tokio::task::yield_now().await;
    }
    let heard = observer.calls.load(Ordering::SeqCst);
    phone.act("DSP-100".into(), Action::Accept { eta: None }, None).await.unwrap();
    assert_eq!(observer.calls.load(Ordering::SeqCst), heard);
}

/// What iOS ends a sleeping app for: an open file that is locked. Another process may have it meanwhile, and then the phone goes on
/// sleeping until that one lets go.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_sleeps_has_no_file_open_and_waits_for_who_has_it() {
    let open_files = |folder: &Path| {
        let names = std::fs::read_dir("/proc/self/fd").unwrap();
        names
            .filter_map(|name| std::fs::read_link(name.ok()?.path()).ok())
            .filter(|path| path.starts_with(folder))
            .count()
    };
    let (folder, path) = sample();
    let phone = open_sample(&path);
    let heard = Arc::new(Counter::default());
    let _subscription = phone.observe_sync_status(Arc::clone(&heard) as _).unwrap();
    phone.start().await.unwrap();
    phone.act("DSP-100".into(), Action::Accept { eta: None }, None).await.unwrap();
    heard.until(|status| status.unsent == 1);
    assert!(open_files(folder.path()) > 0);
    assert!(std::fs::metadata(path.with_extension("db-wal")).unwrap().len() > 0, "the action is in the log");
    phone.suspend().await.unwrap();
    assert_eq!(open_files(folder.path()), 0);
    assert!(!path.with_extension("db-wal").exists(), "the log is in the database");

    let other = open_sample(&path);
    assert_eq!(phone.resume().await.unwrap_err(), PhoneError::AlreadyOpen);
    assert_eq!(phone.visits(everything()).await, Err(PhoneError::Closed));
    other.act("DSP-101".into(), Action::Accept { eta: None }, None).await.unwrap();
    other.shutdown().await.unwrap();
    phone.resume().await.unwrap();
    heard.until(|status| status.unsent == 2);
}

/// The system takes back its time: Swift's tasks cannot say so by being cancelled.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_told_to_end_says_at_once_what_remains() {
    let (_folder, path) = sample();
    let phone = open_sample(&path);
    phone.act("DSP-100".into(), Action::Accept { eta: None }, None).await.unwrap();
    let job = {
        let phone = Arc::clone(&phone);
        tokio::spawn(async move { phone.sync_now(Duration::from_secs(3600)).await })
    };
    let heard = Arc::new(Counter::default());
    let _subscription = phone.observe_sync_status(Arc::clone(&heard) as _).unwrap();
    heard.until(|status| status.problem.is_some());
    phone.end_sync();
    let report = tokio::time::timeout(PATIENCE, job).await.unwrap().unwrap().unwrap();
    assert_eq!((report.caught_up, report.unsent), (false, 1));
    // Also where the connection was about to say something else at that moment.
    heard.until(|status| status.connection == crm_dispatch_mobile::ConnectionState::Stopped);
}

/// Fourteen fingers on one phone: every action is taken once, in some order, or refused with a reason.
#[tokio::test(flavor = "multi_thread")]
async fn calls_from_many_threads_at_once_lose_nothing() {
    let (_folder, path) = sample();
    let phone = open_sample(&path);
    let mut work = tokio::task::JoinSet::new();
    for finger in 0..14_u32 {
        let phone = Arc::clone(&phone);
        work.spawn(async move {
            for minute in 0..5 {
                let action = Action::LogTime { category: "labour".into(), minutes: finger * 5 + minute + 1 };
                phone.act("DSP-100".into(), action, None).await.unwrap();
                assert_eq!(phone.visits(everything()).await.unwrap().len(), 3);
                let _ = phone.sync_status().await.unwrap();
            }
        });
    }
    while let Some(done) = work.join_next().await {
        done.unwrap();
    }
    let visit = phone.visit("DSP-100".into()).await.unwrap();
    let mut minutes: Vec<u32> = visit.time_worked.iter().map(|line| line.minutes).collect();
    minutes.sort_unstable();
    assert_eq!(minutes, (1..=70).collect::<Vec<_>>());
    assert_eq!(phone.sync_status().await.unwrap().unsent, 70);
}

/// The app closes the phone while others still work with it: what was answered as taken is there afterwards.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_before_the_end_is_there_afterwards() {
    let (_folder, path) = sample();
    let phone = open_sample(&path);
    let acting = Arc::clone(&phone);
    let (first, seen) = tokio::sync::oneshot::channel();
    let work = tokio::spawn(async move {
        let (mut taken, mut first) = (0, Some(first));
        loop {
            let action = Action::LogTime { category: "labour".into(), minutes: taken + 1 };
            match acting.act("DSP-100".into(), action, None).await {
                Ok(_) => taken += 1,
                Err(error) => {
                    assert_eq!(error, PhoneError::Closed);
                    return taken;
                }
            }
            if let Some(first) = first.take() {
                first.send(()).unwrap();
            }
        }
    });
    seen.await.unwrap();
    phone.shutdown().await.unwrap();
    let taken = work.await.unwrap();
    drop(phone);
    let unsent = open_sample(&path).sync_status().await.unwrap().unsent;
    assert_eq!(unsent, taken);
}

/// The widget's process has the file: the app is turned away. Then the system kills that process in the middle of its work,
/// and the app finds all that was answered as taken. The other process is this test again, told so by a variable.
#[tokio::test]
async fn another_process_is_turned_away_and_its_end_loses_nothing() {
    const OTHER: &str = "PHONE_OF_THE_OTHER_PROCESS";
    if let Some(path) = std::env::var_os(OTHER) {
        let phone = open_sample(Path::new(&path));
        phone.act("DSP-100".into(), Action::Accept { eta: None }, None).await.unwrap();
        std::fs::write(Path::new(&path).with_extension("taken"), "").unwrap();
        loop {
            std::thread::park();
        }
    }
    let (_folder, path) = sample();
    let mut other = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "another_process_is_turned_away_and_its_end_loses_nothing"])
        .env(OTHER, &path)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let since = std::time::Instant::now();
    while !path.with_extension("taken").exists() {
        assert!(since.elapsed() < PATIENCE, "the other process never worked");
        assert_eq!(other.try_wait().unwrap(), None, "the other process has ended");
        std::thread::yield_now();
    }
    assert_eq!(open(&path, Encryption::Off, &Arc::default()).unwrap_err(), PhoneError::AlreadyOpen);
    other.kill().unwrap();
    other.wait().unwrap();
    let phone = open_sample(&path);
    assert_eq!(phone.sync_status().await.unwrap().unsent, 1);
    assert_eq!(phone.open_notice().set_aside_path, None);
}
