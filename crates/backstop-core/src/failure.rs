//! A failed call, as it is journaled and carried to people: typed, and bounded in size.

use crate::status::{Code, Effect, Evidence};
use crate::tier::{FinCode, Tier};
use std::collections::BTreeMap;
use std::time::Duration;

/// Longest message kept of a failure, in bytes.
pub const MESSAGE_BYTES_MAX: usize = 2048;
/// Most bytes kept of all details of a failure together. Above some 12 kB gRPC's own header limit would
/// break the status that carries them.
pub const DETAILS_BYTES_MAX: usize = 4096;
/// Longest wait that a participant's pushback is followed for. Without it one answer could put off a
/// compensation for years; a longer wish counts as this long.
pub const PUSHBACK_MAX: Duration = Duration::from_secs(3_600);
/// Ends a text that was cut.
pub const CUT_MARK: &str = " …[cut]";

/// One field that a participant found fault with (`google.rpc.BadRequest`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field in the participant's request.
    pub field: String,
    /// What is wrong with it.
    pub description: String,
}

/// One precondition that did not hold (`google.rpc.PreconditionFailure`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreconditionViolation {
    /// Kind of the precondition.
    pub kind: String,
    /// What it is about.
    pub subject: String,
    /// How it failed.
    pub description: String,
}

/// What a participant's `google.rpc.Status` details say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Details {
    /// `ErrorInfo.reason`.
    pub reason: Option<String>,
    /// `ErrorInfo.domain`.
    pub domain: Option<String>,
    /// `ErrorInfo.metadata`.
    pub metadata: BTreeMap<String, String>,
    /// `BadRequest.field_violations`.
    pub field_violations: Vec<FieldViolation>,
    /// `PreconditionFailure.violations`.
    pub precondition_violations: Vec<PreconditionViolation>,
    /// `LocalizedMessage`: locale and text.
    pub localized: Option<(String, String)>,
    /// True if something was left out to stay within [`DETAILS_BYTES_MAX`].
    pub truncated: bool,
}

impl Details {
    /// True if the participant swears that this attempt changed nothing.
    #[must_use]
    pub fn says_no_effect(&self) -> bool {
        self.metadata.get("effect").is_some_and(|value| value == "none")
    }

    /// The FIN code that the participant itself chose, if its reason has that form.
    #[must_use]
    pub fn fin_code(&self) -> Option<FinCode> {
        self.reason.as_deref().and_then(FinCode::parse)
    }

    /// These details within [`DETAILS_BYTES_MAX`]: first come, first kept, in the order of the fields.
    #[must_use]
    pub fn bounded(mut self) -> Self {
        let mut left = DETAILS_BYTES_MAX;
        let mut fits = |size: usize| match left.checked_sub(size) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        };
        let size = |details: &Self| {
            let texts = [&details.reason, &details.domain].into_iter().flatten().count()
                + usize::from(details.localized.is_some());
            let lists = details.field_violations.len() + details.precondition_violations.len();
            texts + lists + details.metadata.len()
        };
        let before = size(&self);
        self.reason = self.reason.filter(|text| fits(text.len()));
        self.domain = self.domain.filter(|text| fits(text.len()));
        self.field_violations.retain(|v| fits(v.field.len() + v.description.len()));
        self.precondition_violations.retain(|v| fits(v.kind.len() + v.subject.len() + v.description.len()));
        self.localized = self.localized.filter(|(locale, text)| fits(locale.len() + text.len()));
        self.metadata.retain(|key, value| fits(key.len() + value.len()));
        self.truncated |= size(&self) != before;
        self
    }
}

/// One failed attempt of one call, judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Who says so.
    pub evidence: Evidence,
    /// What this attempt did to the books.
    pub effect: Effect,
    /// Public code.
    pub fin_code: FinCode,
    /// How loud.
    pub tier: Tier,
    /// What was said, at most [`MESSAGE_BYTES_MAX`] bytes, with [`CUT_MARK`] if it was longer.
    pub message: String,
    /// Typed details.
    pub details: Details,
    /// The wait that the participant asked for, if any.
    pub pushback: Option<Pushback>,
}

impl Failure {
    /// The status under which it is recorded.
    #[must_use]
    pub fn code(&self) -> Code {
        self.evidence.code()
    }
}

/// What a participant says about trying again (`RetryInfo`, `grpc-retry-pushback-ms`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushback {
    /// Not before this long.
    After(Duration),
    /// Not at all.
    Stop,
}

/// The text within `bytes_max`, cut at a character boundary and marked if it had to be.
#[must_use]
pub fn bounded_text(text: &str, bytes_max: usize) -> String {
    if text.len() <= bytes_max {
        return text.to_owned();
    }
    let mut end = bytes_max.saturating_sub(CUT_MARK.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}{CUT_MARK}", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_message_is_cut_at_a_character_and_says_so() {
        let text = "é".repeat(MESSAGE_BYTES_MAX);
        let cut = bounded_text(&text, MESSAGE_BYTES_MAX);
        assert!(cut.len() <= MESSAGE_BYTES_MAX);
        assert!(cut.ends_with(CUT_MARK));
        assert_eq!(bounded_text("short", MESSAGE_BYTES_MAX), "short");
    }

    #[test]
    fn details_keep_what_fits_and_say_that_something_is_missing() {
        let violation = |n: usize| FieldViolation { field: format!("f{n}"), description: "x".repeat(1000) };
        let details = Details {
            reason: Some("FIN-40017".into()),
            field_violations: (0..10).map(violation).collect(),
            ..Details::default()
        }
        .bounded();
        assert_eq!(details.field_violations.len(), 4);
        assert!(details.truncated);
        assert_eq!(details.fin_code(), FinCode::parse("FIN-40017"));
    }
}
