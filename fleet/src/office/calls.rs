//! The calls, one method each.

use super::{
    AuditLine, Available, Caller, DeviceHealth, DispatchSummary, Exception, JournalEvent, Office, OfficeError, ReportView,
    Tagged,
};
use crate::city::{OrderEvent, Site, Technician};
use reqwest::Method;
use serde_json::{Value, json};
use sync_core::domain::{DispatchId, LocationId, TechnicianId, Window};

impl Office {
    /// Registers or replaces a technician.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn put_technician(&self, technician: &Technician) -> Result<(), OfficeError> {
        let path = format!("/technicians/{}", technician.technician_id);
        self.call::<Value>(&Caller::Admin, Method::PUT, &path, Some(&json!(technician)), None).await.map(drop)
    }

    /// Registers or replaces a site.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn put_location(&self, site: &Site) -> Result<(), OfficeError> {
        let path = format!("/locations/{}", site.location_id);
        self.call::<Value>(&Caller::Admin, Method::PUT, &path, Some(&json!(site)), None).await.map(drop)
    }

    /// Hands in an event of a neighbouring context, as its topic would bring it.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn ingest(&self, event: &OrderEvent) -> Result<Value, OfficeError> {
        Ok(self.call(&Caller::Integration, Method::POST, "/events", Some(&json!(event)), None).await?.value)
    }

    /// Hands in any event.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn ingest_raw(&self, event: &Value) -> Result<Value, OfficeError> {
        Ok(self.call(&Caller::Integration, Method::POST, "/events", Some(event), None).await?.value)
    }

    /// Who could go to a site.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn available(&self, location: &LocationId) -> Result<Vec<Available>, OfficeError> {
        let path = format!("/technicians/available?locationId={location}");
        let answer: Value = self.call(&Caller::Dispatcher, Method::GET, &path, None, None).await?.value;
        // A plain list, or a page of one.
        let list = answer.get("items").cloned().unwrap_or(answer);
        serde_json::from_value(list)
            .map_err(|error| OfficeError::Malformed { what: path, detail: error.to_string() })
    }

    /// One dispatch, with its `ETag`.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn dispatch(&self, dispatch: &DispatchId) -> Result<Tagged<DispatchSummary>, OfficeError> {
        self.call(&Caller::Dispatcher, Method::GET, &format!("/{dispatch}"), None, None).await
    }

    /// Every dispatch, over all pages.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn search_all(&self, filter: &str) -> Result<Vec<DispatchSummary>, OfficeError> {
        let path = if filter.is_empty() { "/dispatches".to_owned() } else { format!("/dispatches?{filter}") };
        self.all_pages(&Caller::Dispatcher, &path).await
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
    pub async fn reschedule(&self, dispatch: &DispatchId, scheduled: Window, window: Window) -> Result<(), OfficeError> {
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
        self.all_pages(&Caller::Dispatcher, &format!("/{dispatch}/audit")).await
    }

    /// Everything that waits for a person, and what was decided.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn exceptions(&self) -> Result<Vec<Exception>, OfficeError> {
        self.all_pages(&Caller::Dispatcher, "/exceptions?openOnly=false&limit=500").await
    }

    /// Every published event.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn events(&self) -> Result<Vec<JournalEvent>, OfficeError> {
        self.all_pages(&Caller::Integration, "/events?limit=500").await
    }

    /// Every phone.
    ///
    /// # Errors
    /// [`OfficeError`].
    pub async fn devices(&self) -> Result<Vec<DeviceHealth>, OfficeError> {
        self.all_pages(&Caller::Dispatcher, "/devices").await
    }
}
