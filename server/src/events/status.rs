//! How the relay is, for health checks and for whoever looks after it.

/// How publishing is going.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum RelayStatus {
    /// No Kafka is configured: events stay in the journal.
    #[default]
    Journal,
    /// Another node publishes.
    Standby,
    /// This node publishes.
    Publishing,
    /// Kafka, the registry or the database does not answer; events wait in the database, and it is tried again.
    Waiting(String),
    /// A person has to do something; events wait in the database. It is tried again after a restart.
    Stopped(String),
}

impl RelayStatus {
    /// Its name in health answers.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Journal => "JOURNAL",
            Self::Standby => "STANDBY",
            Self::Publishing => "PUBLISHING",
            Self::Waiting(_) => "WAITING",
            Self::Stopped(_) => "STOPPED",
        }
    }

    /// True when events that happen now do not go out.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        matches!(self, Self::Waiting(_) | Self::Stopped(_))
    }
}
