//! The checks, one a promise of `docs/participant-contract.md`.
//!
//! # Invariants
//! * Each has a name, the rule that it holds, and a sentence on what goes wrong without it.
//! * None passes on replies alone if a number can be read: what counts is what stands in the books.
//!
//! # Not here
//! Sending and reading: `case`. Showing: `report`.

use super::case::{Case, Finding, Phase, says_no_effect, show_status};
use super::peer::Answer;
use super::report::Outcome;
use super::{RACES, Suite};
use serde_json::Value;
use tonic::{Code, Status};

/// A check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Check {
    MetadataAccepted,
    DuplicateAction,
    ConcurrentDuplicates,
    RefusalIsSettled,
    DuplicateRefusal,
    CompensationUndoes,
    DuplicateCompensation,
    ConcurrentCompensations,
    CompensationWithoutAction,
    LateActionAfterEmptyCompensation,
    LateActionAfterCompensation,
    ActionAndCompensationAtOnce,
    SameKeyOtherRequest,
    SimilarIds,
    QueryAfterAction,
    QueryWithoutAction,
    QueryFences,
}

/// What a check says of itself.
pub(super) struct About {
    pub(super) name: &'static str,
    /// The rule's number in `docs/participant-contract.md`.
    pub(super) rule: u8,
    pub(super) promise: &'static str,
    pub(super) why: &'static str,
}

impl Check {
    /// In the order in which they run; nothing can be said without the first.
    pub(super) const ALL: [Self; 17] = [
        Self::MetadataAccepted,
        Self::DuplicateAction,
        Self::ConcurrentDuplicates,
        Self::RefusalIsSettled,
        Self::DuplicateRefusal,
        Self::CompensationUndoes,
        Self::DuplicateCompensation,
        Self::ConcurrentCompensations,
        Self::CompensationWithoutAction,
        Self::LateActionAfterEmptyCompensation,
        Self::LateActionAfterCompensation,
        Self::ActionAndCompensationAtOnce,
        Self::SameKeyOtherRequest,
        Self::SimilarIds,
        Self::QueryAfterAction,
        Self::QueryWithoutAction,
        Self::QueryFences,
    ];

    pub(super) fn about(self) -> About {
        let about = |name, rule, promise, why| About { name, rule, promise, why };
        match self {
            Self::MetadataAccepted => about(
                "metadata-accepted",
                1,
                "an action with a saga's metadata is carried out",
                "Backstop sends these metadata with every call; a service that trips over them takes part in no saga",
            ),
            Self::DuplicateAction => about(
                "duplicate-action",
                2,
                "a duplicate gets the first reply and has no effect",
                "Backstop sends an action again when its answer was lost: without this the customer pays twice",
            ),
            Self::ConcurrentDuplicates => about(
                "concurrent-duplicates",
                3,
                "of duplicates at the same moment one works, and all get its reply",
                "a retry may overtake an attempt that is still running: to look first and to write later is not enough",
            ),
            Self::RefusalIsSettled => about(
                "refusal-is-settled",
                4,
                "a refusal has no effect, and its status says so",
                "after any other status the action counts as in doubt, and Backstop undoes what was never done",
            ),
            Self::DuplicateRefusal => about(
                "duplicate-refusal",
                5,
                "a duplicate of a refused action gets the same refusal",
                "Backstop takes a refusal for the answer to every attempt; one that is forgotten may be followed by an effect that nobody undoes",
            ),
            Self::CompensationUndoes => about(
                "compensation-undoes",
                6,
                "a compensation undoes its action",
                "a saga that is rolled back has to leave the books as they were",
            ),
            Self::DuplicateCompensation => about(
                "duplicate-compensation",
                7,
                "a repeated compensation is OK and undoes nothing more",
                "compensations are sent until one is answered OK: without this the customer is paid back twice",
            ),
            Self::ConcurrentCompensations => about(
                "concurrent-compensations",
                7,
                "of compensations at the same moment one undoes, and all are OK",
                "after a takeover two coordinators' calls may arrive together",
            ),
            Self::CompensationWithoutAction => about(
                "compensation-without-action",
                8,
                "a compensation without an action is OK and does nothing",
                "Backstop undoes what is in doubt, also what never arrived; a refusal leaves the branch stuck until a person comes",
            ),
            Self::LateActionAfterEmptyCompensation => about(
                "late-action-after-empty-compensation",
                9,
                "an action that arrives after its compensation is refused without effect",
                "the network may deliver the action after its compensation: it would stand in the books for ever, and nobody would undo it",
            ),
            Self::LateActionAfterCompensation => about(
                "late-action-after-compensation",
                9,
                "a duplicate that arrives after the compensation has no effect",
                "an action that runs again after it was undone stands in the books for ever",
            ),
            Self::ActionAndCompensationAtOnce => about(
                "action-and-compensation-at-once",
                10,
                "an action and its compensation at the same moment leave the books even",
                "of the two whichever comes second has to see the first, also while that is not committed",
            ),
            Self::SameKeyOtherRequest => about(
                "same-key-other-request",
                11,
                "another request under a key that is taken is refused without effect",
                "a key that stands for two requests hides the second one's loss behind the first one's reply",
            ),
            Self::SimilarIds => about(
                "similar-ids",
                12,
                "a saga whose id begins like another's is another saga",
                "keys that are compared by their beginning undo the neighbour's transfer",
            ),
            Self::QueryAfterAction => about(
                "query-after-action",
                13,
                "a query after the action is OK, with the action's reply",
                "Backstop goes on with the reply that the query found",
            ),
            Self::QueryWithoutAction => about(
                "query-without-action",
                13,
                "a query without an action is NOT_FOUND",
                "any other answer leaves the doubt, and a pivot waits for a person",
            ),
            Self::QueryFences => about(
                "query-fences",
                14,
                "an action that was on its way when NOT_FOUND was answered is refused without effect",
                "NOT_FOUND is a promise: Backstop rolls back without undoing, and the late action would stay",
            ),
        }
    }
}

/// Runs a check in a saga of its own and tidies up behind it.
pub(super) async fn run(suite: &mut Suite, check: Check) -> Outcome {
    let saga = format!("check-{}-{}", suite.run, check.about().name);
    let mut case = match Case::open(suite, saga).await {
        Ok(case) => case,
        Err(finding) => return Outcome::of(Err(finding), Vec::new()),
    };
    let mut unit = suite.unit;
    let found = match check {
        Check::MetadataAccepted => metadata_accepted(&mut case, &mut unit).await,
        Check::DuplicateAction => duplicate_action(&mut case).await,
        Check::ConcurrentDuplicates => concurrent_duplicates(&mut case).await,
        Check::RefusalIsSettled => refusal_is_settled(&mut case, suite).await,
        Check::DuplicateRefusal => duplicate_refusal(&mut case, suite).await,
        Check::CompensationUndoes => compensation_undoes(&mut case).await,
        Check::DuplicateCompensation => duplicate_compensation(&mut case).await,
        Check::ConcurrentCompensations => concurrent_compensations(&mut case).await,
        Check::CompensationWithoutAction => compensation_without_action(&mut case).await,
        Check::LateActionAfterEmptyCompensation => late_action_after_empty_compensation(&mut case).await,
        Check::LateActionAfterCompensation => late_action_after_compensation(&mut case).await,
        Check::ActionAndCompensationAtOnce => racing(&mut case, suite).await,
        Check::SameKeyOtherRequest => same_key_other_request(&mut case, suite).await,
        Check::SimilarIds => similar_ids(&mut case, suite).await,
        Check::QueryAfterAction => query_after_action(&mut case).await,
        Check::QueryWithoutAction => query_without_action(&mut case).await,
        Check::QueryFences => query_fences(&mut case).await,
    };
    case.tidy().await;
    let said = std::mem::take(&mut case.said);
    suite.unit = unit;
    Outcome::of(found, said)
}

type Found = Result<(), Finding>;

fn failed(expected: impl Into<String>, came: impl Into<String>) -> Finding {
    Finding::Failed { expected: expected.into(), came: came.into() }
}

fn skipped(reason: &str) -> Finding {
    Finding::Skipped(reason.to_owned())
}

async fn metadata_accepted(case: &mut Case<'_>, unit: &mut Option<i128>) -> Found {
    case.succeed().await?;
    *unit = case.moved().await?;
    if *unit == Some(0) {
        return Err(failed("the action moves the number that --read shows", "the number is as it was"));
    }
    Ok(())
}

async fn duplicate_action(case: &mut Case<'_>) -> Found {
    let first = case.succeed().await?;
    let answer = case.action().await;
    let again = case.expect_reply(Phase::Action, &answer, "the first reply again")?;
    case.expect_effects(1).await?;
    expect_same(&first, &again)
}

fn expect_same(first: &Value, again: &Value) -> Found {
    if first == again {
        Ok(())
    } else {
        Err(failed(format!("the first reply again: OK {first}"), format!("OK {again}")))
    }
}

async fn concurrent_duplicates(case: &mut Case<'_>) -> Found {
    let answers = case.many(Phase::Action).await;
    let mut replies = Vec::new();
    for answer in &answers {
        replies.push(case.expect_reply(Phase::Action, answer, "one reply for all of them")?);
    }
    case.expect_effects(1).await?;
    replies.iter().try_for_each(|reply| expect_same(replies.first().unwrap_or(reply), reply))
}

const SETTLED: &str =
    "INVALID_ARGUMENT, FAILED_PRECONDITION, NOT_FOUND or OUT_OF_RANGE, or an ErrorInfo with effect = none";

/// True if Backstop reads in it that the action had no effect.
fn is_settled(status: &Status) -> bool {
    let speaks = matches!(
        status.code(),
        Code::InvalidArgument | Code::FailedPrecondition | Code::NotFound | Code::OutOfRange
    );
    speaks || says_no_effect(status)
}

async fn refuse<'s>(
    case: &mut Case<'_>,
    suite: &Suite,
    answer: &'s mut Option<Answer>,
) -> Result<&'s Status, Finding> {
    let refused = suite.plan.refused.as_ref().ok_or_else(|| skipped("no --refused-request was given"))?;
    let answer = answer.insert(case.action_with(refused).await);
    case.expect_status(answer, "a refusal")
}

async fn refusal_is_settled(case: &mut Case<'_>, suite: &Suite) -> Found {
    let mut answer = None;
    let status = refuse(case, suite, &mut answer).await?;
    if !is_settled(status) {
        return Err(failed(SETTLED, show_status(status)));
    }
    case.expect_effects(0).await
}

async fn duplicate_refusal(case: &mut Case<'_>, suite: &Suite) -> Found {
    let (mut first, mut again) = (None, None);
    let first = refuse(case, suite, &mut first).await?.clone();
    let again = refuse(case, suite, &mut again).await?;
    let seen = |status: &Status| (status.code(), status.message().to_owned(), status.details().to_vec());
    if seen(&first) != seen(again) {
        let expected = format!("the first refusal, details included: {}", show_status(&first));
        return Err(failed(expected, show_status(again)));
    }
    // The same refusal may just be refused anew. What is kept shows in the key: it is taken.
    let other = case.action().await;
    case.expect_effects(0).await?;
    case.expect_status(&other, "a refusal: what came under this key was refused for good").map(|_| ())
}

async fn undo(case: &mut Case<'_>) -> Result<Value, Finding> {
    let answer = case.compensation().await;
    case.expect_reply(Phase::Compensation, &answer, "OK")
}

async fn compensation_undoes(case: &mut Case<'_>) -> Found {
    case.succeed().await?;
    case.expect_effects(1).await?;
    undo(case).await?;
    case.expect_effects(0).await
}

async fn duplicate_compensation(case: &mut Case<'_>) -> Found {
    case.succeed().await?;
    undo(case).await?;
    undo(case).await?;
    case.expect_effects(0).await
}

async fn concurrent_compensations(case: &mut Case<'_>) -> Found {
    case.succeed().await?;
    for answer in case.many(Phase::Compensation).await {
        case.expect_reply(Phase::Compensation, &answer, "all of them OK")?;
    }
    case.expect_effects(0).await
}

async fn compensation_without_action(case: &mut Case<'_>) -> Found {
    undo(case).await?;
    undo(case).await?;
    case.expect_effects(0).await
}

async fn late_and_refused(case: &mut Case<'_>) -> Found {
    const EXPECTED: &str = "FAILED_PRECONDITION with an ErrorInfo that says effect = none";
    let answer = case.late_action().await;
    case.expect_effects(0).await?;
    let status = case.expect_status(&answer, EXPECTED)?;
    if status.code() != Code::FailedPrecondition || !says_no_effect(status) {
        return Err(failed(EXPECTED, show_status(status)));
    }
    Ok(())
}

async fn late_action_after_empty_compensation(case: &mut Case<'_>) -> Found {
    undo(case).await?;
    late_and_refused(case).await
}

async fn late_action_after_compensation(case: &mut Case<'_>) -> Found {
    let first = case.succeed().await?;
    undo(case).await?;
    let answer = case.late_action().await;
    case.expect_effects(0).await?;
    match &answer {
        // Old news: it says what was, and does nothing.
        Answer::Reply(_) => {
            let again = case.expect_reply(Phase::Action, &answer, "a refusal, or the first reply")?;
            expect_same(&first, &again)
        }
        Answer::Status(_) => Ok(()),
        Answer::Silence(_) => case.expect_status(&answer, "a refusal, or the first reply").map(|_| ()),
    }
}

async fn racing(case: &mut Case<'_>, suite: &Suite) -> Found {
    for round in 0..RACES {
        let saga = format!("{}-{round}", case.saga);
        let mut race = Case::open(suite, saga).await?;
        let found = race_once(&mut race, round).await;
        case.said.append(&mut race.said);
        found?;
    }
    Ok(())
}

async fn race_once(race: &mut Case<'_>, round: usize) -> Found {
    // Who is sent first takes turns.
    let calls = match round % 2 {
        0 => [Phase::Action, Phase::Compensation],
        _ => [Phase::Compensation, Phase::Action],
    };
    for (phase, answer) in race.at_once(&calls).await {
        match phase {
            Phase::Action if matches!(answer, Answer::Status(_)) => {}
            Phase::Action | Phase::Query => {
                race.expect_reply(Phase::Action, &answer, "the action OK or refused").map(|_| ())?;
            }
            Phase::Compensation => {
                race.expect_reply(phase, &answer, "the compensation OK").map(|_| ())?;
            }
        }
    }
    race.expect_effects(0).await
}

async fn same_key_other_request(case: &mut Case<'_>, suite: &Suite) -> Found {
    let other = suite.plan.other.as_ref().ok_or_else(|| skipped("no --other-request was given"))?;
    case.succeed().await?;
    let answer = case.action_with(other).await;
    case.expect_effects(1).await?;
    case.expect_status(&answer, "a refusal: this key stands for another request").map(|_| ())
}

async fn similar_ids(case: &mut Case<'_>, suite: &Suite) -> Found {
    case.succeed().await?;
    let mut longer = Case::open(suite, format!("{}0", case.saga)).await?;
    let answer = longer.compensation().await;
    let found = longer.expect_reply(Phase::Compensation, &answer, "OK: there is nothing to undo");
    case.said.append(&mut longer.said);
    found?;
    case.expect_effects(1).await?;
    undo(case).await?;
    case.expect_effects(0).await
}

async fn query_after_action(case: &mut Case<'_>) -> Found {
    let first = case.succeed().await?;
    let answer = case.query().await?;
    let found = case.expect_reply(Phase::Query, &answer, "OK with the action's reply")?;
    case.expect_effects(1).await?;
    expect_same(&first, &found)
}

async fn ask_in_vain(case: &mut Case<'_>) -> Found {
    let answer = case.query().await?;
    let status = case.expect_status(&answer, "NOT_FOUND")?;
    if status.code() == Code::NotFound { Ok(()) } else { Err(failed("NOT_FOUND", show_status(status))) }
}

async fn query_without_action(case: &mut Case<'_>) -> Found {
    ask_in_vain(case).await?;
    case.expect_effects(0).await
}

async fn query_fences(case: &mut Case<'_>) -> Found {
    ask_in_vain(case).await?;
    late_and_refused(case).await
}
