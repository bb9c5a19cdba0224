//! Disks that refuse: really full ones, and folders that really may not be written. `scripts/as-app` gives each story a small file
//! system of its own and takes root's right to pass over permissions; the story is this program again, told so by a variable.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod support;

use crm_dispatch_mobile::{Action, DispatchClient, Encryption, HostError, PhoneError, SecureStorage};
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use support::*;

const KILOBYTES: &str = "1536";
/// Actions after which the disk must have been full.
const ACTIONS_MAX: u32 = 10_000;

/// Answers the folder of the small disk to the process whose story this is; runs that process, and answers nothing, otherwise.
fn on_a_small_disk(story: &str) -> Option<PathBuf> {
    if let Some(disk) = std::env::var_os("APP_DISK") {
        return Some(disk.into());
    }
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/as-app");
    let ended = Command::new(script)
        .arg(KILOBYTES)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", story, "--nocapture"])
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&ended.stdout), String::from_utf8_lossy(&ended.stderr));
    assert!(ended.status.success(), "{said}");
    assert!(said.contains("1 passed"), "the story was not told: {said}");
    None
}

/// Takes what is left of the disk, until it is [`Ballast::thrown_off`].
struct Ballast(PathBuf);

impl Ballast {
    fn on(disk: &Path) -> Self {
        let path = disk.join("videos");
        let mut file = std::fs::File::create(&path).unwrap();
        for length in [4_096, 1] {
            while file.write_all(&vec![7; length]).is_ok() {}
        }
        Self(path)
    }

    fn thrown_off(self) {
        std::fs::remove_file(self.0).unwrap();
    }
}

async fn works(phone: &DispatchClient, minutes: u32) -> Result<u32, PhoneError> {
    let action = Action::LogTime { category: "labour ".repeat(40), minutes };
    Ok(phone.act("DSP-100".into(), action, None).await?.unsent)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_an_action_and_loses_none_that_was_taken() {
    let Some(disk) = on_a_small_disk("a_full_disk_refuses_an_action_and_loses_none_that_was_taken") else { return };
    let path = disk.join("phone.db");
    write_sample(&path);
    let phone = open_sample(&path);
    let ballast = Ballast::on(&disk);
    let mut taken = 0;
    let refused = loop {
        match works(&phone, taken + 1).await {
            Ok(unsent) => {
                taken += 1;
                assert_eq!(unsent, taken);
            }
            Err(error) => break error,
        }
        assert!(taken < ACTIONS_MAX, "the disk never was full");
    };
    assert_eq!(refused, PhoneError::DiskFull);
    // Reading goes on, and what is refused leaves no trace.
    assert_eq!(works(&phone, 1).await, Err(PhoneError::DiskFull));
    assert_eq!(phone.visits(everything()).await.unwrap().len(), 3);
    assert_eq!(phone.sync_status().await.unwrap().unsent, taken);

    // The app is put away and comes back while the disk still is full.
    match phone.suspend().await {
        Ok(()) | Err(PhoneError::DiskFull) => {}
        Err(error) => panic!("{error}"),
    }
    match phone.resume().await {
        Ok(notice) => assert_eq!(notice.set_aside_path, None),
        Err(error) => assert_eq!(error, PhoneError::DiskFull),
    }

    ballast.thrown_off();
    phone.resume().await.unwrap();
    assert_eq!(phone.sync_status().await.unwrap().unsent, taken);
    assert_eq!(works(&phone, taken + 1).await.unwrap(), taken + 1);
    let visit = phone.visit("DSP-100".into()).await.unwrap();
    let minutes: Vec<u32> = visit.time_worked.iter().map(|line| line.minutes).collect();
    assert_eq!(minutes, (1..=taken + 1).collect::<Vec<_>>());
    phone.shutdown().await.unwrap();
    assert_eq!(open_sample(&path).sync_status().await.unwrap().unsent, taken + 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_is_first_opened_on_a_full_disk_opens_once_there_is_space() {
    let Some(disk) = on_a_small_disk("a_phone_that_is_first_opened_on_a_full_disk_opens_once_there_is_space") else {
        return;
    };
    let (path, keychain) = (disk.join("phone.db"), Arc::new(Keychain::default()));
    let ballast = Ballast::on(&disk);
    for _ in 0..2 {
        assert_eq!(open(&path, Encryption::SecureStorage, &keychain).unwrap_err(), PhoneError::DiskFull);
    }
    ballast.thrown_off();
    let phone = open(&path, Encryption::SecureStorage, &keychain).unwrap();
    assert_eq!(phone.open_notice().set_aside_path, None, "what the first try left was no file to be kept");
    phone.sign_in("tenant-001".into(), "TECH-10".into()).await.unwrap();
    phone.shutdown().await.unwrap();
    assert!(open(&path, Encryption::SecureStorage, &keychain).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_not_changed_on_a_full_disk_and_the_file_opens_as_before() {
    let Some(disk) = on_a_small_disk("a_key_is_not_changed_on_a_full_disk_and_the_file_opens_as_before") else {
        return;
    };
    let (path, keychain) = (disk.join("phone.db"), Arc::new(Keychain::default()));
    let phone = open(&path, Encryption::SecureStorage, &keychain).unwrap();
    phone.sign_in("tenant-001".into(), "TECH-10".into()).await.unwrap();
    // The log is in the database: writing everything anew needs space that is not there.
    phone.suspend().await.unwrap();
    phone.resume().await.unwrap();
    let ballast = Ballast::on(&disk);
    assert_eq!(phone.rotate_key().await, Err(PhoneError::DiskFull));
    assert_eq!(phone.sync_status().await.unwrap().technician_id.as_deref(), Some("TECH-10"));
    ballast.thrown_off();
    // What it writes from now on must not be under the key that the file does not have.
    phone.sign_in("tenant-001".into(), "TECH-20".into()).await.unwrap();
    drop(phone);
    let phone = open(&path, Encryption::SecureStorage, &keychain).unwrap();
    assert_eq!(phone.open_notice().set_aside_path, None);
    assert_eq!(phone.sync_status().await.unwrap().technician_id.as_deref(), Some("TECH-20"));
    phone.rotate_key().await.unwrap();
    phone.shutdown().await.unwrap();
    keychain.only_key();
    assert!(open(&path, Encryption::SecureStorage, &keychain).is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_may_only_be_read_is_an_error_and_keeps_what_it_has() {
    let Some(disk) = on_a_small_disk("a_folder_that_may_only_be_read_is_an_error_and_keeps_what_it_has") else {
        return;
    };
    let may = |mode: u32| std::fs::set_permissions(&disk, Permissions::from_mode(mode)).unwrap();
    let path = disk.join("phone.db");
    may(0o500);
    let refused = open(&path, Encryption::Off, &Arc::default()).unwrap_err();
    assert!(matches!(&refused, PhoneError::StoreFailed { reason } if reason.contains("denied")), "{refused}");
    // A folder of its own cannot be made in there either.
    assert!(open(&disk.join("new/phone.db"), Encryption::Off, &Arc::default()).is_err());

    may(0o700);
    write_sample(&path);
    let phone = open_sample(&path);
    works(&phone, 1).await.unwrap();
    phone.shutdown().await.unwrap();
    let kept = std::fs::read(&path).unwrap();
    // The system has mounted the volume read-only, with files that were there before.
    for file in std::fs::read_dir(&disk).unwrap() {
        std::fs::set_permissions(file.unwrap().path(), Permissions::from_mode(0o400)).unwrap();
    }
    may(0o500);
    let refused = open(&path, Encryption::Off, &Arc::default()).unwrap_err();
    assert!(matches!(&refused, PhoneError::StoreFailed { reason } if reason.contains("denied")), "{refused}");
    assert_eq!(std::fs::read(&path).unwrap(), kept, "untouched");

    may(0o700);
    for file in std::fs::read_dir(&disk).unwrap() {
        std::fs::set_permissions(file.unwrap().path(), Permissions::from_mode(0o600)).unwrap();
    }
    assert_eq!(open_sample(&path).sync_status().await.unwrap().unsent, 1);
}

/// The folder turns read-only under an open phone.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_taken_before_a_folder_turned_read_only_is_there_afterwards() {
    let Some(disk) = on_a_small_disk("what_was_taken_before_a_folder_turned_read_only_is_there_afterwards") else {
        return;
    };
    let may = |mode: u32| std::fs::set_permissions(&disk, Permissions::from_mode(mode)).unwrap();
    let path = disk.join("phone.db");
    write_sample(&path);
    let phone = open_sample(&path);
    let mut taken = works(&phone, 1).await.unwrap();
    may(0o500);
    // Its files are open; whether it may go on is the system's to say, and the answer is the truth.
    match works(&phone, 2).await {
        Ok(unsent) => taken = unsent,
        Err(error) => assert!(matches!(error, PhoneError::StoreFailed { .. }), "{error}"),
    }
    let _ = phone.suspend().await;
    may(0o700);
    phone.resume().await.unwrap();
    assert_eq!(phone.sync_status().await.unwrap().unsent, taken);
}

/// A keychain that outlives its process: a folder, and a file a value.
struct Drawer(PathBuf);

impl Drawer {
    fn of(result: std::io::Result<()>) -> Result<(), HostError> {
        result.map_err(|error| HostError::Failed { reason: error.to_string() })
    }
}

impl SecureStorage for Drawer {
    fn get(&self, name: String) -> Result<Option<Vec<u8>>, HostError> {
        Ok(std::fs::read(self.0.join(name)).ok())
    }

    fn put(&self, name: String, value: Vec<u8>) -> Result<(), HostError> {
        let draft = self.0.join("draft");
        Self::of(std::fs::write(&draft, value).and_then(|()| std::fs::rename(draft, self.0.join(name))))
    }

    fn remove(&self, name: String) -> Result<(), HostError> {
        let removed = std::fs::remove_file(self.0.join(name));
        Self::of(
            removed.or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }),
        )
    }
}

/// The space that a change of the key looks for is taken for a moment, by a file of zeros; a phone that dies in that moment once kept
/// the file for good. The process that dies is this test again, told so by a variable.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_change_took_to_find_space_is_given_back_after_a_crash() {
    const DYING: &str = "FOLDER_OF_THE_DYING_PROCESS";
    let open_in = |folder: &Path| {
        let drawer = Arc::new(Drawer(folder.join("keychain")));
        DispatchClient::open(options(&folder.join("phone.db"), Encryption::SecureStorage), no_tokens(), drawer, None)
    };
    if let Some(folder) = std::env::var_os(DYING) {
        let phone = open_in(Path::new(&folder)).unwrap();
        loop {
            phone.rotate_key().await.unwrap();
        }
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("keychain")).unwrap();
    let phone = open_in(folder.path()).unwrap();
    phone.sign_in("tenant-001".into(), "TECH-10".into()).await.unwrap();
    phone.shutdown().await.unwrap();
    let room = folder.path().join("phone.db.room");
    let since = std::time::Instant::now();
    // Killed while the file was there, it may still have come to remove it: then once more.
    while !room.exists() {
        let mut dying = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "what_a_key_change_took_to_find_space_is_given_back_after_a_crash"])
            .env(DYING, folder.path())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while !room.exists() {
            assert!(since.elapsed() < PATIENCE, "it never looked for space");
            assert_eq!(dying.try_wait().unwrap(), None, "it has ended by itself");
        }
        dying.kill().unwrap();
        dying.wait().unwrap();
    }
    let phone = open_in(folder.path()).unwrap();
    assert!(!room.exists(), "the space is free again");
    assert_eq!(phone.open_notice().set_aside_path, None);
    assert_eq!(phone.sync_status().await.unwrap().technician_id.as_deref(), Some("TECH-10"));
    phone.rotate_key().await.unwrap();
    phone.shutdown().await.unwrap();
    let keys = std::fs::read_dir(folder.path().join("keychain")).unwrap().count();
    assert_eq!(keys, 1, "of a change that was cut off nothing is left");
}
