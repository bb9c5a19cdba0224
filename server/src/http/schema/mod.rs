//! The answers as they are documented: what OpenAPI shows, and what the contract tests read every answer with.
//!
//! The service writes its views itself, since an idempotency key remembers them byte for byte. These types are the other
//! side of the contract: strict, so that a field that is not documented fails a test.

mod directory;
mod dispatch;
mod event;
mod report;

pub use directory::{
    Absence, Candidate, CandidateList, Device, DeviceList, Location, LocationPage, Skill, SkillList, SkillSummary,
    Technician, TechnicianPage, TechnicianStatus,
};
pub use dispatch::{
    Assignment, BreachStatus, Cancellation, ChecklistItem, Contact, Coordinates, Dispatch, DispatchPage,
    DispatchStatus, FormerAssignment, Priority, RequiredPart, RequiredSkill, Site, Sla, Window,
};
pub use event::{Event, Health, IngestFailure, IngestLine, IngestResult, JournalEntry, JournalPage};
pub use report::{
    Answer, AuditPage, AuditRecord, ChecklistLine, Exception, ExceptionList, FactLine, PartUse, Report, SlaReport,
    TimeWorked, Verdict,
};
