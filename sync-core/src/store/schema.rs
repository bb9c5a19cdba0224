//! The schema and its history.

use super::StoreError;
use rusqlite::Connection;
use std::sync::OnceLock;

/// The steps, oldest first; step `n` leads to `user_version` `n + 1`. A released step is never edited.
const STEPS: [&str; 1] = [include_str!("../../../migrations/device/0001_store.sql")];

/// The version that this release writes.
pub const VERSION: u32 = STEPS.len() as u32;

/// `CRMD`: tells our files from other programs'.
pub(super) const APPLICATION_ID: i32 = 0x4352_4d44;

/// The file's schema version; 0 for a new one.
pub(super) fn version(conn: &Connection) -> Result<u32, StoreError> {
    let found: i64 = conn.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(u32::try_from(found).unwrap_or(u32::MAX))
}

/// Takes the steps after version `from` up to version `to`, each in its own transaction, so that a crash leaves a version
/// and not half of one.
pub(super) fn run_migrations(conn: &mut Connection, from: u32, to: u32) -> Result<(), StoreError> {
    for (step, sql) in (1..).zip(STEPS).filter(|(step, _)| *step > from && *step <= to) {
        let tx = conn.transaction()?;
        tx.execute_batch(sql)?;
        tx.pragma_update(None, "user_version", step)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.commit()?;
    }
    Ok(())
}

/// True when the file's schema is, to the letter, what the steps up to `version` make. A damaged schema can still be valid
/// SQL, with a column of another name.
pub(super) fn is_intact(conn: &Connection, version: u32) -> Result<bool, StoreError> {
    /// What each version must be; made once, because an app opens its store often.
    static MODELS: [OnceLock<Shape>; STEPS.len()] = [const { OnceLock::new() }; STEPS.len()];
    let place = usize::try_from(version).ok().and_then(|version| MODELS.get(version.checked_sub(1)?));
    if let Some(model) = place.and_then(OnceLock::get) {
        return Ok(shape(conn)? == *model);
    }
    let mut fresh = Connection::open_in_memory()?;
    run_migrations(&mut fresh, 0, version)?;
    let model = shape(&fresh)?;
    let intact = shape(conn)? == model;
    if let Some(place) = place {
        // Another thread may have been faster, with the same.
        let _ = place.set(model);
    }
    Ok(intact)
}

type Shape = Vec<(String, Option<String>)>;

/// Every definition, by name.
fn shape(conn: &Connection) -> Result<Shape, StoreError> {
    let mut statement = conn.prepare("SELECT name, sql FROM sqlite_schema ORDER BY name")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stop_on_the_way_leads_to_the_same_schema() {
        let mut straight = Connection::open_in_memory().unwrap();
        run_migrations(&mut straight, 0, VERSION).unwrap();
        for stop in 0..=VERSION {
            let mut stepped = Connection::open_in_memory().unwrap();
            run_migrations(&mut stepped, 0, stop).unwrap();
            assert_eq!(version(&stepped).unwrap(), stop);
            run_migrations(&mut stepped, stop, VERSION).unwrap();
            assert_eq!(shape(&stepped).unwrap(), shape(&straight).unwrap());
            assert!(is_intact(&stepped, VERSION).unwrap());
        }
    }

    #[test]
    fn applying_twice_changes_nothing() {
        let mut conn = Connection::open_in_memory().unwrap();
        run_migrations(&mut conn, 0, VERSION).unwrap();
        let before = shape(&conn).unwrap();
        let at = version(&conn).unwrap();
        run_migrations(&mut conn, at, VERSION).unwrap();
        assert_eq!(shape(&conn).unwrap(), before);
        assert_eq!(version(&conn).unwrap(), VERSION);
    }

    #[test]
    fn a_letter_more_or_less_is_noticed() {
        let mut conn = Connection::open_in_memory().unwrap();
        run_migrations(&mut conn, 0, VERSION).unwrap();
        conn.execute_batch("ALTER TABLE outbox RENAME COLUMN edit TO exit").unwrap();
        assert!(!is_intact(&conn, VERSION).unwrap());
    }
}
