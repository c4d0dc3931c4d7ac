//! What a refusal says of the saga that it is about.

use crate::world::{BRIEF, SLOW, World, info, told};
use backstop_proto::v1;
use backstop_rpc::ServerSettings;
use std::time::Duration;
use tonic::Code;

#[tokio::test]
async fn a_refused_command_tells_which_saga_and_where_it_stands() {
    let world = World::new(ServerSettings::default()).await;
    world.start(BRIEF, "over").await.unwrap();
    world.start(SLOW, "under-way").await.unwrap();

    let cancel = v1::CancelSagaRequest { saga_id: "over".to_owned(), ..Default::default() };
    let refused = world.sagas().cancel_saga(cancel).await.unwrap_err();
    let said = info(&refused);
    assert_eq!((refused.code(), said.reason.as_str()), (Code::FailedPrecondition, "SAGA_ENDED"));
    assert_eq!((told(&said, "saga_id"), told(&said, "state")), (Some("over"), Some("ROLLED_BACK")));

    let (saga_id, step) = ("under-way".to_owned(), "look".to_owned());
    let (by, reason) = ("ann".to_owned(), "it is back".to_owned());
    let retry = v1::RetryBranchRequest { saga_id, step, by, reason };
    let refused = world.operators().retry_branch(retry).await.unwrap_err();
    let said = info(&refused);
    assert_eq!((refused.code(), said.reason.as_str()), (Code::FailedPrecondition, "BRANCH_NOT_WAITING"));
    assert_eq!((told(&said, "saga_id"), told(&said, "state")), (Some("under-way"), Some("RUNNING")));

    let cancel = v1::CancelSagaRequest { saga_id: "nobody".to_owned(), ..Default::default() };
    let refused = world.sagas().cancel_saga(cancel).await.unwrap_err();
    let said = info(&refused);
    assert_eq!(
        (refused.code(), told(&said, "saga_id"), told(&said, "state")),
        (Code::NotFound, Some("nobody"), None)
    );
}

#[tokio::test]
async fn a_start_that_may_have_happened_tells_the_id_that_it_would_have() {
    let world = World::new(ServerSettings::default()).await;
    let refused = world.start("unheard-of", "").await.unwrap_err();
    assert_eq!((refused.code(), told(&info(&refused), "saga_id")), (Code::NotFound, None), "there is none");
    let refused = world.start("unheard-of", "mine").await.unwrap_err();
    assert_eq!((refused.code(), told(&info(&refused), "saga_id")), (Code::NotFound, Some("mine")));

    world.coordinator.drain(Duration::ZERO).await;
    let refused = world.start(BRIEF, "").await.unwrap_err();
    let said = info(&refused);
    assert_eq!((refused.code(), said.reason.as_str()), (Code::Unavailable, "NOT_SERVING"));
    let id = told(&said, "saga_id").expect("an id of the server's making");
    let refused = world.start(BRIEF, id).await.unwrap_err();
    assert_eq!(told(&info(&refused), "saga_id"), Some(id), "it can be asked for again");
}

#[tokio::test]
async fn a_saga_without_an_id_of_the_callers_has_one_of_its_own() {
    let world = World::new(ServerSettings::default()).await;
    let (one, other) = (world.start(BRIEF, "").await.unwrap(), world.start(BRIEF, "").await.unwrap());
    assert_ne!(one.id, other.id);
    let get = v1::GetSagaRequest { saga_id: one.id.clone(), ..Default::default() };
    assert_eq!(world.sagas().get_saga(get).await.unwrap().into_inner().saga.unwrap().id, one.id);
}

#[tokio::test]
async fn a_name_of_any_length_is_told_in_a_status_that_arrives() {
    let world = World::new(ServerSettings::default()).await;
    let domain = "é".repeat(500_000);
    let refused = world.operators().get_error_table(v1::GetErrorTableRequest { domain }).await.unwrap_err();
    assert_eq!((refused.code(), info(&refused).reason.as_str()), (Code::NotFound, "NOT_FOUND"));
    assert!(refused.message().ends_with("[cut]"), "{refused:?}");
}
