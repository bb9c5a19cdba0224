//! A survey of a change chunk before Automerge sees it.
//!
//! Automerge trusts a chunk's columns: a run length of 2^60 makes it loop, an actor index or a counter out of range makes
//! it panic, and a deflated chunk may unfold to any size. So the chunk's outline is walked here first, in one pass over
//! at most [`CHANGE_BYTES_MAX`] bytes, and only what is known to be small and in range goes on.

use super::{ChangeHash, Refusal};
use crate::protocol::limits::{CHANGE_BYTES_MAX, CHANGE_OPS_MAX};
use sha2::{Digest, Sha256};

const MAGIC: [u8; 4] = [0x85, 0x6f, 0x4a, 0x83];
/// The chunk type of a plain change; 0 is a document, 2 a deflated change, 3 a bundle.
const PLAIN_CHANGE: u8 = 1;
/// Bytes of an actor id; every actor of this system has so many.
const ACTOR_BYTES: usize = 16;
/// Most columns that a change chunk has.
const COLUMNS_MAX: u64 = 16;
/// Seconds since the epoch of the years 0001 to 9999; a time outside makes Automerge's delta column overflow.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_214_400;
/// The largest counter that Automerge can hold.
const COUNTER_MAX: i64 = u32::MAX as i64;

/// What a column holds, and how it is encoded.
enum Column {
    /// Run lengths of unsigned numbers below the number of actors.
    Actor,
    /// Run lengths of counters.
    Counter,
    /// Run lengths of differences of counters.
    CounterDelta,
    /// Run lengths of action numbers.
    Action,
    /// Run lengths of strings.
    Text,
    /// Alternating run lengths.
    Boolean,
    /// Run lengths of value types and lengths.
    ValueMeta,
    /// The values' bytes.
    Value,
    /// Run lengths of how many predecessors an operation has.
    PredecessorCount,
}

/// The columns of a change chunk by their specification: id, type, and never deflated.
fn column(specification: u64) -> Option<Column> {
    Some(match specification {
        0x01 | 0x11 | 0x71 => Column::Actor,
        0x02 => Column::Counter,
        0x13 | 0x73 => Column::CounterDelta,
        0x15 | 0xa5 => Column::Text,
        0x34 | 0x94 => Column::Boolean,
        0x42 => Column::Action,
        0x56 => Column::ValueMeta,
        0x57 => Column::Value,
        0x70 => Column::PredecessorCount,
        _ => return None,
    })
}

/// The hash of a plain change chunk whose frame is whole: type, length and checksum are right, nothing follows.
pub(super) fn identify(bytes: &[u8]) -> Result<ChangeHash, Refusal> {
    if bytes.len() > CHANGE_BYTES_MAX {
        return Err(too_large("bytes", CHANGE_BYTES_MAX, bytes.len()));
    }
    identify_any_size(bytes)
}

/// As [`identify`], for the server's own changes, which have no limit of their own.
pub(super) fn identify_any_size(bytes: &[u8]) -> Result<ChangeHash, Refusal> {
    let mut reader = Reader(bytes);
    if reader.take(4)? != MAGIC {
        return Err(Refusal::Malformed("it does not start as a change does"));
    }
    let checksum = reader.take(4)?;
    let hashed = reader.0;
    if reader.take(1)? != [PLAIN_CHANGE] {
        return Err(Refusal::Malformed("it is not one plain change"));
    }
    let length = reader.unsigned()?;
    match usize::try_from(length) {
        Ok(length) if length == reader.0.len() => {}
        Ok(length) if length < reader.0.len() => return Err(Refusal::Malformed("bytes follow the change")),
        _ => return Err(TRUNCATED),
    }
    let hash: [u8; 32] = Sha256::digest(hashed).into();
    if hash[..4] != *checksum {
        return Err(Refusal::Malformed("its checksum is wrong"));
    }
    Ok(ChangeHash(hash))
}

/// The hashes that a chunk names as its dependencies, when [`identify_any_size`] has passed it.
pub(super) fn dependencies(bytes: &[u8]) -> Option<Vec<ChangeHash>> {
    let mut reader = Reader(bytes.get(9..)?);
    reader.unsigned().ok()?;
    let count = reader.length().ok()?;
    let hashes = reader.take(count.checked_mul(32)?).ok()?;
    Some(hashes.as_chunks::<32>().0.iter().map(|hash| ChangeHash(*hash)).collect())
}

/// Walks the body of a chunk that [`identify`] has passed, and answers how many operations it has.
pub(super) fn survey(bytes: &[u8]) -> Result<usize, Refusal> {
    let mut reader = Reader(bytes.get(9..).ok_or(TRUNCATED)?);
    reader.unsigned()?;
    let dependencies = reader.length()?;
    reader.take(dependencies.checked_mul(32).ok_or(TRUNCATED)?)?;
    reader.actor()?;
    reader.unsigned()?;
    let start = reader.unsigned()?;
    if start > u64::from(u32::MAX) - CHANGE_OPS_MAX as u64 {
        return Err(Refusal::Malformed("its operation numbers are out of range"));
    }
    if !SECONDS.contains(&reader.signed()?) {
        return Err(Refusal::Malformed("its time is out of range"));
    }
    if reader.unsigned()? != 0 {
        return Err(Refusal::Malformed("it carries a message"));
    }
    let mut actors = 1;
    for _ in 0..reader.length()? {
        reader.actor()?;
        actors += 1;
    }
    let columns = reader.unsigned()?;
    if columns > COLUMNS_MAX {
        return Err(Refusal::Malformed("it has unknown columns"));
    }
    let mut outline = Vec::new();
    for _ in 0..columns {
        outline.push((reader.unsigned()?, reader.length()?));
    }
    let mut operations = 0;
    let mut value_bytes = 0;
    for (specification, length) in outline {
        let data = Reader(reader.take(length)?);
        match column(specification).ok_or(Refusal::Malformed("it has unknown columns"))? {
            Column::Actor => runs(data, |reader, _| below(reader.unsigned()?, actors)).map(drop)?,
            Column::Counter => runs(data, |reader, _| below(reader.unsigned()?, u64::from(u32::MAX))).map(drop)?,
            Column::CounterDelta => deltas(data)?,
            Column::Action => operations = runs(data, |reader, _| below(reader.unsigned()?, 8))?,
            Column::Text => runs(data, |reader, _| reader.length().and_then(|n| reader.take(n)).map(drop)).map(drop)?,
            Column::Boolean => booleans(data)?,
            Column::ValueMeta => {
                runs(data, |reader, run| {
                    value_bytes = add_run(value_bytes, run, reader.unsigned()? >> 4, bytes.len())?;
                    Ok(())
                })?;
            }
            Column::Value if value_bytes != length => {
                return Err(Refusal::Malformed("its values do not fill their column"));
            }
            Column::Value => {}
            Column::PredecessorCount => {
                let mut predecessors = 0;
                runs(data, |reader, run| {
                    predecessors = add_run(predecessors, run, reader.unsigned()?, CHANGE_OPS_MAX)?;
                    Ok(())
                })?;
            }
        }
    }
    if !reader.0.is_empty() {
        return Err(Refusal::Malformed("it carries extra bytes"));
    }
    Ok(operations)
}

const TRUNCATED: Refusal = Refusal::Malformed("it is cut short");

fn too_large(what: &'static str, limit: usize, actual: usize) -> Refusal {
    Refusal::TooLarge { what, limit, actual }
}

fn below(value: u64, limit: u64) -> Result<(), Refusal> {
    if value < limit { Ok(()) } else { Err(Refusal::Malformed("a number in it is out of range")) }
}

/// `sum + run * each`, held against `limit`.
fn add_run(sum: usize, run: usize, each: u64, limit: usize) -> Result<usize, Refusal> {
    usize::try_from(each)
        .ok()
        .and_then(|each| run.checked_mul(each))
        .and_then(|more| more.checked_add(sum))
        .filter(|sum| *sum <= limit)
        .ok_or(Refusal::Malformed("a length in it is out of range"))
}

/// Walks a run-length column; `item` reads one value, which stands for so many items. Answers the number of items.
fn runs(
    mut data: Reader<'_>,
    mut item: impl FnMut(&mut Reader<'_>, usize) -> Result<(), Refusal>,
) -> Result<usize, Refusal> {
    let mut total = 0;
    while !data.0.is_empty() {
        let count = data.signed()?;
        let run = if count == 0 { data.unsigned()? } else { count.unsigned_abs() };
        total = add_run(total, 1, run, CHANGE_OPS_MAX)
            .map_err(|_| too_large("operations", CHANGE_OPS_MAX, usize::try_from(run).unwrap_or(usize::MAX)))?;
        let run = usize::try_from(run).unwrap_or(usize::MAX);
        match count {
            0 => {}
            1.. => item(&mut data, run)?,
            _ => (0..run).try_for_each(|_| item(&mut data, 1))?,
        }
    }
    Ok(total)
}

/// Walks a column of differences: every counter on the way must be one.
fn deltas(data: Reader<'_>) -> Result<(), Refusal> {
    let mut counter = 0_i64;
    runs(data, |reader, run| {
        // Within a run the counter moves in one direction, so that its end is its extreme.
        let moved = i64::try_from(run).ok().and_then(|run| reader.signed().ok()?.checked_mul(run));
        counter = moved
            .and_then(|moved| counter.checked_add(moved))
            .filter(|counter| (0..=COUNTER_MAX).contains(counter))
            .ok_or(Refusal::Malformed("a counter in it is out of range"))?;
        Ok(())
    })
    .map(drop)
}

fn booleans(mut data: Reader<'_>) -> Result<(), Refusal> {
    let mut total = 0;
    while !data.0.is_empty() {
        total = add_run(total, 1, data.unsigned()?, CHANGE_OPS_MAX)?;
    }
    Ok(())
}

/// What is left to read.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Refusal> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, Refusal> {
        let (first, rest) = self.0.split_first().ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(*first)
    }

    /// LEB128, at most 63 bits: no number in a change is larger.
    fn unsigned(&mut self) -> Result<u64, Refusal> {
        let mut value = 0_u64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Refusal::Malformed("a number in it is out of range"))
    }

    /// Signed LEB128, at most 63 bits.
    fn signed(&mut self) -> Result<i64, Refusal> {
        let mut value = 0_i64;
        for shift in (0..63).step_by(7) {
            let byte = self.byte()?;
            value |= i64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let unused = 64 - (shift + 7);
                return Ok((value << unused) >> unused);
            }
        }
        Err(Refusal::Malformed("a number in it is out of range"))
    }

    fn length(&mut self) -> Result<usize, Refusal> {
        usize::try_from(self.unsigned()?).map_err(|_| TRUNCATED)
    }

    fn actor(&mut self) -> Result<(), Refusal> {
        if self.length()? != ACTOR_BYTES {
            return Err(Refusal::Malformed("an actor in it has not 16 bytes"));
        }
        self.take(ACTOR_BYTES).map(drop)
    }
}
