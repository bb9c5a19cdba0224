//! The calls, one method each.

use super::{
    AuditLine, Available, Caller, DeviceHealth, DispatchSummary, Exception, IngestLine, JournalEntry, Office,
    OfficeError, Page, ReportView, Tagged,
};
use crate::city::{Order, OrderEvent, Site, Technician};
use reqwest::Method;
use serde_json::{Value, json};
use sync_core::domain::{DeviceId, DispatchId, TechnicianId, Window};

/// Rows of a page; the most that the server gives.
const PAGE_ROWS: u32 = 200;
/// Events in one call: fewer than the server takes, so that the body stays small however much each of them says.
const INGEST_EVENTS_MAX: usize = 50;

/// The body of a resource whose id stands in the path.
fn without(mut body: Value, id: &str) -> Value {
    if let Some(fields) = body.as_object_mut() {
        fields.remove(id);
    }
    body
}

impl Office {
    /// Registers or replaces a technician.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn put_technician(&self, technician: &Technician) -> Result<(), OfficeError> {
        let path = format!("/technicians/{}", technician.technician_id);
        let body = without(json!(technician), "technicianId");
        self.call::<Value>(&Caller::Admin, Method::PUT, &path, Some(&body), None).await.map(drop)
    }

    /// Registers or replaces a site.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn put_location(&self, site: &Site) -> Result<(), OfficeError> {
        let path = format!("/locations/{}", site.location_id);
        let body = without(json!(site), "locationId");
        self.call::<Value>(&Caller::Admin, Method::PUT, &path, Some(&body), None).await.map(drop)
    }

    /// Hands in events of neighbouring contexts, as their topics would bring them; one answer each, in order.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn ingest(&self, events: &[OrderEvent]) -> Result<Vec<IngestLine>, OfficeError> {
        let mut lines = Vec::with_capacity(events.len());
        for events in events.chunks(INGEST_EVENTS_MAX) {
            let answer: Page<IngestLine> =
                self.call(&Caller::Integration, Method::POST, "/events", Some(&json!(events)), None).await?.value;
            lines.extend(answer.items);
        }
        Ok(lines)
    }

    /// Who could do an order, nearest first.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn available(&self, order: &Order) -> Result<Vec<Available>, OfficeError> {
        let skills: Vec<_> = order.required_skills.iter().map(|s| format!("{}:{}", s.code, s.level)).collect();
        let path = format!(
            "/technicians/available?locationId={}&from={}&to={}&skills={}",
            order.location_id,
            order.schedule_start,
            order.schedule_end,
            skills.join(",")
        );
        self.all_pages(&Caller::Dispatcher, &path).await
    }

    /// One dispatch, with its `ETag`.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn dispatch(&self, dispatch: &DispatchId) -> Result<Tagged<DispatchSummary>, OfficeError> {
        self.call(&Caller::Dispatcher, Method::GET, &format!("/{dispatch}"), None, None).await
    }

    /// Every dispatch that a filter (`&technicianId=TECH-10`, or nothing) lets through, over all pages.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn search_all(&self, filter: &str) -> Result<Vec<DispatchSummary>, OfficeError> {
        self.all_pages(&Caller::Dispatcher, &format!("/requests?limit={PAGE_ROWS}{filter}")).await
    }

    async fn command(&self, dispatch: &DispatchId, verb: &str, body: &Value) -> Result<(), OfficeError> {
        let path = format!("/{dispatch}/{verb}");
        self.call::<Value>(&Caller::Dispatcher, Method::POST, &path, Some(body), None).await.map(drop)
    }

    /// Assigns a visit, or gives it to somebody else; with a crew or without.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn assign(
        &self,
        dispatch: &DispatchId,
        lead: &TechnicianId,
        crew: &[TechnicianId],
    ) -> Result<(), OfficeError> {
        let mut body = json!({ "technicianId": lead });
        if !crew.is_empty() {
            body["crew"] = json!(crew);
        }
        self.command(dispatch, "assign", &body).await
    }

    /// Cancels a visit.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn cancel(&self, dispatch: &DispatchId, reason: &str) -> Result<(), OfficeError> {
        self.command(dispatch, "cancel", &json!({ "reason": reason })).await
    }

    /// Moves a visit to another time.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn reschedule(
        &self,
        dispatch: &DispatchId,
        scheduled: Window,
        window: Window,
    ) -> Result<(), OfficeError> {
        let body = json!({ "scheduled": scheduled, "arrivalWindow": window, "customerConfirmed": true });
        self.command(dispatch, "reschedule", &body).await
    }

    /// Moves a visit's arrival window.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn move_window(
        &self,
        dispatch: &DispatchId,
        window: Window,
        customer_confirmed: bool,
    ) -> Result<(), OfficeError> {
        let body = json!({ "arrivalWindow": window, "customerConfirmed": customer_confirmed });
        self.command(dispatch, "reschedule", &body).await
    }

    /// What a visit left behind: report, and every fact with its ruling.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn report(&self, dispatch: &DispatchId) -> Result<ReportView, OfficeError> {
        let path = format!("/{dispatch}/report");
        Ok(self.call(&Caller::Dispatcher, Method::GET, &path, None, None).await?.value)
    }

    /// A visit's audit trail.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn audit(&self, dispatch: &DispatchId) -> Result<Vec<AuditLine>, OfficeError> {
        self.all_pages(&Caller::Dispatcher, &format!("/{dispatch}/audit?limit={PAGE_ROWS}")).await
    }

    /// Everything that waits for a person, and what was decided.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn exceptions(&self) -> Result<Vec<Exception>, OfficeError> {
        self.all_pages(&Caller::Dispatcher, &format!("/exceptions?includeResolved=true&limit={PAGE_ROWS}")).await
    }

    /// Every published event.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn events(&self) -> Result<Vec<JournalEntry>, OfficeError> {
        self.all_pages(&Caller::Integration, &format!("/events?limit={PAGE_ROWS}")).await
    }

    /// Every phone.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn devices(&self) -> Result<Vec<DeviceHealth>, OfficeError> {
        self.all_pages(&Caller::Dispatcher, "/devices").await
    }

    /// Revokes a phone.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn revoke(&self, device: &DeviceId) -> Result<(), OfficeError> {
        let path = format!("/devices/{device}/revoke");
        self.call::<Value>(&Caller::Dispatcher, Method::POST, &path, None, None).await.map(drop)
    }
}
