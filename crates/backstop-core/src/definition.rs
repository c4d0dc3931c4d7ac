//! A definition as its author writes it: plain data, not yet checked.
//!
//! [`crate::validate()`] turns it into a [`crate::Definition`], or into every fault that it has.

use std::time::Duration;

/// A named saga.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DefinitionSpec {
    /// Its name.
    pub name: String,
    /// For people.
    pub description: String,
    /// The error domain whose table judges failures; empty means the default table.
    pub error_domain: String,
    /// Longest time for the forward path, from the start.
    pub deadline: Option<Duration>,
    /// The order in which branches are undone.
    pub compensation_order: CompensationOrder,
    /// What happens to branches in flight when a rollback is decided.
    pub on_failure: OnFailure,
    /// The steps, in the author's order.
    pub steps: Vec<StepSpec>,
}

/// One step.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StepSpec {
    /// Its name, an identifier.
    pub name: String,
    /// What may be done about it once it is done.
    pub kind: StepKind,
    /// Names of the steps that must succeed first.
    pub depends_on: Vec<String>,
    /// The forward call.
    pub action: CallSpec,
    /// The backward call.
    pub compensation: Option<CallSpec>,
    /// What to do about an action in doubt; `None` takes the participant's default.
    pub in_doubt: Option<InDoubt>,
    /// For [`InDoubt::Query`]: the call that tells whether the action took effect.
    pub query: Option<CallSpec>,
}

impl StepSpec {
    /// The calls that it has, each under its field's name.
    pub fn calls(&self) -> impl Iterator<Item = (&'static str, &CallSpec)> {
        let compensation = self.compensation.as_ref().map(|call| ("compensation", call));
        let query = self.query.as_ref().map(|call| ("query", call));
        [Some(("action", &self.action)), compensation, query].into_iter().flatten()
    }
}

/// A call of one unary method.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallSpec {
    /// The participant.
    pub participant: String,
    /// `package.Service/Method`.
    pub method: String,
    /// The request as a JSON template; empty if each StartSaga brings a raw payload (actions), or for an
    /// empty message.
    pub request: String,
    /// Permit, connection, call and reply together.
    pub timeout: Duration,
    /// How it is tried again.
    pub retry: RetryPolicy,
}

impl CallSpec {
    /// Default of [`CallSpec::timeout`].
    pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(2);
}

impl Default for CallSpec {
    fn default() -> Self {
        Self {
            participant: String::new(),
            method: String::new(),
            request: String::new(),
            timeout: Self::TIMEOUT_DEFAULT,
            retry: RetryPolicy::default(),
        }
    }
}

/// Backoff of one call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Ceiling of the first wait.
    pub initial: Duration,
    /// Ceiling of every wait, but of calls that are tried without end for long ([`crate::backoff::delay`]).
    pub max: Duration,
    /// Actions and queries: attempts in all. Compensations: refusals (L1, L3) before the branch is STUCK;
    /// what is merely unavailable (L2) is retried until [`RetryPolicy::give_up_after`].
    pub attempts_max: u32,
    /// Only for calls that are otherwise tried without end (compensations, and actions of RETRIABLE steps): how long
    /// after its turn came one that is merely unavailable (L2) goes on being tried before it waits for a person.
    /// `None`: without end.
    pub give_up_after: Option<Duration>,
}

impl RetryPolicy {
    /// Default of a compensation's [`RetryPolicy::attempts_max`].
    pub const COMPENSATION_ATTEMPTS_DEFAULT: u32 = 3;
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            initial: Duration::from_millis(50),
            max: Duration::from_secs(2),
            attempts_max: 5,
            give_up_after: None,
        }
    }
}

/// What may be done about a step once it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum StepKind {
    /// Undone by its compensation.
    #[default]
    Compensatable,
    /// Changes nothing: nothing to undo, and free to be asked again.
    ReadOnly,
    /// The point of no return: once it succeeds, the saga goes only forward.
    Pivot,
    /// After the pivot: retried until it succeeds or a person decides.
    Retriable,
}

/// What to do about an action that may or may not have taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InDoubt {
    /// Send it again; only to a participant that deduplicates by key.
    Resend,
    /// Ask the participant by the step's query call.
    Query,
    /// Undo it as if it were done.
    Compensate,
}

/// The order in which branches are undone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CompensationOrder {
    /// Each branch after all that depend on it; independent ones concurrently.
    #[default]
    ReverseDag,
    /// Strictly by completion, newest first, one at a time.
    Lifo,
    /// All at once, for compensations that commute.
    Concurrent,
}

/// What happens to branches in flight when a rollback is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum OnFailure {
    /// They are awaited: their answer is knowledge.
    #[default]
    Drain,
    /// They are reset at once and count as in doubt.
    Cancel,
}
