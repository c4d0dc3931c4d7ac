//! `backstop intervention`: the queue of what waits for a person, the longest first.
//!
//! Way: ListSagas for the heads of all that wait, GetSaga for as many as are shown, since heads tell no branches.
//!
//! Invariants: of up to [`HEADS_MAX`] that wait, those that have waited longest are shown; what is left out is said
//! (`the_queue_shows_who_has_waited_longest_and_says_what_it_leaves_out`).
//!
//! Not here: how it looks (`intervention_view`); what a branch waits for (`waiting`).

use super::connect::Connection;
use super::error::CliError;
use super::gather::{heads, whole};
use super::intervention_view::{Now, document, queue};
use super::saga_list::quoted;
use super::text::parse_duration;
use super::waiting::waiting;
use super::{Exit, Session, json};
use backstop_proto::v1::{Saga, SagaState};
use std::time::Duration;

/// What can be done with interventions.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Verb {
    /// Lists the sagas that wait for a person, those that have waited longest first
    ///
    /// For each: how long nothing has happened to it, which step waits and for what, and what is exposed
    /// meanwhile: effects that stand on a participant's books (step@participant), or may stand (step@participant?).
    /// Sagas in quarantine, whose journals cannot be followed, are among them. The commands that settle the first
    /// one come last.
    #[command(after_help = "Examples:\n  \
        backstop intervention list\n  \
        backstop intervention list --definition transfer --participant ledger_b --older-than 1h\n  \
        backstop intervention list --fail-if-any --output json")]
    List(List),
}

/// Which interventions are meant.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Which {
    /// Only sagas of this definition
    #[arg(long, value_name = "NAME")]
    pub(crate) definition: Option<String>,
    /// Only where a step that calls this participant waits
    #[arg(long, value_name = "NAME")]
    pub(crate) participant: Option<String>,
    /// Only where a step waits with this code
    #[arg(long, value_name = "FIN-nnnnn")]
    pub(crate) fin_code: Option<String>,
    /// Only those to which nothing has happened for this long
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) older_than: Option<Duration>,
}

/// `intervention list`.
#[derive(Debug, clap::Args)]
pub(crate) struct List {
    #[command(flatten)]
    which: Which,
    /// Most sagas to show
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    limit: u32,
    /// End with exit code 4 if there are any: for scripts
    #[arg(long)]
    fail_if_any: bool,
}

/// Heads of waiting sagas that are looked through, at most.
pub(super) const HEADS_MAX: usize = 10_000;
/// Sagas asked for in one go, before it is looked whether enough of them fit.
const BITE: usize = 64;

/// What was found of what waits.
#[derive(Debug, Default)]
pub(super) struct Found {
    /// The longest waiting first, with their branches.
    pub(super) sagas: Vec<Saga>,
    /// Sagas that wait, as far as they were listed: more than those above if some do not fit or are left out.
    pub(super) listed: usize,
    /// There are, or may be, more that fit.
    pub(super) is_cut: bool,
    /// More wait than are listed at all, and those that were not may have waited longest.
    pub(super) is_list_cut: bool,
}

impl Which {
    /// The part of it that ListSagas understands.
    fn filter(&self) -> String {
        let mut terms = vec![format!("state = {}", quoted("NEEDS_INTERVENTION"))];
        terms.extend(self.definition.iter().map(|name| format!("definition = {}", quoted(name))));
        terms.join(" AND ")
    }

    /// True if a saga, told whole, is meant.
    fn takes(&self, saga: &Saga, now: Now) -> bool {
        // Somebody may have settled it since it was listed.
        if saga.state() != SagaState::NeedsIntervention {
            return false;
        }
        let waits = waiting(saga);
        let some_fit = waits.iter().any(|waits| self.takes_branch(waits.fin_code(), waits.participant()));
        // The branches of one in quarantine cannot be told: it fits where neither is asked for.
        (some_fit || (waits.is_empty() && self.takes_branch("", ""))) && self.is_old_enough(saga, now)
    }

    fn is_old_enough(&self, saga: &Saga, now: Now) -> bool {
        self.older_than.is_none_or(|least| now.age(saga) >= least)
    }

    /// True if this branch is meant, in a saga that is.
    pub(super) fn takes_branch(&self, fin_code: &str, participant: &str) -> bool {
        self.fin_code.as_deref().is_none_or(|wanted| wanted == fin_code)
            && self.participant.as_deref().is_none_or(|wanted| wanted == participant)
    }

    /// The sagas that are meant, those that have waited longest first.
    pub(super) async fn find(
        &self,
        connection: &Connection,
        limit: usize,
        now: Now,
    ) -> Result<Found, CliError> {
        let (mut heads, more) = heads(connection, &self.filter(), HEADS_MAX).await?;
        heads.sort_by_cached_key(|head| std::cmp::Reverse(now.age(head)));
        let mut found = Found { listed: heads.len(), is_cut: more, is_list_cut: more, ..Found::default() };
        heads.retain(|head| self.is_old_enough(head, now));
        for bite in heads.chunks(BITE.min(limit + 1)) {
            let sagas = whole(connection, bite).await?;
            found.sagas.extend(sagas.into_iter().filter(|saga| self.takes(saga, now)));
            if found.sagas.len() > limit {
                found.sagas.truncate(limit);
                found.is_cut = true;
                break;
            }
        }
        Ok(found)
    }
}

impl Verb {
    pub(super) async fn run(self, session: &mut Session<'_>) -> Result<Exit, CliError> {
        match self {
            Self::List(list) => list.run(session).await,
        }
    }
}

impl List {
    async fn run(self, session: &mut Session<'_>) -> Result<Exit, CliError> {
        let now = Now::on_this_machine();
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let found = self.which.find(&session.open().await?, limit, now).await?;
        let shown = if session.connect.json {
            json::document(&document(&found, now))
        } else {
            queue(&found, now, session.terminal.line_width(), session.terminal.paint)
        };
        session.terminal.print(&shown)?;
        Ok(if self.fail_if_any && !found.sagas.is_empty() { Exit::NeedsIntervention } else { Exit::Done })
    }
}
