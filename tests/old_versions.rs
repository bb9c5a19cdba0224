//! What every former release left behind is taken over by this one: phones' files with unsent work, frames, the server's databases,
//! events. A version that is in `tests/recorded` is replayed, whichever it is.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a story that is not as told shall fail")]

mod recorded_support;
mod support;

use apache_avro::Schema;
use apache_avro::types::Value as Avro;
use crm_dispatch_server::app::open_store;
use crm_dispatch_server::events::Event;
use crm_dispatch_server::events::kafka::encoding::SCHEMAS;
use rand::{SeedableRng as _, rngs::StdRng};
use recorded_support::{RecordedPhone, Story, bind, open, settle, versions};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use support::postgres_support::Database;
use support::{HOUR, MORNING, PhoneSetup, Place, SECRET, TENANT, World};
use sync_core::client::Client;
use sync_core::document::VisitDoc;
use sync_core::domain::fold::fold_ruled;
use sync_core::domain::{DispatchId, Timestamp, VisitCard};
use sync_core::protocol::{
    PhoneMessage, ServerMessage, decode_items, decode_phone, decode_server, encode_items, encode_phone, encode_server,
};

fn story(version: &Path) -> Story {
    serde_json::from_slice(&std::fs::read(version.join("story.json")).unwrap()).unwrap()
}

/// The recorded server, on this release, an hour after the recording's end.
async fn world(version: &Path, story: &Story) -> World {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("server.db");
    std::fs::copy(version.join("server.sqlite"), &file).unwrap();
    continued(dir, Place::File(file), story).await
}

async fn world_on_postgres(version: &Path, story: &Story) -> World {
    let database = Database::create().await;
    database.load_plain(&version.join("server.sql"));
    continued(tempfile::tempdir().unwrap(), Place::Postgres(database), story).await
}

async fn continued(dir: tempfile::TempDir, place: Place, story: &Story) -> World {
    let mut world = World::on(dir, place, &[]).await;
    world.clock.advance(story.ended_at_ms - MORNING + HOUR);
    // With ids that the recording did not draw.
    world.stop_server().await;
    world.start_server().await;
    world
}

/// How a phone comes to the new release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// The app was updated where it is.
    Updated,
    /// Its file came back from a backup, to another phone.
    Restored,
}

/// Opens a recorded phone, finds everything in it, lets it meet the recorded server, and finds everything there.
async fn replay(world: &World, version: &Path, recorded: &RecordedPhone, way: Way) {
    let what = format!("{} {} {way:?}", version.display(), recorded.file);
    let path = world.phone_file("replayed");
    std::fs::copy(version.join(&recorded.file), &path).unwrap();
    if way == Way::Updated {
        settle(&path, recorded);
    }
    let config = world.client_config(&recorded.technician, PhoneSetup { seed: 11, ..PhoneSetup::default() });
    let opened = open(&path, recorded.protection(), config.clock.now().wall, 12);
    assert_eq!(opened.report.set_aside, None, "{what}");
    assert_eq!((opened.report.created, opened.report.rows_quarantined), (false, 0), "{what}");
    assert_eq!(opened.report.restored, way == Way::Restored, "{what}");
    let store = opened.store;
    if recorded.sealed {
        let sealed = store.sealed().unwrap();
        assert_eq!(
            sealed.iter().map(|(_, whose, count)| (whose.as_str(), *count)).collect::<Vec<_>>(),
            [(recorded.technician.as_str(), recorded.pending)]
        );
    }
    bind(&store, &recorded.technician, 13);
    if !recorded.sealed {
        let found = RecordedPhone::of(&recorded.file, &recorded.technician, recorded.encrypted, &store);
        assert_eq!(found, *recorded, "{what}: what the file shows");
    }
    assert_eq!(store.outbox_mark().unwrap().pending, recorded.pending, "{what}");

    let client = Client::start(Arc::new(store), config);
    let phone = support::Phone { client, path };
    if recorded.parked > 0 {
        retried(&phone, recorded).await;
    }
    phone.caught_up().await;
    assert_eq!(phone.store().outbox_mark().unwrap().pending, 0, "{what}: acknowledged");
    // A visit that has left meanwhile has a card that says why.
    let listed = phone.visits().into_iter().map(|card| card.dispatch_id);
    let left = phone.store().tombstones().unwrap().into_iter().map(|card| card.tombstone.dispatch_id);
    let known: BTreeSet<_> = listed.chain(left).map(|dispatch| dispatch.to_string()).collect();
    assert!(recorded.sealed || recorded.visits.is_subset(&known), "{what}: {known:?}");
    assert!(recorded.cards.is_subset(&known), "{what}: {known:?}");
    delivered(world, recorded, &what).await;
    phone.client.stop().await;
    phone.store().close().unwrap();
}

/// The technician says of refused work that it shall be tried again, which a person has to.
async fn retried(phone: &support::Phone, recorded: &RecordedPhone) {
    let waiting = phone.store().parked().unwrap();
    assert_eq!(u32::try_from(waiting.len()).unwrap(), recorded.parked);
    let visits: BTreeSet<_> = waiting.into_iter().map(|item| item.dispatch).collect();
    for dispatch in visits {
        phone.store().retry_parked(&dispatch, &mut StdRng::seed_from_u64(14)).unwrap();
    }
    phone.client.sync_soon();
}

/// The office has every fact, and every word.
async fn delivered(world: &World, recorded: &RecordedPhone, what: &str) {
    for (dispatch, fact) in &recorded.facts {
        let facts = world.facts(&dispatch.parse::<DispatchId>().unwrap()).await;
        let times = facts.iter().filter(|found| found.to_string().contains(&format!("\"{fact}\""))).count();
        assert_eq!(times, 1, "{what}: {fact} of {dispatch} among {facts:?}");
    }
    for (dispatch, text) in &recorded.texts {
        let report = world.get(&format!("/{dispatch}/report")).await.to_string();
        assert!(report.contains(text), "{what}: {text} of {dispatch} in {report}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_that_was_updated_with_unsent_work_delivers_all_of_it() {
    for version in versions() {
        let story = story(&version);
        for recorded in &story.phones {
            replay(&world(&version, &story).await, &version, recorded, Way::Updated).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phones_backup_of_a_former_release_delivers_all_of_its_work_as_another_device() {
    for version in versions() {
        let story = story(&version);
        for recorded in &story.phones {
            replay(&world(&version, &story).await, &version, recorded, Way::Restored).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn phones_of_a_former_release_deliver_their_work_to_its_postgresql_database() {
    for version in versions() {
        let story = story(&version);
        for recorded in &story.postgres_phones {
            for way in [Way::Updated, Way::Restored] {
                replay(&world_on_postgres(&version, &story).await, &version, recorded, way).await;
            }
        }
    }
}

/// The database is at this release's schema; each row says what its document folds to; the audit trail is unbroken.
async fn whole(mut world: World, what: &str) {
    world.stop_server().await;
    let config = world.config();
    let (store, _) = open_store(&config).await.unwrap();
    let tenant = TENANT.parse().unwrap();
    let ids: Vec<_> = (1..100).map(|number| DispatchId::new(format!("DSP-{number}")).unwrap()).collect();
    let found = store.documents(&tenant, &ids).await.unwrap();
    assert!(found.len() >= 6, "{what}: {}", found.len());
    for (stored, saved) in found {
        let id = stored.row.dispatch_id.clone();
        let document = VisitDoc::load(&saved).unwrap();
        let view = document.view();
        let state = fold_ruled(&view);
        assert_eq!(stored.tag, document.tag(), "{what}: {id}");
        assert_eq!((&stored.row.plan, &stored.row.state), (&view.plan, &state), "{what}: {id}");
        assert_eq!(stored.row.card, VisitCard::new(id.clone(), &view.plan, &state), "{what}: {id}");
    }
    store.close().await;
    let output = Command::new(env!("CARGO_BIN_EXE_crm-dispatch"))
        .args(["audit", "verify"])
        .env("CRM_DISPATCH__DATABASE__URL", world.place.url())
        .env("CRM_DISPATCH__AUTH__SECRET", SECRET)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("the audit trail is unbroken"), "{what}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_servers_databases_of_a_former_release_go_on_and_say_what_their_documents_say() {
    for version in versions() {
        let story = story(&version);
        for (world, name) in
            [(world(&version, &story).await, "SQLite"), (world_on_postgres(&version, &story).await, "PostgreSQL")]
        {
            // Work goes on in it: a new visit, and one that was there.
            let fresh = world.assigned("SO-100", 11, "TECH-10").await;
            world.post("/DSP-6/assign", serde_json::json!({ "technicianId": "TECH-10" })).await;
            assert_eq!(world.status(&fresh).await, "ASSIGNED");
            whole(world, &format!("{} on {name}", version.display())).await;
        }
    }
}

#[test]
fn frames_of_a_former_release_are_understood_and_say_the_same_when_written_again() {
    for version in versions() {
        let mut kinds = BTreeSet::new();
        for entry in std::fs::read_dir(version.join("frames")).unwrap() {
            let path = entry.unwrap().path();
            let what = path.display().to_string();
            let name = path.file_stem().unwrap().to_str().unwrap().split_once('-').unwrap().1.to_owned();
            let bytes = std::fs::read(&path).unwrap();
            if name.starts_with("phone-") {
                let message = decode_phone(&bytes).unwrap();
                assert!(!matches!(message, PhoneMessage::Unknown(_)), "{what}");
                assert_eq!(decode_phone(&encode_phone(&message)).unwrap(), message, "{what}");
            } else {
                let message = decode_server(&bytes).unwrap();
                assert!(!matches!(message, ServerMessage::Unknown(_)), "{what}");
                assert_eq!(decode_server(&encode_server(&message)).unwrap(), message, "{what}");
                if let ServerMessage::Batch(batch) = &message {
                    let items = decode_items(&batch.items, batch.zstd).unwrap();
                    assert!(!items.is_empty(), "{what}");
                    let (packed, zstd) = encode_items(&items);
                    assert_eq!(decode_items(&packed, zstd).unwrap(), items, "{what}");
                }
            }
            kinds.insert(name);
        }
        for kind in ["hello", "push", "pull", "fetch", "ack", "ping", "wiped"] {
            assert!(kinds.contains(&format!("phone-{kind}")), "{}: no {kind}", version.display());
        }
        for kind in ["welcome", "batch", "push-ack", "pong", "bye"] {
            assert!(kinds.contains(&format!("server-{kind}")), "{}: no {kind}", version.display());
        }
    }
}

#[test]
fn events_of_a_former_release_are_read_with_todays_schemas() {
    let today: Vec<_> = SCHEMAS.iter().map(|text| Schema::parse_str(text).unwrap()).collect();
    for version in versions() {
        let folder = version.join("events");
        let read = |name: &str, ending: &str| std::fs::read(folder.join(format!("{name}.{ending}"))).unwrap();
        for reader in &today {
            let name = reader.name().unwrap().name.clone();
            let json: Value = serde_json::from_slice(&read(&name, "json")).unwrap();
            let event: Event = serde_json::from_value(json.clone()).unwrap();
            assert_eq!(serde_json::to_value(&event).unwrap(), json, "{name}: something was dropped");

            let writer = Schema::parse_str(std::str::from_utf8(&read(&name, "avsc")).unwrap()).unwrap();
            let bytes = read(&name, "avro");
            let (head, mut datum) = bytes.split_at(5);
            assert_eq!(head[0], 0, "{name}: Confluent's wire format");
            let value = apache_avro::from_avro_datum(&writer, &mut datum, Some(reader)).unwrap();
            let Avro::Record(fields) = value else { panic!("{name}: no record") };
            let of =
                |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value.clone()).unwrap();
            assert_eq!(of("eventId"), Avro::String(event.event_id.to_string()), "{name}");
            assert_eq!(of("tenantId"), Avro::String(event.tenant_id.to_string()), "{name}");
            assert_eq!(of("timestamp"), Avro::TimestampMillis(event.timestamp.millis()), "{name}");
        }
    }
}

#[test]
fn what_is_recorded_is_not_rewritten() {
    let released = env!("CARGO_PKG_VERSION");
    let names: Vec<_> = versions().iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect();
    assert!(
        names.iter().any(|name| name == released),
        "record this release before it is published: scripts/record-corpus"
    );
    for version in versions() {
        let story = story(&version);
        assert_eq!(version.file_name().unwrap().to_str(), Some(story.version.as_str()));
        assert!(story.ended_at_ms > MORNING && Timestamp::from_millis(story.ended_at_ms).millis() > 0);
    }
}

/// Every state that a phone can be in when it is updated is among the files.
#[test]
fn the_recorded_phones_are_in_every_state() {
    for version in versions() {
        let phones = story(&version).phones;
        let any = |holds: fn(&RecordedPhone) -> bool| phones.iter().any(holds);
        assert!(any(|phone| phone.encrypted && !phone.facts.is_empty()), "encrypted");
        assert!(any(|phone| phone.parked > 0), "refused work");
        assert!(any(|phone| phone.sealed && phone.pending > 0), "sealed work");
        assert!(any(|phone| !phone.cards.is_empty()), "cards of visits that left");
        assert!(any(|phone| !phone.texts.is_empty()), "notes and answers");
        let total: usize = phones.iter().map(|phone| phone.facts.len()).sum();
        assert!(total >= 10, "{total} facts");
    }
}
