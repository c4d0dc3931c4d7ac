//! `backstop.v1.DefinitionService`.

use crate::convert::definition::{spec, wire_revision, wire_spec};
use crate::convert::saga::wire_state;
use crate::page;
use crate::participants::{GatherError, ParticipantClient};
use crate::status_reply::{Reply, engine_error, invalid};
use backstop_core::simulate::{self, Fault as SimulatedFault};
use backstop_core::{DefinitionName, DefinitionSpec, Fault, Revision, validate};
use backstop_engine::{Coordinator, EngineError};
use backstop_proto::v1;
use backstop_proto::v1::definition_service_server::DefinitionService;
use bytes::Bytes;
use prost::Message;
use sha2::{Digest, Sha256};
use std::collections::BTreeSet;
use std::sync::Arc;
use tonic::{Code, Request, Response, Status};

/// The service.
#[derive(Clone)]
pub struct Definitions {
    coordinator: Coordinator,
    client: Arc<ParticipantClient>,
}

impl Definitions {
    /// The service over a coordinator and the client that knows participants' message types.
    #[must_use]
    pub fn new(coordinator: Coordinator, client: Arc<ParticipantClient>) -> Self {
        Self { coordinator, client }
    }

    async fn register(
        &self,
        request: v1::RegisterDefinitionRequest,
    ) -> Result<v1::RegisterDefinitionResponse, Status> {
        let mut faults = Vec::new();
        let spec = self.read_spec(request.definition.as_ref(), &mut faults)?;
        // Makes the participants that it names known to the client.
        let registry = self.coordinator.definitions();
        registry.traits_of(&spec).await.map_err(|error| engine_error(&error))?;
        let descriptors = match self.client.gather(&spec, request.descriptors).await {
            Ok(descriptors) => descriptors,
            Err(GatherError::Faults { faults: more, found }) => {
                faults.extend(more);
                found
            }
            Err(GatherError::Unreachable { participant, message }) => {
                // What is at fault in itself is told although the types are not to be had.
                let structure = registry.faults_of_structure(&spec).await;
                faults.extend(structure.map_err(|error| engine_error(&error))?);
                if !faults.is_empty() {
                    return Err(invalid(&each_once(faults)));
                }
                let text = format!(
                    "the message types of participant \"{participant}\" could not be read by reflection, and none were \
                     given in `descriptors`: {message}"
                );
                let reply = Reply::new(Code::Unavailable, "REFLECTION_UNREACHABLE");
                return Err(reply.with("participant", &participant).status(text));
            }
        };
        let fingerprint = fingerprint(&spec, &descriptors);
        // With faults of its own shape nothing is stored, but the rest is checked all the same.
        let validate_only = request.validate_only || !faults.is_empty();
        match registry.register(spec, descriptors, fingerprint, validate_only).await {
            Ok((stored, created)) if faults.is_empty() => {
                Ok(v1::RegisterDefinitionResponse { definition: Some(wire_revision(&stored)), created })
            }
            Ok(_) => Err(invalid(&each_once(faults))),
            Err(EngineError::Invalid(more)) => {
                faults.extend(more);
                Err(invalid(&each_once(faults)))
            }
            Err(error) => Err(engine_error(&error)),
        }
    }

    fn read_spec(
        &self,
        wire: Option<&v1::Definition>,
        faults: &mut Vec<Fault>,
    ) -> Result<DefinitionSpec, Status> {
        let wire = wire.ok_or_else(|| invalid(&[Fault::new("definition", "must be set")]))?;
        let limit = self.coordinator.settings().definition_bytes_max;
        if wire.encoded_len() > limit {
            let text = format!("has {} bytes; the limit is {limit}", wire.encoded_len());
            return Err(invalid(&[Fault::new("definition", text)]));
        }
        Ok(spec(wire, faults))
    }

    async fn simulated(
        &self,
        request: v1::SimulateDefinitionRequest,
    ) -> Result<v1::SimulateDefinitionResponse, Status> {
        let mut faults = Vec::new();
        let spec = match &request.definition {
            Some(_) => self.read_spec(request.definition.as_ref(), &mut faults)?,
            None => {
                let name = name("name", &request.name)?;
                let stored = self.coordinator.definitions().stored(&name, revision(request.revision)).await;
                stored.map_err(|error| engine_error(&error))?.spec
            }
        };
        let registry = self.coordinator.definitions();
        let mut traits = registry.traits_of(&spec).await.map_err(|error| engine_error(&error))?;
        simulate::assume_participants(&spec, &mut traits);
        let table = self.coordinator.settings().error_table(&spec.error_domain).unwrap_or_default();
        match validate(&spec, Revision(request.revision.max(1)), &traits, table) {
            Ok(definition) if faults.is_empty() => Ok(wire_runs(&simulate::simulate(&Arc::new(definition)))),
            Ok(_) => Err(invalid(&faults)),
            Err(more) => {
                faults.extend(more);
                Err(invalid(&faults))
            }
        }
    }
}

fn wire_runs(runs: &[simulate::Run]) -> v1::SimulateDefinitionResponse {
    use v1::simulate_definition_response::{Run, run};
    let wire = |simulated: &simulate::Run| Run {
        step: simulated.step.as_ref().map(ToString::to_string).unwrap_or_default(),
        fault: match simulated.fault {
            SimulatedFault::Nothing => run::Fault::Unspecified,
            SimulatedFault::Refused => run::Fault::Refused,
            SimulatedFault::NoAnswer => run::Fault::NoAnswer,
            SimulatedFault::Internal => run::Fault::Internal,
            SimulatedFault::CompensationRefused => run::Fault::CompensationRefused,
        }
        .into(),
        end_state: wire_state(simulated.end_state).into(),
        calls: simulated.calls.clone(),
        transcript: simulated.transcript.clone(),
    };
    v1::SimulateDefinitionResponse {
        runs: runs.iter().map(wire).collect(),
        interventions: runs.iter().filter_map(simulate::Run::intervention).collect(),
    }
}

/// One fault a path, and none that only follows from another: what is missing altogether has no faults
/// within, and a participant that is not there has no methods.
pub(crate) fn each_once(faults: Vec<Fault>) -> Vec<Fault> {
    let told: BTreeSet<&str> = faults.iter().map(|fault| fault.path.as_str()).collect();
    let follows = |fault: &Fault| {
        let unknown = fault.path.strip_suffix(".method").map(|call| format!("{call}.participant"));
        let mut actions = fault.path.match_indices(".action.").map(|(at, _)| at + ".action".len());
        actions.any(|end| told.contains(&fault.path[..end]))
            || unknown.is_some_and(|path| told.contains(&*path))
    };
    let mut seen = BTreeSet::new();
    faults.iter().filter(|fault| seen.insert(fault.path.as_str()) && !follows(fault)).cloned().collect()
}

/// SHA-256 of the definition, every default written out, and of its message types.
fn fingerprint(spec: &DefinitionSpec, descriptors: &Bytes) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(wire_spec(spec).encode_length_delimited_to_vec());
    hash.update(descriptors);
    hash.finalize().into()
}

fn name(path: &str, text: &str) -> Result<DefinitionName, Status> {
    DefinitionName::parse(text).map_err(|error| invalid(&[Fault::new(path, error.to_string())]))
}

fn revision(number: u32) -> Option<Revision> {
    (number != 0).then_some(Revision(number))
}

#[tonic::async_trait]
impl DefinitionService for Definitions {
    async fn register_definition(
        &self,
        request: Request<v1::RegisterDefinitionRequest>,
    ) -> Result<Response<v1::RegisterDefinitionResponse>, Status> {
        self.register(request.into_inner()).await.map(Response::new)
    }

    async fn get_definition(
        &self,
        request: Request<v1::GetDefinitionRequest>,
    ) -> Result<Response<v1::GetDefinitionResponse>, Status> {
        let request = request.into_inner();
        let name = name("name", &request.name)?;
        let stored = self.coordinator.definitions().stored(&name, revision(request.revision)).await;
        let stored = stored.map_err(|error| engine_error(&error))?;
        Ok(Response::new(v1::GetDefinitionResponse { definition: Some(wire_revision(&stored)) }))
    }

    async fn list_definitions(
        &self,
        request: Request<v1::ListDefinitionsRequest>,
    ) -> Result<Response<v1::ListDefinitionsResponse>, Status> {
        let request = request.into_inner();
        let size = page::size(request.page_size).map_err(|fault| invalid(&[fault]))?;
        let after = page::name_after(&request.page_token, DefinitionName::parse)
            .map_err(|fault| invalid(&[fault]))?;
        let found = self.coordinator.definitions().list(after.as_ref(), size + 1).await;
        let mut found = found.map_err(|error| engine_error(&error))?;
        let more = found.len() > size;
        found.truncate(size);
        let last = found.last().filter(|_| more);
        let next_page_token = last.map(|d| page::name_token(d.reference.name.as_str())).unwrap_or_default();
        let definitions = found.iter().map(wire_revision).collect();
        Ok(Response::new(v1::ListDefinitionsResponse { definitions, next_page_token }))
    }

    async fn simulate_definition(
        &self,
        request: Request<v1::SimulateDefinitionRequest>,
    ) -> Result<Response<v1::SimulateDefinitionResponse>, Status> {
        self.simulated(request.into_inner()).await.map(Response::new)
    }
}
