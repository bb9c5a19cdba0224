//! The library's own log, on its way to the app.

use crate::host::{LogLevel, LogSink};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use tracing::field::{Field, Visit};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber, span};

/// Lines that wait for a slow sink; what comes after them is dropped.
const LINES_MAX: usize = 1_000;
/// The crates whose lines go out: those of others (TLS, sockets) might tell more than they should.
const TARGETS: [&str; 2] = ["sync_core", "crm_dispatch_mobile"];

/// Sends the lines of the threads that it is set on to `sink`, from a thread of its own.
pub(crate) fn dispatch_to(sink: Arc<dyn LogSink>, most: LogLevel) -> Dispatch {
    let (lines, waiting) = sync_channel::<(LogLevel, String)>(LINES_MAX);
    let started = std::thread::Builder::new().name("crm-dispatch-log".into()).spawn(move || {
        // A sink that throws has lost the line; there is nowhere else to say so.
        for (level, message) in waiting {
            let _ = sink.log(level, message);
        }
    });
    match started {
        Ok(_) => Dispatch::new(Forward { lines, most }),
        Err(_) => Dispatch::none(),
    }
}

struct Forward {
    lines: SyncSender<(LogLevel, String)>,
    most: LogLevel,
}

fn level(level: &Level) -> LogLevel {
    match *level {
        Level::ERROR => LogLevel::Error,
        Level::WARN => LogLevel::Warn,
        Level::INFO => LogLevel::Info,
        _ => LogLevel::Debug,
    }
}

impl Subscriber for Forward {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target().split("::").next().unwrap_or_default();
        TARGETS.contains(&target) && *metadata.level() <= Level::DEBUG && level(metadata.level()) <= self.most
    }

    fn new_span(&self, _: &span::Attributes<'_>) -> span::Id {
        // Spans are not told apart: a line stands for itself.
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, _: &span::Record<'_>) {}

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = Text(String::new());
        event.record(&mut text);
        let _ = self.lines.try_send((level(event.metadata().level()), text.0));
    }

    fn enter(&self, _: &span::Id) {}

    fn exit(&self, _: &span::Id) {}
}

/// The message, then its fields.
struct Text(String);

impl Visit for Text {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0.insert_str(0, &format!("{value:?}"));
        } else {
            let _ = write!(self.0, " {}={value:?}", field.name());
        }
    }
}
