//! A client of Backstop's API, with the words that tests use. Whatever fails unexpectedly panics with
//! the whole status.

use super::bank::Bank;
use super::eventually;
use backstop_proto::v1;
use backstop_proto::v1::SagaState;
use backstop_proto::v1::definition_service_client::DefinitionServiceClient;
use backstop_proto::v1::operator_service_client::OperatorServiceClient;
use backstop_proto::v1::participant_service_client::ParticipantServiceClient;
use backstop_proto::v1::saga_service_client::SagaServiceClient;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::OnceLock;
use tonic::Status;
use tonic::transport::{Channel, Endpoint};
use tonic_types::StatusExt;

/// A client on a channel that connects when it is first used, and again after a restart on that port.
#[derive(Debug, Clone)]
pub(crate) struct Api {
    channel: Channel,
}

/// A message of Backstop's contract, from its JSON mapping.
pub(crate) fn message<T: prost::Message + Default>(name: &str, json: Value) -> T {
    static POOL: OnceLock<DescriptorPool> = OnceLock::new();
    let pool = POOL.get_or_init(|| DescriptorPool::decode(backstop_proto::DESCRIPTORS).expect("descriptors"));
    let descriptor = pool.get_message_by_name(name).unwrap_or_else(|| panic!("no message {name}"));
    let shown = json.to_string();
    let message = DynamicMessage::deserialize(descriptor, json)
        .unwrap_or_else(|error| panic!("{name} cannot be {shown}: {error}"));
    message.transcode_to().expect("the generated type is the described one")
}

/// The field violations of a status: path and description.
pub(crate) fn violations(status: &Status) -> Vec<(String, String)> {
    let details = status.get_error_details();
    let violations = details.bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    violations.into_iter().map(|violation| (violation.field, violation.description)).collect()
}

impl Api {
    pub(crate) fn at(address: &str) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        Self { channel: endpoint.connect_lazy() }
    }

    pub(crate) fn channel(&self) -> Channel {
        self.channel.clone()
    }

    pub(crate) fn sagas(&self) -> SagaServiceClient<Channel> {
        SagaServiceClient::new(self.channel()).max_decoding_message_size(64 << 20)
    }

    pub(crate) fn definitions(&self) -> DefinitionServiceClient<Channel> {
        DefinitionServiceClient::new(self.channel())
    }

    pub(crate) fn participants(&self) -> ParticipantServiceClient<Channel> {
        ParticipantServiceClient::new(self.channel())
    }

    pub(crate) fn operator(&self) -> OperatorServiceClient<Channel> {
        OperatorServiceClient::new(self.channel())
    }

    /// Registers a participant with default settings.
    pub(crate) async fn enlist(&self, bank: &Bank) {
        self.enlist_as(bank, json!({})).await;
    }

    /// Registers a participant; `settings` are more fields of `Participant`.
    pub(crate) async fn enlist_as(&self, bank: &Bank, settings: Value) {
        let mut participant = settings;
        participant["name"] = json!(bank.name);
        participant["endpoints"] = json!([bank.endpoint()]);
        self.register_participant(participant).await.expect("the participant is registered");
    }

    pub(crate) async fn register_participant(&self, participant: Value) -> Result<v1::Participant, Status> {
        let json = json!({ "participant": participant });
        let request: v1::RegisterParticipantRequest = message("backstop.v1.RegisterParticipantRequest", json);
        let response = self.participants().register_participant(request).await?;
        Ok(response.into_inner().participant.expect("a participant"))
    }

    /// Registers a definition that must be good.
    pub(crate) async fn define(&self, definition: Value) -> v1::Definition {
        match self.try_define(definition).await {
            Ok(definition) => definition,
            Err(status) => panic!("refused: {status}\n{:#?}", violations(&status)),
        }
    }

    pub(crate) async fn try_define(&self, definition: Value) -> Result<v1::Definition, Status> {
        let json = json!({ "definition": definition });
        let request: v1::RegisterDefinitionRequest = message("backstop.v1.RegisterDefinitionRequest", json);
        let response = self.definitions().register_definition(request).await?;
        Ok(response.into_inner().definition.expect("a definition"))
    }

    /// A StartSaga request from its JSON mapping.
    pub(crate) fn start_request(json: Value) -> v1::StartSagaRequest {
        message("backstop.v1.StartSagaRequest", json)
    }

    /// Starts a saga on the usual input and answers at once.
    pub(crate) async fn start(&self, definition: &str, saga_id: &str) -> v1::Saga {
        let json = json!({
            "definition": definition, "sagaId": saga_id,
            "input": { "account": "acc-1", "cents": "1250" },
        });
        self.start_with(json).await.expect("the saga is accepted")
    }

    pub(crate) async fn start_with(&self, json: Value) -> Result<v1::Saga, Status> {
        let response = self.sagas().start_saga(Self::start_request(json)).await?;
        Ok(response.into_inner().saga.expect("a saga"))
    }

    /// Starts a saga on the usual input and waits until it has ended or needs a person.
    pub(crate) async fn run(&self, definition: &str, saga_id: &str) -> v1::Saga {
        self.start(definition, saga_id).await;
        self.rest(saga_id).await
    }

    pub(crate) async fn get(&self, saga_id: &str) -> Result<v1::Saga, Status> {
        let request = v1::GetSagaRequest { saga_id: saga_id.to_owned(), view: 0 };
        Ok(self.sagas().get_saga(request).await?.into_inner().saga.expect("a saga"))
    }

    /// Waits until the saga has ended or needs a person.
    pub(crate) async fn rest(&self, saga_id: &str) -> v1::Saga {
        self.until(saga_id, "to come to rest", |saga| {
            !matches!(saga.state(), SagaState::Running | SagaState::RollingBack)
        })
        .await
    }

    /// Waits until the saga fits; panics with its transcript.
    pub(crate) async fn until(&self, id: &str, what: &str, fits: impl Fn(&v1::Saga) -> bool) -> v1::Saga {
        eventually(&format!("saga {id} {what}"), || async {
            let saga = self.get(id).await.map_err(|status| status.to_string())?;
            if fits(&saga) { Ok(saga) } else { Err(shown(&saga)) }
        })
        .await
    }

    /// Every saga that fits the filter, over all pages.
    pub(crate) async fn list(&self, filter: &str) -> Vec<v1::Saga> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = v1::ListSagasRequest { page_size: 500, page_token, filter: filter.to_owned() };
            let page = self.sagas().list_sagas(request).await.expect("a page of sagas").into_inner();
            all.extend(page.sagas);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return all;
            }
        }
    }
}

/// A saga's branch by step.
pub(crate) fn branch<'a>(saga: &'a v1::Saga, step: &str) -> &'a v1::Branch {
    let found = saga.branches.iter().find(|branch| branch.step == step);
    found.unwrap_or_else(|| panic!("no branch {step} in\n{}", shown(saga)))
}

/// Each branch's state by step: `debit COMPENSATED`.
pub(crate) fn states(saga: &v1::Saga) -> BTreeMap<&str, String> {
    let short =
        |branch: &v1::Branch| branch.state().as_str_name().trim_start_matches("BRANCH_STATE_").to_owned();
    saga.branches.iter().map(|branch| (branch.step.as_str(), short(branch))).collect()
}

/// `ROLLED_BACK`.
pub(crate) fn state(saga: &v1::Saga) -> &'static str {
    saga.state().as_str_name().trim_start_matches("SAGA_STATE_")
}

/// A saga for a panic's message.
pub(crate) fn shown(saga: &v1::Saga) -> String {
    format!("{} is {}, branches {:?}\n{}", saga.id, state(saga), states(saga), saga.transcript.join("\n"))
}
