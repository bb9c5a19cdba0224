//! `wss://`: a certificate that the phone trusts lets it in, another one is named as the reason.

#![allow(clippy::unwrap_used, reason = "a story that is not as told shall fail")]

mod support;

use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use std::sync::Arc;
use support::{PhoneSetup, World};
use sync_core::client::ConnectionError;
use sync_core::domain::FactKind;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Ends TLS in front of the server, as a load balancer does. Answers its port and the certificate.
async fn balancer(server_port: u16) -> (u16, rustls::pki_types::CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let certificate = made.cert.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(made.signing_key.serialize_der()));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut phone) = acceptor.accept(socket).await else { return };
                let mut server = TcpStream::connect(("127.0.0.1", server_port)).await.unwrap();
                let _ = copy_bidirectional(&mut phone, &mut server).await;
            });
        }
    });
    (port, certificate)
}

fn trusting(roots: rustls::RootCertStore) -> Arc<rustls::ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(config.with_root_certificates(roots).with_no_client_auth())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_certificate_lets_the_phone_sync() {
    let world = World::start().await;
    let (port, certificate) = balancer(world.port).await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certificate).unwrap();
    let url = Some(format!("https://localhost:{port}"));
    let setup = PhoneSetup { url, tls: Some(trusting(roots)), ..PhoneSetup::default() };
    let phone = world.phone_with("TECH-10", "maria", setup);
    let dispatch = world.assigned("SO-1", 1, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    phone.does(&dispatch, FactKind::Accepted { eta: None }).await;
    phone.caught_up().await;
    assert_eq!(world.status(&dispatch).await, "CONFIRMED");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_certificate_is_named_as_the_reason() {
    let world = World::start().await;
    let (port, _) = balancer(world.port).await;
    // With the web's own roots, as an app has them.
    let setup = PhoneSetup { url: Some(format!("wss://localhost:{port}")), ..PhoneSetup::default() };
    let phone = world.phone_with("TECH-10", "maria", setup);
    let mut status = phone.client.status();
    let named = status.wait_for(|status| matches!(status.error, Some(ConnectionError::Tls(_))));
    tokio::time::timeout(support::PATIENCE, named).await.unwrap().unwrap();
}
