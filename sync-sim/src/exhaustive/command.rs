//! The command line of the search.

use super::{Played, Reach, check};
use std::path::PathBuf;

/// What else the simulator can do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Plays every small world there is against the conflict rules.
    Exhaustive {
        /// Most steps in a world, exchanges included; each more takes some five times as long. A scene has a length of its own.
        #[arg(long, default_value_t = 4)]
        steps: usize,
        /// Where the table of outcomes is written.
        #[arg(long)]
        outcomes: Option<PathBuf>,
    },
}

impl Command {
    /// Does it, and says what was played.
    ///
    /// # Errors
    /// The first world that is not as the rules say, with its steps; rules that no world exercised.
    pub fn run(&self) -> Result<Played, String> {
        let Self::Exhaustive { steps, outcomes } = self;
        let played = check(Reach::Short(*steps))?;
        if let Some(path) = outcomes {
            std::fs::write(path, played.outcomes()).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let missing = played.missing();
        if missing.is_empty() { Ok(played) } else { Err(format!("{played}no world exercises the rules {missing:?}")) }
    }
}
