//! Points and spans in time. Nothing here reads a clock.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Milliseconds of a day of 24 hours.
pub const DAY_MS: i64 = 24 * 60 * 60 * 1000;

/// A point in time: milliseconds since the Unix epoch, UTC.
///
/// RFC 3339 text in human-readable formats (JSON), an integer in binary ones (CBOR).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

/// The text is no RFC 3339 time, or lies outside the years 0001 to 9999.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an RFC 3339 time in the years 0001 to 9999 (like 2026-02-03T09:30:00Z): {0}")]
pub struct TimeError(String);

impl Timestamp {
    /// The earliest and latest time that is accepted: 0001-01-01T00:00:00Z and 9999-12-30T22:00:00Z. The latest one is
    /// what can be written as text in every time zone, so that every time there is can be read back.
    const MILLIS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_207_200_000;

    /// From milliseconds since the Unix epoch; clamped to the years 0001 to 9999, so that arithmetic stays total.
    #[must_use]
    pub fn from_millis(millis: i64) -> Self {
        Self(millis.clamp(*Self::MILLIS.start(), *Self::MILLIS.end()))
    }

    /// Milliseconds since the Unix epoch.
    #[must_use]
    pub fn millis(self) -> i64 {
        self.0
    }

    /// This time moved by `millis`, clamped to the years 0001 to 9999.
    #[must_use]
    pub fn plus_millis(self, millis: i64) -> Self {
        Self::from_millis(self.0.saturating_add(millis))
    }

    /// `self - earlier` in milliseconds.
    #[must_use]
    pub fn millis_since(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl std::fmt::Display for Timestamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(time) => write!(f, "{time}"),
            Err(_) => write!(f, "{}ms", self.0),
        }
    }
}

impl std::str::FromStr for Timestamp {
    type Err = TimeError;
    fn from_str(text: &str) -> Result<Self, TimeError> {
        let time: jiff::Timestamp = text.parse().map_err(|_| TimeError(text.chars().take(64).collect()))?;
        let millis = time.as_millisecond();
        if Self::MILLIS.contains(&millis) { Ok(Self(millis)) } else { Err(TimeError(text.chars().take(64).collect())) }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() { serializer.collect_str(self) } else { serializer.serialize_i64(self.0) }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    /// Takes either form whatever the format says of itself: serde's buffering (`flatten`, tagged enums) forgets it.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl serde::de::Visitor<'_> for Either {
            type Value = Timestamp;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an RFC 3339 time, or milliseconds since the Unix epoch")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Timestamp, E> {
                text.parse().map_err(E::custom)
            }
            fn visit_i64<E: serde::de::Error>(self, millis: i64) -> Result<Timestamp, E> {
                Ok(Timestamp::from_millis(millis))
            }
            fn visit_u64<E: serde::de::Error>(self, millis: u64) -> Result<Timestamp, E> {
                Ok(Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX)))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

/// A span of time: `start` inclusive, `end` exclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    /// First instant inside.
    pub start: Timestamp,
    /// First instant after.
    pub end: Timestamp,
}

impl Window {
    /// True when the two windows share an instant.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end && other.start < self.end
    }

    /// True when `at` lies inside.
    #[must_use]
    pub fn contains(&self, at: Timestamp) -> bool {
        self.start <= at && at < self.end
    }
}
