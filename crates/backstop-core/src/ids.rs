//! Names and numbers that identify things. Parsed once at the edge, trusted from then on.

use std::fmt;
use std::sync::Arc;

/// Longest saga id, in bytes.
pub const SAGA_ID_BYTES_MAX: usize = 128;
/// Longest name of a step, definition or participant, in bytes.
pub const NAME_BYTES_MAX: usize = 63;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {rule}")]
pub struct InvalidName {
    what: &'static str,
    rule: &'static str,
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $valid:path, $rule:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $type(Arc<str>);

        impl $type {
            /// Checks the text against this name's rule.
            ///
            /// # Errors
            /// [`InvalidName`], which says the rule.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                if $valid(text) {
                    Ok(Self(Arc::from(text)))
                } else {
                    Err(InvalidName { what: $what, rule: $rule })
                }
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

fn is_saga_id(text: &str) -> bool {
    !text.is_empty() && text.len() <= SAGA_ID_BYTES_MAX && text.bytes().all(|b| b.is_ascii_graphic())
}

fn is_step_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

fn is_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-' | b'.'))
}

name!(
    /// Identifies one saga; chosen by the client or a UUIDv7 made by the server.
    ///
    /// Any visible ASCII, because it travels as gRPC metadata. It may hold `/`: an [`IdempotencyKey`]
    /// stays unambiguous since the step and phase after it may not.
    SagaId, "a saga id", is_saga_id, "has 1 to 128 visible ASCII characters"
);
name!(
    /// Names a step within its definition. An identifier, because expressions say `steps.<name>`.
    StepName, "a step name", is_step_name,
    "begins with a-z and has at most 63 of a-z, 0-9 and _"
);
name!(
    /// Names a definition.
    DefinitionName, "a definition name", is_name,
    "begins with a-z and has at most 63 of a-z, 0-9, _, - and ."
);
name!(
    /// Names a participant.
    ParticipantName, "a participant name", is_name,
    "begins with a-z and has at most 63 of a-z, 0-9, _, - and ."
);
name!(
    /// Names one coordinator process; a new one for each start of the process.
    CoordinatorId, "a coordinator id", is_saga_id, "has 1 to 128 visible ASCII characters"
);

/// Number of a definition's revision, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub u32);

/// One revision of one definition; prints as `transfer@3`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DefinitionRef {
    /// The definition.
    pub name: DefinitionName,
    /// Its revision.
    pub revision: Revision,
}

impl fmt::Display for DefinitionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.revision.0)
    }
}

impl fmt::Debug for DefinitionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Place of an event in its saga's journal, from 1; 0 is the empty journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seq(pub u64);

impl Seq {
    /// The next place.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Lamport clock of a saga (Lamport 1978, "Time, Clocks, and the Ordering of Events").
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Clock(pub u64);

/// Number of an owner's tenure of a saga: 1 for the coordinator that started it, more for each that
/// took it over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

/// Which of a step's calls is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// The forward call.
    Action,
    /// Asking the participant whether the action took effect.
    Query,
    /// The backward call.
    Compensation,
}

impl Phase {
    /// As it stands in metadata and in the journal.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Query => "query",
            Self::Compensation => "compensation",
        }
    }

    /// The inverse of [`Phase::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "action" => Some(Self::Action),
            "query" => Some(Self::Query),
            "compensation" => Some(Self::Compensation),
            _ => None,
        }
    }
}

/// `<saga id>/<step>/<phase>`: the same for every attempt of one call, and for no other call.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The key of one call.
    #[must_use]
    pub fn new(saga: &SagaId, step: &StepName, phase: Phase) -> Self {
        Self(format!("{saga}/{step}/{}", phase.as_str()))
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for IdempotencyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slash_in_a_saga_id_cannot_forge_another_sagas_key() {
        let a = IdempotencyKey::new(
            &SagaId::parse("pay/7").unwrap(),
            &StepName::parse("debit").unwrap(),
            Phase::Action,
        );
        assert_eq!(a.as_str(), "pay/7/debit/action");
        let mut from_the_right = a.as_str().rsplitn(3, '/');
        assert_eq!(from_the_right.next(), Some("action"));
        assert_eq!(from_the_right.next(), Some("debit"));
        assert_eq!(from_the_right.next(), Some("pay/7"));
        assert!(StepName::parse("7/debit").is_err());
    }

    #[test]
    fn names_that_would_break_metadata_or_expressions_are_refused() {
        assert!(SagaId::parse("").is_err());
        assert!(SagaId::parse("two words").is_err());
        assert!(SagaId::parse("line\nbreak").is_err());
        assert!(SagaId::parse(&"x".repeat(129)).is_err());
        assert!(SagaId::parse(&"x".repeat(128)).is_ok());
        assert!(StepName::parse("check-risk").is_err(), "would parse as a subtraction");
        assert!(ParticipantName::parse("ledger-a").is_ok());
    }
}
