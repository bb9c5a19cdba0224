//! The dispatch's entries in the technicians' feeds.

use super::{Failure, FeedEnd, to_json};
use crate::service::commit::{Commit, DispatchWrite, FeedEntry, FeedNews};
use crate::store::sqlite::dispatches::json_list;
use sqlx::SqliteConnection;
use std::collections::BTreeMap;
use sync_core::domain::Timestamp;

const WRITE_FEED: &str = "INSERT INTO feed (tenant, technician, seq, dispatch_id, revision, epoch, kind, digest, \
         tombstone, at_ms) \
       SELECT c.tenant, j.value ->> 0, j.value ->> 1, c.dispatch, c.revision, c.epoch, \
         CASE WHEN j.value ->> 3 IS NULL THEN 'held' ELSE 'gone' END, j.value ->> 2, j.value ->> 3, c.at \
       FROM (SELECT ? AS tenant, ? AS dispatch, ? AS revision, ? AS epoch, ? AS at) c CROSS JOIN json_each(?) j; \
     INSERT INTO feed_heads (tenant, technician, seq, digest) \
       SELECT ?, j.value ->> 0, j.value ->> 1, j.value ->> 2 FROM json_each(?) j WHERE true \
       ON CONFLICT (tenant, technician) DO UPDATE SET seq = excluded.seq, digest = excluded.digest; \
     INSERT INTO held (tenant, technician, dispatch_id, revision, tag, seq, until_ms) \
       SELECT c.tenant, j.value ->> 0, c.dispatch, c.revision, c.tag, j.value ->> 1, c.until \
       FROM (SELECT ? AS tenant, ? AS dispatch, ? AS revision, ? AS tag, ? AS until) c CROSS JOIN json_each(?) j \
       WHERE true \
       ON CONFLICT (tenant, technician, dispatch_id) DO UPDATE SET revision = excluded.revision, tag = excluded.tag, \
         seq = excluded.seq, until_ms = excluded.until_ms; \
     DELETE FROM held WHERE tenant = ? AND dispatch_id = ? AND technician IN (SELECT value FROM json_each(?))";

/// Gives every entry the next position of its feed. The positions are drawn inside the transaction, so whoever reads a
/// feed's end sees every entry up to it.
pub(super) async fn write_feed(
    connection: &mut SqliteConnection,
    commit: &Commit,
    write: &DispatchWrite,
    ends: &mut BTreeMap<String, FeedEnd>,
) -> Result<Vec<FeedEntry>, Failure> {
    if write.feed.is_empty() {
        return Ok(Vec::new());
    }
    let row = &write.row;
    let mut entries = Vec::with_capacity(write.feed.len());
    let mut lines = Vec::with_capacity(write.feed.len());
    for news in &write.feed {
        let end = ends.entry(news.technician.to_string()).or_default();
        end.seq += 1;
        if let Some(tag) = end.held.take() {
            end.digest = end.digest.toggled(&row.dispatch_id, tag);
        }
        let tombstone = match &news.news {
            FeedNews::Held => {
                end.digest = end.digest.toggled(&row.dispatch_id, write.tag);
                end.held = Some(write.tag);
                None
            }
            FeedNews::Gone(tombstone) => Some(to_json("tombstone", tombstone)?),
        };
        lines.push((&news.technician, end.seq, end.digest.0.cast_signed(), tombstone));
        entries.push(FeedEntry {
            technician: news.technician.clone(),
            seq: end.seq,
            digest: end.digest.0,
            dispatch: row.dispatch_id.clone(),
            revision: row.revision,
            news: news.news.clone(),
        });
    }
    let heads: Vec<_> =
        ends.iter().map(|(technician, end)| (technician, end.seq, end.digest.0.cast_signed())).collect();
    let (held, gone): (Vec<_>, Vec<_>) = ends.iter().partition(|(_, end)| end.held.is_some());
    let held: Vec<_> = held.into_iter().map(|(technician, end)| (technician, end.seq)).collect();
    let gone: Vec<_> = gone.into_iter().map(|(technician, _)| technician).collect();
    let until = [row.state.ended.map(|ended| ended.at), row.scheduled.map(|window| window.end)];
    let until = until.into_iter().flatten().min().map(Timestamp::millis);

    let (tenant, dispatch) = (commit.tenant.as_str(), row.dispatch_id.as_str());
    sqlx::query(WRITE_FEED)
        .bind(tenant)
        .bind(dispatch)
        .bind(row.revision.cast_signed())
        .bind(row.epoch.cast_signed())
        .bind(commit.at.millis())
        .bind(json_list(&lines)?)
        .bind(tenant)
        .bind(json_list(&heads)?)
        .bind(tenant)
        .bind(dispatch)
        .bind(row.revision.cast_signed())
        .bind(write.tag.0.cast_signed())
        .bind(until)
        .bind(json_list(&held)?)
        .bind(tenant)
        .bind(dispatch)
        .bind(json_list(&gone)?)
        .execute(connection)
        .await?;
    Ok(entries)
}
