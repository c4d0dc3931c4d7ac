//! Rows that break a rule become [`Misfit`]s; the same for both engines.
//!
//! # Not here
//! Finding them: `postgres::misfits`, `sqlite::misfits`. The rule in plain form: `backstop_engine::memory_store`.

use crate::rows::Columns;
use backstop_core::SagaState;
use backstop_engine::ports::store::{Misfit, MisfitKind, StoreResult};

pub(crate) fn new(kind: MisfitKind, subject: impl Into<String>, detail: impl Into<String>) -> Misfit {
    Misfit { kind, subject: subject.into(), detail: detail.into() }
}

/// Heads that keep one of the rules broken, of `id`, `state`, `owner`, `wake_at`; `gone` if the owner's lease has
/// been over for too long, `late` if the wake-up time has. A state that is none of ours counts as not over.
pub(crate) fn of_heads<'r, R: Columns<'r>>(rows: &'r [R]) -> StoreResult<Vec<Misfit>> {
    let mut misfits = Vec::with_capacity(rows.len());
    for row in rows {
        let id = row.text("id").map_err(|error| error.of("a saga"))?;
        let of = |error: crate::codec::DecodeError| error.of(format!("the head of saga {id}"));
        let state = row.text("state").map_err(of)?;
        let owner = row.text_or_null("owner").map_err(of)?;
        let wake_at = row.number_or_null("wake_at").map_err(of)?;
        let waits = state == SagaState::NeedsIntervention.as_str();
        let over = SagaState::parse(&state).is_some_and(SagaState::is_final);
        let holds = [owner.is_some(), wake_at.is_some(), waits].into_iter().filter(|held| *held).count();
        let kind = match holds {
            0 if over => continue,
            0 => MisfitKind::Forsaken,
            1 if over => MisfitKind::Overdetermined,
            1 if owner.is_some() && row.flag("gone").map_err(of)? => MisfitKind::OwnerGone,
            1 if wake_at.is_some() && row.flag("late").map_err(of)? => MisfitKind::Overslept,
            1 => continue,
            _ => MisfitKind::Overdetermined,
        };
        let owner = owner.map_or_else(|| "no owner".to_owned(), |owner| format!("owner {owner}"));
        let wake_at = wake_at.map_or_else(|| "no wake-up time".to_owned(), |at| format!("wake-up time {at}"));
        misfits.push(new(kind, id.clone(), format!("{state}, {owner}, {wake_at}")));
    }
    Ok(misfits)
}

/// Leases that run for longer than any may, of `id` and `expires_at`.
pub(crate) fn of_leases<'r, R: Columns<'r>>(rows: &'r [R]) -> StoreResult<Vec<Misfit>> {
    let lease = |row: &'r R| {
        let id = row.text("id").map_err(|error| error.of("a coordinator"))?;
        let until = row.number("expires_at").map_err(|error| error.of(format!("coordinator {id}")))?;
        Ok(new(MisfitKind::Lease, id, format!("its lease runs until {until}, longer than may be asked for")))
    };
    rows.iter().map(lease).collect()
}
