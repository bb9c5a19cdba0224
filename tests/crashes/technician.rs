//! A technician with a phone, as a process that can be killed: the whole engine on an encrypted file, a real socket, and hands that never
//! rest. What the technician is told, that something is recorded and that the office has it, is written down beside the phone, synced,
//! before the next thing is done. For the tests; see `crashes.rs` and `wipe.rs`.

mod told;

use clap::Parser;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use std::fs::File;
use std::io::{Error, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use sync_core::client::{
    AtRest, BoxFuture, ClientConfig, Engine, EngineConfig, KeyVault, TokenError, TokenNeed, TokenProvider, VaultError,
};
use sync_core::document::Edit;
use sync_core::domain::{DispatchId, FactKind, Position, TechnicianId, TenantId, VisitCard, VisitStatus};
use sync_core::store::{ActError, NewEdit, StoreError, VisitQuery};
use told::{Deed, SEEN, Seen, SeenVisit, TOLD, Told};
use zeroize::Zeroizing;

/// A technician is not faster than this.
const PACE: Duration = Duration::from_millis(20);

/// Works on the visits that the phone shows, until killed.
#[derive(Debug, Parser)]
struct Arguments {
    /// The server, `http://host:port`.
    #[arg(long)]
    server: String,
    #[arg(long)]
    tenant: TenantId,
    #[arg(long)]
    technician: TechnicianId,
    /// Where the phone's file, its key and what was told are kept.
    #[arg(long)]
    dir: PathBuf,
    /// Of what the technician does.
    #[arg(long)]
    seed: u64,
    /// Does nothing more: exchanges everything, writes down what the phone shows, and ends.
    #[arg(long)]
    settle: bool,
    /// Does nothing at all: opens a file that is not encrypted, connects, and waits to be killed.
    #[arg(long, conflicts_with = "settle")]
    idle: bool,
    #[arg(long, env = "TECHNICIAN_TOKEN", hide_env_values = true)]
    token: String,
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "technician: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Failure> {
    std::fs::create_dir_all(&arguments.dir)?;
    let (mut told, before) = Ledger::open(&arguments.dir.join(TOLD))?;
    let client = ClientConfig::new(arguments.server, Arc::new(Token(arguments.token)));
    let engine = Engine::open(EngineConfig {
        path: arguments.dir.join("visits.db"),
        app: "crashes 1.0".to_owned(),
        client,
        at_rest: match arguments.idle {
            true => AtRest::Unencrypted,
            false => AtRest::Encrypted(Arc::new(Vault(arguments.dir.clone()))),
        },
    })?;
    let found = engine.report();
    told.write(&Told::Opened {
        set_aside: found.set_aside.map(|aside| format!("{:?}", aside.reason)),
        restored: found.restored,
        quarantined: found.rows_quarantined,
    })?;
    engine.sign_in(arguments.tenant, arguments.technician).await?;
    engine.start().await?;
    if arguments.idle {
        return std::future::pending().await;
    }
    let unheard = unheard(before);
    let technician =
        Technician { engine, told, unheard, rng: StdRng::seed_from_u64(arguments.seed), away_for: 0, texts: 0 };
    if arguments.settle { technician.settle(&arguments.dir).await } else { technician.work().await }
}

/// What was recorded and of which it is not known that the office has it.
fn unheard(lines: Vec<Told>) -> Vec<(DispatchId, Deed)> {
    let mut unheard = Vec::new();
    for line in lines {
        match line {
            Told::Recorded { dispatch, deed } => unheard.push((dispatch, deed)),
            Told::Acknowledged { dispatch, deed } => unheard.retain(|known| *known != (dispatch.clone(), deed.clone())),
            Told::Opened { .. } | Told::Settled => {}
        }
    }
    unheard
}

struct Technician {
    engine: Engine,
    told: Ledger,
    unheard: Vec<(DispatchId, Deed)>,
    rng: StdRng,
    /// In a cellar for that many actions.
    away_for: u32,
    texts: u32,
}

impl Technician {
    /// For ever.
    async fn work(mut self) -> Result<(), Failure> {
        let mut pace = tokio::time::interval(PACE);
        loop {
            pace.tick().await;
            match self.rng.random_range(0..400) {
                0 => self.engine.rotate_key().await?,
                1..=2 => {
                    self.engine.suspend().await?;
                    self.engine.resume().await?;
                }
                3 => blocking(|| self.engine.store().checkpoint())?,
                4..=8 if self.away_for == 0 => {
                    self.away_for = self.rng.random_range(3..30);
                    self.engine.client().set_network(false);
                }
                _ => self.act().await?,
            }
            self.hear()?;
        }
    }

    /// The next thing on some visit.
    async fn act(&mut self) -> Result<(), Failure> {
        let query = VisitQuery { unscheduled: true, ..VisitQuery::default() };
        let cards = blocking(|| self.engine.store().visits(&query))?;
        // Mostly on a few visits: those come to an end, and others are begun.
        let open: Vec<_> = cards.iter().filter(|card| !card.status.is_final()).take(6).collect();
        let card = match open.choose(&mut self.rng) {
            Some(card) if !self.rng.random_bool(0.05) => (*card).clone(),
            _ => match cards.choose(&mut self.rng) {
                Some(card) => card.clone(),
                None => return Ok(()),
            },
        };
        let edit = self.next(&card);
        let deed = match &edit {
            NewEdit::Note { insert, .. } => Some(Deed::Note { text: insert.clone() }),
            NewEdit::Answer { item, value } => Some(Deed::Answer { item: item.clone(), value: value.clone() }),
            NewEdit::Summary(text) => Some(Deed::Summary { text: text.clone() }),
            NewEdit::Fact(_) => None,
        };
        let kind = match &edit {
            NewEdit::Fact(kind) => kind.name(),
            _ => "",
        };
        let place = Position { latitude: 48.21, longitude: 16.37, accuracy_m: 12.0 };
        let acted = match self.engine.client().act(&card.dispatch_id, edit, Some(place)).await {
            Ok(acted) => acted,
            // Somebody changed the visit, or took it away, since the list was read.
            Err(ActError::Illegal { .. } | ActError::NotFound(_)) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let deed = deed.or_else(|| Some(Deed::Fact { id: acted.fact?, kind: kind.to_owned() }));
        let Some(deed) = deed else { return Err("a fact without an id".into()) };
        self.told.write(&Told::Recorded { dispatch: card.dispatch_id.clone(), deed: deed.clone() })?;
        self.unheard.push((card.dispatch_id, deed));
        if self.away_for > 0 {
            self.away_for -= 1;
            if self.away_for == 0 {
                self.engine.client().set_network(true);
            }
        }
        Ok(())
    }

    fn next(&mut self, card: &VisitCard) -> NewEdit {
        let fact = match (card.status, self.rng.random_range(0..100)) {
            (VisitStatus::Assigned | VisitStatus::Dispatched, 0..4) => {
                FactKind::Rejected { reason: "no ladder".to_owned() }
            }
            (VisitStatus::Assigned | VisitStatus::Dispatched, 4..90) => FactKind::Accepted { eta: None },
            (VisitStatus::Assigned | VisitStatus::Dispatched | VisitStatus::Confirmed, _) => {
                FactKind::TravelStarted { eta: None }
            }
            (VisitStatus::EnRoute, _) => FactKind::Arrived,
            (VisitStatus::Arrived, _) => FactKind::WorkStarted,
            (VisitStatus::Paused, 0..60) => FactKind::Resumed,
            (VisitStatus::InProgress, 0..20) => FactKind::Completed,
            (VisitStatus::InProgress, 20..23) => FactKind::CannotComplete { reason: "no water".to_owned() },
            (VisitStatus::InProgress, 23..30) => FactKind::Paused { reason: None },
            (_, 30..45) => {
                return NewEdit::Note { at: usize::MAX, delete: 0, insert: self.text("note") };
            }
            (_, 45..55) => {
                let Ok(item) = "pressure".parse() else { return NewEdit::Summary(self.text("summary")) };
                return NewEdit::Answer { item, value: self.text("answer") };
            }
            (_, 55..60) => return NewEdit::Summary(self.text("summary")),
            (_, 60..80) => {
                let Ok(part) = "PART-1".parse() else { return NewEdit::Summary(self.text("summary")) };
                // One in two has a number of its own.
                let serial = self.text("SN").trim_end().parse().ok().filter(|_| self.rng.random());
                let quantity = if serial.is_some() { 1 } else { self.rng.random_range(1..4) };
                FactKind::PartUsed { part, quantity, serial }
            }
            _ => FactKind::TimeEntry { category: "labour".to_owned(), minutes: self.rng.random_range(1..60) },
        };
        NewEdit::Fact(fact)
    }

    /// A text that nobody else writes.
    fn text(&mut self, what: &str) -> String {
        self.texts += 1;
        format!("{what}-{:016x}-{}\n", rand::random::<u64>(), self.texts)
    }

    /// Writes down what the office has meanwhile.
    fn hear(&mut self) -> Result<(), Failure> {
        let pending = self.engine.status().borrow().pending;
        if self.unheard.len() > usize::try_from(pending)? { self.hear_all() } else { Ok(()) }
    }

    fn hear_all(&mut self) -> Result<(), Failure> {
        let mut dispatches: Vec<_> = self.unheard.iter().map(|(dispatch, _)| dispatch.clone()).collect();
        dispatches.sort();
        dispatches.dedup();
        for dispatch in dispatches {
            let unsent: Vec<Edit> = match blocking(|| self.engine.store().visit(&dispatch)) {
                Ok(detail) => detail.pending.into_iter().map(|pending| pending.edit).collect(),
                // It has left, with nothing unsent.
                Err(StoreError::NotFound(_)) => Vec::new(),
                Err(error) => return Err(error.into()),
            };
            let (of_it, others) = std::mem::take(&mut self.unheard).into_iter().partition(|(of, _)| *of == dispatch);
            self.unheard = others;
            let of_it: Vec<(DispatchId, Deed)> = of_it;
            for (dispatch, deed) in of_it {
                if unsent.iter().any(|edit| is(edit, &deed)) {
                    self.unheard.push((dispatch, deed));
                } else {
                    self.told.write(&Told::Acknowledged { dispatch, deed })?;
                }
            }
        }
        Ok(())
    }

    /// Until everything is exchanged.
    async fn settle(mut self, dir: &Path) -> Result<(), Failure> {
        let mut status = self.engine.status();
        loop {
            self.engine.client().caught_up().await;
            let state = self.engine.sync_state().await?;
            if state.parked > 0 {
                return Err(format!("parked: {:?}", blocking(|| self.engine.store().parked())?).into());
            }
            if state.outbox.pending == 0 && state.needs_fetch.is_empty() {
                break;
            }
            status.changed().await?;
        }
        self.hear_all()?;
        if !self.unheard.is_empty() {
            return Err(format!("nothing is unsent, and yet not acknowledged: {:?}", self.unheard).into());
        }
        // What another phone brings meanwhile may take a visit away between the list and the visit.
        self.engine.stop().await;
        let mut seen = Seen::default();
        let query = VisitQuery { unscheduled: true, ..VisitQuery::default() };
        for card in blocking(|| self.engine.store().visits(&query))? {
            let detail = blocking(|| self.engine.store().visit(&card.dispatch_id))?;
            let report = detail.report;
            let visit = SeenVisit {
                state: detail.state,
                notes: report.notes,
                summary: report.summary,
                answers: report.answers,
            };
            seen.visits.insert(card.dispatch_id, visit);
        }
        std::fs::write(dir.join(SEEN), serde_json::to_vec(&seen)?)?;
        self.told.write(&Told::Settled)?;
        self.engine.close().await?;
        Ok(())
    }
}

/// The store's work blocks on the disk.
fn blocking<T>(work: impl FnOnce() -> T) -> T {
    tokio::task::block_in_place(work)
}

fn is(edit: &Edit, deed: &Deed) -> bool {
    match (edit, deed) {
        (Edit::Fact { fact }, Deed::Fact { id, .. }) => fact.id == *id,
        (Edit::Note { insert, .. }, Deed::Note { text }) => insert == text,
        (Edit::Answer { item, answer }, Deed::Answer { item: of, value }) => item == of && answer.value == *value,
        (Edit::Summary { text }, Deed::Summary { text: of }) => text == of,
        _ => false,
    }
}

/// What was told, line by line.
struct Ledger(File);

impl Ledger {
    /// With the lines of former lives.
    fn open(path: &Path) -> Result<(Self, Vec<Told>), Error> {
        let mut file = File::options().create(true).read(true).append(true).open(path)?;
        let mut text = String::new();
        file.read_to_string(&mut text)?;
        if !text.is_empty() && !text.ends_with('\n') {
            file.write_all(b"\n")?;
        }
        Ok((Self(file), told::read(&text)))
    }

    /// On the disk when it returns; who started the process hears of it then.
    fn write(&mut self, line: &Told) -> Result<(), Error> {
        let mut bytes = serde_json::to_vec(line)?;
        bytes.push(b'\n');
        self.0.write_all(&bytes)?;
        self.0.sync_data()?;
        let mut out = std::io::stdout().lock();
        out.write_all(&bytes)?;
        out.flush()
    }
}

struct Token(String);

impl TokenProvider for Token {
    fn token(&self, _: TokenNeed) -> BoxFuture<'_, Result<String, TokenError>> {
        Box::pin(async { Ok(self.0.clone()) })
    }
}

/// Secure storage on the disk: each key a file, put in its place in one step.
struct Vault(PathBuf);

impl Vault {
    fn sync(&self) -> std::io::Result<()> {
        File::open(&self.0)?.sync_all()
    }
}

impl KeyVault for Vault {
    fn get(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, VaultError> {
        match std::fs::read(self.0.join(name)) {
            Ok(key) => Ok(Some(Zeroizing::new(key))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(VaultError(error.to_string())),
        }
    }

    fn put(&self, name: &str, value: &[u8]) -> Result<(), VaultError> {
        let (trial, place) = (self.0.join("trial"), self.0.join(name));
        let written = File::create(&trial).and_then(|mut file| {
            file.write_all(value)?;
            file.sync_all()?;
            std::fs::rename(&trial, &place)?;
            self.sync()
        });
        written.map_err(|error| VaultError(error.to_string()))
    }

    fn remove(&self, name: &str) -> Result<(), VaultError> {
        match std::fs::remove_file(self.0.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(VaultError(error.to_string())),
            _ => self.sync().map_err(|error| VaultError(error.to_string())),
        }
    }
}
