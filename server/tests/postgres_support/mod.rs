//! PostgreSQL for tests: a database of one's own on the running server, or a whole server of one's own. The tests of the whole program
//! include this file too.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "each test crate uses a part")]

use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, Executor as _, PgConnection};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr as _;

/// What a test says when a service is missing.
const REMEDY: &str = "start the test services: eval \"$(scripts/services up)\"";

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set; {REMEDY}"))
}

/// A name that no other test has.
pub(crate) fn random_name(prefix: &str) -> String {
    format!("{prefix}_{:016x}", rand::random::<u64>())
}

/// A database of its own, empty; removed when dropped.
pub(crate) struct Database {
    server: String,
    name: String,
}

impl Database {
    /// On the running server.
    pub(crate) async fn create() -> Self {
        Self::create_on(&variable("TEST_POSTGRES_URL")).await
    }

    /// On this server.
    pub(crate) async fn create_on(server: &str) -> Self {
        let name = random_name("dispatch");
        let mut connection = connect(server).await;
        connection.execute(AssertSqlSafe(format!("CREATE DATABASE {name}"))).await.unwrap();
        connection.close().await.unwrap();
        Self { server: server.to_owned(), name }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn url(&self) -> String {
        with_path(&self.server, &self.name)
    }

    pub(crate) async fn connect(&self) -> PgConnection {
        connect(&self.url()).await
    }

    /// Copies everything into a file, as an administrator does.
    pub(crate) fn dump(&self, file: &Path) {
        tool("pg_dump", &["--format=custom", "--file", file.to_str().unwrap(), &self.url()]);
    }

    /// Schema and content as text, the same for the same database.
    pub(crate) fn dump_plain(&self, file: &Path) {
        tool("pg_dump", &["--format=plain", "--inserts", "--no-owner", "--file", file.to_str().unwrap(), &self.url()]);
        // Newer releases of pg_dump fence the text with a key drawn for each run.
        let text = std::fs::read_to_string(file).unwrap();
        let lines = text.lines().filter(|line| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict"));
        std::fs::write(file, lines.collect::<Vec<_>>().join("\n")).unwrap();
    }

    /// Fills an empty database with such text.
    pub(crate) fn load_plain(&self, file: &Path) {
        let file = file.to_str().unwrap();
        tool("psql", &["--quiet", "--no-psqlrc", "--set=ON_ERROR_STOP=1", "--file", file, "--dbname", &self.url()]);
    }

    /// Puts a copy in its place.
    pub(crate) async fn restore(&self, file: &Path) {
        let mut connection = connect(&self.server).await;
        for sql in [format!("DROP DATABASE {} WITH (FORCE)", self.name), format!("CREATE DATABASE {}", self.name)] {
            connection.execute(AssertSqlSafe(sql)).await.unwrap();
        }
        tool("pg_restore", &["--exit-on-error", "--dbname", &self.url(), file.to_str().unwrap()]);
    }
}

impl Drop for Database {
    /// In a thread of its own: a runtime may be ending, and waiting for another one in it is forbidden.
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        let dropping = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                // A server of the test's own may be gone by now, and the database with it.
                if let Ok(mut connection) = options(&server).connect().await {
                    let sql = format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)");
                    let _ = connection.execute(AssertSqlSafe(sql)).await;
                }
            });
        });
        let _ = dropping.join();
    }
}

/// Runs one of PostgreSQL's programs.
fn tool(name: &str, arguments: &[&str]) {
    let program = PathBuf::from(variable("TEST_POSTGRES_BIN")).join(name);
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The same server, another database.
pub(crate) fn with_path(url: &str, database: &str) -> String {
    let (base, parameters) =
        url.split_once('?').map_or((url, String::new()), |(base, rest)| (base, format!("?{rest}")));
    let end = base.rfind('/').unwrap();
    format!("{}/{database}{parameters}", &base[..end])
}

fn options(url: &str) -> sqlx::postgres::PgConnectOptions {
    sqlx::postgres::PgConnectOptions::from_str(url).unwrap()
}

pub(crate) async fn connect(url: &str) -> PgConnection {
    options(url).connect().await.unwrap_or_else(|error| panic!("PostgreSQL does not answer ({error}); {REMEDY}"))
}

/// A PostgreSQL server of the test's own, to be stopped and started; ended and removed when dropped.
pub(crate) struct Server {
    folder: PathBuf,
    port: u16,
}

impl Server {
    pub(crate) fn start() -> Self {
        // Fails early, and with the remedy, where there are no services at all.
        variable("TEST_POSTGRES_BIN");
        let folder = std::env::temp_dir().join(random_name("dispatch-postgres"));
        std::fs::create_dir_all(&folder).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Self { folder, port };
        server.run("start");
        server
    }

    /// User and password are the script's.
    pub(crate) fn url(&self) -> String {
        format!("postgres://dispatch:dispatch@127.0.0.1:{}/postgres", self.port)
    }

    /// `start`, `stop`, `kill` (a crash), `restart`.
    pub(crate) fn run(&self, command: &str) {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|folder| folder.join("scripts/postgres").exists());
        let script = root.unwrap().join("scripts/postgres");
        let output = Command::new(script)
            .args([command, self.folder.join("server").to_str().unwrap(), &self.port.to_string()])
            .output()
            .unwrap();
        assert!(output.status.success(), "scripts/postgres {command}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.run("kill");
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
