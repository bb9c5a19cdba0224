//! A schema registry with Confluent's public REST API, as far as clients use it: subjects and versions, ids that are the same
//! everywhere, compatibility as Avro defines it, the error codes. In memory, on a free loopback port.
//!
//! `tests/python/check_registry.py` holds it against Confluent's own client.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "a test fails by panicking")]

use apache_avro::Schema;
use apache_avro::schema_compatibility::SchemaCompatibility;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

const LEVELS: [&str; 7] =
    ["NONE", "BACKWARD", "BACKWARD_TRANSITIVE", "FORWARD", "FORWARD_TRANSITIVE", "FULL", "FULL_TRANSITIVE"];

#[derive(Debug, Clone)]
struct Version {
    number: u32,
    id: u32,
    deleted: bool,
}

#[derive(Debug, Default)]
struct Content {
    /// By id - 1.
    schemas: Vec<String>,
    subjects: BTreeMap<String, Vec<Version>>,
    levels: HashMap<String, String>,
    /// Every call, for tests that count.
    calls: Vec<String>,
    /// Basic authentication, where it is asked for.
    user: Option<String>,
}

/// A registry that is running; ends with the test's runtime.
#[derive(Debug, Clone)]
pub struct TestRegistry {
    url: String,
    content: Arc<Mutex<Content>>,
}

type Answer = Result<Json<Value>, Refusal>;

#[derive(Debug)]
struct Refusal(StatusCode, u32, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error_code": self.1, "message": self.2 }))).into_response()
    }
}

fn not_found(code: u32, message: &str) -> Refusal {
    Refusal(StatusCode::NOT_FOUND, code, message.to_owned())
}
fn no_subject(subject: &str) -> Refusal {
    not_found(40_401, &format!("Subject '{subject}' not found."))
}
fn invalid(code: u32, message: String) -> Refusal {
    Refusal(StatusCode::UNPROCESSABLE_ENTITY, code, message)
}

impl TestRegistry {
    pub async fn start() -> Self {
        let content = Arc::<Mutex<Content>>::default();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new()
            .route("/subjects", get(subjects))
            .route("/subjects/{subject}", post(lookup).delete(delete_subject))
            .route("/subjects/{subject}/versions", get(versions).post(register))
            .route("/subjects/{subject}/versions/{version}", get(version))
            .route("/schemas/types", get(async || Json(json!(["AVRO"]))))
            .route("/schemas/ids/{id}", get(by_id))
            .route("/schemas/ids/{id}/versions", get(versions_of_id))
            .route("/config", get(config).put(set_config))
            .route("/config/{subject}", get(config_of).put(set_config_of))
            .route("/compatibility/subjects/{subject}/versions/{version}", post(compatibility))
            .layer(axum::middleware::from_fn_with_state(Arc::clone(&content), admit))
            .with_state(Arc::clone(&content));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, content }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// From now on only who gives this user and password is let in.
    pub fn ask_for(&self, user: &str, password: &str) {
        use base64::Engine as _;
        let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
        self.lock().user = Some(format!("Basic {encoded}"));
    }

    /// Registers a schema as somebody else would have.
    pub fn put(&self, subject: &str, schema: &str) {
        add(&mut self.lock(), subject, &normal(schema).unwrap());
    }

    /// `METHOD path` of every call so far.
    pub fn calls(&self) -> Vec<String> {
        self.lock().calls.clone()
    }

    /// The subjects with the number of their versions.
    pub fn subjects(&self) -> Vec<(String, usize)> {
        self.lock().subjects.iter().map(|(name, versions)| (name.clone(), versions.len())).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap()
    }
}

type Shared = State<Arc<Mutex<Content>>>;

async fn admit(
    State(content): Shared,
    headers: HeaderMap,
    request: axum::extract::Request,
    next: axum::middleware::Next,
) -> Response {
    {
        let mut content = content.lock().unwrap();
        content.calls.push(format!("{} {}", request.method(), request.uri().path()));
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        if content.user.is_some() && content.user.as_deref() != given {
            return Refusal(StatusCode::UNAUTHORIZED, 401, "Unauthorized".to_owned()).into_response();
        }
    }
    next.run(request).await
}

/// One text for one schema, whatever its white space.
fn normal(schema: &str) -> Result<String, Refusal> {
    let refuse = |reason: String| invalid(42_201, format!("Invalid schema: {reason}"));
    Schema::parse_str(schema).map_err(|error| refuse(error.to_string()))?;
    let value: Value = serde_json::from_str(schema).map_err(|error| refuse(error.to_string()))?;
    Ok(value.to_string())
}

fn posted(body: &Value) -> Result<String, Refusal> {
    if body["schemaType"].as_str().is_some_and(|kind| kind != "AVRO") {
        return Err(invalid(42_201, "Invalid schema type".to_owned()));
    }
    let schema = body["schema"].as_str().ok_or_else(|| invalid(42_201, "Empty schema".to_owned()))?;
    normal(schema)
}

fn add(content: &mut Content, subject: &str, schema: &str) -> u32 {
    let known = content.schemas.iter().position(|known| known == schema);
    let index = known.unwrap_or_else(|| {
        content.schemas.push(schema.to_owned());
        content.schemas.len() - 1
    });
    let id = u32::try_from(index).unwrap() + 1;
    let versions = content.subjects.entry(subject.to_owned()).or_default();
    let number = versions.last().map_or(1, |last| last.number + 1);
    versions.push(Version { number, id, deleted: false });
    id
}

fn live<'a>(content: &'a Content, subject: &str) -> Result<Vec<&'a Version>, Refusal> {
    let versions = content.subjects.get(subject).ok_or_else(|| no_subject(subject))?;
    let live: Vec<_> = versions.iter().filter(|version| !version.deleted).collect();
    if live.is_empty() { Err(no_subject(subject)) } else { Ok(live) }
}

fn find<'a>(content: &'a Content, subject: &str, version: &str) -> Result<&'a Version, Refusal> {
    let live = live(content, subject)?;
    if version == "latest" || version == "-1" {
        return live.last().copied().ok_or_else(|| no_subject(subject));
    }
    let number: u32 = version.parse().ok().filter(|number| *number > 0).ok_or_else(|| {
        let message = format!("The specified version '{version}' is not a valid version id.");
        invalid(42_202, message)
    })?;
    let found = live.into_iter().find(|version| version.number == number);
    found.ok_or_else(|| not_found(40_402, &format!("Version {number} not found.")))
}

fn level<'a>(content: &'a Content, subject: &str) -> &'a str {
    content.levels.get(subject).or_else(|| content.levels.get("")).map_or("BACKWARD", String::as_str)
}

/// What stands against the schema after these versions, oldest first.
fn objections(level: &str, schema: &str, before: &[&str]) -> Vec<String> {
    let transitive = level.ends_with("_TRANSITIVE");
    let before = if transitive { before } else { &before[before.len().saturating_sub(1)..] };
    let new = Schema::parse_str(schema).unwrap();
    let mut objections = Vec::new();
    for (index, old) in before.iter().enumerate().rev() {
        let old = Schema::parse_str(old).unwrap();
        let mut check = |name: &str, writer: &Schema, reader: &Schema| {
            if let Err(error) = SchemaCompatibility::can_read(writer, reader) {
                objections.push(format!("{name} with version index {index}: {error}"));
            }
        };
        if level.starts_with("BACKWARD") || level.starts_with("FULL") {
            check("the new schema cannot read data of the old one", &old, &new);
        }
        if level.starts_with("FORWARD") || level.starts_with("FULL") {
            check("the old schema cannot read data of the new one", &new, &old);
        }
    }
    objections
}

async fn subjects(State(content): Shared) -> Json<Value> {
    let content = content.lock().unwrap();
    let names = content.subjects.keys().filter(|subject| live(&content, subject).is_ok());
    Json(names.map(String::as_str).collect())
}

async fn versions(State(content): Shared, Path(subject): Path<String>) -> Answer {
    let content = content.lock().unwrap();
    Ok(Json(live(&content, &subject)?.into_iter().map(|version| version.number).collect()))
}

async fn version(State(content): Shared, Path((subject, number)): Path<(String, String)>) -> Answer {
    let content = content.lock().unwrap();
    let version = find(&content, &subject, &number)?;
    let schema = &content.schemas[version.id as usize - 1];
    Ok(Json(json!({ "subject": subject, "version": version.number, "id": version.id, "schema": schema })))
}

async fn register(State(content): Shared, Path(subject): Path<String>, Json(body): Json<Value>) -> Answer {
    let schema = posted(&body)?;
    let mut content = content.lock().unwrap();
    let known = live(&content, &subject).unwrap_or_default();
    if let Some(version) = known.iter().find(|version| content.schemas[version.id as usize - 1] == schema) {
        return Ok(Json(json!({ "id": version.id })));
    }
    let before: Vec<&str> = known.iter().map(|version| content.schemas[version.id as usize - 1].as_str()).collect();
    let objections = objections(level(&content, &subject), &schema, &before);
    if !objections.is_empty() {
        let message = format!(
            "Schema being registered is incompatible with an earlier schema for subject \"{subject}\", details: {objections:?}"
        );
        return Err(Refusal(StatusCode::CONFLICT, 409, message));
    }
    Ok(Json(json!({ "id": add(&mut content, &subject, &schema) })))
}

async fn lookup(State(content): Shared, Path(subject): Path<String>, Json(body): Json<Value>) -> Answer {
    let content = content.lock().unwrap();
    let live = live(&content, &subject)?;
    let schema = posted(&body)?;
    let found = live.into_iter().find(|version| content.schemas[version.id as usize - 1] == schema);
    let version = found.ok_or_else(|| not_found(40_403, "Schema not found"))?;
    Ok(Json(json!({ "subject": subject, "version": version.number, "id": version.id, "schema": schema })))
}

async fn delete_subject(State(content): Shared, Path(subject): Path<String>) -> Answer {
    let mut content = content.lock().unwrap();
    let numbers: Vec<u32> = live(&content, &subject)?.into_iter().map(|version| version.number).collect();
    for version in content.subjects.get_mut(&subject).unwrap() {
        version.deleted = true;
    }
    Ok(Json(json!(numbers)))
}

async fn by_id(State(content): Shared, Path(id): Path<usize>) -> Answer {
    let content = content.lock().unwrap();
    let schema = id.checked_sub(1).and_then(|index| content.schemas.get(index));
    let schema = schema.ok_or_else(|| not_found(40_403, &format!("Schema {id} not found")))?;
    Ok(Json(json!({ "schema": schema })))
}

async fn versions_of_id(State(content): Shared, Path(id): Path<u32>) -> Answer {
    let content = content.lock().unwrap();
    let mut found = Vec::new();
    for (subject, versions) in &content.subjects {
        let those = versions.iter().filter(|version| version.id == id && !version.deleted);
        found.extend(those.map(|version| json!({ "subject": subject, "version": version.number })));
    }
    if found.is_empty() { Err(not_found(40_403, &format!("Schema {id} not found"))) } else { Ok(Json(json!(found))) }
}

fn set_level(content: &mut Content, subject: &str, body: &Value) -> Answer {
    let level = body["compatibility"].as_str().unwrap_or_default();
    if !LEVELS.contains(&level) {
        return Err(invalid(42_203, "Invalid compatibility level".to_owned()));
    }
    content.levels.insert(subject.to_owned(), level.to_owned());
    Ok(Json(json!({ "compatibility": level })))
}

async fn config(State(content): Shared) -> Json<Value> {
    Json(json!({ "compatibilityLevel": level(&content.lock().unwrap(), "") }))
}

async fn set_config(State(content): Shared, Json(body): Json<Value>) -> Answer {
    set_level(&mut content.lock().unwrap(), "", &body)
}

async fn config_of(
    State(content): Shared,
    Path(subject): Path<String>,
    Query(query): Query<HashMap<String, String>>,
) -> Answer {
    let content = content.lock().unwrap();
    let global = query.get("defaultToGlobal").is_some_and(|value| value == "true");
    if !global && !content.levels.contains_key(&subject) {
        let message = format!("Subject '{subject}' does not have subject-level compatibility configured");
        return Err(not_found(40_408, &message));
    }
    Ok(Json(json!({ "compatibilityLevel": level(&content, &subject) })))
}

async fn set_config_of(State(content): Shared, Path(subject): Path<String>, Json(body): Json<Value>) -> Answer {
    set_level(&mut content.lock().unwrap(), &subject, &body)
}

async fn compatibility(
    State(content): Shared,
    Path((subject, number)): Path<(String, String)>,
    Query(query): Query<HashMap<String, String>>,
    Json(body): Json<Value>,
) -> Answer {
    let schema = posted(&body)?;
    let content = content.lock().unwrap();
    let version = find(&content, &subject, &number)?;
    let old = content.schemas[version.id as usize - 1].as_str();
    let objections = objections(level(&content, &subject), &schema, &[old]);
    let mut answer = json!({ "is_compatible": objections.is_empty() });
    if query.get("verbose").is_some_and(|value| value == "true") {
        answer["messages"] = json!(objections);
    }
    Ok(Json(answer))
}
