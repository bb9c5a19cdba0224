//! The schema registry's public REST API, as far as it is needed: look up, check, register, read.

use super::consume::{SchemaError, SchemaSource};
use crate::auth::Secret;
use crate::config::KafkaConfig;
use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";
/// How long the registry may take for an answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer that is read, bytes.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// "Subject not found".
const SUBJECT_NOT_FOUND: u32 = 40_401;
/// "Version not found".
const VERSION_NOT_FOUND: u32 = 40_402;
/// "Schema not found".
const SCHEMA_NOT_FOUND: u32 = 40_403;

/// What went wrong with the registry.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RegistryError {
    /// It does not answer, or not sensibly. Worth another try.
    #[error("the schema registry at {url} does not answer: {reason}; check kafka.schema_registry_url and that it runs")]
    Unavailable {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// It does not let this server in.
    #[error(
        "the schema registry at {url} refuses this server ({status}); check kafka.schema_registry_username and _password"
    )]
    Unauthorized {
        /// Where.
        url: String,
        /// 401 or 403.
        status: u16,
    },
    /// It does not take the schema.
    #[error(
        "the schema registry refuses the schema of subject {subject}: {reason}; nothing was published, events wait. Let the \
         subject's owner make room for it (compatibility BACKWARD), then restart"
    )]
    Refused {
        /// The subject.
        subject: String,
        /// The registry's words.
        reason: String,
    },
    /// Nobody registered a schema of this id.
    #[error("the schema registry knows no schema {0}")]
    UnknownSchema(u32),
    /// The settings make no sense.
    #[error("kafka.schema_registry_{0}")]
    Settings(String),
}

/// A registry.
#[derive(Debug, Clone)]
pub struct Registry {
    /// Without a slash at its end.
    url: String,
    user: Option<(String, Secret)>,
    http: Client<HttpsConnector<HttpConnector>, String>,
}

/// A refusal's body.
#[derive(Debug, Default, Deserialize)]
struct Refusal {
    #[serde(default)]
    error_code: u32,
    #[serde(default)]
    message: String,
}

enum Answer {
    Done(Value),
    Refused(StatusCode, Refusal),
}

impl Registry {
    /// The configured one. Nothing is sent yet.
    ///
    /// # Errors
    /// [`RegistryError::Settings`].
    pub fn new(config: &KafkaConfig) -> Result<Self, RegistryError> {
        let settings = |key: &str, reason: &dyn std::fmt::Display| RegistryError::Settings(format!("{key}: {reason}"));
        let text = config.schema_registry_url.as_deref().unwrap_or_default();
        let uri: Uri = text.parse().map_err(|error| settings("url", &error))?;
        if uri.query().is_some() || uri.host().is_none_or(str::is_empty) {
            return Err(settings("url", &"must be http(s)://HOST:PORT/PATH without a query"));
        }
        let url = text.trim_end_matches('/').to_owned();
        let tls = tls(config).map_err(|error| settings("ca_location", &error))?;
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        let http = Client::builder(TokioExecutor::new()).build(connector);
        let user = config.schema_registry_username.clone().zip(config.schema_registry_password.clone());
        Ok(Self { url, user, http })
    }

    /// The id of a subject's schema: the one it has, or a new version, after the registry has found that it goes with the
    /// versions before it.
    ///
    /// # Errors
    /// [`RegistryError`]; [`RegistryError::Refused`] leaves the subject as it was.
    pub async fn register(&self, subject: &str, schema: &str) -> Result<u32, RegistryError> {
        let body = json!({ "schema": schema, "schemaType": "AVRO" });
        let refused = |reason: String| RegistryError::Refused { subject: subject.to_owned(), reason };
        let known = self.call(Method::POST, &format!("/subjects/{subject}"), Some(&body)).await?;
        match known {
            Answer::Done(answer) => return self.id(&answer),
            Answer::Refused(StatusCode::NOT_FOUND, _) => {}
            Answer::Refused(_, refusal) => return Err(refused(refusal.message)),
        }
        let path = format!("/compatibility/subjects/{subject}/versions/latest?verbose=true");
        match self.call(Method::POST, &path, Some(&body)).await? {
            Answer::Done(answer) if answer["is_compatible"] == json!(true) => {}
            Answer::Done(answer) => {
                let messages: Vec<_> =
                    answer["messages"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
                return Err(refused(format!("it is not compatible with the latest version: {}", messages.join("; "))));
            }
            // The first of its subject.
            Answer::Refused(_, Refusal { error_code: SUBJECT_NOT_FOUND | VERSION_NOT_FOUND, .. }) => {}
            Answer::Refused(_, refusal) => return Err(refused(refusal.message)),
        }
        match self.call(Method::POST, &format!("/subjects/{subject}/versions"), Some(&body)).await? {
            Answer::Done(answer) => self.id(&answer),
            Answer::Refused(_, refusal) => Err(refused(refusal.message)),
        }
    }

    /// A schema by its id.
    ///
    /// # Errors
    /// [`RegistryError::UnknownSchema`]; other ones when the registry does not answer.
    pub async fn schema(&self, id: u32) -> Result<String, RegistryError> {
        match self.call(Method::GET, &format!("/schemas/ids/{id}"), None).await? {
            Answer::Done(Value::Object(mut answer)) => match answer.remove("schema") {
                Some(Value::String(schema)) => Ok(schema),
                _ => Err(self.unavailable("a schema without text")),
            },
            Answer::Done(_) => Err(self.unavailable("a schema that is no object")),
            Answer::Refused(_, Refusal { error_code: SCHEMA_NOT_FOUND, .. }) => Err(RegistryError::UnknownSchema(id)),
            Answer::Refused(status, refusal) => Err(self.unavailable(&format!("{status} {}", refusal.message))),
        }
    }

    fn id(&self, answer: &Value) -> Result<u32, RegistryError> {
        let id = answer["id"].as_u64().and_then(|id| u32::try_from(id).ok());
        id.ok_or_else(|| self.unavailable("an answer without a schema id"))
    }

    fn unavailable(&self, reason: &str) -> RegistryError {
        RegistryError::Unavailable { url: self.url.clone(), reason: reason.to_owned() }
    }

    /// One call; the path needs no escaping, since the names of topics do not. What only time or somebody else can mend is an
    /// error; what the registry says of the matter is an answer.
    async fn call(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Answer, RegistryError> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{path}", self.url))
            .header(header::ACCEPT, CONTENT_TYPE)
            .header(header::CONTENT_TYPE, CONTENT_TYPE);
        if let Some((user, password)) = &self.user {
            let credentials = STANDARD.encode(format!("{user}:{}", password.expose_text()));
            request = request.header(header::AUTHORIZATION, format!("Basic {credentials}"));
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(body).map_err(|error| self.unavailable(&error.to_string()))?;
        let exchange = async {
            let response = self.http.request(request).await.map_err(|error| self.unavailable(&reasons(&error)))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
            Ok((status, body.map_err(|error| self.unavailable(&error.to_string()))?.to_bytes()))
        };
        let answered = tokio::time::timeout(TIMEOUT, exchange).await;
        let (status, text) = answered.map_err(|_| self.unavailable("no answer within 10 s"))??;
        if status.is_success() {
            let answer = serde_json::from_slice(&text);
            return answer.map(Answer::Done).map_err(|error| self.unavailable(&format!("no JSON: {error}")));
        }
        match status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(RegistryError::Unauthorized { url: self.url.clone(), status: status.as_u16() })
            }
            status if status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS => {
                Err(self.unavailable(&format!("it answered {status}")))
            }
            status => {
                let mut refusal: Refusal = serde_json::from_slice(&text).unwrap_or_default();
                if refusal.message.is_empty() {
                    refusal.message = format!("it answered {status}");
                }
                Ok(Answer::Refused(status, refusal))
            }
        }
    }
}

#[async_trait]
impl SchemaSource for Registry {
    async fn schema(&self, id: u32) -> Result<String, SchemaError> {
        Registry::schema(self, id).await.map_err(|error| match error {
            RegistryError::UnknownSchema(_) => SchemaError::Unknown(error.to_string()),
            // Whatever else it is, somebody can mend it, and the event is still there then.
            other => SchemaError::Unreachable(other.to_string()),
        })
    }
}

/// The error with what it came from, in one line.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

/// The well-known authorities, or the configured ones.
fn tls(config: &KafkaConfig) -> Result<rustls::ClientConfig, String> {
    use rustls::pki_types::CertificateDer;
    use rustls::pki_types::pem::PemObject as _;
    let mut roots = rustls::RootCertStore::empty();
    match &config.schema_registry_ca_location {
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
        Some(path) => {
            let said = |error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
            let pem = std::fs::read(path).map_err(|error| said(&error))?;
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|error| said(&error))?;
                roots.add(certificate).map_err(|error| said(&error))?;
            }
            if roots.is_empty() {
                return Err(said(&"has no certificate"));
            }
        }
    }
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}
