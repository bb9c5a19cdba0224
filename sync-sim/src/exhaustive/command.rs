//! The command line of the search.

use super::{Played, check, compare};
use std::path::PathBuf;

/// What else the simulator can do.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Plays every small world there is against the conflict rules. Ends with an error at the first that is not as they say.
    Exhaustive {
        /// Most actions in a world, six at the most; up to two exchanges in between come on top. Each more takes some four times
        /// as long. Fewer than three do not come to everything that the rules decide, which is an error too.
        #[arg(long, visible_alias = "actions", default_value_t = 4)]
        steps: usize,
        /// Where the table of outcomes is written.
        #[arg(long)]
        outcomes: Option<PathBuf>,
        /// Before that, plays the worlds without leaving out those that are the same, and compares the endings.
        #[arg(long)]
        compare: bool,
    },
}

impl Command {
    /// Does it, and says what was played.
    ///
    /// # Errors
    /// The first world that is not as the rules say, with its steps; rules that decided in no world.
    pub fn run(&self) -> Result<Played, String> {
        let Self::Exhaustive { steps, outcomes, compare: compares } = self;
        if *compares {
            compare(*steps, super::scene::EXCHANGES_MAX)?;
        }
        let played = check(*steps)?;
        if let Some(path) = outcomes {
            std::fs::write(path, played.outcomes()).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        let missing = played.missing();
        if missing.is_empty() {
            Ok(played)
        } else {
            Err(format!("{played}\nno world shows it:\n  {}", missing.join("\n  ")))
        }
    }
}
