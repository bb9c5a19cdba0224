//! `dead-letters`.

use crate::Failure;
use crate::args::DeadLettersOptions;
use std::path::Path;
use std::process::ExitCode;

#[cfg(not(feature = "kafka"))]
pub(crate) async fn run(_: Option<&Path>, _: &DeadLettersOptions) -> Result<ExitCode, Failure> {
    Err("this build has no Kafka; build it with `cargo build --release --features kafka`".into())
}

/// What strangers wrote, without what a terminal would obey.
#[cfg(feature = "kafka")]
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(feature = "kafka")]
pub(crate) async fn run(file: Option<&Path>, options: &DeadLettersOptions) -> Result<ExitCode, Failure> {
    use crate::say;
    use crm_dispatch_server::app::{Parts, open_store, service};
    use crm_dispatch_server::config::Config;
    use crm_dispatch_server::events::kafka::consume::letters::{DeadLetters, Retry};
    use crm_dispatch_server::events::kafka::{client, schemas};

    let config = Config::from_environment(file)?;
    if !config.kafka.is_enabled() {
        return Err("kafka.brokers is empty, so there is no dead-letter topic to read".into());
    }
    let consume = config.kafka.consuming();
    let (sender, mut letters) = tokio::sync::mpsc::channel(100);
    let reading = {
        let (consume, client) = (consume.clone(), client(&config.kafka));
        tokio::task::spawn_blocking(move || {
            for letter in DeadLetters::open(&consume, &client)? {
                // Nobody wants more.
                if sender.blocking_send(letter?).is_err() {
                    break;
                }
            }
            Ok::<_, Failure>(())
        })
    };
    let store = if options.retry { Some(open_store(&config).await?.0) } else { None };
    let retry = match &store {
        Some(store) => Some(Retry::new(&consume, schemas(&config.kafka)?, service(store, &config, Parts::default()))),
        None => None,
    };
    let (mut seen, mut mended) = (0_u64, 0_u64);
    while let Some(letter) = letters.recv().await {
        if options.code.as_ref().is_some_and(|code| *code != letter.code) {
            continue;
        }
        seen += 1;
        let (topic, partition, offset) = &letter.origin;
        let key = plain(letter.key.as_deref().unwrap_or("-"));
        let (code, message) = (plain(&letter.code), plain(&letter.message));
        let topic = plain(topic);
        let at = letter.at_ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        let at = at.map_or_else(|| "-".to_owned(), |at| at.to_string());
        say(format_args!("{at}  {code}  {topic}/{}@{}  {key}  {message}", plain(partition), plain(offset)));
        match &retry {
            None => {}
            Some(retry) => match retry.again(&letter).await {
                Ok(effect) => {
                    mended += 1;
                    say(format_args!("    tried again: {effect:?}"));
                }
                Err((code, message)) => say(format_args!("    tried again: {code}: {message}")),
            },
        }
    }
    let read = reading.await?;
    if let Some(store) = store {
        store.close().await;
    }
    read.map_err(|error| format!("the dead letters of {} cannot be read: {error}", consume.dead_letter_topic))?;
    say(if options.retry { format!("{seen} letters, {mended} had their effect") } else { format!("{seen} letters") });
    Ok(if options.retry && mended < seen { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}
