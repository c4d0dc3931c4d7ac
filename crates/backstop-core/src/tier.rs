//! How loud a failure is for people, and under which public code.
//!
//! The one place where a status becomes FIN code, [`Tier`] and retry rule. [`ErrorTable::default`] is the
//! table of DESIGN 3.3; an *error domain* overrides rows of it.

use crate::status::Code;
use std::fmt;

/// Stable public code of a failure; prints as `FIN-40005`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FinCode(u32);

impl FinCode {
    /// The caller's request was refused for a business reason or was malformed.
    pub const REFUSED: Self = Self(40_005);
    /// A dependency was unavailable or too slow.
    pub const UNAVAILABLE: Self = Self(50_302);
    /// A participant failed internally.
    pub const INTERNAL: Self = Self(50_001);
    /// Anything else, mostly misconfiguration.
    pub const OTHER: Self = Self(50_099);

    /// Reads `FIN-nnnnn`, exactly five digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("FIN-")?;
        if digits.len() != 5 || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return None;
        }
        digits.parse().ok().map(Self)
    }
}

impl fmt::Display for FinCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FIN-{:05}", self.0)
    }
}

impl fmt::Debug for FinCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// How loud a failure is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tier {
    /// Block: a person is paged.
    L1,
    /// Degrade: retried, then undone in the background.
    L2,
    /// Prompt: the caller is told what to mend.
    L3,
}

impl Tier {
    /// `L1`, `L2` or `L3`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::L1 => "L1",
            Self::L2 => "L2",
            Self::L3 => "L3",
        }
    }

    /// The inverse of [`Tier::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::L1, Self::L2, Self::L3].into_iter().find(|tier| tier.as_str() == text)
    }
}

/// Whether a failed action may be sent again at all. Doubt and attempts left are judged elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RetryRule {
    /// Another attempt would answer the same, or be blind.
    Never,
    /// Under the call's retry policy.
    Policy,
}

/// What the error table says of one status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Row {
    /// Public code.
    pub fin_code: FinCode,
    /// How loud.
    pub tier: Tier,
    /// The HTTP status that a gateway in front of the caller should show.
    pub http_status: u16,
    /// Whether to try again.
    pub retry: RetryRule,
}

/// One error domain's table: a row for each of the 17 codes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorTable {
    rows: [Row; 17],
}

impl ErrorTable {
    /// This table with one row replaced.
    #[must_use]
    pub fn with(mut self, code: Code, row: Row) -> Self {
        self.rows[code as usize] = row;
        self
    }
}

impl Default for ErrorTable {
    fn default() -> Self {
        Self { rows: Code::ALL.map(default_row) }
    }
}

fn default_row(code: Code) -> Row {
    use RetryRule::{Never, Policy};
    let row = |fin_code, tier, http_status, retry| Row { fin_code, tier, http_status, retry };
    match code {
        Code::InvalidArgument | Code::FailedPrecondition => row(FinCode::REFUSED, Tier::L3, 400, Never),
        Code::Unavailable | Code::DeadlineExceeded => row(FinCode::UNAVAILABLE, Tier::L2, 503, Policy),
        // An OK that counts as a failure is an answer that could not be used.
        Code::Internal | Code::Unknown | Code::Ok => row(FinCode::INTERNAL, Tier::L1, 500, Never),
        Code::Aborted | Code::ResourceExhausted => row(FinCode::OTHER, Tier::L1, 500, Policy),
        Code::Unimplemented
        | Code::Unauthenticated
        | Code::PermissionDenied
        | Code::NotFound
        | Code::OutOfRange
        | Code::AlreadyExists
        | Code::Cancelled
        | Code::DataLoss => row(FinCode::OTHER, Tier::L1, 500, Never),
    }
}

/// The table's word on one status.
#[must_use]
pub fn tier(table: &ErrorTable, code: Code) -> Row {
    table.rows[code as usize]
}
