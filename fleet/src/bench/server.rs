//! The server under test: a child process on a fresh database.

use super::BenchError;
use crate::office::TokenIssuer;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use sync_core::domain::TenantId;

/// What the server prints when it is ready.
const READY: &str = "listening on http://";
/// How long it may take until then.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// How to start a server, and how to be let in.
#[derive(Clone)]
pub struct ServerCommand {
    /// The executable.
    pub program: PathBuf,
    /// Its arguments (`serve`).
    pub args: Vec<String>,
    /// Its environment, beside this process's: the secret that `tokens` signs with, above all. Database, port and the
    /// number of connections are set for each run.
    pub env: Vec<(String, String)>,
    /// Makes tokens that it takes.
    pub tokens: TokenIssuer,
    /// Whose data.
    pub tenant: TenantId,
}

impl std::fmt::Debug for ServerCommand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerCommand")
            .field("program", &self.program)
            .field("args", &self.args)
            .finish_non_exhaustive()
    }
}

/// A running server; killed when dropped.
#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Starts one on a fresh database in `dir`.
    pub(super) async fn start(command: &ServerCommand, dir: &Path) -> Result<Self, BenchError> {
        let (command, dir) = (command.clone(), dir.to_owned());
        let started = tokio::task::spawn_blocking(move || Self::spawn(&command, &dir));
        match tokio::time::timeout(START_TIMEOUT, started).await {
            Ok(Ok(server)) => server,
            Ok(Err(lost)) => Err(BenchError::Server(lost.to_string())),
            Err(_) => Err(BenchError::Server("it did not say that it listens".to_owned())),
        }
    }

    fn spawn(command: &ServerCommand, dir: &Path) -> Result<Self, BenchError> {
        let failed = |error: std::io::Error| BenchError::Server(error.to_string());
        let log = std::fs::File::create(dir.join("server.log")).map_err(failed)?;
        // A shell in between lifts the limit of open files as far as the machine allows.
        let mut child = Command::new("sh")
            .arg("-c")
            .arg("ulimit -n \"$(ulimit -Hn)\"; exec \"$0\" \"$@\"")
            .arg(&command.program)
            .args(&command.args)
            .env("CRM_DISPATCH__SERVER__PORT", "0")
            .env("CRM_DISPATCH__DATABASE__URL", format!("sqlite://{}", dir.join("server.sqlite").display()))
            .env("CRM_DISPATCH__SYNC__CONNECTIONS_MAX", "20000")
            .env("CRM_DISPATCH__LOG__LEVEL", "warn")
            .envs(command.env.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log))
            .spawn()
            .map_err(failed)?;
        let Some(stdout) = child.stdout.take() else {
            return Err(BenchError::Server("it has no output".to_owned()));
        };
        let mut lines = BufReader::new(stdout).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let rest = line.split_once(READY)?.1;
            rest.split(|c: char| c.is_whitespace() || c == '/').next()?.parse().ok()
        });
        let Some(address) = address else {
            let _ = child.kill();
            let _ = child.wait();
            let log = std::fs::read_to_string(dir.join("server.log")).unwrap_or_default();
            return Err(BenchError::Server(format!("it ended: {}", log.trim())));
        };
        // Its output is read on, so that a full pipe never stops it.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(Self { child, address })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// As a URL.
    pub(super) fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its resident memory, bytes.
    pub(super) fn resident_bytes(&self) -> Result<u64, BenchError> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(&path).map_err(|error| BenchError::Machine(format!("{path}: {error}")))?;
        status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok())
            .map(|kilobytes| kilobytes * 1024)
            .ok_or_else(|| BenchError::Machine(format!("{path} has no VmRSS")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It is ours alone, and its database is thrown away.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many files this process may have open.
pub(super) fn open_files_max() -> u64 {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next()?.parse().ok())
        .unwrap_or(1_024)
}

/// Token makers are shared.
pub(super) fn tokens(command: &ServerCommand) -> TokenIssuer {
    Arc::clone(&command.tokens)
}
