//! Carries commands to other coordinators, by the very RPCs that people use.
//!
//! # Invariants
//! * `NotDone` is said only if no connection could be made, or if the other coordinator itself says that it has not
//!   done it. Everything else that is no answer is `Unknown`.
//! * A carried command is marked, so that it is never carried a second time.
//!
//! # Not here
//! Which coordinator is asked, and what an unknown answer leads to: `backstop_engine::coordinator`.

use crate::status_reply::{OTHER_COORDINATOR, refused_for};
use async_trait::async_trait;
use backstop_core::{Input, Resolution, SagaId};
use backstop_engine::ports::peers::{PeerError, Peers};
use backstop_proto::v1;
use backstop_proto::v1::operator_service_client::OperatorServiceClient;
use backstop_proto::v1::saga_service_client::SagaServiceClient;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tonic_types::StatusExt;

/// Metadata of a command that another coordinator has carried here.
pub(crate) const CARRIED: &str = "backstop-carried";
/// Connections kept; with more coordinators than this they are made anew.
const CONNECTIONS_MAX: usize = 64;
/// Reasons by which a coordinator says that it has done nothing.
const DID_NOTHING: [&str; 4] = [OTHER_COORDINATOR, "NOT_SERVING", "NOT_FOUND", "INVALID_ARGUMENT"];

/// Reaches the other coordinators over gRPC.
#[derive(Debug, Default)]
pub struct PeerClient {
    connections: Mutex<BTreeMap<String, Channel>>,
}

impl PeerClient {
    /// A client that has no connection yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    async fn channel(&self, address: &str) -> Result<Channel, PeerError> {
        let known = self.connections.lock().unwrap_or_else(PoisonError::into_inner).get(address).cloned();
        if let Some(channel) = known {
            return Ok(channel);
        }
        let not_done = |error: tonic::transport::Error| PeerError::NotDone(error.to_string());
        let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(not_done)?;
        let channel = endpoint.tcp_nodelay(true).connect().await.map_err(not_done)?;
        let mut connections = self.connections.lock().unwrap_or_else(PoisonError::into_inner);
        if connections.len() >= CONNECTIONS_MAX {
            connections.clear();
        }
        connections.insert(address.to_owned(), channel.clone());
        Ok(channel)
    }

    /// A coordinator that has begun anew at the same address is reached by a new connection.
    fn forget(&self, address: &str) {
        self.connections.lock().unwrap_or_else(PoisonError::into_inner).remove(address);
    }
}

#[async_trait]
impl Peers for PeerClient {
    async fn command(
        &self,
        address: &str,
        saga: &SagaId,
        input: &Input,
        timeout: Duration,
    ) -> Result<(), PeerError> {
        let connected = tokio::time::timeout(timeout, self.channel(address)).await;
        let channel = connected.map_err(|_| PeerError::NotDone("no connection in time".to_owned()))??;
        let answer = match tokio::time::timeout(timeout, send(channel, saga, input)).await {
            Ok(Some(answer)) => answer,
            Ok(None) => return Err(PeerError::NotDone("it is no command of a person".to_owned())),
            Err(_) => Err(PeerError::Unknown("no answer in time".to_owned())),
        };
        if matches!(answer, Err(PeerError::Unknown(_))) {
            self.forget(address);
        }
        answer
    }
}

/// `None` for an input that nobody from outside may give.
async fn send(channel: Channel, saga: &SagaId, input: &Input) -> Option<Result<(), PeerError>> {
    let saga_id = saga.to_string();
    let answer = match input.clone() {
        Input::Cancel { by, reason } => {
            let request = carried(v1::CancelSagaRequest { saga_id, by, reason });
            SagaServiceClient::new(channel).cancel_saga(request).await.map(drop)
        }
        Input::RetryBranch { step, by, reason } => {
            let request = carried(v1::RetryBranchRequest { saga_id, step: step.to_string(), by, reason });
            OperatorServiceClient::new(channel).retry_branch(request).await.map(drop)
        }
        Input::ResolveBranch { step, by, reason, resolution } => {
            let resolution = match resolution {
                Resolution::TookEffect => v1::Resolution::TookEffect,
                Resolution::NoEffect => v1::Resolution::NoEffect,
                Resolution::Undone => v1::Resolution::Undone,
            };
            let (step, resolution) = (step.to_string(), resolution.into());
            let request = carried(v1::ResolveBranchRequest { saga_id, step, by, reason, resolution });
            OperatorServiceClient::new(channel).resolve_branch(request).await.map(drop)
        }
        Input::Answer(_)
        | Input::Wake
        | Input::SignalReport { .. }
        | Input::Adopt { .. }
        | Input::Release => return None,
    };
    Some(answer.map_err(|status| meaning(&status)))
}

fn carried<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(CARRIED, MetadataValue::from_static("1"));
    request
}

fn meaning(status: &Status) -> PeerError {
    let info = status.get_details_error_info().filter(|info| info.domain == "backstop");
    let Some(info) = info else { return PeerError::Unknown(status.to_string()) };
    match refused_for(&info.reason) {
        Some(refused) => PeerError::Refused(refused),
        None if DID_NOTHING.contains(&info.reason.as_str()) => PeerError::NotDone(info.reason),
        None => PeerError::Unknown(info.reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status_reply::engine_error;
    use backstop_core::{CoordinatorId, Refused};
    use backstop_engine::EngineError;
    use backstop_engine::ports::store::StoreError;

    #[test]
    fn what_a_coordinator_says_is_understood_by_another() {
        let (saga, owner) = (SagaId::parse("pay-7").unwrap(), CoordinatorId::parse("c-1").unwrap());
        for refused in [Refused::Ended, Refused::PastPivot, Refused::NoSuchStep, Refused::NotWaiting] {
            assert_eq!(meaning(&engine_error(&refused.into())), PeerError::Refused(refused));
        }
        let elsewhere = EngineError::NotHere { saga, owner, last: String::new() };
        assert!(matches!(meaning(&engine_error(&elsewhere)), PeerError::NotDone(_)));
        assert!(matches!(meaning(&engine_error(&EngineError::NotServing)), PeerError::NotDone(_)));
        let store = EngineError::Store(StoreError::Unknown("lost".to_owned()));
        assert!(matches!(meaning(&engine_error(&store)), PeerError::Unknown(_)), "it may have gone in");
        let broken = Status::unavailable("transport error");
        assert!(matches!(meaning(&broken), PeerError::Unknown(_)), "nobody of ours has said that");
    }

    #[tokio::test]
    async fn a_coordinator_that_is_not_there_has_certainly_done_nothing() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap().to_string();
        drop(socket);
        let cancel = Input::Cancel { by: "ann".to_owned(), reason: String::new() };
        let saga = SagaId::parse("pay-7").unwrap();
        let answer = PeerClient::new().command(&address, &saga, &cancel, Duration::from_secs(10)).await;
        assert!(matches!(answer, Err(PeerError::NotDone(_))), "{answer:?}");
    }
}
