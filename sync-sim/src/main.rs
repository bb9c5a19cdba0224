//! Plays simulated days, and says what happened in them.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "the report of a command line tool")]

use clap::Parser;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use sync_sim::{Outcome, Report, Scenario, heap, play, scenario, shrink};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Simulated days around the shipped code.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    instead: Option<sync_sim::exhaustive::Command>,
    /// How many days.
    #[arg(long, default_value_t = 100_000)]
    days: u64,
    /// Ends after so many minutes, whatever has been played by then.
    #[arg(long)]
    minutes: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Threads; each plays days of its own.
    #[arg(long)]
    threads: Option<usize>,
    /// Every so many days run on the shipped SQLite store; 0 for none.
    #[arg(long, default_value_t = 50)]
    sqlite_every: u64,
    /// Plays one day aloud: its seed, or a case file.
    #[arg(long)]
    replay: Option<String>,
    /// Says what happened as JSON; the story of a violation goes to the standard error then.
    #[arg(long)]
    json: bool,
    /// Where a failing day is written.
    #[arg(long, default_value = "sync-sim/cases")]
    cases: PathBuf,
}

fn day(seed: u64, sqlite_every: u64) -> Scenario {
    let mut day = scenario::draw(seed);
    if sqlite_every > 0 && seed.is_multiple_of(sqlite_every) {
        // One process a file: so says the store.
        (day.sqlite, day.nodes) = (true, 1);
    }
    day
}

/// A folder in memory where there is one.
fn folder() -> std::io::Result<tempfile::TempDir> {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }
}

fn play_once(day: &Scenario, speak: bool) -> Result<Outcome, String> {
    let folder = folder().map_err(|error| error.to_string())?;
    play(day, folder.path(), speak)
}

fn main() -> ExitCode {
    heap::keep_memory();
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool, String> {
    if let Some(command) = &args.instead {
        print!("{}", command.run()?);
        return Ok(true);
    }
    if let Some(replay) = &args.replay {
        let day = match replay.parse() {
            Ok(seed) => day(seed, args.sqlite_every),
            Err(_) => {
                let text = std::fs::read_to_string(replay).map_err(|error| format!("{replay}: {error}"))?;
                serde_json::from_str(&text).map_err(|error| format!("{replay}: {error}"))?
            }
        };
        let outcome = play_once(&day, true)?;
        println!("trace {}", outcome.trace);
        return Ok(outcome.violation.is_none());
    }
    let threads = args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let totals = Mutex::new(Report::new(args.seed));
    let began = Instant::now();
    let limit = args.minutes.map(|minutes| Duration::from_secs(minutes * 60));
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) && limit.is_none_or(|limit| began.elapsed() < limit) {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= args.days {
                        break;
                    }
                    let day = day(args.seed + number, args.sqlite_every);
                    let outcome = play_once(&day, false);
                    let bad = !matches!(&outcome, Ok(outcome) if outcome.violation.is_none());
                    if let Ok(outcome) = &outcome
                        && let Ok(mut totals) = totals.lock()
                    {
                        totals.add(outcome, day.sqlite);
                    }
                    if bad
                        && !failed.swap(true, Ordering::Relaxed)
                        && let Ok(mut failure) = failure.lock()
                    {
                        *failure = Some((day, outcome));
                    }
                }
            });
        }
    });
    let mut report = totals.into_inner().map_err(|error| error.to_string())?;
    report.took(began.elapsed().as_secs_f64());
    let failure = failure.into_inner().map_err(|error| error.to_string())?;
    if args.json {
        let mut json = report.json();
        if let Some((day, Ok(Outcome { violation: Some(violation), .. }))) = &failure {
            json["violation"] =
                serde_json::json!({ "seed": day.seed, "oracle": violation.oracle, "detail": violation.detail });
        }
        println!("{json:#}");
    } else {
        print!("{report}");
    }
    match failure {
        None => Ok(true),
        Some((_, Err(error))) => Err(error),
        Some((day, Ok(outcome))) => {
            let Some(violation) = outcome.violation else { return Ok(true) };
            let say = |line: String| if args.json { eprintln!("{line}") } else { println!("{line}") };
            say(format!("\nseed {} violates \"{}\": {}", day.seed, violation.oracle, violation.detail));
            say(format!(
                "replay: cargo run --release -p sync-sim -- --replay {} --sqlite-every {}",
                day.seed, args.sqlite_every
            ));
            let short = shrink::shrink(&day, &violation, |day| play_once(day, false).ok()?.violation);
            let text = serde_json::to_string_pretty(&short).map_err(|error| error.to_string())?;
            let path = args.cases.join(format!("seed-{}.json", day.seed));
            std::fs::create_dir_all(&args.cases).map_err(|error| error.to_string())?;
            std::fs::write(&path, text + "\n").map_err(|error| format!("{}: {error}", path.display()))?;
            say(format!(
                "{} of its {} events are enough; they are kept: {}",
                short.events.len(),
                day.events.len(),
                path.display()
            ));
            say(format!("replay: cargo run --release -p sync-sim -- --replay {}", path.display()));
            Ok(false)
        }
    }
}
