-- What the relay asks: events that wait, oldest first; and the trace an event belongs to, sent with it.

ALTER TABLE events ADD COLUMN traceparent TEXT;

CREATE INDEX events_unpublished ON events (position) WHERE published_ms IS NULL;
