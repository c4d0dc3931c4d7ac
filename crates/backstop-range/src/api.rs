//! Backstop's API as the range uses it.

use crate::wire::DESCRIPTORS;
use anyhow::{Context, Result};
use backstop_proto::v1;
use backstop_proto::v1::SagaState;
use backstop_proto::v1::definition_service_client::DefinitionServiceClient;
use backstop_proto::v1::operator_service_client::OperatorServiceClient;
use backstop_proto::v1::participant_service_client::ParticipantServiceClient;
use backstop_proto::v1::saga_service_client::SagaServiceClient;
use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

/// Longest time for a request that only asks.
const ASKING_MAX: Duration = Duration::from_secs(10);
/// Sagas on a page.
const PAGE: i32 = 500;

/// A client on a channel that connects when it is first used, and again after a restart.
#[derive(Debug, Clone)]
pub struct Api {
    channel: Channel,
}

/// A message of Backstop's contract, from its JSON mapping.
///
/// # Errors
/// If the JSON is no such message.
pub fn message<T: Message + Default>(name: &str, json: Value) -> Result<T> {
    let pool = DescriptorPool::decode(backstop_proto::DESCRIPTORS)?;
    let descriptor = pool.get_message_by_name(name).with_context(|| format!("no message {name}"))?;
    let message = DynamicMessage::deserialize(descriptor, json).with_context(|| name.to_owned())?;
    Ok(message.transcode_to()?)
}

impl Api {
    /// A client of the coordinator there.
    ///
    /// # Errors
    /// If that is no address.
    pub fn at(address: SocketAddr) -> Result<Self> {
        let endpoint = Endpoint::from_shared(format!("http://{address}"))?.tcp_nodelay(true);
        Ok(Self { channel: endpoint.connect_lazy() })
    }

    fn sagas(&self) -> SagaServiceClient<Channel> {
        SagaServiceClient::new(self.channel.clone()).max_decoding_message_size(64 << 20)
    }

    /// Registers participants by name and endpoint. `in_flight_max` 0 is the coordinator's default.
    ///
    /// # Errors
    /// If one is refused.
    pub async fn enlist(&self, endpoints: Vec<(String, String)>, in_flight_max: u32) -> Result<()> {
        for (name, endpoint) in endpoints {
            let participant = v1::Participant {
                name,
                endpoints: vec![endpoint],
                deduplicates_by_key: true,
                in_flight_max,
                ..v1::Participant::default()
            };
            let request = v1::RegisterParticipantRequest { participant: Some(participant) };
            ParticipantServiceClient::new(self.channel.clone()).register_participant(request).await?;
        }
        Ok(())
    }

    /// Registers a definition.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn define(&self, definition: Value) -> Result<()> {
        let mut request: v1::RegisterDefinitionRequest =
            message("backstop.v1.RegisterDefinitionRequest", json!({ "definition": definition }))?;
        request.descriptors = Some(prost_types::FileDescriptorSet::decode(DESCRIPTORS)?);
        DefinitionServiceClient::new(self.channel.clone()).register_definition(request).await?;
        Ok(())
    }

    /// Starts a saga.
    ///
    /// # Errors
    /// The status, said or made up.
    pub async fn start(&self, request: v1::StartSagaRequest) -> Result<v1::Saga, Status> {
        let answer = self.sagas().start_saga(request).await?.into_inner();
        answer.saga.ok_or_else(|| Status::data_loss("an answer without a saga"))
    }

    /// Shows a saga.
    ///
    /// # Errors
    /// If it cannot be had.
    pub async fn get(&self, id: &str) -> Result<v1::Saga> {
        self.view(id, v1::SagaView::Unspecified).await
    }

    /// Shows a saga with its input.
    ///
    /// # Errors
    /// If it cannot be had.
    pub async fn get_in_full(&self, id: &str) -> Result<v1::Saga> {
        self.view(id, v1::SagaView::Full).await
    }

    async fn view(&self, id: &str, view: v1::SagaView) -> Result<v1::Saga> {
        let mut request = Request::new(v1::GetSagaRequest { saga_id: id.to_owned(), view: view as i32 });
        request.set_timeout(ASKING_MAX);
        self.sagas().get_saga(request).await?.into_inner().saga.context("an answer without a saga")
    }

    /// Lets a branch that was given up be tried again. One that is not given up any more is as it should be.
    ///
    /// # Errors
    /// If nobody does it.
    pub async fn retry_branch(&self, saga: &str, step: &str) -> Result<()> {
        let mut request = Request::new(v1::RetryBranchRequest {
            saga_id: saga.to_owned(),
            step: step.to_owned(),
            by: "backstop-range".to_owned(),
            reason: "its ledger is back".to_owned(),
        });
        request.set_timeout(ASKING_MAX);
        match OperatorServiceClient::new(self.channel.clone()).retry_branch(request).await {
            Ok(_) => Ok(()),
            Err(status) if status.code() == Code::FailedPrecondition => Ok(()),
            Err(status) => Err(status.into()),
        }
    }

    /// Every saga that fits a filter.
    ///
    /// # Errors
    /// If a page cannot be had.
    pub async fn list(&self, filter: &str) -> Result<Vec<v1::Saga>> {
        let mut all = Vec::new();
        let mut page_token = String::new();
        loop {
            let mut request =
                Request::new(v1::ListSagasRequest { page_size: PAGE, page_token, filter: filter.to_owned() });
            request.set_timeout(ASKING_MAX);
            let page = self.sagas().list_sagas(request).await?.into_inner();
            all.extend(page.sagas);
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(all);
            }
        }
    }

    /// True if no saga is going forward or back.
    ///
    /// # Errors
    /// If it cannot be asked.
    pub async fn is_quiet(&self) -> Result<bool> {
        let mut request = Request::new(v1::ListSagasRequest {
            page_size: 1,
            page_token: String::new(),
            filter: "(state = \"RUNNING\" OR state = \"ROLLING_BACK\")".to_owned(),
        });
        request.set_timeout(ASKING_MAX);
        Ok(self.sagas().list_sagas(request).await?.into_inner().sagas.is_empty())
    }
}

/// `ROLLED_BACK`.
#[must_use]
pub fn state_name(state: SagaState) -> &'static str {
    state.as_str_name().trim_start_matches("SAGA_STATE_")
}
