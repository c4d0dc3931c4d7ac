//! What waits for people and what is rolling back, counted by definition.

use super::Bench;
use super::appending::write_all;
use super::sample::{LONG_AGO, Sample, definition, failed};
use crate::ports::store::{Append, Store, Unsettled};
use backstop_core::{Code, DefinitionName, Evidence, Phase, SagaState, Timestamp};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::time::Duration;

/// A saga of two steps, started so many seconds after `LONG_AGO`.
fn start(saga: &str, definition_name: &str, seconds: u64) -> (Sample, Append) {
    let at = at(seconds);
    Sample::start_with(saga, &definition(definition_name, 2), at, BTreeMap::new(), Bytes::from_static(b"{}"))
}

fn at(seconds: u64) -> Timestamp {
    LONG_AGO.plus(Duration::from_secs(seconds))
}

/// One of which a step was refused, so that the other has to be undone.
fn rolling_back(saga: &str, definition_name: &str, seconds: u64) -> (Sample, Vec<Append>) {
    let (mut sample, begin) = start(saga, definition_name, seconds);
    let done = sample.succeed(0, b"");
    let refused = sample.refuse(1, Code::InvalidArgument, "no");
    assert_eq!(sample.saga.state, SagaState::RollingBack);
    (sample, vec![begin, done, refused])
}

/// One whose compensation is refused until a person has to look; tells when that was.
fn waiting(saga: &str, definition_name: &str, seconds: u64) -> (Timestamp, Vec<Append>) {
    let (mut sample, mut appends) = rolling_back(saga, definition_name, seconds);
    while sample.saga.state == SagaState::RollingBack {
        if sample.saga.is_signalling() {
            let (participant, attempts, error) = (sample.saga.signals[0].0.clone(), 1, None);
            appends.push(sample.turn(backstop_core::Input::SignalReport { participant, attempts, error }));
        } else {
            let no = failed(Evidence::ParticipantSaid(Code::FailedPrecondition), "no");
            sample.owner = Some(super::sample::coordinator("c1"));
            appends.push(sample.answer(0, Phase::Compensation, no));
        }
        if sample.saga.state == SagaState::NeedsIntervention {
            // Nobody's from here on.
            if let Some(last) = appends.last_mut() {
                last.head.owner = None;
            }
        }
    }
    assert_eq!(sample.saga.state, SagaState::NeedsIntervention);
    (sample.saga.updated_at, appends)
}

fn unsettled(
    definition: &str,
    waiting: u64,
    waiting_since: Option<Timestamp>,
    rolling_back_since: Option<Timestamp>,
) -> Unsettled {
    let definition = DefinitionName::parse(definition).unwrap();
    Unsettled { definition, waiting, waiting_since, rolling_back_since }
}

async fn write_in_turn(store: &dyn Store, appends: Vec<Append>) {
    write_all(store, &appends).await;
}

pub(super) async fn what_waits_and_what_rolls_back_is_counted_by_definition(bench: &Bench) {
    let store = bench.store.as_ref();
    assert_eq!(store.unsettled(9).await, Ok(vec![]), "of nothing");
    let (mut over, begin) = start("over", "transfer", 0);
    let over = vec![begin, over.succeed(0, b""), over.succeed(1, b"")];
    write_in_turn(store, over).await;
    write_in_turn(store, vec![start("running", "transfer", 0).1]).await;
    assert_eq!(store.unsettled(9).await, Ok(vec![]), "what runs or is over is settled");

    write_in_turn(store, rolling_back("back-2", "transfer", 20).1).await;
    write_in_turn(store, rolling_back("back-1", "transfer", 10).1).await;
    // The one that is older has waited for less long.
    let (later, appends) = waiting("stuck-old", "payroll", 30);
    write_in_turn(store, appends).await;
    let (earlier, appends) = waiting("stuck-new", "payroll", 31);
    let mut appends = appends;
    if let Some(last) = appends.last_mut() {
        last.head.updated_at = Timestamp(later.0 - 1_000_000);
    }
    assert!(later < earlier);
    write_in_turn(store, appends).await;
    write_in_turn(store, rolling_back("back-3", "payroll", 40).1).await;
    let since = Timestamp(later.0 - 1_000_000);
    assert_eq!(
        bench.second.unsettled(9).await,
        Ok(vec![
            unsettled("payroll", 2, Some(since), Some(at(40))),
            unsettled("transfer", 0, None, Some(at(10))),
        ])
    );
}

pub(super) async fn what_is_set_aside_waits_for_a_person_too(bench: &Bench) {
    let store = bench.store.as_ref();
    let (sample, appends) = rolling_back("aside", "transfer", 5);
    let owner = appends[0].head.owner.clone();
    write_in_turn(store, appends).await;
    assert_eq!(store.unsettled(9).await, Ok(vec![unsettled("transfer", 0, None, Some(at(5)))]));
    assert_eq!(store.quarantine(&sample.saga.id, owner.as_ref(), "it does not replay").await, Ok(true));
    let since = Some(sample.saga.updated_at);
    assert_eq!(store.unsettled(9).await, Ok(vec![unsettled("transfer", 1, since, None)]));
}

pub(super) async fn only_the_oldest_are_looked_at(bench: &Bench) {
    let store = bench.store.as_ref();
    for (n, name) in ["c", "b", "a"].into_iter().enumerate() {
        let seconds = n as u64;
        write_in_turn(store, waiting(&format!("stuck-{name}"), &format!("stuck-{name}"), seconds).1).await;
    }
    for (n, name) in ["z", "y", "x"].into_iter().enumerate() {
        let seconds = 100 + n as u64;
        write_in_turn(store, rolling_back(&format!("back-{name}"), &format!("back-{name}"), seconds).1).await;
    }
    let names = async |limit| -> Vec<String> {
        store.unsettled(limit).await.unwrap().iter().map(|of| of.definition.to_string()).collect()
    };
    assert_eq!(names(2).await, ["stuck-b", "stuck-c"], "the two oldest unfinished are those that wait");
    assert_eq!(names(4).await, ["back-z", "stuck-a", "stuck-b", "stuck-c"]);
    assert_eq!(names(9).await, ["back-x", "back-y", "back-z", "stuck-a", "stuck-b", "stuck-c"]);
    assert_eq!(names(0).await, Vec::<String>::new());
}
