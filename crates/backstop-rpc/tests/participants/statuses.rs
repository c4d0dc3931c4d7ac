//! A real tonic server that says every status there is, with rich details.

use crate::fixture::{self, LONG, PARTICIPANT};
use crate::world::{details, evidence, keep_spans_enabled, participant, revision, said};
use backstop_core::failure::Pushback;
use backstop_core::{Code, FinCode, Outcome, Phase};
use backstop_engine::ports::participants::{CallRequest, Participants};
use backstop_proto::participant::v1::rollback_listener_service_server::{
    RollbackListenerService, RollbackListenerServiceServer,
};
use backstop_proto::participant::v1::{OnRollbackRequest, OnRollbackResponse};
use backstop_rpc::participants::{ParticipantClient, ParticipantSettings};
use prost::Message;
use prost_types::FileDescriptorSet;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tonic::{Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Says the status whose number it is asked for, as `epoch`.
struct Sayer;

#[tonic::async_trait]
impl RollbackListenerService for Sayer {
    async fn on_rollback(
        &self,
        request: Request<OnRollbackRequest>,
    ) -> Result<Response<OnRollbackResponse>, Status> {
        let number = i32::try_from(request.into_inner().epoch).unwrap();
        if number == 0 {
            return Ok(Response::new(OnRollbackResponse {}));
        }
        let mut rich = ErrorDetails::new();
        rich.set_error_info("FIN-40017", "ledger.bank", [("effect".to_owned(), "none".to_owned())])
            .add_bad_request_violation("amount_minor", "must be positive")
            .set_localized_message("zh-CN", "余额不足")
            .set_retry_info(Some(Duration::from_millis(250)));
        Err(Status::with_error_details(tonic::Code::from_i32(number), format!("status {number}"), rich))
    }
}

#[tokio::test]
async fn every_status_that_a_participant_says_is_taken_down_with_its_details() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let server = tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(RollbackListenerServiceServer::new(Sayer))
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)),
    );
    let mut step = fixture::step("debit", &[], r#"{"epoch": "${input.number}"}"#);
    step.action.participant = PARTICIPANT.to_owned();
    step.action.method = "backstop.participant.v1.RollbackListenerService/OnRollback".to_owned();
    step.compensation = Some(step.action.clone());
    let spec = fixture::spec(vec![step]);
    keep_spans_enabled();
    let client = ParticipantClient::new(ParticipantSettings::default());
    client.set(&participant(&[endpoint]));
    let given = FileDescriptorSet::decode(backstop_proto::DESCRIPTORS).unwrap();
    let descriptors = client.gather(&spec, Some(given)).await.unwrap();
    let calls = client.prepare(&revision(&spec, descriptors)).unwrap();

    for code in Code::ALL {
        let saga = Arc::new(fixture::saga(&spec, &json!({"number": code.number()}), &[]));
        let (call, clearance) = (fixture::attempt(0, Phase::Action), fixture::clearance(LONG));
        let request = CallRequest { saga, call, timeout: LONG, clearance };
        let got = calls.call(request).await;
        if code == Code::Ok {
            assert_eq!(got.outcome, Outcome::Done(bytes::Bytes::new()));
            continue;
        }
        assert_eq!(evidence(&got), said(code));
        let (message, details) = details(&got);
        assert_eq!(message, format!("status {}", code.number()));
        assert_eq!(details.fin_code(), FinCode::parse("FIN-40017"));
        assert!(details.says_no_effect());
        assert_eq!(details.field_violations[0].field, "amount_minor");
        assert_eq!(details.localized.as_ref().unwrap().1, "余额不足");
        let Outcome::Failed { pushback, .. } = got.outcome else { unreachable!() };
        assert_eq!(pushback, Some(Pushback::After(Duration::from_millis(250))));
    }
    server.abort();
}
