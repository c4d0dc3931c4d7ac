//! The story's own calls: everything that it knows and does goes over gRPC, as anybody's would.
//!
//! # Invariants
//! - No call waits for ever.

use super::DemoError;
use super::files::{Registration, Transfer};
use crate::bank::audit::ListRecordsRequest;
use crate::bank::audit::audit_service_client::AuditServiceClient;
use crate::bank::ledger::ledger_service_client::LedgerServiceClient;
use crate::bank::ledger::{Account, GetBalancesRequest, OpenAccountRequest};
use backstop_proto::v1;
use backstop_proto::v1::definition_service_client::DefinitionServiceClient;
use backstop_proto::v1::participant_service_client::ParticipantServiceClient;
use backstop_proto::v1::saga_service_client::SagaServiceClient;
use prost_types::value::Kind;
use prost_types::{Struct, Value};
use std::net::SocketAddr;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Response, Status, Streaming};

/// How long any call may take, beyond what it is asked to wait.
const CALL_MAX: Duration = Duration::from_secs(10);

/// A connection that is made with the first call, and again after the other side was away.
pub(super) fn channel(address: SocketAddr) -> Result<Channel, DemoError> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(DemoError::Address)?;
    Ok(endpoint.connect_timeout(CALL_MAX).connect_lazy())
}

/// The answer of a call within a time.
pub(super) async fn within<T>(
    what: &'static str,
    time: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, DemoError> {
    match tokio::time::timeout(time, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(DemoError::Call { what, status: Box::new(status) }),
        Err(_) => Err(DemoError::Late { what, seconds: time.as_secs() }),
    }
}

/// A coordinator, seen from outside.
#[derive(Debug, Clone)]
pub(super) struct Coordinator {
    channel: Channel,
    definition: String,
}

impl Coordinator {
    pub(super) fn new(address: SocketAddr, definition: &str) -> Result<Self, DemoError> {
        Ok(Self { channel: channel(address)?, definition: definition.to_owned() })
    }

    pub(super) async fn register_participant(
        &self,
        registration: &Registration,
        address: SocketAddr,
    ) -> Result<(), DemoError> {
        let participant = v1::Participant {
            name: registration.name.clone(),
            endpoints: vec![format!("http://{address}")],
            deduplicates_by_key: registration.deduplicates_by_key,
            rollback_listener: registration.rollback_listener,
            ..v1::Participant::default()
        };
        let request = v1::RegisterParticipantRequest { participant: Some(participant) };
        let mut client = ParticipantServiceClient::new(self.channel.clone());
        within("RegisterParticipant", CALL_MAX, client.register_participant(request)).await?;
        Ok(())
    }

    /// The revision that it got.
    pub(super) async fn register_definition(&self, definition: &v1::Definition) -> Result<u32, DemoError> {
        let request = v1::RegisterDefinitionRequest {
            definition: Some(definition.clone()),
            ..v1::RegisterDefinitionRequest::default()
        };
        let mut client = DefinitionServiceClient::new(self.channel.clone());
        let registered = within("RegisterDefinition", CALL_MAX, client.register_definition(request)).await?;
        Ok(registered.definition.unwrap_or_default().revision)
    }

    /// Starts the saga of a transfer under the transfer's own id, and waits for its end at most this long.
    pub(super) async fn start(
        &self,
        transfer: &Transfer,
        wait: Option<Duration>,
    ) -> Result<v1::StartSagaResponse, DemoError> {
        let request = v1::StartSagaRequest {
            saga_id: transfer.id.clone(),
            definition: self.definition.clone(),
            input: Some(input(transfer)),
            wait: wait.and_then(|wait| wait.try_into().ok()),
            ..v1::StartSagaRequest::default()
        };
        let mut client = SagaServiceClient::new(self.channel.clone());
        let time = CALL_MAX + wait.unwrap_or_default();
        within("StartSaga", time, client.start_saga(request)).await
    }

    pub(super) async fn get(&self, saga_id: &str) -> Result<v1::Saga, DemoError> {
        let request = v1::GetSagaRequest { saga_id: saga_id.to_owned(), ..v1::GetSagaRequest::default() };
        let mut client = SagaServiceClient::new(self.channel.clone());
        Ok(within("GetSaga", CALL_MAX, client.get_saga(request)).await?.saga.unwrap_or_default())
    }

    pub(super) async fn watch(&self, saga_id: &str) -> Result<Streaming<v1::WatchSagaResponse>, DemoError> {
        let request = v1::WatchSagaRequest { saga_id: saga_id.to_owned(), after_seq: 0 };
        let mut client = SagaServiceClient::new(self.channel.clone());
        within("WatchSaga", CALL_MAX, client.watch_saga(request)).await
    }
}

/// What templates see as `input`: strings all, since JSON's numbers cannot hold 64 bits.
pub(super) fn input(transfer: &Transfer) -> Struct {
    let fields = [
        ("from", transfer.from.clone()),
        ("to", transfer.to.clone()),
        ("amount_minor", transfer.amount_minor.to_string()),
        ("currency", transfer.currency.clone()),
        ("reference", transfer.reference.clone()),
        ("note", transfer.note.clone()),
    ];
    let value = |text| Value { kind: Some(Kind::StringValue(text)) };
    Struct { fields: fields.into_iter().map(|(name, text)| (name.to_owned(), value(text))).collect() }
}

/// Opens an account at a ledger.
pub(super) async fn open_account(ledger: &Channel, request: OpenAccountRequest) -> Result<(), DemoError> {
    let mut client = LedgerServiceClient::new(ledger.clone());
    within("OpenAccount", CALL_MAX, client.open_account(request)).await?;
    Ok(())
}

/// Every account of a ledger, as the ledger says.
pub(super) async fn balances(ledger: &Channel) -> Result<Vec<Account>, DemoError> {
    let mut client = LedgerServiceClient::new(ledger.clone());
    Ok(within("GetBalances", CALL_MAX, client.get_balances(GetBalancesRequest {})).await?.accounts)
}

/// The transfers that the audit service has a line for, oldest first.
pub(super) async fn audited(audit: &Channel) -> Result<Vec<String>, DemoError> {
    let mut client = AuditServiceClient::new(audit.clone());
    let records = within("ListRecords", CALL_MAX, client.list_records(ListRecordsRequest {})).await?.records;
    Ok(records.into_iter().map(|record| record.transfer.unwrap_or_default().transfer_id).collect())
}
