//! Opening the socket.

use super::ClientConfig;
use super::status::ConnectionError;
use crate::protocol::limits::{FRAME_BYTES_MAX, SUBPROTOCOL, SYNC_PATH};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::{Error, UrlError};
use tokio_tungstenite::tungstenite::http::{HeaderValue, StatusCode, header};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream};

pub(super) type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

/// No answer to the connection attempt for this long: the network swallows it.
const CONNECT_TIMEOUT: std::time::Duration = std::time::Duration::from_secs(15);
/// A phone's frames are small; the default of 128 kB a socket is not.
const BUFFER_BYTES: usize = 16 * 1024;

/// Why the socket could not be opened, and how long the server wants to be left alone.
pub(super) struct Failed {
    pub(super) error: ConnectionError,
    pub(super) retry_after_ms: Option<i64>,
}

impl From<ConnectionError> for Failed {
    fn from(error: ConnectionError) -> Self {
        Self { error, retry_after_ms: None }
    }
}

/// Connects, with the token in the upgrade request.
pub(super) async fn connect(config: &ClientConfig, token: &str) -> Result<Socket, Failed> {
    let base = config.url.trim_end_matches('/');
    let base = match base.split_once("://") {
        Some(("http", rest)) => format!("ws://{rest}"),
        Some(("https", rest)) => format!("wss://{rest}"),
        _ => base.to_owned(),
    };
    let address = |detail: String| ConnectionError::Address(detail);
    let mut request = format!("{base}{SYNC_PATH}").into_client_request().map_err(|e| address(e.to_string()))?;
    let headers = request.headers_mut();
    let mut bearer = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| ConnectionError::Token(super::TokenError::SignInNeeded("the token is no header text".into())))?;
    bearer.set_sensitive(true);
    headers.insert(header::AUTHORIZATION, bearer);
    headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    let limits = WebSocketConfig::default()
        .max_message_size(Some(FRAME_BYTES_MAX))
        .max_frame_size(Some(FRAME_BYTES_MAX))
        .read_buffer_size(BUFFER_BYTES)
        .write_buffer_size(BUFFER_BYTES);
    let connector = config.tls.clone().map(Connector::Rustls).or_else(|| secure_default(&base));
    let attempt = tokio_tungstenite::connect_async_tls_with_config(request, Some(limits), true, connector);
    match tokio::time::timeout(CONNECT_TIMEOUT, attempt).await {
        Err(_) => Err(ConnectionError::Unreachable("no answer".into()).into()),
        Ok(Ok((socket, _))) => Ok(socket),
        Ok(Err(error)) => Err(explain(error)),
    }
}

/// The web's roots with the `ring` provider, named here so that no process-wide default is needed.
fn secure_default(base: &str) -> Option<Connector> {
    if !base.starts_with("wss://") {
        return None;
    }
    let roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().ok()?;
    Some(Connector::Rustls(std::sync::Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
}

fn explain(error: Error) -> Failed {
    match error {
        Error::Http(response) => {
            let after = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
            let retry_after_ms = after.and_then(|text| text.parse::<i64>().ok()).map(|s| s.saturating_mul(1000));
            let error = match response.status() {
                StatusCode::UNAUTHORIZED => ConnectionError::Unauthorized,
                StatusCode::FORBIDDEN => ConnectionError::Forbidden,
                other => ConnectionError::Refused(other.as_u16()),
            };
            Failed { error, retry_after_ms }
        }
        Error::Url(UrlError::UnableToConnect(detail)) => ConnectionError::Unreachable(detail).into(),
        Error::Url(error) => ConnectionError::Address(error.to_string()).into(),
        Error::Tls(error) => ConnectionError::Tls(error.to_string()).into(),
        // rustls reports a bad certificate through the stream.
        Error::Io(error) if error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>()) => {
            ConnectionError::Tls(error.to_string()).into()
        }
        other => ConnectionError::Unreachable(other.to_string()).into(),
    }
}
