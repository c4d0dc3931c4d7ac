//! `backstop.v1.ParticipantService`.

use crate::convert::definition::{participant, wire_participant};
use crate::page;
use crate::status_reply::{engine_error, invalid};
use backstop_core::{Fault, ParticipantName};
use backstop_engine::Coordinator;
use backstop_proto::v1;
use backstop_proto::v1::participant_service_server::ParticipantService;
use tonic::{Request, Response, Status};

/// The service.
#[derive(Clone)]
pub struct ParticipantRegistry {
    coordinator: Coordinator,
}

impl ParticipantRegistry {
    /// The service over a coordinator.
    #[must_use]
    pub fn new(coordinator: Coordinator) -> Self {
        Self { coordinator }
    }
}

#[tonic::async_trait]
impl ParticipantService for ParticipantRegistry {
    async fn register_participant(
        &self,
        request: Request<v1::RegisterParticipantRequest>,
    ) -> Result<Response<v1::RegisterParticipantResponse>, Status> {
        let request = request.into_inner();
        let wire = request.participant.ok_or_else(|| invalid(&[Fault::new("participant", "must be set")]))?;
        let participant = participant(&wire).map_err(|faults| invalid(&faults))?;
        let stored = self.coordinator.definitions().put_participant(participant).await;
        let stored = stored.map_err(|error| engine_error(&error))?;
        let participant = Some(wire_participant(&stored, &self.coordinator.load_of(&stored.name)));
        Ok(Response::new(v1::RegisterParticipantResponse { participant }))
    }

    async fn get_participant(
        &self,
        request: Request<v1::GetParticipantRequest>,
    ) -> Result<Response<v1::GetParticipantResponse>, Status> {
        let name = ParticipantName::parse(&request.into_inner().name)
            .map_err(|error| invalid(&[Fault::new("name", error.to_string())]))?;
        let found = self.coordinator.participant(&name).await.map_err(|error| engine_error(&error))?;
        let participant = Some(wire_participant(&found, &self.coordinator.load_of(&name)));
        Ok(Response::new(v1::GetParticipantResponse { participant }))
    }

    async fn list_participants(
        &self,
        request: Request<v1::ListParticipantsRequest>,
    ) -> Result<Response<v1::ListParticipantsResponse>, Status> {
        let request = request.into_inner();
        let size = page::size(request.page_size).map_err(|fault| invalid(&[fault]))?;
        let after = page::name_after(&request.page_token, ParticipantName::parse)
            .map_err(|fault| invalid(&[fault]))?;
        let found = self.coordinator.participants(after.as_ref(), size + 1).await;
        let mut found = found.map_err(|error| engine_error(&error))?;
        let more = found.len() > size;
        found.truncate(size);
        let next_page_token =
            found.last().filter(|_| more).map(|p| page::name_token(p.name.as_str())).unwrap_or_default();
        let participants =
            found.iter().map(|p| wire_participant(p, &self.coordinator.load_of(&p.name))).collect();
        Ok(Response::new(v1::ListParticipantsResponse { participants, next_page_token }))
    }
}
