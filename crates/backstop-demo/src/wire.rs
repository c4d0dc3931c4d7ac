//! What the bank's services share at the wire: the idempotency key, and refusals that say which field.
//!
//! # Not here
//! Business rules: each service.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Metadata that names a call across its attempts.
pub(crate) const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Longest idempotency key, in bytes.
pub(crate) const KEY_BYTES_MAX: usize = 256;
/// Longest text in any field of a request, in bytes; what is longer is refused.
pub(crate) const TEXT_BYTES_MAX: usize = 4096;
/// Largest amount of one booking, in minor units. Far below what 64 bits hold, so that sums stay exact.
pub(crate) const AMOUNT_MINOR_MAX: i64 = 1_000_000_000_000_000;

/// The call's idempotency key.
///
/// # Errors
/// INVALID_ARGUMENT if it is missing, too long or not visible ASCII.
pub(crate) fn idempotency_key(metadata: &MetadataMap) -> Result<String, Status> {
    let text = metadata.get(IDEMPOTENCY_KEY).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if text.is_empty() || text.len() > KEY_BYTES_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(Status::invalid_argument(format!(
            "the metadata `{IDEMPOTENCY_KEY}` must hold 1 to {KEY_BYTES_MAX} visible ASCII characters"
        )));
    }
    Ok(text.to_owned())
}

/// Collects every shape fault of a request, so that they are answered all at once.
#[derive(Default)]
pub(crate) struct Shape {
    faults: Vec<(&'static str, String)>,
}

impl Shape {
    pub(crate) fn text(&mut self, field: &'static str, value: &str) -> &mut Self {
        if value.is_empty() {
            self.faults.push((field, "must not be empty".to_owned()));
        }
        self.bounded(field, value)
    }

    /// A text that may be empty.
    pub(crate) fn bounded(&mut self, field: &'static str, value: &str) -> &mut Self {
        if value.len() > TEXT_BYTES_MAX {
            self.faults.push((field, format!("is longer than {TEXT_BYTES_MAX} bytes")));
        }
        self
    }

    pub(crate) fn currency(&mut self, field: &'static str, value: &str) -> &mut Self {
        if value.len() != 3 || !value.bytes().all(|b| b.is_ascii_uppercase()) {
            self.faults.push((field, "must be three capital letters".to_owned()));
        }
        self
    }

    pub(crate) fn amount(&mut self, field: &'static str, minor: i64, at_least: i64) -> &mut Self {
        if !(at_least..=AMOUNT_MINOR_MAX).contains(&minor) {
            self.faults.push((field, format!("must be {at_least} to {AMOUNT_MINOR_MAX}")));
        }
        self
    }

    pub(crate) fn fault(&mut self, field: &'static str, description: impl Into<String>) -> &mut Self {
        self.faults.push((field, description.into()));
        self
    }

    /// # Errors
    /// INVALID_ARGUMENT with a violation for each fault.
    pub(crate) fn check(&mut self, domain: &str) -> Result<(), Status> {
        if self.faults.is_empty() {
            return Ok(());
        }
        let mut details = ErrorDetails::new();
        details.set_error_info("BAD_REQUEST", domain, HashMap::new());
        for (field, description) in &self.faults {
            details.add_bad_request_violation(*field, description);
        }
        let fields: Vec<&str> = self.faults.iter().map(|(field, _)| *field).collect();
        let message = format!("the request cannot be right: {}", fields.join(", "));
        Err(Status::with_error_details(Code::InvalidArgument, message, details))
    }
}

/// A business refusal, as it goes out.
pub(crate) struct RefusalText {
    pub(crate) code: Code,
    pub(crate) domain: &'static str,
    /// For machines: `INSUFFICIENT_FUNDS`.
    pub(crate) reason: &'static str,
    /// For developers.
    pub(crate) message: String,
    /// The field of the request that is at fault.
    pub(crate) field: &'static str,
    /// For the customer, in English.
    pub(crate) for_customer: Option<&'static str>,
}

impl RefusalText {
    pub(crate) fn into_status(self) -> Status {
        let mut details = ErrorDetails::new();
        // The attempt that is refused changed nothing, whatever other attempts may have done.
        let metadata = HashMap::from([("effect".to_owned(), "none".to_owned())]);
        details.set_error_info(self.reason, self.domain, metadata);
        details.add_bad_request_violation(self.field, self.message.as_str());
        if let Some(text) = self.for_customer {
            details.set_localized_message("en", text);
        }
        Status::with_error_details(self.code, self.message, details)
    }
}

/// The wall clock, in microseconds since 1970.
pub(crate) fn now_unix_micros() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

/// A failure of the service's own store: logged here once, and told without its inside.
pub(crate) fn internal(what: &'static str, error: &(dyn std::error::Error + 'static)) -> Status {
    tracing::error!(error, "{what}");
    Status::internal(what)
}
