//! The doctor: looks for sagas that nobody will ever finish, journals that do not say what their head rows say,
//! and leases or a schema that cannot be trusted.
//!
//! It changes nothing and may run at any time on a live store: what takeover is about to see to is no finding.
//!
//! # Not here
//! The questions that tables answer by themselves: the store ([`crate::ports::store::Store::misfits`]).

use super::Coordinator;
use crate::doctor;
use crate::error::EngineError;
use crate::ports::store::{Head, Journal, Misfit, MisfitKind, SagaCursor, SagaFilter, StoreError};
use crate::shared::Shared;
use crate::takeover;
use backstop_core::{CoordinatorId, Event, EventKind, Saga, SagaId, SagaState};
use std::time::Duration;

/// Sagas whose journals are read at once.
const PAGE: usize = 64;
/// Head rows read at once.
const PAGE_OF_HEADS: usize = 500;
/// How many looks takeover may need before what it should have seen to is a finding.
const LOOKS_GRACE: u32 = 8;
/// Longest wait before a finding is confirmed.
const CONFIRM_AFTER_MAX: Duration = Duration::from_secs(5);
/// Owner of a saga that was released from quarantine, until somebody takes it up: nobody has that name, so its
/// lease is over, and what was in flight when it was set aside counts as sent.
const NOBODY: &str = "released-from-quarantine";
/// How many times its own lease a coordinator's lease may run.
const LEASES_MAX: u32 = 4;

/// How many journals are replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HowMuch {
    /// Those of the newest sagas, this many.
    Newest(usize),
    /// All.
    Everything,
}

/// What the doctor found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Examination {
    /// What is wrong; at most `doctor_findings_max`.
    pub findings: Vec<Finding>,
    /// Journals that were replayed and held against their head rows.
    pub journals_replayed: u64,
    /// True if there may be more findings than were looked for.
    pub is_cut: bool,
}

/// One thing that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What kind of thing.
    pub kind: FindingKind,
    /// The saga or coordinator that it is about; empty if it is about neither.
    pub subject: String,
    /// What is there, for people.
    pub detail: String,
}

/// Kinds of [`Finding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingKind {
    /// Found by looking at the tables.
    Misfit(MisfitKind),
    /// A journal cannot be followed: unreadable, with a gap, or with an event that cannot follow.
    JournalBroken,
    /// A head row does not say what its journal says.
    HeadDiffers,
    /// A saga is quarantined: somebody has to mend its journal and release it.
    Quarantined,
}

impl FindingKind {
    /// Every kind.
    pub const ALL: [Self; 10] = [
        Self::Misfit(MisfitKind::Forsaken),
        Self::Misfit(MisfitKind::Overdetermined),
        Self::Misfit(MisfitKind::OwnerGone),
        Self::Misfit(MisfitKind::Overslept),
        Self::Misfit(MisfitKind::WithoutHead),
        Self::Misfit(MisfitKind::Lease),
        Self::Misfit(MisfitKind::Schema),
        Self::JournalBroken,
        Self::HeadDiffers,
        Self::Quarantined,
    ];

    /// `saga_forsaken` and the like: as in the API, in lower case.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Misfit(MisfitKind::Forsaken) => "saga_forsaken",
            Self::Misfit(MisfitKind::Overdetermined) => "saga_overdetermined",
            Self::Misfit(MisfitKind::OwnerGone) => "owner_gone",
            Self::Misfit(MisfitKind::Overslept) => "saga_overslept",
            Self::Misfit(MisfitKind::WithoutHead) => "events_without_saga",
            Self::Misfit(MisfitKind::Lease) => "lease_too_long",
            Self::Misfit(MisfitKind::Schema) => "schema",
            Self::JournalBroken => "journal_broken",
            Self::HeadDiffers => "head_differs",
            Self::Quarantined => "saga_quarantined",
        }
    }
}

impl From<Misfit> for Finding {
    fn from(misfit: Misfit) -> Self {
        Self { kind: FindingKind::Misfit(misfit.kind), subject: misfit.subject, detail: misfit.detail }
    }
}

impl Coordinator {
    /// Looks at the whole store, and tells the numbers of what it found as metrics too.
    ///
    /// # Errors
    /// [`EngineError::Store`] if the store does not answer. What is wrong with it is no error.
    pub async fn examine(&self, how_much: HowMuch) -> Result<Examination, EngineError> {
        doctor::run(&self.shared, how_much).await
    }
}

/// Looks at the whole store.
pub(crate) async fn examine(shared: &Shared, how_much: HowMuch) -> Result<Examination, EngineError> {
    let max = shared.settings.doctor_findings_max;
    let misfits = misfits(shared, max).await?;
    let mut found =
        Examination { findings: misfits.into_iter().map(Finding::from).collect(), ..Examination::default() };
    quarantined(shared, max, &mut found).await?;
    let mut left = match how_much {
        HowMuch::Newest(count) => count,
        HowMuch::Everything => usize::MAX,
    };
    let mut cursor: Option<SagaCursor> = None;
    while left > 0 && found.findings.len() < max {
        let heads = shared.store.list(&SagaFilter::default(), cursor.as_ref(), PAGE.min(left)).await?;
        let Some(last) = heads.last() else { break };
        cursor = Some(SagaCursor { created_at: last.created_at, saga: last.saga.clone() });
        left -= heads.len();
        replay(shared, &heads, &mut found).await?;
    }
    found.is_cut = found.findings.len() >= max;
    found.findings.truncate(max);
    Ok(found)
}

/// What takeover sees to within some looks is no finding. Of a coordinator that has left there is no row any
/// more that would tell since when: so whoever's owner is gone is looked at once more.
async fn misfits(shared: &Shared, max: usize) -> Result<Vec<Misfit>, EngineError> {
    let settings = &shared.settings;
    let looks = settings.takeover_every * LOOKS_GRACE;
    let (grace, lease_max) = (settings.lease_ttl + looks, settings.lease_ttl * LEASES_MAX);
    let first = shared.store.misfits(grace, lease_max, max).await?;
    if !first.iter().any(|misfit| misfit.kind == MisfitKind::OwnerGone) {
        return Ok(first);
    }
    tokio::time::sleep(looks.min(CONFIRM_AFTER_MAX)).await;
    let again = shared.store.misfits(grace, lease_max, max).await?;
    Ok(again.into_iter().filter(|misfit| first.iter().any(|m| m.subject == misfit.subject)).collect())
}

/// Every saga in quarantine, however old: its state says that it waits for a person.
async fn quarantined(shared: &Shared, max: usize, found: &mut Examination) -> Result<(), EngineError> {
    let filter = SagaFilter { states: vec![SagaState::NeedsIntervention], ..SagaFilter::default() };
    let mut cursor: Option<SagaCursor> = None;
    while found.findings.len() < max {
        let heads = shared.store.list(&filter, cursor.as_ref(), PAGE_OF_HEADS).await?;
        let Some(last) = heads.last() else { break };
        cursor = Some(SagaCursor { created_at: last.created_at, saga: last.saga.clone() });
        found.findings.extend(heads.into_iter().filter_map(|head| {
            let (kind, subject) = (FindingKind::Quarantined, head.saga.to_string());
            head.quarantine.map(|detail| Finding { kind, subject, detail })
        }));
    }
    Ok(())
}

async fn replay(shared: &Shared, heads: &[Head], found: &mut Examination) -> Result<(), EngineError> {
    // Those in quarantine have their finding already.
    let whole: Vec<&Head> = heads.iter().filter(|head| !head.retired && head.quarantine.is_none()).collect();
    let ids: Vec<SagaId> = whole.iter().map(|head| head.saga.clone()).collect();
    let journals = shared.store.journals(&ids).await?;
    for (head, journal) in whole.into_iter().zip(journals) {
        let subject = head.saga.to_string();
        let finding = match journal {
            Ok(Some(journal)) => {
                found.journals_replayed += 1;
                examine_journal(shared, journal).await?
            }
            // Retired between the two looks, or left to the program that wrote it.
            Ok(None) | Err(StoreError::Newer(_)) => None,
            Err(StoreError::Unreadable(detail)) => Some((FindingKind::JournalBroken, detail)),
            Err(error @ (StoreError::NotApplied(_) | StoreError::Unknown(_))) => return Err(error.into()),
        };
        found.findings.extend(finding.map(|(kind, detail)| Finding { kind, subject, detail }));
    }
    Ok(())
}

async fn examine_journal(
    shared: &Shared,
    journal: Journal,
) -> Result<Option<(FindingKind, String)>, EngineError> {
    let Journal { head, events } = journal;
    // Retired or set aside between the two looks.
    if head.retired || head.quarantine.is_some() {
        return Ok(None);
    }
    match takeover::replayed(shared, &head, &events).await {
        Ok((saga, _)) => Ok(differences(&head, &saga, &events).map(|text| (FindingKind::HeadDiffers, text))),
        Err(EngineError::Quarantined { reason, .. }) => Ok(Some((FindingKind::JournalBroken, reason))),
        Err(EngineError::Store(error)) => Err(error.into()),
        Err(other) => Ok(Some((FindingKind::JournalBroken, format!("its definition: {other}")))),
    }
}

/// Where a head row differs from what its journal makes of it; `None` if it does not.
fn differences(head: &Head, saga: &Saga, events: &[Event]) -> Option<String> {
    let expected = Head {
        owner: head.owner.clone(),
        wake_at: head.wake_at,
        fingerprint: head.fingerprint,
        ..Shared::head_of_journal(saga)
    };
    let mut texts = Vec::new();
    let mut compare = |what: &str, is: String, should_be: String| {
        if is != should_be {
            texts.push(format!("{what} is {is}, by the journal {should_be}"));
        }
    };
    compare("state", head.state.as_str().to_owned(), expected.state.as_str().to_owned());
    compare("seq", head.seq.0.to_string(), expected.seq.0.to_string());
    compare("epoch", head.epoch.0.to_string(), expected.epoch.0.to_string());
    compare("fin_code", format!("{:?}", head.fin_code), format!("{:?}", expected.fin_code));
    compare("created_at", format!("{:?}", head.created_at), format!("{:?}", expected.created_at));
    compare("updated_at", format!("{:?}", head.updated_at), format!("{:?}", expected.updated_at));
    compare("ended_at", format!("{:?}", head.ended_at), format!("{:?}", expected.ended_at));
    compare("labels", format!("{} labels", head.labels.len()), format!("{} labels", expected.labels.len()));
    if head.labels.len() == expected.labels.len() && head.labels != expected.labels {
        texts.push("labels differ from the journal's".to_owned());
    }
    if let Some(owner) = &head.owner
        && owner.as_str() != NOBODY
        && last_owner(events) != Some(owner)
    {
        texts.push(format!("owner is {owner}, by the journal another"));
    }
    (!texts.is_empty()).then(|| texts.join("; "))
}

/// Whom the journal names as the saga's owner.
fn last_owner(events: &[Event]) -> Option<&CoordinatorId> {
    events.iter().rev().find_map(|event| match &event.kind {
        EventKind::Started(started) => Some(&started.coordinator),
        EventKind::Adopted { coordinator, .. } => Some(coordinator),
        _ => None,
    })
}

impl Coordinator {
    /// Takes a saga out of quarantine whose journal can be followed again, and has it taken up.
    ///
    /// # Errors
    /// [`EngineError`]: NotFound, Quarantined (its journal still cannot be followed), NotQuarantined, Store.
    pub async fn release_saga(&self, id: &SagaId, by: &str, reason: &str) -> Result<Saga, EngineError> {
        let shared = &self.shared;
        let Some(Journal { head, events }) = takeover::read(shared, id).await? else {
            return Err(super::no_saga(id));
        };
        if head.quarantine.is_none() {
            return Err(EngineError::NotQuarantined { saga: id.clone() });
        }
        let (saga, _) = takeover::replayed(shared, &head, &events).await?;
        if saga.seq != head.seq {
            let reason = format!("it ends with event {}, the head row says {}", saga.seq.0, head.seq.0);
            return Err(EngineError::Quarantined { saga: id.clone(), reason });
        }
        let nobody =
            CoordinatorId::parse(NOBODY).map_err(|error| StoreError::NotApplied(error.to_string()))?;
        let mended = Head {
            fingerprint: head.fingerprint,
            owner: (!saga.state.is_at_rest()).then_some(nobody),
            ..Shared::head_of_journal(&saga)
        };
        if !shared.store.restore(&mended).await? {
            return Err(EngineError::NotQuarantined { saga: id.clone() });
        }
        shared.metrics.released();
        tracing::warn!(saga = %id, by, reason, "released from quarantine");
        Ok(saga)
    }
}
