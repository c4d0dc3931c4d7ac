//! Definitions and participants: registering them, and keeping revisions compiled.
//!
//! # Invariants
//! * What is compiled holds the participants' traits as they were registered last, on whichever coordinator, but
//!   for `newest_revision_age_max`: each registration makes a new generation, and what was read in an older one
//!   is not kept (`tests/engine/registering.rs`).

use crate::error::EngineError;
use crate::gate::Gates;
use crate::ports::clock::Clock;
use crate::ports::participants::{Calls, Participants};
use crate::ports::store::{Participant, Store, StoredRevision};
use crate::settings::Settings;
use crate::shared::Shared;
use backstop_core::{
    Definition, DefinitionName, DefinitionRef, DefinitionSpec, ErrorTable, Fault, InDoubt, ParticipantName,
    ParticipantTraits, Revision, StepKind, StepName, StepSpec, validate,
};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

/// Participants read at once.
const PARTICIPANTS_PAGE: usize = 256;

/// A revision that is ready to run.
#[derive(Clone)]
pub struct Compiled {
    /// The rules' view of it.
    pub definition: Arc<Definition>,
    /// Its calls.
    pub calls: Arc<dyn Calls>,
    /// The steps whose actions have no request template: StartSaga brings their requests.
    pub raw: Arc<[StepName]>,
    /// Whom its actions call.
    pub participants: Arc<[ParticipantName]>,
}

#[derive(Default)]
struct CompiledRevisions {
    /// Grows with each registration of a participant that this coordinator hears of.
    generation: u64,
    by_reference: BTreeMap<DefinitionRef, Compiled>,
}

/// The registry.
pub struct Definitions {
    store: Arc<dyn Store>,
    participants: Arc<dyn Participants>,
    gates: Arc<Gates>,
    clock: Arc<dyn Clock>,
    settings: Arc<Settings>,
    compiled: Mutex<CompiledRevisions>,
    newest: Mutex<BTreeMap<DefinitionName, Newest>>,
}

/// The newest revision of a name.
struct Newest {
    revision: Revision,
    looked_up: Instant,
    /// Somebody looks it up again.
    asking: bool,
}

impl Definitions {
    /// An empty cache over a store.
    pub fn new(
        store: Arc<dyn Store>,
        participants: Arc<dyn Participants>,
        gates: Arc<Gates>,
        clock: Arc<dyn Clock>,
        settings: Arc<Settings>,
    ) -> Self {
        Self {
            store,
            participants,
            gates,
            clock,
            settings,
            compiled: Mutex::default(),
            newest: Mutex::default(),
        }
    }

    /// Checks a definition and, unless `validate_only`, stores it. Answers the revision and whether it is
    /// new; with `validate_only`, the one it would get.
    ///
    /// # Errors
    /// [`EngineError::Invalid`] with every fault; [`EngineError::Store`].
    pub async fn register(
        &self,
        spec: DefinitionSpec,
        descriptors: Bytes,
        fingerprint: [u8; 32],
        validate_only: bool,
    ) -> Result<(StoredRevision, bool), EngineError> {
        let mut faults = Vec::new();
        let table = self.settings.error_table(&spec.error_domain).unwrap_or_else(|| {
            let known: Vec<&str> = self.settings.error_domains.keys().map(String::as_str).collect();
            faults.push(Fault::new(
                "error_domain",
                format!("there is no error domain \"{}\"; configured: {known:?}", spec.error_domain),
            ));
            Arc::new(ErrorTable::default())
        });
        let traits = self.traits_of(&spec).await?;
        let name = match validate(&spec, Revision(1), &traits, table) {
            Ok(definition) => Some(definition.reference.name),
            Err(more) => {
                faults.extend(more);
                None
            }
        };
        let newest = match &name {
            Some(name) => self.store.revision(name, None).await?,
            None => None,
        };
        let next = Revision(newest.as_ref().map_or(1, |revision| revision.reference.revision.0 + 1));
        // Templates are checked also for a definition that is at fault: all faults at once.
        let placeholder = || DefinitionName::parse("unnamed").map_err(|_| EngineError::NotServing);
        let candidate = StoredRevision {
            reference: DefinitionRef { name: name.clone().map_or_else(placeholder, Ok)?, revision: next },
            spec,
            descriptors,
            fingerprint,
            created_at: self.clock.now(),
        };
        if let Err(more) = self.participants.prepare(&candidate) {
            let known: BTreeSet<String> = faults.iter().map(|fault| fault.path.clone()).collect();
            faults.extend(more.into_iter().filter(|fault| !known.contains(&fault.path)));
        }
        let Some(name) = name.filter(|_| faults.is_empty()) else {
            return Err(EngineError::Invalid(faults));
        };
        if let Some(same) = newest.filter(|newest| newest.fingerprint == fingerprint) {
            return Ok((same, false));
        }
        if validate_only {
            return Ok((candidate, true));
        }
        let stored = self
            .store
            .put_revision(&name, &candidate.spec, &candidate.descriptors, fingerprint, candidate.created_at)
            .await?;
        self.newest_is(&name, stored.reference.revision, Instant::now());
        tracing::info!(definition = %stored.reference, "definition registered");
        Ok((stored, true))
    }

    /// What is wrong with a definition as far as that can be told without message types.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn faults_of_structure(&self, spec: &DefinitionSpec) -> Result<Vec<Fault>, EngineError> {
        let traits = self.traits_of(spec).await?;
        let table = self.settings.error_table(&spec.error_domain).unwrap_or_default();
        Ok(validate(spec, Revision(1), &traits, table).err().unwrap_or_default())
    }

    /// A revision ready to run; the newest if `revision` is `None`.
    ///
    /// # Errors
    /// [`EngineError::NotFound`]; [`EngineError::Invalid`] if what is stored no longer compiles.
    pub async fn get(
        &self,
        name: &DefinitionName,
        revision: Option<Revision>,
    ) -> Result<Compiled, EngineError> {
        let known = revision.or_else(|| self.newest_known(name));
        if let Some(revision) = known {
            let reference = DefinitionRef { name: name.clone(), revision };
            if let Some(compiled) = self.cached(&reference) {
                return Ok(compiled);
            }
        }
        let looked_up = Instant::now();
        let stored = self.stored(name, revision).await?;
        if revision.is_none() {
            self.newest_is(name, stored.reference.revision, looked_up);
        }
        if let Some(compiled) = self.cached(&stored.reference) {
            return Ok(compiled);
        }
        let generation = self.compiled.lock().unwrap_or_else(PoisonError::into_inner).generation;
        let compiled = self.compile(&stored).await?;
        let mut cache = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        // A participant that was registered meanwhile may be another than the one just read.
        if cache.generation == generation {
            if cache.by_reference.len() >= self.settings.compiled_revisions_max {
                cache.by_reference.clear();
            }
            cache.by_reference.insert(stored.reference, compiled.clone());
        }
        Ok(compiled)
    }

    /// A revision as it is stored.
    ///
    /// # Errors
    /// [`EngineError::NotFound`].
    pub async fn stored(
        &self,
        name: &DefinitionName,
        revision: Option<Revision>,
    ) -> Result<StoredRevision, EngineError> {
        self.store.revision(name, revision).await?.ok_or_else(|| EngineError::NotFound {
            what: "definition",
            name: revision.map_or_else(|| name.to_string(), |r| format!("{name}@{}", r.0)),
        })
    }

    /// The newest revision of each definition.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn list(
        &self,
        after: Option<&DefinitionName>,
        limit: usize,
    ) -> Result<Vec<StoredRevision>, EngineError> {
        Ok(self.store.definitions(after, limit).await?)
    }

    /// Registers a participant, or replaces its registration.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn put_participant(&self, mut participant: Participant) -> Result<Participant, EngineError> {
        participant.updated_at = self.clock.now();
        self.store.put_participant(&participant).await?;
        self.make_known(&participant);
        tracing::info!(participant = %participant.name, "participant registered");
        Ok(participant)
    }

    /// What is known of the participants that a definition names. Names that are not registered are
    /// missing.
    ///
    /// # Errors
    /// [`EngineError::Store`].
    pub async fn traits_of(
        &self,
        spec: &DefinitionSpec,
    ) -> Result<BTreeMap<ParticipantName, ParticipantTraits>, EngineError> {
        let calls = spec.steps.iter().flat_map(StepSpec::calls);
        let names: BTreeSet<ParticipantName> =
            calls.filter_map(|(_, call)| ParticipantName::parse(&call.participant).ok()).collect();
        let mut traits = BTreeMap::new();
        for name in names {
            if let Some(participant) = self.store.participant(&name).await? {
                self.participants.set(&participant);
                self.gates.set(&participant.name, participant.in_flight_max);
                let deduplicates_by_key = participant.deduplicates_by_key;
                traits.insert(
                    name,
                    ParticipantTraits { deduplicates_by_key, listens: participant.rollback_listener },
                );
            }
        }
        Ok(traits)
    }

    fn make_known(&self, participant: &Participant) {
        self.participants.set(participant);
        self.gates.set(&participant.name, participant.in_flight_max);
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        compiled.generation += 1;
        compiled.by_reference.clear();
    }

    /// Reads every participant again: some registration has changed, perhaps on another coordinator.
    async fn read_participants(&self) -> Result<(), EngineError> {
        let mut after: Option<ParticipantName> = None;
        loop {
            let page = self.store.participants(after.as_ref(), PARTICIPANTS_PAGE).await?;
            page.iter().for_each(|participant| self.make_known(participant));
            match page.last() {
                Some(last) if page.len() == PARTICIPANTS_PAGE => after = Some(last.name.clone()),
                Some(_) | None => return Ok(()),
            }
        }
    }

    fn cached(&self, reference: &DefinitionRef) -> Option<Compiled> {
        self.compiled.lock().unwrap_or_else(PoisonError::into_inner).by_reference.get(reference).cloned()
    }

    fn newest_known(&self, name: &DefinitionName) -> Option<Revision> {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = newest.get_mut(name)?;
        let (age, age_max) = (newest.looked_up.elapsed(), self.settings.newest_revision_age_max);
        // One asks again in good time while the others go on with what is known: else all sagas that start in the
        // moment when it lapses would wait for a read of the store each.
        if age >= age_max / 2 && !newest.asking {
            newest.asking = true;
            return None;
        }
        (age < age_max).then_some(newest.revision)
    }

    /// Notes what was looked up then, unless something newer is known.
    fn newest_is(&self, name: &DefinitionName, revision: Revision, looked_up: Instant) {
        let mut newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner);
        if newest.get(name).is_none_or(|known| known.looked_up <= looked_up) {
            newest.insert(name.clone(), Newest { revision, looked_up, asking: false });
        }
    }

    async fn compile(&self, stored: &StoredRevision) -> Result<Compiled, EngineError> {
        let traits = self.traits_of(&stored.spec).await?;
        let spec = without_unsafe_resends(&stored.spec, &traits);
        let table = self.settings.error_table(&spec.error_domain).unwrap_or_else(|| {
            tracing::error!(
                definition = %stored.reference, domain = spec.error_domain,
                "the definition's error domain is not configured: the default table judges its failures"
            );
            Arc::new(ErrorTable::default())
        });
        let definition =
            validate(&spec, stored.reference.revision, &traits, table).map_err(EngineError::Invalid)?;
        let calls = self.participants.prepare(stored).map_err(EngineError::Invalid)?;
        let raw = spec.steps.iter().zip(&definition.steps).filter(|(step, _)| step.action.request.is_empty());
        let raw = raw.map(|(_, step)| step.name.clone()).collect();
        let participants: BTreeSet<_> =
            definition.steps.iter().map(|step| step.action.participant.clone()).collect();
        Ok(Compiled {
            definition: Arc::new(definition),
            calls,
            raw,
            participants: participants.into_iter().collect(),
        })
    }
}

/// Keeps this coordinator's view of the participants in line with what is registered on others.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let mut known: Option<String> = None;
    loop {
        match shared.store.participants_mark().await {
            Ok(mark) if known.as_ref() != Some(&mark) => {
                // The mark was read first: what is registered in between is read now and once more.
                match shared.definitions.read_participants().await {
                    Ok(()) => known = Some(mark),
                    Err(error) => tracing::warn!(%error, "participants could not be read again"),
                }
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "it could not be told whether participants have changed"),
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep(shared.settings.newest_revision_age_max) => {}
            () = shared.draining.cancelled() => return,
        }
    }
}

/// A stored revision may say RESEND for a participant that has since been registered as not deduplicating.
/// Its sagas go on, by the default for such a participant.
fn without_unsafe_resends(
    spec: &DefinitionSpec,
    traits: &BTreeMap<ParticipantName, ParticipantTraits>,
) -> DefinitionSpec {
    let mut spec = spec.clone();
    for step in &mut spec.steps {
        let deduplicates = ParticipantName::parse(&step.action.participant)
            .is_ok_and(|name| traits.get(&name).is_some_and(|t| t.deduplicates_by_key));
        if step.in_doubt == Some(InDoubt::Resend) && !deduplicates && step.kind != StepKind::ReadOnly {
            step.in_doubt = None;
        }
    }
    spec
}
