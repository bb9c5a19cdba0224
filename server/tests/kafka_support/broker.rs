//! A broker of the test's own, to be stopped and killed.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used, reason = "a test fails by panicking")]

use super::services::service;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use tempfile::TempDir;

pub struct Broker {
    dir: TempDir,
    port: u16,
}

impl Broker {
    /// A new cluster of one.
    pub async fn start() -> Self {
        service("TEST_KAFKA_HOME");
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let broker = Self { dir: tempfile::tempdir().unwrap(), port };
        broker.again().await;
        broker
    }

    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it on its data.
    pub async fn again(&self) {
        self.script("start").await;
    }

    /// In good order.
    pub async fn stop(&self) {
        self.script("stop").await;
    }

    /// SIGKILL.
    pub async fn kill(&self) {
        self.script("kill").await;
    }

    /// It keeps its connections and answers nothing.
    pub async fn hang(&self) {
        self.script("hang").await;
    }

    /// It answers again, what it was asked meanwhile first.
    pub async fn go_on(&self) {
        self.script("go-on").await;
    }

    async fn script(&self, command: &'static str) {
        let (dir, port) = (self.dir.path().to_owned(), self.port);
        tokio::task::spawn_blocking(move || run(command, &dir, port)).await.unwrap();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        run("kill", self.dir.path(), self.port);
    }
}

fn run(command: &str, dir: &Path, port: u16) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|root| root.join("scripts/kafka").exists());
    let output = Command::new(root.unwrap().join("scripts/kafka"))
        .args([command, dir.to_str().unwrap(), &port.to_string()])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    // While a story fails already, this would hide why.
    assert!(
        output.status.success() || std::thread::panicking(),
        "scripts/kafka {command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
