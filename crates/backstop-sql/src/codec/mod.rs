//! Between the core's values and what tables hold; the same for both engines.
//!
//! # Invariants
//! * What cannot be read is an error that names it, never a default (`tests` here and in `event`).
//! * What was written in an earlier format is read for ever (`golden`).
//!
//! # Not here
//! SQL, and the classes of its errors.

pub(crate) mod decode;
pub(crate) mod definition;
pub(crate) mod event;
#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod golden;
pub(crate) mod head;
mod payload;
pub(crate) mod text;

use backstop_engine::ports::store::StoreError;

/// Why a stored value cannot be read. Says what, not where; the caller adds the place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// A column that this kind of row needs is null.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A text is none of those known.
    #[error("{column} \"{value}\" is unknown")]
    Unknown {
        /// Which column.
        column: &'static str,
        /// What it holds.
        value: String,
    },
    /// A number does not fit.
    #[error("{column} {value} is out of range")]
    Range {
        /// Which column.
        column: &'static str,
        /// What it holds.
        value: i64,
    },
    /// A version that no program wrote.
    #[error("format {0} is unknown")]
    Format(i64),
    /// A version after those that this program knows.
    #[error("format {found} is newer than {known}")]
    Newer {
        /// Of what is stored.
        found: i64,
        /// The newest that this program reads.
        known: i64,
    },
    /// Bytes or JSON that do not parse.
    #[error("{what} does not parse: {reason}")]
    Malformed {
        /// What.
        what: &'static str,
        /// Why.
        reason: String,
    },
}

impl DecodeError {
    pub(crate) fn unknown(column: &'static str, value: impl Into<String>) -> Self {
        Self::Unknown { column, value: value.into() }
    }

    pub(crate) fn malformed(what: &'static str, reason: impl ToString) -> Self {
        Self::Malformed { what, reason: reason.to_string() }
    }

    /// The error of a format that is not one of those known, of which `known` is the newest.
    pub(crate) fn format(found: i64, known: i64) -> Self {
        if found > known { Self::Newer { found, known } } else { Self::Format(found) }
    }

    /// This error as the port has it.
    pub(crate) fn of(self, place: impl std::fmt::Display) -> StoreError {
        let text = format!("{place}: {self}");
        match self {
            Self::Newer { .. } => StoreError::Newer(text),
            Self::Missing(_)
            | Self::Unknown { .. }
            | Self::Range { .. }
            | Self::Format(_)
            | Self::Malformed { .. } => StoreError::Unreadable(text),
        }
    }
}

/// A number for a column. All numbers of the core are far below the limit unless something is broken.
pub(crate) fn to_i64(column: &'static str, value: u64) -> Result<i64, StoreError> {
    i64::try_from(value)
        .map_err(|_| StoreError::NotApplied(format!("{column} {value} is too large to store")))
}

/// A number out of a column.
pub(crate) fn from_i64<T: TryFrom<i64>>(column: &'static str, value: i64) -> Result<T, DecodeError> {
    T::try_from(value).map_err(|_| DecodeError::Range { column, value })
}

pub(crate) fn required<T>(column: &'static str, value: Option<T>) -> Result<T, DecodeError> {
    value.ok_or(DecodeError::Missing(column))
}
