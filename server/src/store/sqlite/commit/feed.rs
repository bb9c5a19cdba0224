//! The dispatch's entries in the technicians' feeds.

use super::{Failure, FeedEnd, Statement, to_json};
use crate::service::commit::{Commit, DispatchWrite, FeedEntry, FeedNews};
use crate::store::sqlite::dispatches::json_list;
use std::collections::BTreeMap;
use sync_core::domain::Timestamp;

/// The entries, the feeds' ends, and what is held now; [`bind`] gives the parameters.
macro_rules! write_feed {
    () => {
        "INSERT INTO feed (tenant, technician, seq, dispatch_id, revision, epoch, kind, digest, tombstone, at_ms) \
           SELECT given.tenant, j.value ->> 0, j.value ->> 1, given.dispatch, given.revision, given.epoch, \
             CASE WHEN j.value ->> 3 IS NULL THEN 'held' ELSE 'gone' END, j.value ->> 2, j.value ->> 3, given.at \
           FROM (SELECT ? AS tenant, ? AS dispatch, ? AS revision, ? AS epoch, ? AS at) given CROSS JOIN json_each(?) j; \
         INSERT INTO feed_heads (tenant, technician, seq, digest) \
           SELECT ?, j.value ->> 0, j.value ->> 1, j.value ->> 2 FROM json_each(?) j WHERE true \
           ON CONFLICT (tenant, technician) DO UPDATE SET seq = excluded.seq, digest = excluded.digest; \
         INSERT INTO held (tenant, technician, dispatch_id, revision, tag, seq, until_ms) \
           SELECT given.tenant, j.value ->> 0, given.dispatch, given.revision, given.tag, j.value ->> 1, given.until \
           FROM (SELECT ? AS tenant, ? AS dispatch, ? AS revision, ? AS tag, ? AS until) given CROSS JOIN json_each(?) j \
           WHERE true \
           ON CONFLICT (tenant, technician, dispatch_id) DO UPDATE SET revision = excluded.revision, tag = excluded.tag, \
             seq = excluded.seq, until_ms = excluded.until_ms; \
         DELETE FROM held WHERE tenant = ? AND dispatch_id = ? AND technician IN (SELECT value FROM json_each(?))"
    };
}
pub(super) use write_feed;

/// Gives every entry the next position of its feed, and moves the feeds' ends on. The positions are drawn inside the
/// transaction, so whoever reads a feed's end sees every entry up to it.
pub(super) fn entries(write: &DispatchWrite, ends: &mut BTreeMap<String, FeedEnd>) -> Vec<FeedEntry> {
    let dispatch = &write.row.dispatch_id;
    let mut entries = Vec::with_capacity(write.feed.len());
    for news in &write.feed {
        let end = ends.entry(news.technician.to_string()).or_default();
        end.seq += 1;
        if let Some(tag) = end.held.take() {
            end.digest = end.digest.toggled(dispatch, tag);
        }
        if news.news == FeedNews::Held {
            end.digest = end.digest.toggled(dispatch, write.tag);
            end.held = Some(write.tag);
        }
        entries.push(FeedEntry {
            technician: news.technician.clone(),
            seq: end.seq,
            digest: end.digest.0,
            dispatch: dispatch.clone(),
            revision: write.row.revision,
            news: news.news.clone(),
        });
    }
    entries
}

/// Binds what [`write_feed!`] writes.
pub(super) fn bind(
    query: Statement,
    commit: &Commit,
    write: &DispatchWrite,
    entries: &[FeedEntry],
    ends: &BTreeMap<String, FeedEnd>,
) -> Result<Statement, Failure> {
    let row = &write.row;
    let mut lines = Vec::with_capacity(entries.len());
    for entry in entries {
        let tombstone = match &entry.news {
            FeedNews::Held => None,
            FeedNews::Gone(tombstone) => Some(to_json("tombstone", tombstone)?),
        };
        lines.push((&entry.technician, entry.seq, entry.digest.cast_signed(), tombstone));
    }
    let heads: Vec<_> =
        ends.iter().map(|(technician, end)| (technician, end.seq, end.digest.0.cast_signed())).collect();
    let (held, gone): (Vec<_>, Vec<_>) = ends.iter().partition(|(_, end)| end.held.is_some());
    let held: Vec<_> = held.into_iter().map(|(technician, end)| (technician, end.seq)).collect();
    let gone: Vec<_> = gone.into_iter().map(|(technician, _)| technician).collect();
    let until = [row.state.ended.map(|ended| ended.at), row.scheduled.map(|window| window.end)];
    let until = until.into_iter().flatten().min().map(Timestamp::millis);

    let (tenant, dispatch) = (commit.tenant.as_str(), row.dispatch_id.as_str());
    Ok(query
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
        .bind(json_list(&gone)?))
}
