//! What a phone may write into a visit document, and what it may not: every bad input by its name.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod document_support;

use automerge::legacy::{ElementId, Key, OpId, OpType};
use automerge::marks::{ExpandMark, Mark};
use automerge::transaction::{CommitOptions, Transactable};
use automerge::{ActorId, Automerge, ObjId, ObjType, ROOT, ReadDoc, ScalarValue};
use document_support::{Phone, SERVER, actor, at, copy, forge, plan, retitle, visit};
use std::collections::BTreeMap;
use std::num::NonZeroU64;
use sync_core::document::{ActorKey, DocumentError, Edit, RebasedEdit, Refusal, VisitDoc};
use sync_core::domain::{Answer, FactKind, Ruling, RulingReason, Verdict};
use sync_core::protocol::limits::{
    ANSWER_BYTES_MAX, CHANGE_BYTES_MAX, CHANGE_OPS_MAX, DOCUMENT_BYTES_MAX, FACTS_MAX, NOTE_CHARS_MAX,
};

/// The refusal of a change; the document must be as it was.
fn refusal(doc: &mut VisitDoc, phone: &Phone, bytes: &[u8]) -> Refusal {
    let (tag, saved) = (doc.tag(), doc.save());
    let refusal = doc.admit(&phone.author(), bytes).expect_err("a bad change was let in");
    assert_eq!((doc.tag(), doc.save()), (tag, saved), "a refused change left traces");
    refusal
}

fn code(doc: &mut VisitDoc, phone: &Phone, bytes: &[u8]) -> &'static str {
    refusal(doc, phone, bytes).code()
}

/// The path that a forgery names.
fn forbidden(doc: &mut VisitDoc, phone: &Phone, bytes: &[u8]) -> String {
    match refusal(doc, phone, bytes) {
        Refusal::Forbidden(path) => path,
        other => panic!("not refused as a forgery: {other:?}"),
    }
}

/// What was let in must survive saving: Automerge encodes every change anew when it loads.
fn assert_reopens(doc: &VisitDoc) {
    assert_eq!(VisitDoc::load(&doc.save()).unwrap().tag(), doc.tag());
}

fn cbor(value: &impl serde::Serialize) -> ScalarValue {
    ScalarValue::Bytes(minicbor_serde::to_vec(value).unwrap())
}

fn op(actor: ActorKey, counter: u64) -> OpId {
    OpId::new(counter, &ActorId::from(actor.0))
}

/// An arrival by TECH-1, and the copy it was made on.
fn arrival() -> (VisitDoc, Phone, Vec<u8>) {
    let (server, lead) = (visit(), Phone::new(1));
    let arrived = lead.states(&mut copy(&server), "fact-1", 1, FactKind::Arrived).bytes;
    (server, lead, arrived)
}

// ---- what is let in

#[test]
fn a_day_of_work_is_let_in_change_by_change() {
    let (mut server, lead) = (visit(), Phone::new(1));
    let mut phone = copy(&server);
    let changes = [
        lead.states(&mut phone, "fact-1", 1, FactKind::TravelStarted { eta: Some(at(20)) }),
        lead.states(&mut phone, "fact-2", 2, FactKind::Arrived),
        lead.notes(&mut phone, 0, 0, "Pump bearing worn 🙂"),
        lead.notes(&mut phone, 5, 7, "gasket"),
        lead.answers(&mut phone, "item-1", "yes"),
        lead.answers(&mut phone, "item-1", "no"),
        lead.summarises(&mut phone, "Replaced the gasket"),
        lead.states(&mut phone, "fact-3", 3, FactKind::Completed),
    ];
    for change in &changes {
        let admission = server.admit(&lead.author(), &change.bytes).unwrap();
        assert_eq!(&admission.change, change);
        assert!(!admission.duplicate);
        assert_eq!(admission.edits_report, admission.facts.is_empty());
    }
    assert_eq!(server.tag(), phone.tag());
    assert_eq!(server.view().facts.len(), 3);
    assert_eq!(server.report().notes, "Pump gasket worn 🙂");
    assert_eq!(server.report().answers[&"item-1".parse().unwrap()].len(), 1);
    assert_reopens(&server);
}

#[test]
fn an_edit_without_effect_is_a_change_without_operations() {
    let (mut server, lead) = (visit(), Phone::new(1));
    let mut phone = copy(&server);
    let first = lead.summarises(&mut phone, "Done");
    let again = lead.summarises(&mut phone, "Done");
    let (admissions, refusal) = server.admit_batch(&lead.author(), &[first.bytes, again.bytes]);
    assert_eq!((admissions.len(), refusal), (2, None));
    assert_eq!(admissions.iter().map(|admission| admission.edits_report).collect::<Vec<_>>(), [true, false]);
    assert_eq!(server.tag(), phone.tag());
    assert_reopens(&server);
}

#[test]
fn a_change_sent_twice_has_its_effect_once() {
    let (mut server, lead, arrived) = arrival();
    assert_eq!(server.admit(&lead.author(), &arrived).unwrap().facts.len(), 1);
    let tag = server.tag();
    let again = server.admit(&lead.author(), &arrived).unwrap();
    assert!(again.duplicate && again.facts.is_empty());
    assert_eq!(server.tag(), tag);

    let mut reopened = copy(&server);
    let (admissions, refusal) = reopened.admit_batch(&lead.author(), &[&arrived, &arrived]);
    assert!(refusal.is_none() && admissions.iter().all(|admission| admission.duplicate));
    let (admissions, refusal) = visit().admit_batch(&lead.author(), &[&arrived, &arrived]);
    assert!(refusal.is_none());
    assert_eq!(admissions.iter().map(|admission| admission.duplicate).collect::<Vec<_>>(), [false, true]);
}

#[test]
fn the_very_same_fact_in_another_change_is_no_effect_and_an_altered_one_is_refused() {
    let (mut server, lead) = (visit(), Phone::new(1));
    let (mut first, mut again, mut altered) = (copy(&server), copy(&server), copy(&server));
    let change = lead.states(&mut first, "fact-1", 1, FactKind::Arrived).bytes;
    assert_eq!(server.admit(&lead.author(), &change).unwrap().facts.len(), 1);
    // Made again under a fresh actor, on a copy without the first change.
    let fresh = Phone { actor: actor(77), ..Phone::new(1) };
    let change = fresh.states(&mut again, "fact-1", 1, FactKind::Arrived).bytes;
    let admission = server.admit(&lead.author(), &change).unwrap();
    assert!(!admission.duplicate && admission.facts.is_empty());
    assert_eq!(server.view().facts.len(), 1);
    let other = Phone { actor: actor(78), ..Phone::new(1) };
    let change = other.states(&mut altered, "fact-1", 1, FactKind::Completed).bytes;
    assert_eq!(code(&mut server, &lead, &change), "CHANGE_FORBIDDEN");
}

#[test]
fn a_fact_tells_which_plan_its_author_had_seen() {
    let (mut server, lead, crew) = (visit(), Phone::new(1), Phone::new(2));
    let (mut unaware, mut aware) = (copy(&server), copy(&server));
    let before = [
        lead.states(&mut unaware, "fact-1", 1, FactKind::Arrived),
        lead.states(&mut unaware, "fact-2", 2, FactKind::WorkStarted),
    ];
    aware.apply(&[retitle(&mut server, SERVER, "Boiler is cold").bytes]).unwrap();
    let after = crew.states(&mut aware, "fact-3", 1, FactKind::Arrived);
    let knew = |admission: sync_core::document::Admission| admission.facts[0].1;
    for change in &before {
        assert_eq!(server.admit(&lead.author(), &change.bytes).map(knew), Ok(1));
    }
    assert_eq!(server.admit(&crew.author(), &after.bytes).map(knew), Ok(2));
    // The lead's next change joins both histories.
    unaware.apply(&[retitle(&mut copy(&server), actor(9), "…").bytes]).expect_err("its causes are missing");
    let mut joined = copy(&server);
    let later = lead.states(&mut joined, "fact-4", 3, FactKind::Completed);
    assert_eq!(server.admit(&lead.author(), &later.bytes).map(knew), Ok(2));
}

#[test]
fn of_a_push_the_longest_good_beginning_is_let_in() {
    let (mut server, lead) = (visit(), Phone::new(1));
    let mut phone = copy(&server);
    let mut changes: Vec<_> = (1..=4)
        .map(|number| lead.states(&mut phone, &format!("fact-{number}"), number, FactKind::Arrived).bytes)
        .collect();
    changes[2] = forge::altered(&changes[2], |change| change.operations[0].action = OpType::Delete);
    let (admissions, refusal) = server.admit_batch(&lead.author(), &changes);
    assert_eq!(admissions.len(), 2);
    assert_eq!(refusal.map(|refusal| refusal.code()), Some("CHANGE_FORBIDDEN"));
    assert_eq!(server.view().facts.len(), 2);
    // What follows hangs on what was refused.
    assert_eq!(code(&mut server, &lead, &changes[3]), "CHANGE_CAUSALLY_OPEN");
}

#[test]
fn text_that_a_colleague_deleted_meanwhile_does_not_hold_a_change_up() {
    let (mut server, lead, crew) = (visit(), Phone::new(1), Phone::new(2));
    let written = lead.notes(&mut copy(&server), 0, 0, "Pump worn");
    server.admit(&lead.author(), &written.bytes).unwrap();
    let (mut first, mut second) = (copy(&server), copy(&server));
    let other = Phone { actor: actor(11), ..lead.clone() };
    let deletes = other.notes(&mut first, 0, 9, "");
    let inserts = crew.notes(&mut second, 4, 0, " bearing");
    let deletes_too = crew.notes(&mut second, 0, 4, "");
    server.admit(&lead.author(), &deletes.bytes).unwrap();
    server.admit(&crew.author(), &inserts.bytes).unwrap();
    server.admit(&crew.author(), &deletes_too.bytes).unwrap();
    assert_eq!(server.report().notes, " bearing");
    assert_reopens(&server);
}

// ---- bytes that are no change

#[test]
fn garbage() {
    let (mut server, lead, _) = arrival();
    for bytes in [&b""[..], b"x", b"\x85\x6f\x4a\x83", &[0xff; 300], &[0; 64]] {
        assert_eq!(code(&mut server, &lead, bytes), "CHANGE_MALFORMED");
    }
}

#[test]
fn truncated_anywhere() {
    let (mut server, lead, arrived) = arrival();
    for length in 0..arrived.len() {
        assert_eq!(code(&mut server, &lead, &arrived[..length]), "CHANGE_MALFORMED", "cut at {length}");
    }
    let body = forge::body(&arrived);
    for length in 0..body.len() {
        let cut = forge::chunk(1, &body[..length]);
        assert_eq!(code(&mut server, &lead, &cut), "CHANGE_MALFORMED", "body cut at {length}");
    }
}

#[test]
fn followed_by_anything() {
    let (mut server, lead, arrived) = arrival();
    assert_eq!(code(&mut server, &lead, &[&arrived[..], &arrived[..]].concat()), "CHANGE_MALFORMED");
    assert_eq!(code(&mut server, &lead, &[&arrived[..], &[0]].concat()), "CHANGE_MALFORMED");
}

#[test]
fn a_wrong_checksum() {
    let (mut server, lead, mut arrived) = arrival();
    arrived[5] ^= 1;
    assert_eq!(refusal(&mut server, &lead, &arrived), Refusal::Malformed("its checksum is wrong"));
}

#[test]
fn too_many_bytes() {
    let (mut server, lead, _) = arrival();
    let expected = Refusal::TooLarge { what: "bytes", limit: CHANGE_BYTES_MAX, actual: CHANGE_BYTES_MAX + 1 };
    assert_eq!(refusal(&mut server, &lead, &vec![0; CHANGE_BYTES_MAX + 1]), expected);
}

#[test]
fn deflated_whole_documents_and_bundles() {
    let (mut server, lead, _) = arrival();
    let mut long = forge::change(&server, lead.actor, |tx, objects| {
        tx.splice_text(&objects.notes, 0, 0, &"worn ".repeat(200)).unwrap();
    });
    let deflated = long.bytes().into_owned();
    assert_eq!(deflated[8], 2, "Automerge deflates what is worth it");
    assert_eq!(code(&mut server, &lead, &deflated), "CHANGE_MALFORMED");
    let document = server.save();
    assert_eq!(code(&mut server, &lead, &document), "CHANGE_MALFORMED");
    let (raw, _) = forge::automerge(&server);
    let bundle = raw.bundle(raw.get_heads()).unwrap().bytes().to_vec();
    assert_eq!(code(&mut server, &lead, &bundle), "CHANGE_MALFORMED");
}

#[test]
fn any_byte_wrong_under_a_right_checksum() {
    let (server, lead) = (visit(), Phone::new(1));
    let mut phone = copy(&server);
    let made = [
        lead.notes(&mut phone, 0, 0, "Pump worn"),
        lead.notes(&mut phone, 2, 5, "xyz"),
        lead.states(&mut phone, "fact-1", 1, FactKind::Arrived),
        lead.answers(&mut phone, "item-1", "yes"),
    ];
    let mut before = server;
    for change in &made {
        let body = forge::body(&change.bytes);
        for index in 0..body.len() {
            for mask in [0x01, 0x02, 0x10, 0x40, 0x7f, 0x80, 0xff] {
                let mut body = body.clone();
                body[index] ^= mask;
                let mut doc = before.clone();
                match doc.admit(&lead.author(), &forge::chunk(1, &body)) {
                    // Some bytes only say something else: another time, another letter.
                    Ok(_) => assert_reopens(&doc),
                    Err(_) => assert_eq!(doc.tag(), before.tag()),
                }
            }
        }
        before.admit(&lead.author(), &change.bytes).unwrap();
    }
}

/// A change whose columns are given by hand.
fn by_hand(server: &VisitDoc, columns: &[(u8, &[u8])]) -> Vec<u8> {
    let (raw, _) = forge::automerge(server);
    let head = raw.get_heads()[0];
    let max_op = raw.get_change_by_hash(&head).unwrap().max_op();
    let mut body = vec![1];
    body.extend(head.0);
    body.push(16);
    body.extend(actor(1).0);
    body.push(1);
    let start = max_op + 1;
    assert!((0x80..0x4000).contains(&start) || start < 0x80);
    if start < 0x80 {
        body.push(start as u8);
    } else {
        body.extend([(start & 0x7f) as u8 | 0x80, (start >> 7) as u8]);
    }
    body.extend([0, 0]);
    body.push(1);
    body.push(16);
    body.extend(SERVER.0);
    body.push(columns.len() as u8);
    for (specification, data) in columns {
        if *specification >= 0x80 {
            body.extend([*specification & 0x7f | 0x80, 1]);
        } else {
            body.push(*specification);
        }
        body.push(data.len() as u8);
    }
    for (_, data) in columns {
        body.extend(*data);
    }
    forge::chunk(1, &body)
}

#[test]
fn run_lengths_without_end() {
    let (mut server, lead, _) = arrival();
    let endless: &[u8] = &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f, 1];
    let bytes = by_hand(&server, &[(0x42, endless)]);
    assert_eq!(code(&mut server, &lead, &bytes), "CHANGE_TOO_LARGE");
    for column in [0x01, 0x02, 0x11, 0x13, 0x15, 0x34, 0x56, 0x70, 0x71, 0x73, 0x94, 0xa5] {
        let bytes = by_hand(&server, &[(column, endless)]);
        let refused = refusal(&mut server, &lead, &bytes);
        assert!(matches!(refused, Refusal::TooLarge { .. } | Refusal::Malformed(_)), "{column:#x}: {refused:?}");
    }
    // Few operations, each with endless predecessors.
    let predecessors: &[u8] = &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x3f];
    let bytes = by_hand(&server, &[(0x42, &[1, 1]), (0x70, predecessors)]);
    assert_eq!(code(&mut server, &lead, &bytes), "CHANGE_MALFORMED");
}

#[test]
fn numbers_that_automerge_cannot_hold() {
    let (mut server, lead, _) = arrival();
    let huge: &[u8] = &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0x07];
    for (columns, what) in [
        (vec![(0x01, &[1, 9][..]), (0x02, &[1, 2]), (0x15, &[1, 1, b'k']), (0x42, &[1, 1])], "an object's actor"),
        (vec![(0x01, &[1, 1]), (0x02, huge), (0x15, &[1, 1, b'k']), (0x42, &[1, 1])], "an object's counter"),
        (vec![(0x11, &[1, 9]), (0x13, &[1, 2]), (0x34, &[1]), (0x42, &[1, 1])], "a character's actor"),
        (vec![(0x11, &[1, 1]), (0x13, huge), (0x34, &[1]), (0x42, &[1, 1])], "a character's counter"),
        (
            vec![(0x15, &[1, 1, b'k']), (0x42, &[1, 1]), (0x70, &[1, 1]), (0x71, &[1, 9]), (0x73, &[1, 2])],
            "a predecessor",
        ),
        (vec![(0x15, &[1, 1, b'k']), (0x42, &[1, 9])], "an action"),
        (vec![(0x15, &[1, 1, b'k']), (0x42, &[1, 1]), (0x4a, &[0])], "a deflated column"),
        (vec![(0x15, &[1, 1, b'k']), (0x42, &[1, 1]), (0x56, &[1, 0x26])], "a value's length"),
    ] {
        let bytes = by_hand(&server, &columns);
        assert_eq!(code(&mut server, &lead, &bytes), "CHANGE_MALFORMED", "{what}");
    }
}

#[test]
fn encoded_in_a_way_that_would_change_its_hash() {
    let (mut server, lead, arrived) = arrival();
    let expected = Refusal::Malformed("it is not encoded as Automerge encodes");
    // An actor that no operation names.
    let head = 1 + 32;
    let mut body = forge::body(&arrived);
    let others = body.windows(17).position(|window| window == [&[16][..], &SERVER.0].concat()).unwrap() - 1;
    assert!(others > head && body[others] == 1);
    body[others] = 2;
    body.splice(others + 18..others + 18, [&[16][..], &[0x77; 16]].concat());
    assert_eq!(refusal(&mut server, &lead, &forge::chunk(1, &body)), expected);
    // A number with an idle byte.
    let mut body = forge::body(&arrived);
    assert_eq!(body[0], 1);
    body.splice(0..1, [0x81, 0x00]);
    assert_eq!(code(&mut server, &lead, &forge::chunk(1, &body)), "CHANGE_MALFORMED");
}

// ---- forgeries

#[test]
fn a_forged_plan() {
    let (mut server, lead, _) = arrival();
    let writes = [
        ("plan.title", forge::bytes(&server, lead.actor, |tx, o| tx.put(&o.plan, "title", "Gone").unwrap())),
        ("plan.title (a deletion)", forge::bytes(&server, lead.actor, |tx, o| tx.delete(&o.plan, "title").unwrap())),
        ("plan.bonus", forge::bytes(&server, lead.actor, |tx, o| tx.put(&o.plan, "bonus", 100).unwrap())),
        ("root.plan", forge::bytes(&server, lead.actor, |tx, _| tx.put(ROOT, "plan", 1).unwrap())),
        ("root.report (a deletion)", forge::bytes(&server, lead.actor, |tx, _| tx.delete(ROOT, "report").unwrap())),
        ("report.notes", forge::bytes(&server, lead.actor, |tx, o| tx.put(&o.report, "notes", "x").unwrap())),
        ("report.mood", forge::bytes(&server, lead.actor, |tx, o| tx.put(&o.report, "mood", "x").unwrap())),
        ("report.summary", forge::bytes(&server, lead.actor, |tx, o| tx.put(&o.report, "summary", 5).unwrap())),
    ];
    for (path, bytes) in writes {
        assert_eq!(forbidden(&mut server, &lead, &bytes), path);
    }
}

#[test]
fn a_forged_ruling() {
    let (mut server, lead, arrived) = arrival();
    server.admit(&lead.author(), &arrived).unwrap();
    let ruling = Ruling {
        verdict: Verdict::Accepted,
        reason: RulingReason::InOrder,
        recorded_at: at(9),
        knew_revision: 1,
        clock_flagged: false,
        gap_flagged: false,
    };
    let bytes = forge::bytes(&server, lead.actor, |tx, o| tx.put(&o.rulings, "fact-1", cbor(&ruling)).unwrap());
    assert_eq!(forbidden(&mut server, &lead, &bytes), "rulings.fact-1");
}

#[test]
fn a_forgery_behind_an_honest_operation() {
    let (mut server, lead, _) = arrival();
    let bytes = forge::bytes(&server, lead.actor, |tx, o| {
        tx.put(&o.report, "summary", "Done").unwrap();
        tx.put(&o.plan, "title", "Done").unwrap();
    });
    assert_eq!(forbidden(&mut server, &lead, &bytes), "plan.title");
}

#[test]
fn another_ones_fact_overwritten_or_deleted() {
    let (mut server, lead, arrived) = arrival();
    server.admit(&lead.author(), &arrived).unwrap();
    let crew = Phone::new(2);
    let mine = cbor(&crew.fact("fact-1", 1, FactKind::Completed));
    let over = forge::bytes(&server, crew.actor, |tx, o| tx.put(&o.facts, "fact-1", mine.clone()).unwrap());
    assert_eq!(forbidden(&mut server, &crew, &over), "facts.fact-1");
    let delete = forge::bytes(&server, crew.actor, |tx, o| tx.delete(&o.facts, "fact-1").unwrap());
    assert_eq!(forbidden(&mut server, &crew, &delete), "facts.fact-1 (a deletion)");
    // Its own author may not either.
    let own = cbor(&lead.fact("fact-1", 1, FactKind::Completed));
    let over = forge::bytes(&server, lead.actor, |tx, o| tx.put(&o.facts, "fact-1", own).unwrap());
    assert_eq!(forbidden(&mut server, &lead, &over), "facts.fact-1");
    // Nor may anybody put another beside it, as if it had not been seen.
    let beside = forge::bytes(&visit(), crew.actor, |tx, o| tx.put(&o.facts, "fact-1", mine).unwrap());
    assert_eq!(forbidden(&mut server, &crew, &beside), "facts.fact-1");
    // Not even within one push, or one change.
    let fact = |kind| cbor(&lead.fact("fact-2", 1, kind));
    let first =
        forge::bytes(&visit(), lead.actor, |tx, o| tx.put(&o.facts, "fact-2", fact(FactKind::Arrived)).unwrap());
    let second = forge::altered(
        &forge::bytes(&visit(), actor(11), |tx, o| {
            tx.put(&o.facts, "fact-2", fact(FactKind::Paused { reason: None })).unwrap()
        }),
        |_| (),
    );
    let (admissions, refused) = visit().admit_batch(&lead.author(), &[first.clone(), second]);
    assert_eq!((admissions.len(), refused.unwrap().code()), (1, "CHANGE_FORBIDDEN"));
    let twice = forge::altered(&first, |change| change.operations.push(change.operations[0].clone()));
    assert_eq!(forbidden(&mut visit(), &lead, &twice), "facts.fact-2");
}

#[test]
fn a_fact_in_anothers_name() {
    let (mut server, lead, arrived) = arrival();
    let crew = Phone::new(2);
    assert_eq!(refusal(&mut server, &crew, &arrived), Refusal::BadFact("it names technician TECH-1".into()));
    let elsewhere = Phone { device: "phone-9".parse().unwrap(), ..lead };
    assert_eq!(refusal(&mut server, &elsewhere, &arrived), Refusal::BadFact("it names device phone-1".into()));
}

#[test]
fn a_fact_that_is_none() {
    let (mut server, lead, _) = arrival();
    let fact = lead.fact("fact-1", 1, FactKind::Arrived);
    let numberless = lead.fact("fact-1", 0, FactKind::Arrived);
    let values = [
        ("under another key", "fact-2", cbor(&fact)),
        ("no CBOR", "fact-1", ScalarValue::Bytes(vec![0xff, 0x00])),
        ("an empty map", "fact-1", ScalarValue::Bytes(vec![0xa0])),
        ("without sequence number", "fact-1", cbor(&numberless)),
    ];
    for (what, key, value) in values {
        let bytes = forge::bytes(&server, lead.actor, |tx, o| tx.put(&o.facts, key, value).unwrap());
        assert_eq!(code(&mut server, &lead, &bytes), "FACT_UNACCEPTABLE", "{what}");
    }
    for value in [ScalarValue::Null, "text".into(), 7.into(), ScalarValue::counter(1), ScalarValue::Boolean(true)] {
        let bytes = forge::bytes(&server, lead.actor, |tx, o| tx.put(&o.facts, "fact-1", value).unwrap());
        assert_eq!(forbidden(&mut server, &lead, &bytes), "facts.fact-1");
    }
}

#[test]
fn a_fact_nested_without_end() {
    let (mut server, lead, _) = arrival();
    let ScalarValue::Bytes(fact) = cbor(&lead.fact("fact-1", 1, FactKind::Arrived)) else { panic!("bytes") };
    assert_eq!(fact[0], 0xbf, "an open map");
    for opens in [0x81, 0x9f, 0xa1, 0xbf, 0xc1] {
        // An unknown field that is a list in a list in a list: reading it must not use up the stack.
        let nested = [&[0xbf, 0x61, b'z'][..], &vec![opens; 60_000], &fact[1..]].concat();
        let bytes = forge::bytes(&server, lead.actor, |tx, o| {
            tx.put(&o.facts, "fact-1", ScalarValue::Bytes(nested)).unwrap();
        });
        assert_eq!(code(&mut server, &lead, &bytes), "FACT_UNACCEPTABLE");
    }
}

#[test]
fn new_objects_anywhere() {
    let (mut server, lead, _) = arrival();
    for kind in [ObjType::Map, ObjType::List, ObjType::Text] {
        type Parent = fn(&forge::Objects) -> ObjId;
        let parents: [(&str, Parent); 4] = [
            ("facts.x (a new object)", |o| o.facts.clone()),
            ("report.x (a new object)", |o| o.report.clone()),
            ("report.checklist.x (a new object)", |o| o.checklist.clone()),
            ("root.x (a new object)", |_| ROOT),
        ];
        for (path, parent) in parents {
            let bytes = forge::bytes(&server, lead.actor, |tx, o| drop(tx.put_object(parent(o), "x", kind).unwrap()));
            assert_eq!(forbidden(&mut server, &lead, &bytes), path);
        }
    }
    let block = forge::bytes(&server, lead.actor, |tx, o| drop(tx.split_block(&o.notes, 0).unwrap()));
    assert_eq!(forbidden(&mut server, &lead, &block), "report.notes (a new object)");
    // Into an object that the same change makes.
    let inside = forge::bytes(&server, lead.actor, |tx, _| {
        let map = tx.put_object(ROOT, "x", ObjType::Map).unwrap();
        tx.put(map, "y", 1).unwrap();
    });
    let inside = forge::altered(&inside, |change| drop(change.operations.remove(0)));
    assert_eq!(forbidden(&mut server, &lead, &inside), "an unknown object.y");
}

#[test]
fn marks_and_increments() {
    let (mut server, lead) = (visit(), Phone::new(1));
    let written = lead.notes(&mut copy(&server), 0, 0, "Pump worn");
    server.admit(&lead.author(), &written.bytes).unwrap();
    let bold = forge::bytes(&server, lead.actor, |tx, o| {
        tx.mark(&o.notes, Mark::new("bold".into(), true, 0, 4), ExpandMark::Both).unwrap();
    });
    assert_eq!(forbidden(&mut server, &lead, &bold), "report.notes (a mark)");
    let counter = forge::bytes(&server, lead.actor, |tx, o| {
        tx.put(&o.checklist, "item-1", ScalarValue::counter(1)).unwrap();
    });
    assert_eq!(forbidden(&mut server, &lead, &counter), "report.checklist.item-1");
    let increment = forge::altered(&counter, |change| change.operations[0].action = OpType::Increment(5));
    assert_eq!(forbidden(&mut server, &lead, &increment), "report.checklist.item-1 (an increment)");
}

#[test]
fn an_answer_in_anothers_name_or_none() {
    let (mut server, lead, _) = arrival();
    let answer = Answer { value: "yes".into(), by: "TECH-2".parse().unwrap(), at: at(1) };
    for (key, value) in [("item-1", cbor(&answer)), ("item-1", "yes".into()), ("item 1", cbor(&answer))] {
        let bytes = forge::bytes(&server, lead.actor, |tx, o| tx.put(&o.checklist, key, value).unwrap());
        assert_eq!(forbidden(&mut server, &lead, &bytes), format!("report.checklist.{key}"));
    }
    let given = lead.answers(&mut copy(&server), "item-1", "yes");
    server.admit(&lead.author(), &given.bytes).unwrap();
    let delete = forge::bytes(&server, lead.actor, |tx, o| tx.delete(&o.checklist, "item-1").unwrap());
    assert_eq!(forbidden(&mut server, &lead, &delete), "report.checklist.item-1 (a deletion)");
}

#[test]
fn a_predecessor_in_another_register() {
    let (mut server, lead, _) = arrival();
    let (raw, objects) = forge::automerge(&server);
    let ObjId::Id(title, _, _) = raw.get(&objects.plan, "title").unwrap().unwrap().1 else { panic!("the root") };
    // It would hide the title from a phone that gets both in one batch, and from no other.
    let summary = lead.summarises(&mut copy(&server), "Done").bytes;
    let answer = lead.answers(&mut copy(&server), "item-1", "yes").bytes;
    let fact = lead.states(&mut copy(&server), "fact-1", 1, FactKind::Arrived).bytes;
    for (honest, path) in [(summary, "report.summary"), (answer, "report.checklist.item-1"), (fact, "facts.fact-1")] {
        for pred in [op(SERVER, title), op(SERVER, 4_000_000), op(lead.actor, title)] {
            let bytes = forge::altered(&honest, |change| change.operations[0].pred = vec![pred].into());
            assert_eq!(forbidden(&mut server, &lead, &bytes), path);
        }
    }
}

// ---- notes

#[test]
fn characters_that_are_not_there() {
    let (mut server, lead, crew) = (visit(), Phone::new(1), Phone::new(2));
    let written = lead.notes(&mut copy(&server), 0, 0, "Pump");
    server.admit(&lead.author(), &written.bytes).unwrap();
    let insert = lead.notes(&mut copy(&server), 2, 0, "!").bytes;
    let delete = lead.notes(&mut copy(&server), 2, 1, "").bytes;
    let (raw, objects) = forge::automerge(&server);
    let ObjId::Id(title, _, _) = raw.get(&objects.plan, "title").unwrap().unwrap().1 else { panic!("the root") };
    let own = raw.get_change_by_hash(&raw.get_heads()[0]).unwrap().max_op() + 1;
    for (what, id) in [
        ("never made", op(SERVER, 4_000_000)),
        ("of the future", op(lead.actor, own + 5)),
        ("itself", op(lead.actor, own)),
        ("of nobody", op(actor(77), 3)),
        ("a register of the plan", op(SERVER, title)),
        ("the notes themselves", op(SERVER, 5)),
    ] {
        let element = || Key::Seq(ElementId::Id(id.clone()));
        let bytes = forge::altered(&insert, |change| change.operations[0].key = element());
        assert_eq!(forbidden(&mut server, &lead, &bytes), "report.notes", "after a character {what}");
        let bytes = forge::altered(&delete, |change| {
            change.operations[0].key = element();
            change.operations[0].pred = vec![id.clone()].into();
        });
        assert_eq!(forbidden(&mut server, &lead, &bytes), "report.notes (a deletion)", "a character {what}");
    }
    // A character that exists, and that the sender has not seen: another phone could not place it.
    let (mut aware, mut unaware) = (copy(&server), copy(&server));
    let theirs = crew.notes(&mut aware, 4, 0, "s");
    let unseen = lead.notes(&mut unaware, 4, 0, "?").bytes;
    server.admit(&crew.author(), &theirs.bytes).unwrap();
    let unseen = forge::altered(&unseen, |change| {
        change.operations[0].key = Key::Seq(ElementId::Id(op(crew.actor, change.start_op.get())));
    });
    assert_eq!(forbidden(&mut server, &lead, &unseen), "report.notes");
}

#[test]
fn characters_that_are_none() {
    let (mut server, lead) = (visit(), Phone::new(1));
    let insert = lead.notes(&mut copy(&server), 0, 0, "P").bytes;
    for value in [ScalarValue::from(""), "Pump".into(), 7.into(), ScalarValue::Null, ScalarValue::Bytes(vec![0; 9])] {
        let bytes = forge::altered(&insert, |change| change.operations[0].action = OpType::Put(value));
        assert_eq!(forbidden(&mut server, &lead, &bytes), "report.notes");
    }
    let keyed = forge::altered(&insert, |change| {
        change.operations[0].key = Key::Map("x".into());
        change.operations[0].insert = false;
    });
    assert_eq!(forbidden(&mut server, &lead, &keyed), "report.notes.x");
    server.admit(&lead.author(), &insert).unwrap();
    let replace = forge::bytes(&server, lead.actor, |tx, o| tx.put(&o.notes, 0, "Q").unwrap());
    assert_eq!(forbidden(&mut server, &lead, &replace), "report.notes");
    let delete = lead.notes(&mut copy(&server), 0, 1, "").bytes;
    let twice = forge::altered(&delete, |change| change.operations.push(change.operations[0].clone()));
    assert_eq!(forbidden(&mut server, &lead, &twice), "report.notes (a deletion)");
    let without_pred = forge::altered(&delete, |change| change.operations[0].pred = vec![].into());
    assert_eq!(forbidden(&mut server, &lead, &without_pred), "report.notes (a deletion)");
}

// ---- order

#[test]
fn causes_that_are_not_here() {
    let (mut server, lead) = (visit(), Phone::new(1));
    let mut phone = copy(&server);
    let first = lead.states(&mut phone, "fact-1", 1, FactKind::Arrived).bytes;
    let second = lead.states(&mut phone, "fact-2", 2, FactKind::WorkStarted).bytes;
    assert_eq!(refusal(&mut server, &lead, &second), Refusal::CausallyOpen);
    server.admit(&lead.author(), &first).unwrap();
    server.admit(&lead.author(), &second).unwrap();
}

#[test]
fn no_causes_at_all() {
    let (mut server, lead) = (visit(), Phone::new(1));
    let (_, genesis) = VisitDoc::genesis(lead.actor, &plan(), at(0));
    assert_eq!(code(&mut server, &lead, &genesis.bytes), "CHANGE_MALFORMED");
    let honest = lead.states(&mut copy(&server), "fact-1", 1, FactKind::Arrived).bytes;
    let doubled = forge::altered(&honest, |change| change.deps.push(change.deps[0]));
    assert_eq!(code(&mut server, &lead, &doubled), "CHANGE_MALFORMED");
}

#[test]
fn a_sequence_number_used_twice_or_skipped() {
    let (mut server, lead, arrived) = arrival();
    server.admit(&lead.author(), &arrived).unwrap();
    // A phone restored from a copy goes on under its old actor.
    let other = lead.states(&mut visit(), "fact-2", 1, FactKind::Arrived).bytes;
    assert_eq!(refusal(&mut server, &lead, &other), Refusal::DuplicateSequence(1));
    assert_eq!(refusal(&mut copy(&server), &lead, &other), Refusal::DuplicateSequence(1));
    let next = lead.states(&mut copy(&server), "fact-3", 2, FactKind::WorkStarted).bytes;
    for seq in [0, 1, 3, u64::MAX >> 1] {
        let bytes = forge::altered(&next, |change| change.seq = seq);
        assert_eq!(refusal(&mut server, &lead, &bytes), Refusal::DuplicateSequence(seq));
    }
    // The right number, beside the actor's last change instead of after it.
    let beside =
        forge::altered(&lead.states(&mut visit(), "fact-4", 2, FactKind::WorkStarted).bytes, |change| change.seq = 2);
    assert_eq!(refusal(&mut server, &lead, &beside), Refusal::DuplicateSequence(2));
    server.admit(&lead.author(), &next).unwrap();
}

#[test]
fn the_servers_actor_stolen() {
    let (mut server, lead) = (visit(), Phone::new(1));
    let second = actor(0x51);
    retitle(&mut server, second, "Boiler is cold");
    for stolen in [SERVER, second] {
        let thief = Phone { actor: stolen, ..lead.clone() };
        let bytes = thief.states(&mut copy(&server), "fact-1", 1, FactKind::Arrived).bytes;
        assert_eq!(forbidden(&mut copy(&server), &lead, &bytes), "as an actor of the server");
        assert_eq!(forbidden(&mut server, &lead, &bytes), "as an actor of the server");
    }
}

#[test]
fn operations_numbered_out_of_order() {
    let (mut server, lead, arrived) = arrival();
    for start in [1, 3, 4_000, u64::from(u32::MAX) - 1] {
        let bytes = forge::altered(&arrived, |change| change.start_op = NonZeroU64::new(start).unwrap());
        assert_eq!(code(&mut server, &lead, &bytes), "CHANGE_MALFORMED");
    }
}

#[test]
fn what_no_phone_of_ours_adds() {
    let (mut server, lead, arrived) = arrival();
    let write = |tx: &mut automerge::transaction::Transaction<'_>, o: &forge::Objects| {
        tx.put(&o.report, "summary", "Done").unwrap();
    };
    let message = forge::change_with(&server, lead.actor, CommitOptions::default().with_message("hello"), write);
    assert_eq!(refusal(&mut server, &lead, message.raw_bytes()), Refusal::Malformed("it carries a message"));
    for time in [i64::MIN >> 2, 1 << 40, i64::MAX >> 2] {
        let late = forge::change_with(&server, lead.actor, CommitOptions::default().with_time(time), write);
        assert_eq!(refusal(&mut server, &lead, late.raw_bytes()), Refusal::Malformed("its time is out of range"));
    }
    let extra = forge::altered(&arrived, |change| change.extra_bytes = vec![1, 2, 3]);
    assert_eq!(refusal(&mut server, &lead, &extra), Refusal::Malformed("it carries extra bytes"));
    let short = forge::altered(&arrived, |change| change.actor_id = ActorId::from(&[1, 2, 3][..]));
    assert_eq!(refusal(&mut server, &lead, &short), Refusal::Malformed("an actor in it has not 16 bytes"));
}

// ---- limits

#[test]
fn more_than_the_limits() {
    let (mut server, lead) = (visit(), Phone::new(1));
    let long = "x".repeat(ANSWER_BYTES_MAX + 1);
    let answer = Answer { value: long.clone(), by: lead.technician.clone(), at: at(1) };
    let bytes = forge::bytes(&server, lead.actor, |tx, o| tx.put(&o.checklist, "item-1", cbor(&answer)).unwrap());
    assert_eq!(code(&mut server, &lead, &bytes), "CHANGE_TOO_LARGE");
    let bytes = forge::bytes(&server, lead.actor, |tx, o| tx.put(&o.report, "summary", long.as_str()).unwrap());
    assert_eq!(code(&mut server, &lead, &bytes), "CHANGE_TOO_LARGE");
    // The phone does not even make them.
    let mut phone = copy(&server);
    let note = |insert: String| Edit::Note { at: 0, delete: 0, insert };
    for edit in [
        Edit::Answer { item: "item-1".parse().unwrap(), answer },
        Edit::Summary { text: long },
        note("x".repeat(CHANGE_OPS_MAX + 1)),
    ] {
        let refused = phone.edit(lead.actor, &edit, at(1)).expect_err("over a limit");
        assert_eq!(refused.code(), "CHANGE_TOO_LARGE");
        assert_eq!(phone.tag(), server.tag());
    }
    for _ in 0..NOTE_CHARS_MAX / CHANGE_OPS_MAX {
        let change = lead.notes(&mut phone, usize::MAX, 0, &"x".repeat(CHANGE_OPS_MAX));
        server.admit(&lead.author(), &change.bytes).unwrap();
    }
    assert_eq!(phone.edit(lead.actor, &note("x".into()), at(1)).unwrap_err().code(), "CHANGE_TOO_LARGE");
    let bytes = forge::bytes(&server, lead.actor, |tx, o| tx.splice_text(&o.notes, 0, 0, "x").unwrap());
    assert_eq!(code(&mut server, &lead, &bytes), "CHANGE_TOO_LARGE");
    // Replacing is still possible.
    let change = lead.notes(&mut phone, 10, 2, "yz");
    server.admit(&lead.author(), &change.bytes).unwrap();
}

#[test]
fn too_many_facts() {
    let (mut server, lead) = (visit(), Phone::new(1));
    let mut phone = copy(&server);
    let facts = u64::try_from(FACTS_MAX).unwrap();
    let mut changes: Vec<_> = (1..=facts)
        .map(|number| lead.states(&mut phone, &format!("fact-{number}"), number, FactKind::Resumed).bytes)
        .collect();
    let last = Edit::Fact { fact: lead.fact("one-more", facts + 1, FactKind::Completed) };
    assert_eq!(phone.edit(lead.actor, &last, at(1)).unwrap_err().code(), "CHANGE_TOO_LARGE");
    assert_eq!(copy(&phone).edit(lead.actor, &last, at(1)).unwrap_err().code(), "CHANGE_TOO_LARGE");
    let more = cbor(&lead.fact("one-more", facts + 1, FactKind::Completed));
    changes.push(forge::bytes(&phone, lead.actor, |tx, o| tx.put(&o.facts, "one-more", more).unwrap()));
    let (admissions, refused) = server.admit_batch(&lead.author(), &changes);
    assert_eq!(admissions.len(), FACTS_MAX);
    assert!(matches!(refused, Some(Refusal::TooLarge { what: "facts", .. })), "{refused:?}");
}

#[test]
fn a_document_that_phones_have_filled_can_still_be_ruled_on() {
    let (mut server, lead, arrived) = arrival();
    server.admit(&lead.author(), &arrived).unwrap();
    let mut phone = copy(&server);
    let text = "x".repeat(ANSWER_BYTES_MAX);
    let refused = (0..1_000).find_map(|number| {
        let change = lead.answers(&mut phone, &format!("item-{number}"), &text);
        server.admit(&lead.author(), &change.bytes).err()
    });
    assert!(matches!(refused, Some(Refusal::TooLarge { what: "document bytes", .. })), "{refused:?}");
    let ruling = Ruling {
        verdict: Verdict::Accepted,
        reason: RulingReason::InOrder,
        recorded_at: at(9),
        knew_revision: 1,
        clock_flagged: false,
        gap_flagged: false,
    };
    let rulings = BTreeMap::from([("fact-1".parse().unwrap(), ruling)]);
    server.decide(SERVER, &server.plan(), &rulings, at(9)).unwrap();
    assert!(server.save().len() < DOCUMENT_BYTES_MAX);
    assert_eq!(copy(&server).view().rulings, rulings);
}

// ---- documents

#[test]
fn documents_that_are_none() {
    let server = visit();
    let saved = server.save();
    assert!(matches!(VisitDoc::load(&[]), Err(DocumentError::Malformed(_))));
    assert!(matches!(VisitDoc::load(b"garbage"), Err(DocumentError::Malformed(_))));
    assert!(matches!(VisitDoc::load(&Automerge::new().save()), Err(DocumentError::Malformed(_))));
    assert_eq!(
        VisitDoc::load(&vec![0; DOCUMENT_BYTES_MAX + 1]).unwrap_err(),
        DocumentError::TooLarge(DOCUMENT_BYTES_MAX + 1)
    );
    for length in 0..saved.len() {
        assert!(matches!(VisitDoc::load(&saved[..length]), Err(DocumentError::Malformed(_))), "cut at {length}");
    }
    for index in 0..saved.len() {
        let mut damaged = saved.clone();
        damaged[index] ^= 0x10;
        assert!(VisitDoc::load(&damaged).is_err(), "byte {index} damaged");
    }
}

#[test]
fn changes_may_be_appended_to_a_saved_document() {
    let (server, lead, arrived) = arrival();
    let mut appended = server.save();
    appended.extend(&arrived);
    let doc = VisitDoc::load(&appended).unwrap();
    assert_eq!(doc.view().facts.len(), 1);
    for length in server.save().len() + 1..appended.len() {
        assert!(matches!(VisitDoc::load(&appended[..length]), Err(DocumentError::Malformed(_))), "cut at {length}");
    }
    // A change whose causes are missing is not silently put aside.
    let next = lead.states(&mut doc.clone(), "fact-2", 2, FactKind::WorkStarted);
    let open = [server.save(), next.bytes].concat();
    assert_eq!(VisitDoc::load(&open).unwrap_err(), DocumentError::CausallyOpen);
}

#[test]
fn a_phone_applies_what_the_server_sends_all_or_nothing() {
    let (mut server, lead) = (visit(), Phone::new(1));
    let mut phone = copy(&server);
    let first = retitle(&mut server, SERVER, "Boiler is cold");
    let second = retitle(&mut server, SERVER, "Boiler is on fire");
    let tag = phone.tag();
    assert_eq!(phone.apply(&[&second.bytes]), Err(DocumentError::CausallyOpen));
    assert!(matches!(phone.apply(&[&first.bytes[..20]]), Err(DocumentError::Malformed(_))));
    assert_eq!(phone.tag(), tag);
    phone.apply(&[&second.bytes, &first.bytes, &second.bytes]).unwrap();
    phone.apply(&[&first.bytes]).unwrap();
    assert_eq!((phone.tag(), phone.plan().title), (server.tag(), "Boiler is on fire".into()));
    assert!(
        phone.has_change(&first.hash) && !phone.has_change(&lead.states(&mut visit(), "f", 1, FactKind::Arrived).hash)
    );
}

#[test]
fn another_visits_document_is_not_merged() {
    let (mut server, lead, arrived) = arrival();
    let other = VisitDoc::genesis(actor(0x60), &plan(), at(0)).0;
    assert!(matches!(server.merge(&other.save()), Err(DocumentError::Malformed(_))));
    let mut phone = copy(&server);
    phone.admit(&lead.author(), &arrived).unwrap();
    server.merge(&phone.save()).unwrap();
    assert_eq!(server.tag(), phone.tag());
}

// ---- after a refusal

#[test]
fn after_a_refusal_the_phone_makes_its_edits_again() {
    let (mut server, lead) = (visit(), Phone::new(1));
    let mut phone = copy(&server);
    let arrived = Edit::Fact { fact: lead.fact("fact-1", 1, FactKind::Arrived) };
    let started = Edit::Fact { fact: lead.fact("fact-2", 2, FactKind::WorkStarted) };
    let note = Edit::Note { at: 900, delete: 3, insert: "Pump worn".into() };
    let change = phone.edit(lead.actor, &arrived, at(1)).unwrap();
    server.admit(&lead.author(), &change.bytes).unwrap();
    retitle(&mut server, SERVER, "Boiler is cold");
    let never = Edit::Summary { text: "x".repeat(ANSWER_BYTES_MAX + 1) };

    let rebased = VisitDoc::rebase(&server.save(), actor(11), &[arrived, started, never, note], at(2)).unwrap();
    let made: Vec<_> = rebased
        .edits
        .iter()
        .filter_map(|edit| match edit {
            RebasedEdit::Made(change) => Some(change.bytes.clone()),
            RebasedEdit::AlreadyThere | RebasedEdit::Refused(_) => None,
        })
        .collect();
    assert_eq!(rebased.edits[0], RebasedEdit::AlreadyThere);
    assert!(matches!(rebased.edits[2], RebasedEdit::Refused(Refusal::TooLarge { .. })));
    let (admissions, refused) = server.admit_batch(&lead.author(), &made);
    assert_eq!((admissions.len(), refused), (2, None));
    assert_eq!(server.tag(), rebased.document.tag());
    assert_eq!((server.view().facts.len(), server.report().notes.as_str()), (2, "Pump worn"));
}

#[test]
fn a_fact_is_stated_once_and_well_formed() {
    let lead = Phone::new(1);
    let mut phone = visit();
    let fact = lead.fact("fact-1", 1, FactKind::Arrived);
    phone.edit(lead.actor, &Edit::Fact { fact: fact.clone() }, at(1)).unwrap();
    let tag = phone.tag();
    assert_eq!(phone.edit(lead.actor, &Edit::Fact { fact }, at(1)).unwrap_err().code(), "FACT_UNACCEPTABLE");
    let bad = lead.fact("fact-2", 0, FactKind::Arrived);
    assert_eq!(phone.edit(lead.actor, &Edit::Fact { fact: bad }, at(1)).unwrap_err().code(), "FACT_UNACCEPTABLE");
    assert_eq!(phone.tag(), tag);
}
