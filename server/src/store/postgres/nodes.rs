//! What nodes tell each other: `NOTIFY`, on connections of its own.
//!
//! Not inside the commit's transaction: PostgreSQL lets transactions that notify become durable one after the other, over the whole
//! database, and that would take group commit and the tenants' stripes away again. A node tells *after* its commit, many feeds in one
//! statement that writes nothing to disk. What is lost with a node that dies in between is found by looking.

use super::PostgresStore;
use super::connect::Target;
use super::rows::{get, unsigned};
use crate::store::{Heard, Hint, Nodes, RelayTurn, StoreError};
use async_trait::async_trait;
use sqlx::PgConnection;
use sqlx::postgres::PgListener;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use sync_core::domain::{DeviceId, TechnicianId, TenantId};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

/// The channel; channels are a database's own.
const CHANNEL: &str = "crm_dispatch";
/// Longest payload, bytes; PostgreSQL takes less than 8,000.
const PAYLOAD_BYTES_MAX: usize = 7_500;
/// Most announcements that wait to be told; more are dropped, and found by looking.
const UNTOLD_MAX: usize = 4_096;
/// Most announcements told in one statement.
const TOLD_AT_ONCE_MAX: usize = 1_024;
/// Most hints that wait to be carried out; then the listener waits, and PostgreSQL keeps the rest.
const UNHEARD_MAX: usize = 4_096;
/// The sweep's advisory lock, beside those of the writers' stripes and the relay's.
const SWEEP_LOCK: i32 = 1_001;

pub(super) const FEED_HEADS: &str = "SELECT coalesce(h.seq, 0) \
     FROM unnest($1::text[], $2::text[]) WITH ORDINALITY asked(tenant, technician, place) \
     LEFT JOIN feed_heads h ON h.tenant = asked.tenant COLLATE \"C\" AND h.technician = asked.technician COLLATE \"C\" \
     ORDER BY asked.place";
pub(super) const REVOKED: &str = "SELECT asked.place \
     FROM unnest($1::text[], $2::text[]) WITH ORDINALITY asked(tenant, device, place) \
     JOIN devices v ON v.tenant = asked.tenant COLLATE \"C\" AND v.device = asked.device COLLATE \"C\" \
     WHERE v.revoked_ms IS NOT NULL ORDER BY asked.place";
const NOTIFY: &str = "SELECT pg_notify($1, payload) FROM unnest($2::text[]) AS told(payload)";

/// Both directions. The tasks start with their first use, so that a command that only reads the database does without.
#[derive(Debug)]
pub(super) struct Wire {
    target: Arc<Target>,
    /// Names this store among all that are open: whoever tells does not hear itself.
    node: String,
    stop: watch::Sender<bool>,
    teller: Mutex<Option<Teller>>,
    hearing: tokio::sync::Mutex<Option<mpsc::Receiver<Heard>>>,
}

#[derive(Debug)]
struct Teller {
    waiting: mpsc::Sender<Vec<Hint>>,
    task: JoinHandle<()>,
}

impl Wire {
    pub(super) fn new(target: &Arc<Target>) -> Self {
        Self {
            target: Arc::clone(target),
            node: format!("{:016x}", rand::random::<u64>()),
            stop: watch::Sender::new(false),
            teller: Mutex::default(),
            hearing: tokio::sync::Mutex::default(),
        }
    }

    fn tell(&self, hints: Vec<Hint>) {
        let mut teller = self.teller.lock().unwrap_or_else(PoisonError::into_inner);
        if *self.stop.borrow() {
            return;
        }
        let Teller { waiting, .. } = teller.get_or_insert_with(|| {
            let (waiting, untold) = mpsc::channel(UNTOLD_MAX);
            let task = tokio::spawn(tell_all(Arc::clone(&self.target), self.node.clone(), untold));
            Teller { waiting, task }
        });
        // A full queue is a database that does not answer: there is worse than a late visit then.
        let _ = waiting.try_send(hints);
    }

    async fn hear(&self) -> Heard {
        let mut hearing = self.hearing.lock().await;
        let unheard = hearing.get_or_insert_with(|| {
            let (heard, unheard) = mpsc::channel(UNHEARD_MAX);
            tokio::spawn(listen(Arc::clone(&self.target), self.node.clone(), heard, self.stop.subscribe()));
            unheard
        });
        match unheard.recv().await {
            Some(heard) => heard,
            None => std::future::pending().await,
        }
    }

    /// Tells what waits, and ends.
    pub(super) async fn close(&self) {
        self.stop.send_replace(true);
        let teller = self.teller.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Teller { waiting, task }) = teller {
            drop(waiting);
            let _ = task.await;
        }
    }
}

/// Runs until nobody can announce any more and all is told.
async fn tell_all(target: Arc<Target>, node: String, mut untold: mpsc::Receiver<Vec<Hint>>) {
    let mut connection = None;
    let mut pause = target.backoff();
    let mut silent = false;
    let mut announced = Vec::new();
    while untold.recv_many(&mut announced, TOLD_AT_ONCE_MAX).await > 0 {
        let payloads = pack(&node, announced.drain(..).flatten());
        match tell_once(&target, &mut connection, &payloads).await {
            Ok(()) => {
                silent = false;
                pause = target.backoff();
            }
            Err(error) => {
                connection = None;
                // What was to be told is dropped: it is found by looking, sooner than it would be told.
                if !silent {
                    tracing::warn!(%error, "other nodes cannot be told; they find changes by looking");
                }
                silent = true;
                if untold.is_closed() {
                    return;
                }
                pause.wait().await;
            }
        }
    }
}

async fn tell_once(
    target: &Target,
    connection: &mut Option<PgConnection>,
    payloads: &[String],
) -> Result<(), sqlx::Error> {
    let connected = match connection {
        Some(connected) => connected,
        None => connection.insert(target.connect().await?),
    };
    let telling = sqlx::query(NOTIFY).bind(CHANNEL).bind(payloads).execute(connected);
    match tokio::time::timeout(target.answer_within, telling).await {
        Ok(told) => told.map(drop),
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

/// Runs until the store is closed or dropped.
async fn listen(target: Arc<Target>, node: String, heard: mpsc::Sender<Heard>, mut stop: watch::Receiver<bool>) {
    let listening = async {
        let pool = target.listening_pool();
        let mut pause = target.backoff();
        let mut deaf = false;
        loop {
            match listen_once(&pool, &node, &heard, &mut deaf).await {
                Ok(()) => return,
                Err(error) => {
                    if !deaf {
                        tracing::warn!(%error, "other nodes cannot be heard; changes are found by looking");
                    }
                    // The first attempt after a connection was lost is made at once.
                    if deaf {
                        pause.wait().await;
                    } else {
                        pause = target.backoff();
                    }
                    deaf = true;
                }
            }
        }
    };
    tokio::select! {
        () = listening => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

/// Listens until nobody wants to hear any more; an error when the connection is lost.
async fn listen_once(
    pool: &sqlx::PgPool,
    node: &str,
    heard: &mpsc::Sender<Heard>,
    deaf: &mut bool,
) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.eager_reconnect(false);
    listener.listen(CHANNEL).await?;
    if std::mem::replace(deaf, false) {
        tracing::info!("other nodes are heard again");
    }
    // Whatever was told until now was not heard.
    if heard.send(Heard::Missed).await.is_err() {
        return Ok(());
    }
    loop {
        let Some(notification) = listener.try_recv().await? else {
            return Err(sqlx::Error::Io(std::io::Error::new(
                std::io::ErrorKind::UnexpectedEof,
                "the connection ended",
            )));
        };
        for hint in unpack(node, notification.payload()) {
            if heard.send(Heard::Hint(hint)).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// A hint as it travels: kind, tenant, technician, and a feed's end or a device.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
#[serde(tag = "k")]
enum Told {
    #[serde(rename = "g")]
    Grew { t: TenantId, w: TechnicianId, s: u64 },
    #[serde(rename = "c")]
    Connected { t: TenantId, w: TechnicianId, d: DeviceId },
    #[serde(rename = "r")]
    Revoked { t: TenantId, w: TechnicianId, d: DeviceId },
}

/// Payloads for these hints: `{"node": …, "told": [ … ]}`, each feed once, as far as it grew.
fn pack(node: &str, hints: impl Iterator<Item = Hint>) -> Vec<String> {
    let mut feeds: HashMap<(TenantId, TechnicianId), u64> = HashMap::new();
    let mut told = Vec::new();
    for hint in hints {
        match hint {
            Hint::Grew { tenant, technician, seq } => {
                let end = feeds.entry((tenant, technician)).or_default();
                *end = seq.max(*end);
            }
            Hint::Connected { tenant: t, technician: w, device: d } => told.push(Told::Connected { t, w, d }),
            Hint::Revoked { tenant: t, technician: w, device: d } => told.push(Told::Revoked { t, w, d }),
        }
    }
    told.extend(feeds.into_iter().map(|((t, w), s)| Told::Grew { t, w, s }));
    let begin = format!("{{\"node\":\"{node}\",\"told\":[");
    let mut payloads = Vec::new();
    let mut payload = begin.clone();
    for told in told {
        // Ids and numbers always have a JSON form.
        let Ok(text) = serde_json::to_string(&told) else { continue };
        if payload.len() > begin.len() {
            if payload.len() + text.len() + 3 > PAYLOAD_BYTES_MAX {
                payloads.push(std::mem::replace(&mut payload, begin.clone()) + "]}");
            } else {
                payload.push(',');
            }
        }
        payload.push_str(&text);
    }
    if payload.len() > begin.len() {
        payloads.push(payload + "]}");
    }
    payloads
}

/// What another node tells; nothing from this one. What makes no sense may come from a later release.
fn unpack(node: &str, payload: &str) -> Vec<Hint> {
    #[derive(serde::Deserialize)]
    struct Payload {
        node: String,
        told: Vec<serde_json::Value>,
    }
    let Ok(Payload { node: from, told }) = serde_json::from_str(payload) else {
        tracing::debug!(payload, "another node says something that makes no sense here");
        return Vec::new();
    };
    if from == node {
        return Vec::new();
    }
    let hints = told.into_iter().filter_map(|told| serde_json::from_value(told).ok());
    hints
        .map(|told| match told {
            Told::Grew { t, w, s } => Hint::Grew { tenant: t, technician: w, seq: s },
            Told::Connected { t, w, d } => Hint::Connected { tenant: t, technician: w, device: d },
            Told::Revoked { t, w, d } => Hint::Revoked { tenant: t, technician: w, device: d },
        })
        .collect()
}

#[async_trait]
impl Nodes for PostgresStore {
    fn is_shared(&self) -> bool {
        true
    }

    fn announce(&self, hints: Vec<Hint>) {
        self.wire.tell(hints);
    }

    async fn heard(&self) -> Heard {
        self.wire.hear().await
    }

    async fn feed_heads(&self, of: &[(TenantId, TechnicianId)]) -> Result<Vec<u64>, StoreError> {
        if of.is_empty() {
            return Ok(Vec::new());
        }
        let tenants: Vec<_> = of.iter().map(|(tenant, _)| tenant.as_str().to_owned()).collect();
        let technicians: Vec<_> = of.iter().map(|(_, technician)| technician.as_str().to_owned()).collect();
        let rows = self.all(|| sqlx::query(FEED_HEADS).bind(tenants.clone()).bind(technicians.clone())).await?;
        rows.iter().map(|row| unsigned(row, 0)).collect()
    }

    async fn revoked(&self, among: &[(TenantId, DeviceId)]) -> Result<Vec<(TenantId, DeviceId)>, StoreError> {
        if among.is_empty() {
            return Ok(Vec::new());
        }
        let tenants: Vec<_> = among.iter().map(|(tenant, _)| tenant.as_str().to_owned()).collect();
        let devices: Vec<_> = among.iter().map(|(_, device)| device.as_str().to_owned()).collect();
        let rows = self.all(|| sqlx::query(REVOKED).bind(tenants.clone()).bind(devices.clone())).await?;
        let mut revoked = Vec::with_capacity(rows.len());
        for row in &rows {
            // Counted from one.
            let place: i64 = get(row, 0)?;
            let asked = usize::try_from(place).ok().and_then(|place| among.get(place.checked_sub(1)?));
            revoked.extend(asked.cloned());
        }
        Ok(revoked)
    }

    async fn sweep_turn(&self) -> Result<Option<Box<dyn RelayTurn>>, StoreError> {
        self.turn(SWEEP_LOCK).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grew(technician: &str, seq: u64) -> Hint {
        let (tenant, technician) = (TenantId::new("acme").unwrap(), TechnicianId::new(technician).unwrap());
        Hint::Grew { tenant, technician, seq }
    }

    #[test]
    fn a_feed_that_grew_often_is_told_once_and_nobody_hears_itself() {
        let payloads = pack("a", [grew("TECH-1", 1), grew("TECH-1", 3), grew("TECH-1", 2)].into_iter());
        assert_eq!(payloads.len(), 1);
        assert_eq!(unpack("b", &payloads[0]), [grew("TECH-1", 3)]);
        assert_eq!(unpack("a", &payloads[0]), []);
        assert!(pack("a", std::iter::empty()).is_empty());
    }

    #[test]
    fn much_to_tell_is_told_in_payloads_that_postgresql_takes() {
        let hints: Vec<_> = (0..2_000).map(|number| grew(&format!("TECH-{number}"), number)).collect();
        let payloads = pack("0123456789abcdef", hints.iter().cloned());
        assert!(payloads.len() > 1 && payloads.iter().all(|payload| payload.len() < 8_000));
        let mut heard: Vec<_> = payloads.iter().flat_map(|payload| unpack("b", payload)).collect();
        heard.sort_by_key(|hint| match hint {
            Hint::Grew { seq, .. } => *seq,
            _ => u64::MAX,
        });
        assert_eq!(heard, hints);
    }

    #[test]
    fn what_a_later_release_tells_does_not_drown_what_is_understood() {
        let payload =
            r#"{"node":"b","more":1,"told":[{"k":"x","t":"acme"},{"k":"g","t":"acme","w":"TECH-1","s":5,"z":0}]}"#;
        assert_eq!(unpack("a", payload), [grew("TECH-1", 5)]);
        assert_eq!(unpack("a", "hello"), []);
    }
}
