//! Writes the committed seeds of both corpora.

mod scene;

use scene::{NEW_PHONE, PHONE, SERVER, Scene, THIRD_PHONE, body, chunk, now};
use std::fs;
use sync_core::document::StateTag;
use sync_core::domain::{Tombstone, TombstoneReason, VisitCard, fold};
use sync_core::protocol::{
    Batch, Cursor, Digest, FeedItem, OutboxMark, PhoneMessage, Ping, Pull, Push, PushLane,
    ServerMessage, encode_items, encode_phone, encode_server,
};

fn main() -> std::io::Result<()> {
    let scene = Scene::new();
    assert_ne!(PHONE, THIRD_PHONE);
    assert_ne!(NEW_PHONE, SERVER);
    let write = |target: &str, name: String, door: u8, bytes: &[u8]| {
        let folder = format!("{}/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
        fs::create_dir_all(&folder)?;
        fs::write(format!("{folder}/seed-{name}"), [&[door], bytes].concat())
    };
    for (number, change) in scene.changes.iter().enumerate() {
        assert_eq!(chunk(body(change)), *change);
        write("change_admission", format!("whole-{number}"), 0, change)?;
        write("change_admission", format!("body-{number}"), 1, body(change))?;
        write("change_admission", format!("damaged-{number}"), 2, &[number as u8, 40, 0, 1, 60, 0x80, 2])?;
    }
    let rewritten: [&[u8]; 5] = [
        &[0, 0x82, 5, 1, 1, 9, 0x80, b'x', 0],
        &[1, 0x02, 5, 0, 0x80, b'a', 0, 5, 1, 1, 0x80, 0x80, b'b', 0],
        &[2, 0x02, 5, 1, 1, 24, 3, 0],
        &[3, 0x02, 2, 7, 2, 5, 3, 0],
        &[4, 0x02, 6, 5, 5, 4, 1, 1, 20],
    ];
    for (number, bytes) in rewritten.iter().enumerate() {
        write("change_admission", format!("rewritten-{number}"), 3, bytes)?;
    }

    let dispatch = "DSP-100".parse().expect("an id");
    let outbox = OutboxMark { high_water: 7, pending: 2, oldest: Some(now()) };
    let changes = scene.changes.iter().take(2).map(|change| change.clone().into()).collect();
    let phone = [
        PhoneMessage::Ping(Ping { id: 1, outbox }),
        PhoneMessage::Pull(Pull { cursor: Cursor(5) }),
        PhoneMessage::Push(Push { id: 2, lanes: vec![PushLane { dispatch, changes }], outbox }),
    ];
    for (number, message) in phone.iter().enumerate() {
        write("wire_codec", format!("phone-{number}"), 0, &encode_phone(message))?;
    }
    let view = scene.server.view();
    let dispatch: sync_core::domain::DispatchId = "DSP-100".parse().expect("an id");
    let items = [
        FeedItem::Snapshot {
            dispatch: dispatch.clone(),
            document: scene.server.save().into(),
            card: VisitCard::new(dispatch.clone(), &view.plan, &fold(&view)),
            tag: scene.server.tag(),
        },
        FeedItem::Gone {
            tombstone: Tombstone {
                dispatch_id: dispatch,
                title: "Boiler".into(),
                reason: TombstoneReason::Cancelled,
                note: None,
                by: "office-1".into(),
                at: now(),
            },
        },
    ];
    let (packed, zstd) = encode_items(&items);
    let (plain, _) = encode_items(&items[1..]);
    write("wire_codec", "items-plain".into(), 2, &plain)?;
    write("wire_codec", "items-packed".into(), 3, &packed)?;
    let batch = Batch {
        from: Cursor(1),
        to: Cursor(2),
        reset: false,
        more: false,
        digest: Some(Digest(StateTag(9).0)),
        items: packed,
        zstd,
    };
    write("wire_codec", "batch".into(), 1, &encode_server(&ServerMessage::Batch(batch)))?;
    Ok(())
}
