//! Changes as a broken or hostile phone could send them.

#![no_main]

mod scene;

use automerge::legacy::{ElementId, Key, MarkData, ObjectId, Op, OpId, OpType};
use automerge::{ActorId, Change, ObjType, ScalarValue};
use libfuzzer_sys::fuzz_target;
use scene::{NEW_PHONE, PHONE, SERVER, Scene, THIRD_PHONE, body, chunk, now};
use std::collections::BTreeMap;
use std::sync::LazyLock;
use sync_core::domain::FactKind;

static SCENE: LazyLock<Scene> = LazyLock::new(Scene::new);

fuzz_target!(|data: &[u8]| {
    let Some((door, bytes)) = data.split_first() else { return };
    match door % 4 {
        0 => admit(bytes),
        1 => admit(&chunk(bytes)),
        2 => admit(&damaged(bytes)),
        _ => {
            if let Some(change) = rewritten(bytes) {
                admit(&change);
            }
        }
    }
});

fn admit(bytes: &[u8]) {
    let scene = &*SCENE;
    let mut server = scene.server.clone();
    let before = (server.tag(), server.save());
    if server.admit(&scene.author(), bytes).is_err() {
        assert_eq!((server.tag(), server.save()), before, "a refused change left a trace");
        return;
    }
    // A phone that was up to date takes it in; a new phone loads it; and all go on working.
    let mut phone = scene.server.clone();
    phone.apply(&[bytes]).unwrap();
    let loaded = sync_core::document::VisitDoc::load(&server.save()).unwrap();
    for other in [&phone, &loaded] {
        assert_eq!((server.tag(), server.report()), (other.tag(), other.report()));
        assert_eq!((server.view().facts, server.plan()), (other.view().facts, other.plan()));
    }
    assert_eq!(server.plan(), scene.server.plan(), "a phone changed the plan");
    assert!(scene.server.view().facts.iter().all(|(id, fact)| server.view().facts.get(id) == Some(fact)));
    let edit = scene.fact("fact-9", 9, FactKind::Resumed);
    let next = phone.edit(THIRD_PHONE, &edit, now()).unwrap();
    assert!(server.admit(&scene.author(), &next.bytes).is_ok(), "honest work was refused afterwards");
    let mut plan = server.plan();
    plan.revision += 1;
    assert!(server.decide(SERVER, &plan, &BTreeMap::new(), now()).is_some());
    assert_eq!(sync_core::document::VisitDoc::load(&server.save()).unwrap().tag(), server.tag());
}

/// A valid change with some bytes replaced, inserted or removed.
fn damaged(bytes: &[u8]) -> Vec<u8> {
    let Some((which, edits)) = bytes.split_first() else { return Vec::new() };
    let mut body = body(&SCENE.changes[usize::from(*which) % SCENE.changes.len()]).to_vec();
    for edit in edits.chunks_exact(3).take(16) {
        let at = usize::from(edit[0]) | usize::from(edit[1] & 0x3f) << 8;
        let at = at % body.len().max(1);
        match edit[1] >> 6 {
            0 | 1 if at < body.len() => body[at] = edit[2],
            2 => body.insert(at, edit[2]),
            _ if at < body.len() => drop(body.remove(at)),
            _ => {}
        }
    }
    chunk(&body)
}

/// A valid change whose operations are replaced by others that Automerge can encode.
fn rewritten(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = bytes.iter().copied();
    let which = usize::from(bytes.next()?) % SCENE.changes.len();
    let mut change = Change::from_bytes(SCENE.changes[which].clone()).ok()?.decode();
    let header = bytes.next()?;
    change.seq += u64::from(header & 3).saturating_sub(2);
    if header & 4 != 0 {
        change.deps.clear();
    }
    if header & 8 != 0 {
        change.start_op = change.start_op.saturating_add(u64::from(header >> 4));
    }
    let start = change.start_op.get();
    if header & 0x80 == 0 {
        change.operations.clear();
    }
    while change.operations.len() < 24 {
        let Some(op) = operation(&mut bytes, start) else { break };
        change.operations.push(op);
    }
    Some(Change::from(change).raw_bytes().to_vec())
}

fn operation(bytes: &mut impl Iterator<Item = u8>, start: u64) -> Option<Op> {
    let obj = match bytes.next()? % 10 {
        0 => ObjectId::Root,
        // The genesis numbers the six objects 1 to 6.
        region @ 1..=6 => ObjectId::Id(OpId::new(u64::from(region), &ActorId::from(SERVER.0))),
        7 => ObjectId::Id(OpId::new(5, &ActorId::from(SERVER.0))),
        _ => ObjectId::Id(id(bytes, start)?),
    };
    let key = match bytes.next()? % 8 {
        0 => Key::Seq(ElementId::Head),
        1..=3 => Key::Seq(ElementId::Id(id(bytes, start)?)),
        4 => Key::Map("summary".into()),
        5 => Key::Map("item-1".into()),
        6 => Key::Map("title".into()),
        _ => Key::Map(format!("fact-{}", bytes.next()? % 4).into()),
    };
    let form = bytes.next()?;
    let action = match form % 12 {
        0..=2 => OpType::Put(ScalarValue::Str(char::from(bytes.next()?).to_string().into())),
        3 | 4 => OpType::Delete,
        5 => OpType::Put(value(bytes, &obj)?),
        6 => OpType::Put(ScalarValue::Bytes(bytes.by_ref().take(24).collect())),
        7 => OpType::Increment(i64::from(bytes.next()?)),
        8 => OpType::Make([ObjType::Map, ObjType::List, ObjType::Text][usize::from(bytes.next()? % 3)]),
        9 => OpType::MarkBegin(MarkData { name: "bold".into(), value: true.into(), expand: form & 0x40 != 0 }),
        10 => OpType::MarkEnd(form & 0x40 != 0),
        _ => OpType::Put(ScalarValue::counter(1)),
    };
    let mut pred = Vec::new();
    for _ in 0..bytes.next()? % 3 {
        pred.push(id(bytes, start)?);
    }
    if let (OpType::Delete, Key::Seq(ElementId::Id(element))) = (&action, &key) {
        pred = vec![element.clone()];
    }
    Some(Op { action, obj, key, pred: pred.into(), insert: form & 0x80 != 0 })
}

/// The value that a valid change writes.
fn value(bytes: &mut impl Iterator<Item = u8>, _: &ObjectId) -> Option<ScalarValue> {
    let which = usize::from(bytes.next()?) % SCENE.changes.len();
    let change = Change::from_bytes(SCENE.changes[which].clone()).ok()?.decode();
    change.operations.first()?.primitive_value()
}

fn id(bytes: &mut impl Iterator<Item = u8>, start: u64) -> Option<OpId> {
    let actor = [SERVER, PHONE, NEW_PHONE, THIRD_PHONE][usize::from(bytes.next()? % 4)];
    let number = bytes.next()?;
    let counter = if number & 0x80 == 0 { u64::from(number) + 1 } else { start + u64::from(number & 0x0f) };
    Some(OpId::new(counter, &ActorId::from(actor.0)))
}
