//! One event: read, checked, done.

use super::dead_letter::DeadLetters;
use super::envelope::{Decoder, Unread};
use crate::config::ConsumeConfig;
use crate::service::error::Fault;
use crate::service::ingest::IngestEffect;
use crate::service::{Caller, Role, Service, ServiceError};
use crate::telemetry::metrics as figures;
use futures_util::FutureExt;
use rdkafka::message::{Message, OwnedMessage};
use serde::Deserialize;
use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;
use sync_core::domain::{TenantId, UserId};
use tokio::sync::Semaphore;

/// An event that made the service panic this often goes to the dead letters: the next node would fare no better.
const PANICS_MAX: u32 = 3;
/// In the configuration: any tenant.
const ANY_TENANT: &str = "*";

/// What every worker needs.
pub(super) struct Work {
    effects: Effects,
    dead_letters: DeadLetters,
}

/// What an event's effect needs.
pub(super) struct Effects {
    service: Service,
    decoder: Decoder,
    /// `None`: any.
    tenants: Option<BTreeSet<String>>,
    stock_topic: String,
    /// Effects at the same time, over all partitions. A worker that waits for a registry or a broker holds none of them.
    permits: Semaphore,
}

/// What became of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Done {
    Effect(IngestEffect),
    DeadLetter,
}

impl Done {
    fn name(self) -> &'static str {
        match self {
            Self::Effect(IngestEffect::Applied) => "applied",
            Self::Effect(IngestEffect::Duplicate) => "duplicate",
            Self::Effect(IngestEffect::NoEffect) => "no_effect",
            Self::Effect(IngestEffect::Waiting) => "waiting",
            Self::DeadLetter => "dead_letter",
        }
    }
}

/// It has to be tried again; why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NotNow(pub(super) String);

/// The part of an envelope that decides whose data it is.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Whose {
    #[serde(default)]
    tenant_id: Option<TenantId>,
}

impl Work {
    pub(super) fn new(effects: Effects, dead_letters: DeadLetters) -> Self {
        Self { effects, dead_letters }
    }

    /// Does what the event asks for; `attempt` counts from 1. When it answers `Ok`, the effect is stored or the dead letter
    /// has the broker's receipt.
    pub(super) async fn take(&self, message: &OwnedMessage, attempt: u32) -> Result<Done, NotNow> {
        let (code, reason) =
            match AssertUnwindSafe(self.effects.of(message.topic(), message.payload())).catch_unwind().await {
                Ok(Ok(effect)) => return Ok(self.count(message, Done::Effect(effect))),
                Ok(Err(Unread::Poison { code, message })) => (code, message),
                Ok(Err(Unread::NotNow(reason))) => return Err(NotNow(reason)),
                Err(_) if attempt < PANICS_MAX => return Err(NotNow("the service panicked".to_owned())),
                Err(_) => ("PANIC", format!("the service panicked {PANICS_MAX} times over it")),
            };
        self.dead_letters
            .write(message, code, &reason)
            .await
            .map_err(|error| NotNow(format!("the dead-letter topic cannot be written to: {error}")))?;
        let (topic, partition, offset) = (message.topic(), message.partition(), message.offset());
        tracing::warn!(topic, partition, offset, code, reason, "an event went to the dead letters");
        Ok(self.count(message, Done::DeadLetter))
    }

    fn count(&self, message: &OwnedMessage, done: Done) -> Done {
        metrics::counter!(figures::CONSUMED, "topic" => message.topic().to_owned(), "outcome" => done.name())
            .increment(1);
        done
    }
}

impl Effects {
    pub(super) fn new(config: &ConsumeConfig, service: Service, decoder: Decoder) -> Self {
        let any = config.tenants.iter().any(|tenant| tenant == ANY_TENANT);
        Self {
            service,
            decoder,
            tenants: (!any).then(|| config.tenants.iter().cloned().collect()),
            stock_topic: config.topics.stock_changed.clone(),
            permits: Semaphore::new(config.parallel_max),
        }
    }

    /// Does what a record of this topic asks for. When it answers `Ok`, the effect is stored.
    pub(super) async fn of(&self, topic: &str, value: Option<&[u8]>) -> Result<IngestEffect, Unread> {
        let envelope = self.decoder.envelope(value).await?;
        let whose: Whose = serde_json::from_str(&envelope)
            .map_err(|error| Unread::poison("EVENT_UNREADABLE", format!("no envelope: {error}")))?;
        let Some(tenant) = whose.tenant_id else {
            return Err(Unread::poison("TENANT_UNKNOWN", "the envelope names no tenant"));
        };
        if self.tenants.as_ref().is_some_and(|tenants| !tenants.contains(tenant.as_str())) {
            let reason = format!("the tenant {tenant} is not among kafka.consume.tenants");
            return Err(Unread::poison("TENANT_UNKNOWN", reason));
        }
        let caller = Caller { tenant, user: self.user(topic)?, roles: vec![Role::Integration], technician: None };
        let _permit = self.permits.acquire().await.map_err(|error| Unread::NotNow(error.to_string()))?;
        let ingested = self.service.ingest(&caller, &envelope).await.map_err(unread)?;
        tracing::debug!(topic, ?ingested, "consumed");
        Ok(ingested.effect)
    }

    /// Who it is that asks, as the audit trail and a technician's card name them.
    fn user(&self, topic: &str) -> Result<UserId, Unread> {
        let name = if topic == self.stock_topic { "inventory" } else { "service-orders" };
        UserId::new(name).map_err(|error| Unread::NotNow(error.to_string()))
    }
}

/// What a retry can help with, and what not.
fn unread(error: ServiceError) -> Unread {
    match error.fault() {
        Fault::Busy => Unread::NotNow(error.to_string()),
        // The inner text is for the log, which is where a reason to wait goes.
        Fault::Internal => match error {
            ServiceError::Internal(detail) => Unread::NotNow(detail),
            other => Unread::NotNow(other.to_string()),
        },
        Fault::NotFound | Fault::Conflict | Fault::Precondition | Fault::Invalid | Fault::Forbidden => {
            Unread::Poison { code: error.code(), message: error.to_string() }
        }
    }
}
