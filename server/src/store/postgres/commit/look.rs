//! The one look before the writes.

use super::{Failure, http_status};
use crate::service::commit::{Commit, IdempotencyRecord};
use crate::service::model::Device;
use crate::store::audit::AUDIT_GENESIS;
use crate::store::postgres::rows::{self, DEVICE_COLUMNS, bits, device_columns, get, hash, unsigned};
use crate::store::{Identity, postgres};
use sqlx::PgConnection;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use sync_core::document::StateTag;
use sync_core::protocol::Digest;

/// What is asked for, each with its number, and what is found; rows that do not exist are left out.
pub(in crate::store::postgres) const LOOK: &str = "WITH a AS MATERIALIZED (SELECT * FROM \
       unnest($1::bigint[], $2::text[], $3::text[], $4::text[]) WITH ORDINALITY AS a(what, tenant, key, other, n)) \
     SELECT 0::bigint, 0::bigint, m.generation, NULL::bigint, m.actor, pg_current_xact_id()::text, NULL::text, NULL::text FROM meta m \
     UNION ALL SELECT a.what, a.n, h.seq, h.digest, NULL, NULL, NULL, NULL \
       FROM a JOIN feed_heads h ON h.tenant = a.tenant AND h.technician = a.key WHERE a.what = 1 \
     UNION ALL SELECT a.what, a.n, v.tag, NULL, NULL, NULL, NULL, NULL \
       FROM a JOIN held v ON v.tenant = a.tenant AND v.technician = a.key AND v.dispatch_id = a.other WHERE a.what = 2 \
     UNION ALL SELECT a.what, a.n, h.seq, NULL, h.hash, NULL, NULL, NULL \
       FROM a JOIN audit_heads h ON h.tenant = a.tenant AND h.aggregate = a.key WHERE a.what = 3 \
     UNION ALL SELECT a.what, a.n, d.revision, NULL, NULL, NULL, NULL, NULL \
       FROM a JOIN dispatches d ON d.tenant = a.tenant AND d.dispatch_id = a.key WHERE a.what = 4 \
     UNION ALL SELECT a.what, a.n, NULL, NULL, NULL, NULL, NULL, NULL \
       FROM a JOIN consumed_events c ON c.tenant = a.tenant AND c.event_id = a.key WHERE a.what = 5 \
     UNION ALL SELECT a.what, a.n, k.status, NULL, NULL, k.request_hash, k.etag, k.body \
       FROM a JOIN idempotency_keys k ON k.tenant = a.tenant AND k.key = a.key WHERE a.what = 6 \
     UNION ALL SELECT a.what, a.n, t.revision, NULL, NULL, NULL, NULL, NULL \
       FROM a JOIN technicians t ON t.tenant = a.tenant AND t.technician = a.key WHERE a.what = 7 \
     UNION ALL SELECT a.what, a.n, l.revision, NULL, NULL, NULL, NULL, NULL \
       FROM a JOIN locations l ON l.tenant = a.tenant AND l.location_id = a.key WHERE a.what = 8 \
     UNION ALL SELECT a.what, a.n, b.start_ms, b.end_ms, NULL, b.technician, NULL, NULL \
       FROM a JOIN bookings b ON b.tenant = a.tenant AND b.dispatch_id = a.key WHERE a.what = 9";
const FEED: i64 = 1;
const HELD: i64 = 2;
const CHAIN: i64 = 3;
const DISPATCH: i64 = 4;
const CONSUMED: i64 = 5;
const ANSWERED: i64 = 6;
const TECHNICIAN: i64 = 7;
const LOCATION: i64 = 8;
const BOOKED: i64 = 9;

pub(in crate::store::postgres) const LOOK_AT_DEVICES: &str = concat!(
    "SELECT ",
    device_columns!(),
    ", a.n FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS a(tenant, device, n) \
     JOIN devices v ON v.tenant = a.tenant AND v.device = a.device"
);

/// A row's key: the tenant and the rest.
pub(super) type Key<'a> = (&'a str, &'a str);

/// What a calendar has for a dispatch: who, from, to.
pub(super) type Bookings = BTreeSet<(String, i64, i64)>;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct FeedEnd {
    pub(super) seq: u64,
    pub(super) digest: Digest,
}

/// The rows that decide, as they are; then as the commits leave them.
pub(super) struct Found<'a> {
    pub(super) identity: Identity,
    /// The transaction's id, as PostgreSQL names it.
    pub(super) transaction: String,
    pub(super) feeds: HashMap<Key<'a>, FeedEnd>,
    /// The tag that a technician (second) holds of a dispatch (third).
    pub(super) held: HashMap<(&'a str, &'a str, &'a str), StateTag>,
    pub(super) chains: HashMap<Key<'a>, (u64, [u8; 32])>,
    pub(super) revisions: HashMap<Key<'a>, u64>,
    pub(super) consumed: HashSet<Key<'a>>,
    pub(super) answered: HashMap<Key<'a>, IdempotencyRecord>,
    pub(super) technicians: HashMap<Key<'a>, u64>,
    pub(super) locations: HashMap<Key<'a>, u64>,
    pub(super) bookings: HashMap<Key<'a>, Bookings>,
    pub(super) devices: HashMap<Key<'a>, Device>,
}

impl<'a> Found<'a> {
    pub(super) fn feed(&self, key: Key<'a>) -> FeedEnd {
        self.feeds.get(&key).copied().unwrap_or_default()
    }

    pub(super) fn chain(&self, key: Key<'a>) -> (u64, [u8; 32]) {
        self.chains.get(&key).copied().unwrap_or((0, AUDIT_GENESIS))
    }
}

/// Everything that the commits need to know, each once.
fn questions<'a>(commits: &[&'a Commit]) -> BTreeSet<(i64, &'a str, &'a str, &'a str)> {
    let mut asked = BTreeSet::new();
    for commit in commits {
        let tenant = commit.tenant.as_str();
        let mut ask = |what, key, other| asked.insert((what, tenant, key, other));
        if let Some(dispatch) = &commit.dispatch {
            let id = dispatch.row.dispatch_id.as_str();
            ask(DISPATCH, id, "");
            if dispatch.bookings.is_some() {
                ask(BOOKED, id, "");
            }
            for entry in &dispatch.feed {
                ask(FEED, entry.technician.as_str(), "");
                ask(HELD, entry.technician.as_str(), id);
            }
        }
        for (_, technician) in &commit.technicians {
            ask(TECHNICIAN, technician.technician_id.as_str(), "");
        }
        for (_, location) in &commit.locations {
            ask(LOCATION, location.location_id.as_str(), "");
        }
        for device in &commit.devices {
            ask(FEED, device.technician.as_str(), "");
        }
        for entry in &commit.audit {
            ask(CHAIN, entry.aggregate.as_str(), "");
        }
        if let Some(event) = &commit.consumed {
            ask(CONSUMED, event.as_str(), "");
        }
        if let Some(record) = &commit.idempotency {
            ask(ANSWERED, record.key.as_str(), "");
        }
    }
    asked
}

pub(super) async fn look<'a>(connection: &mut PgConnection, commits: &[&'a Commit]) -> Result<Found<'a>, Failure> {
    let asked: Vec<_> = questions(commits).into_iter().collect();
    let rows = sqlx::query(LOOK)
        .bind(asked.iter().map(|asked| asked.0).collect::<Vec<_>>())
        .bind(asked.iter().map(|asked| asked.1).collect::<Vec<_>>())
        .bind(asked.iter().map(|asked| asked.2).collect::<Vec<_>>())
        .bind(asked.iter().map(|asked| asked.3).collect::<Vec<_>>())
        .fetch_all(&mut *connection)
        .await?;
    let mut identity = None;
    let mut transaction = String::new();
    let (mut feeds, mut held, mut chains) = (HashMap::new(), HashMap::new(), HashMap::new());
    let (mut revisions, mut consumed, mut answered) = (HashMap::new(), HashSet::new(), HashMap::new());
    let (mut technicians, mut locations, mut bookings) = (HashMap::new(), HashMap::new(), HashMap::new());
    for row in &rows {
        let number = usize::try_from(get::<i64>(row, 1)?).unwrap_or_default();
        let (_, tenant, key, other) = number.checked_sub(1).and_then(|n| asked.get(n)).copied().unwrap_or_default();
        match get::<i64>(row, 0)? {
            FEED => {
                feeds.insert((tenant, key), FeedEnd { seq: unsigned(row, 2)?, digest: Digest(bits(row, 3)?) });
            }
            HELD => {
                held.insert((tenant, key, other), StateTag(bits(row, 2)?));
            }
            CHAIN => {
                chains.insert((tenant, key), (unsigned(row, 2)?, hash(row, 4)?));
            }
            DISPATCH => {
                revisions.insert((tenant, key), unsigned(row, 2)?);
            }
            CONSUMED => {
                consumed.insert((tenant, key));
            }
            ANSWERED => {
                let record = IdempotencyRecord {
                    key: key.to_owned(),
                    request_hash: get(row, 5)?,
                    status: http_status(get(row, 2)?)?,
                    etag: get(row, 6)?,
                    body: get(row, 7)?,
                };
                answered.insert((tenant, key), record);
            }
            TECHNICIAN => {
                technicians.insert((tenant, key), unsigned(row, 2)?);
            }
            LOCATION => {
                locations.insert((tenant, key), unsigned(row, 2)?);
            }
            BOOKED => {
                let booked: &mut Bookings = bookings.entry((tenant, key)).or_default();
                booked.insert((get(row, 5)?, get(row, 2)?, get(row, 3)?));
            }
            _ => {
                identity = Some(postgres::read_identity(row, 2, 4)?);
                transaction = get(row, 5)?;
            }
        }
    }
    let identity = identity.ok_or_else(|| crate::store::forms::corrupt("identity")("there is none".to_owned()))?;
    let devices = look_at_devices(connection, commits).await?;
    Ok(Found {
        identity,
        transaction,
        feeds,
        held,
        chains,
        revisions,
        consumed,
        answered,
        technicians,
        locations,
        bookings,
        devices,
    })
}

async fn look_at_devices<'a>(
    connection: &mut PgConnection,
    commits: &[&'a Commit],
) -> Result<HashMap<Key<'a>, Device>, Failure> {
    let all = commits.iter().flat_map(|commit| commit.devices.iter().map(|write| (commit.tenant.as_str(), write)));
    let asked: BTreeSet<Key<'a>> = all.map(|(tenant, write)| (tenant, write.device.as_str())).collect();
    let mut devices = HashMap::new();
    if asked.is_empty() {
        return Ok(devices);
    }
    let asked: Vec<_> = asked.into_iter().collect();
    let rows = sqlx::query(LOOK_AT_DEVICES)
        .bind(asked.iter().map(|asked| asked.0).collect::<Vec<_>>())
        .bind(asked.iter().map(|asked| asked.1).collect::<Vec<_>>())
        .fetch_all(connection)
        .await?;
    for row in &rows {
        let number = usize::try_from(get::<i64>(row, DEVICE_COLUMNS)?).unwrap_or_default();
        if let Some(key) = number.checked_sub(1).and_then(|n| asked.get(n)) {
            devices.insert(*key, rows::device(row)?);
        }
    }
    Ok(devices)
}

/// Rows by their keys, in the keys' order: the order in which they are written.
pub(super) type Ordered<'a, T> = BTreeMap<Key<'a>, T>;
