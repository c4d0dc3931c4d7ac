//! The engine's port to the store, through [`crate::disk`].

use crate::coverage::{What, When};
use crate::disk::StoreOf;
use crate::held;
use async_trait::async_trait;
use backstop_core::{
    CoordinatorId, DefinitionName, DefinitionSpec, Event, EventKind, ParticipantName, Revision, SagaId, Seq,
    Timestamp,
};
use backstop_engine::ports::store::{
    Append, Appended, CoordinatorRow, Head, Journal, Misfit, Orphan, Participant, Retention, Retired,
    SagaCursor, SagaFilter, Share, Store, StoreResult, StoredRevision, Unsettled,
};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;

/// What a batch is, above all.
fn what_of(batch: &[Append]) -> What {
    let has = |wanted: fn(&EventKind) -> bool| {
        batch.iter().flat_map(|append| &append.events).any(|event| wanted(&event.kind))
    };
    if has(|kind| matches!(kind, EventKind::Adopted { .. })) {
        What::Adopt
    } else if has(|kind| matches!(kind, EventKind::Released)) {
        What::Release
    } else {
        What::Append
    }
}

fn name_of(append: &Append) -> (SagaId, Seq) {
    (append.saga.clone(), append.head.seq)
}

impl StoreOf {
    /// Whoever drives these sagas hears of it within this instant.
    fn heard(&self, batch: &[Append], answers: &[Appended]) {
        let mut in_doubt = held(&self.in_doubt);
        let heard: Vec<_> = batch
            .iter()
            .zip(answers)
            .filter(|(append, answer)| !in_doubt.remove(&name_of(append)) && **answer == Appended::Written)
            .map(|(append, _)| (append.saga.clone(), append.head.epoch, append.head.seq))
            .collect();
        let world = Arc::clone(&self.world);
        tokio::spawn(async move {
            // Over when nobody has anything more to do at this instant.
            tokio::time::sleep(Duration::from_millis(1)).await;
            heard.iter().for_each(|(saga, by, seq)| world.acknowledged(saga, *by, *seq));
        });
    }
}

#[async_trait]
impl Store for StoreOf {
    async fn append(&self, batch: &[Append]) -> StoreResult<Vec<Appended>> {
        let theirs = batch.to_vec();
        let answers = self
            .write(what_of(batch), move |world, process| {
                Box::pin(async move {
                    let mut before = Vec::with_capacity(theirs.len());
                    for append in &theirs {
                        before.push(world.data.head(&append.saga).await?.map_or(Seq(0), |head| head.seq));
                    }
                    let answers = world.data.append(&theirs).await?;
                    for ((append, before), answer) in theirs.iter().zip(before).zip(&answers) {
                        match answer {
                            Appended::Written => world.durable(append, before, &process),
                            Appended::Lost => world.count("world", "appends lost"),
                        }
                    }
                    Ok(answers)
                })
            })
            .await;
        match &answers {
            Ok(answers) => self.heard(batch, answers),
            Err(_) => held(&self.in_doubt).extend(batch.iter().map(name_of)),
        }
        answers
    }

    async fn journal(&self, saga: &SagaId) -> StoreResult<Option<Journal>> {
        self.read("journal", self.world.data.journal(saga)).await
    }

    async fn head(&self, saga: &SagaId) -> StoreResult<Option<Head>> {
        self.read("head", self.world.data.head(saga)).await
    }

    async fn events(&self, saga: &SagaId, after: Seq, limit: usize) -> StoreResult<Vec<Event>> {
        self.read("events", self.world.data.events(saga, after, limit)).await
    }

    async fn list(
        &self,
        filter: &SagaFilter,
        cursor: Option<&SagaCursor>,
        limit: usize,
    ) -> StoreResult<Vec<Head>> {
        self.read("list", self.world.data.list(filter, cursor, limit)).await
    }

    async fn journals(&self, sagas: &[SagaId]) -> StoreResult<Vec<StoreResult<Option<Journal>>>> {
        self.read("journals", async {
            let journals = self.world.data.journals(sagas).await?;
            for (saga, journal) in sagas.iter().zip(&journals) {
                if let Ok(Some(journal)) = journal {
                    self.world.was_read(saga, &journal.events);
                }
            }
            Ok(journals)
        })
        .await
    }

    async fn orphans(&self, share: Share, limit: usize) -> StoreResult<Vec<Orphan>> {
        self.at((What::Look, When::Before)).await;
        let orphans = self.read("orphans", self.world.data.orphans(share, limit)).await?;
        if !orphans.is_empty() {
            self.at((What::Look, When::Answered)).await;
        }
        Ok(orphans)
    }

    async fn quarantine(
        &self,
        saga: &SagaId,
        owner: Option<&CoordinatorId>,
        reason: &str,
    ) -> StoreResult<bool> {
        self.world.broke(Some(saga), format!("a sound saga is quarantined: {reason}"));
        self.world.data.quarantine(saga, owner, reason).await
    }

    async fn restore(&self, head: &Head) -> StoreResult<bool> {
        self.world.data.restore(head).await
    }

    async fn retire(&self, retention: Retention, limit: usize) -> StoreResult<Retired> {
        self.read("retire", self.world.data.retire(retention, limit)).await
    }

    async fn misfits(&self, grace: Duration, lease_max: Duration, limit: usize) -> StoreResult<Vec<Misfit>> {
        self.read("misfits", self.world.data.misfits(grace, lease_max, limit)).await
    }

    async fn unsettled(&self, limit: usize) -> StoreResult<Vec<Unsettled>> {
        self.read("unsettled", self.world.data.unsettled(limit)).await
    }

    async fn put_revision(
        &self,
        name: &DefinitionName,
        spec: &DefinitionSpec,
        descriptors: &Bytes,
        fingerprint: [u8; 32],
        now: Timestamp,
    ) -> StoreResult<StoredRevision> {
        self.world.data.put_revision(name, spec, descriptors, fingerprint, now).await
    }

    async fn revision(
        &self,
        name: &DefinitionName,
        revision: Option<Revision>,
    ) -> StoreResult<Option<StoredRevision>> {
        self.read("revision", self.world.data.revision(name, revision)).await
    }

    async fn definitions(
        &self,
        after: Option<&DefinitionName>,
        limit: usize,
    ) -> StoreResult<Vec<StoredRevision>> {
        self.read("definitions", self.world.data.definitions(after, limit)).await
    }

    async fn put_participant(&self, participant: &Participant) -> StoreResult<()> {
        self.world.data.put_participant(participant).await
    }

    async fn participants_mark(&self) -> StoreResult<String> {
        self.read("participants_mark", self.world.data.participants_mark()).await
    }

    async fn participant(&self, name: &ParticipantName) -> StoreResult<Option<Participant>> {
        self.read("participant", self.world.data.participant(name)).await
    }

    async fn participants(
        &self,
        after: Option<&ParticipantName>,
        limit: usize,
    ) -> StoreResult<Vec<Participant>> {
        self.read("participants", self.world.data.participants(after, limit)).await
    }

    async fn enter(&self, coordinator: &CoordinatorId, address: &str, ttl: Duration) -> StoreResult<()> {
        let (coordinator, address) = (coordinator.clone(), address.to_owned());
        self.write(What::Enter, move |world, _| {
            Box::pin(async move { world.data.enter(&coordinator, &address, ttl).await })
        })
        .await
    }

    async fn renew(&self, coordinator: &CoordinatorId, ttl: Duration) -> StoreResult<Option<Timestamp>> {
        let coordinator = coordinator.clone();
        self.write(What::Renew, move |world, _| {
            Box::pin(async move { world.data.renew(&coordinator, ttl).await })
        })
        .await
    }

    async fn set_draining(&self, coordinator: &CoordinatorId) -> StoreResult<()> {
        let coordinator = coordinator.clone();
        self.write(What::Drain, move |world, _| {
            Box::pin(async move { world.data.set_draining(&coordinator).await })
        })
        .await
    }

    async fn leave(&self, coordinator: &CoordinatorId) -> StoreResult<()> {
        let coordinator = coordinator.clone();
        self.write(What::Leave, move |world, _| Box::pin(async move { world.data.leave(&coordinator).await }))
            .await
    }

    async fn coordinators(&self) -> StoreResult<Vec<CoordinatorRow>> {
        self.read("coordinators", self.world.data.coordinators()).await
    }

    async fn now(&self) -> StoreResult<Timestamp> {
        self.read("now", self.world.data.now()).await
    }
}
