//! Writes the committed seeds of every corpus. It has the form of a target, because what is instrumented links with libFuzzer only.

#![no_main]

mod back_office;
mod scene;
mod signer;

use back_office::{Asked, furniture};
use crm_dispatch_server::http::{PREFIX, openapi};
use scene::{NEW_PHONE, PHONE, SERVER, Scene, THIRD_PHONE, body, chunk, now};
use serde_json::{Value, json};
use std::fs;
use sync_core::document::StateTag;
use sync_core::domain::{Tombstone, TombstoneReason, VisitCard, fold};
use sync_core::protocol::{
    Batch, Cursor, Digest, FeedItem, OutboxMark, PhoneMessage, Ping, Pull, Push, PushLane, ServerMessage, encode_items,
    encode_phone, encode_server,
};

libfuzzer_sys::fuzz_target!(
    init: { write_and_end() },
    |_data: &[u8]| ()
);

fn write_and_end() {
    write_seeds().expect("the corpus can be written");
    std::process::exit(0);
}

fn write_seeds() -> std::io::Result<()> {
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

    // A script of damage is five bytes a step; see `phone_files::damage`.
    let scripts: [(&str, &[u8]); 12] = [
        ("nothing", &[]),
        ("header", &[0, 0, 0, 18, 9]),
        ("bit", &[0x10, 0, 0x20, 0x10, 3]),
        ("first-page", &[0x20, 0, 0, 100, 0xff]),
        ("second-page", &[0x20, 0, 0x10, 0, 0xff]),
        ("cut", &[0x18, 0, 0x60, 0, 0]),
        ("swapped", &[0x28, 0, 0x30, 0, 5]),
        ("longer", &[0x30, 0, 1, 0, 0x61]),
        ("log-cut", &[0x1d, 0, 0x20, 0, 0]),
        ("log-bit", &[0x15, 0, 0, 40, 1]),
        ("lock", &[0x06, 0, 0, 0, b'C']),
        ("marker", &[0x0f, 0, 0, 3, 1]),
    ];
    for (name, script) in scripts {
        for door in 1..=3 {
            write("store_open", format!("{name}-{door}"), door, script)?;
        }
    }
    for (name, file) in
        [("text", &b"no database at all"[..]), ("header-alone", b"SQLite format 3\0\x10\0\x02\x02\0\x40\x20\x20")]
    {
        write("store_open", name.into(), 0, file)?;
    }
    for which in 0..4 {
        write("store_open", format!("rewritten-{which}"), 4, &[which, 0xa1, 0x61, b'x', 1])?;
    }

    let claims = signer::good_claims();
    let altered = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    let many: Vec<_> = (0..65).map(|number| format!("role-{number}")).collect();
    let claims = [
        claims.clone(),
        altered("exp", json!(1)),
        altered("exp", json!(1e300)),
        altered("nbf", json!(signer::NOW + 3_600)),
        altered("nbf", json!("soon")),
        altered("iss", json!("elsewhere")),
        altered("aud", json!(["crm-dispatch", "billing"])),
        altered("roles", json!(["technician"])),
        altered("roles", json!(many)),
        altered("technician", json!("TECH-10")),
        altered("device", json!("phone-1")),
        altered("sub", json!(7)),
        altered("tenant", json!("no id")),
    ];
    let headers =
        [("none", ""), ("HS256", ""), ("HS256", ""), ("HS256", ""), ("RS256", "rsa"), ("ES256", "ec"), ("EdDSA", "ed")];
    for (door, (alg, kid)) in headers.into_iter().enumerate() {
        let door = door.saturating_sub(1) as u8;
        for (number, claims) in claims.iter().enumerate() {
            let header = if kid.is_empty() { json!({ "alg": alg }) } else { json!({ "alg": alg, "kid": kid }) };
            write("token", format!("{alg}-{door}-{number}"), door, format!("{header}\0{claims}").as_bytes())?;
        }
    }
    for (name, header) in [
        ("crit", json!({ "alg": "HS256", "crit": ["exp"] })),
        ("jku", json!({ "alg": "EdDSA", "kid": "other", "jku": "https://elsewhere" })),
    ] {
        write("token", name.into(), 2, format!("{header}\0{}", claims[0]).as_bytes())?;
    }
    write("token", "header".into(), 0, b"Bearer eyJhbGciOiJIUzI1NiJ9.e30.AAAA")?;

    rest_seeds(|name, request| {
        let (caller, rest) = request.split_first().expect("a seed is not empty");
        assert!(Asked::read(request).is_some(), "{name}");
        write("rest_bodies", name, *caller, rest)
    })
}

/// Every documented call with the documentation's own examples, and what furnishes the office.
fn rest_seeds(mut write: impl FnMut(String, &[u8]) -> std::io::Result<()>) -> std::io::Result<()> {
    for (number, (method, path, body)) in furniture().into_iter().enumerate() {
        write(format!("furniture-{number}"), format!("*{method} {path}\n\n{body}").as_bytes())?;
    }
    let document = serde_json::to_value(openapi()).expect("a document is JSON");
    let paths = document["paths"].as_object().expect("paths by name");
    for (path, calls) in paths {
        for (method, call) in calls.as_object().expect("calls by method") {
            let mut filled = path.strip_prefix(PREFIX).map_or_else(|| format!("/{path}"), str::to_owned);
            let mut query = Vec::new();
            for parameter in call["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap_or_default();
                let example = parameter["example"].as_str().unwrap_or("1");
                match parameter["in"].as_str() {
                    Some("path") => filled = filled.replace(&format!("{{{name}}}"), example),
                    Some("query") => query.push(format!("{name}={example}")),
                    _ => {}
                }
            }
            let content = &call["requestBody"]["content"]["application/json"];
            let body = example(&document, content);
            let name = format!("{method}{}", path.trim_start_matches(PREFIX).replace(['/', '{', '}'], "-"));
            let method = method.to_uppercase();
            let body = if body.is_null() { String::new() } else { body.to_string() };
            write(name.clone(), format!("*{method} {filled}\n\n{body}").as_bytes())?;
            if !query.is_empty() {
                let query = query.join("&");
                write(format!("{name}-query"), format!("*{method} {filled}?{query}\n\n").as_bytes())?;
            }
            if method == "POST" {
                let headers = "If-Match: \"1\"\nIdempotency-Key: key-1";
                write(format!("{name}-headers"), format!("d{method} {filled}\n{headers}\n\n{body}").as_bytes())?;
            }
        }
    }
    Ok(())
}

/// The example of a body, of its schema, or of what its schema is made of.
fn example(document: &Value, schema: &Value) -> Value {
    if !schema.is_object() {
        return Value::Null;
    }
    if let Some(example) = schema.get("example") {
        return example.clone();
    }
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return example(document, &document["components"]["schemas"][name]);
    }
    for inner in [&schema["schema"]].into_iter().chain(schema["oneOf"].as_array().into_iter().flatten()) {
        let found = example(document, inner);
        if !found.is_null() {
            return found;
        }
    }
    Value::Null
}
