//! Typed ids. Ids are opaque strings of the owner's form (`DSP-100`, `TECH-10`): a newtype for each, never a bare string.

use serde::{Deserialize, Serialize, Serializer};

/// Longest id, in bytes.
pub const ID_BYTES_MAX: usize = 64;

/// Why a string is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The string is empty.
    #[error("an id must not be empty")]
    Empty,
    /// The string is longer than [`ID_BYTES_MAX`].
    #[error("an id has at most {ID_BYTES_MAX} bytes, this one has {0}")]
    TooLong(usize),
    /// A character other than ASCII letters, digits, `-`, `_`, `.`, `:` or `@`.
    #[error("an id has only ASCII letters, digits and - _ . : @, this one has {0:?}")]
    Character(char),
}

fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > ID_BYTES_MAX {
        return Err(IdError::TooLong(text.len()));
    }
    let is_odd = |byte: &u8| !(byte.is_ascii_alphanumeric() || b"-_.:@".contains(byte));
    match text.as_bytes().iter().position(is_odd) {
        // All before it are ASCII, so a character begins here.
        Some(at) => Err(IdError::Character(text.get(at..).and_then(|rest| rest.chars().next()).unwrap_or_default())),
        None => Ok(()),
    }
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident;)*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize)]
        #[serde(try_from = "String")]
        pub struct $name(Box<str>);

        impl $name {
            /// Checks and wraps.
            ///
            /// # Errors
            /// [`IdError`] when the text is empty, too long, or has a character that no id has.
            pub fn new(text: impl Into<String>) -> Result<Self, IdError> {
                let text = text.into();
                check(&text)?;
                Ok(Self(text.into_boxed_str()))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.into()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }
    )*};
}

ids! {
    /// A customer of the platform; one tenant never sees another's data. Comes from the token only.
    TenantId;
    /// One dispatch, and so one visit document: `DSP-100`.
    DispatchId;
    /// The order behind a dispatch, owned by Service Orders: `SO-100`.
    ServiceOrderId;
    /// A field technician: `TECH-10`.
    TechnicianId;
    /// A customer's site: `LOC-10`.
    LocationId;
    /// A technician's day of stops: `ROUTE-200`.
    RouteId;
    /// One fact; drawn at random on the phone.
    FactId;
    /// One install of the app on one phone. A new install, and a database restored from a copy, is a new device.
    DeviceId;
    /// One published or consumed event: `evt-4501`.
    EventId;
    /// A person or system in the token's `sub`.
    UserId;
    /// A skill: `HVAC`.
    SkillCode;
    /// A part in Inventory: `PART-55`.
    PartNumber;
    /// A serialised part's serial number.
    SerialNumber;
    /// One item of a visit's checklist template.
    ChecklistItemId;
    /// One boot of a phone: monotonic times compare only within it.
    BootId;
}

/// A technician as the plan's history names people: what a fact changed, its author changed.
impl From<&TechnicianId> for UserId {
    fn from(technician: &TechnicianId) -> Self {
        Self(technician.0.clone())
    }
}
