//! Trouble on request, for demonstrations: a payer's reference `chaos:<half>:<fault>` makes one half of
//! one transfer go wrong. Only in a ledger that was started with `--chaos`.

use std::time::Duration;

/// How long a slow booking waits before it is made.
pub const SLOW: Duration = Duration::from_millis(400);

/// Which half of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Half {
    /// The payer's.
    Debit,
    /// The payee's.
    Credit,
}

/// What goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// INTERNAL, before anything is booked.
    Internal,
    /// INTERNAL, after it is booked: the caller cannot tell it from the other.
    LostAnswer,
    /// All well, after [`SLOW`].
    Slow,
}

/// What a reference asks of one half. `Err`: it begins with `chaos:` and means nothing.
pub(super) fn asked_for(reference: &str, half: Half) -> Result<Option<Fault>, &'static str> {
    let Some(order) = reference.strip_prefix("chaos:") else {
        return Ok(None);
    };
    let (whose, fault) = match order.split_once(':') {
        Some(("debit", fault)) => (Half::Debit, fault),
        Some(("credit", fault)) => (Half::Credit, fault),
        Some(_) | None => return Err("must be chaos:debit:… or chaos:credit:…"),
    };
    let fault = match fault {
        "internal" => Fault::Internal,
        "lost-answer" => Fault::LostAnswer,
        "slow" => Fault::Slow,
        _ => return Err("chaos knows internal, lost-answer and slow"),
    };
    Ok((whose == half).then_some(fault))
}
