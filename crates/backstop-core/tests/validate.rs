//! What `validate` refuses, each fault with its exact path, and what it lets pass at the limits.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod common;

use backstop_core::graph::STEPS_MAX;
use backstop_core::{
    CallSpec, DoubtPolicy, InDoubt, OnFailure, ParticipantTraits, Revision, SagaState, StepKind, StepSpec,
};
use common::plan::Plan;
use common::story::Story;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// The faults of a plan, a line each.
#[track_caller]
fn refuses(plan: &Plan, expected: &[&str]) {
    let faults = plan.check().expect_err("this plan has faults");
    let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(lines, expected);
}

/// A chain of two that has no fault, changed.
fn changed(change: impl FnOnce(&mut Vec<StepSpec>)) -> Plan {
    let mut plan = Plan::new().step("a", &[]).step("b", &["a"]);
    assert!(plan.check().is_ok());
    change(&mut plan.spec.steps);
    plan
}

#[test]
fn names_that_are_none() {
    let mut plan = changed(|steps| steps[1].name = "check-risk".to_owned());
    plan.spec.name = "Transfer".to_owned();
    refuses(
        &plan,
        &[
            "name: \"Transfer\": a definition name begins with a-z and has at most 63 of a-z, 0-9, _, - and .",
            "steps[1].name: \"check-risk\": a step name begins with a-z and has at most 63 of a-z, 0-9 and _",
        ],
    );
    refuses(
        &changed(|steps| steps[0].action.participant = "Ledger".to_owned()),
        &[
            "steps[0].action.participant: \"Ledger\": a participant name begins with a-z and has at most 63 of \
           a-z, 0-9, _, - and .",
        ],
    );
}

#[test]
fn names_that_are_there_twice() {
    refuses(
        &changed(|steps| {
            steps[1].name = "a".to_owned();
            steps[1].depends_on.clear();
        }),
        &["steps[1].name: \"a\" is the name of steps[0] already"],
    );
    refuses(
        &changed(|steps| steps[1].depends_on.push("a".to_owned())),
        &["steps[1].depends_on[1]: \"a\" is named twice"],
    );
}

#[test]
fn dependencies_that_lead_nowhere_or_back() {
    refuses(
        &changed(|steps| steps[1].depends_on[0] = "x".to_owned()),
        &["steps[1].depends_on[0]: there is no step \"x\""],
    );
    refuses(
        &changed(|steps| steps[1].depends_on[0] = "b".to_owned()),
        &["steps[1].depends_on[0]: a step cannot depend on itself"],
    );
    let closes = "closes a cycle: the step it names waits, near or far, for this one";
    refuses(
        &changed(|steps| steps[0].depends_on.push("b".to_owned())),
        &[&format!("steps[0].depends_on[0]: {closes}"), &format!("steps[1].depends_on[0]: {closes}")],
    );
    // Who only waits for a cycle is not on it.
    refuses(
        &Plan::new()
            .step("a", &[])
            .step("b", &["a", "d"])
            .step("c", &["b"])
            .step("d", &["c"])
            .step("e", &["a", "d"]),
        &[
            &format!("steps[1].depends_on[1]: {closes}"),
            &format!("steps[2].depends_on[0]: {closes}"),
            &format!("steps[3].depends_on[0]: {closes}"),
        ],
    );
}

#[test]
fn compensations_where_they_do_not_belong_and_none_where_they_do() {
    refuses(
        &changed(|steps| steps[0].compensation = None),
        &["steps[0].compensation: a COMPENSATABLE step must name its compensation"],
    );
    for kind in [StepKind::ReadOnly, StepKind::Pivot] {
        refuses(
            &changed(|steps| steps[1].kind = kind),
            &["steps[1].compensation: only a COMPENSATABLE step is ever compensated"],
        );
    }
}

#[test]
fn steps_on_the_wrong_side_of_a_pivot() {
    refuses(
        &Plan::new().step("a", &[]).pivot("p", &["a"]).step("after", &["p"]).read_only("beside", &["a"]),
        &[
            "steps[2].kind: this step may run after or beside the pivot \"p\": let \"p\" depend on it, or make \
             it RETRIABLE",
            "steps[3].kind: this step may run after or beside the pivot \"p\": let \"p\" depend on it, or make \
             it RETRIABLE",
        ],
    );
    refuses(
        &Plan::new().pivot("p", &[]).pivot("q", &["p"]),
        &["steps[1].kind: there is a pivot already: \"p\""],
    );
    refuses(
        &Plan::new().step("a", &[]).retriable("r", &["a"]),
        &["steps[1].kind: a RETRIABLE step follows a pivot, and there is none"],
    );
    refuses(
        &Plan::new().pivot("p", &[]).retriable("beside", &[]).retriable("after", &["p"]),
        &["steps[1].kind: a RETRIABLE step must depend, near or far, on the pivot \"p\""],
    );
    assert!(
        Plan::new()
            .read_only("risk", &[])
            .step("a", &["risk"])
            .pivot("p", &["a"])
            .retriable("r", &["p"])
            .retriable("s", &["r"])
            .check()
            .is_ok()
    );
}

#[test]
fn calls_that_cannot_be_made() {
    refuses(
        &changed(|steps| steps[0].action.participant = "nobody".to_owned()),
        &["steps[0].action.participant: no participant \"nobody\" is registered"],
    );
    refuses(
        &changed(|steps| steps[0].compensation.as_mut().unwrap().participant = "nobody".to_owned()),
        &["steps[0].compensation.participant: no participant \"nobody\" is registered"],
    );
    for method in [
        "",
        "Debit",
        "bank.Ledger",
        "/Debit",
        "bank.Ledger/",
        "bank..Ledger/Debit",
        "bank.Ledger/De/bit",
        "9.L/D",
    ] {
        let path = "steps[1].query.method";
        refuses(
            &changed(|steps| {
                let query =
                    CallSpec { participant: "b".into(), method: method.into(), ..CallSpec::default() };
                steps[1].query = Some(query);
            }),
            &[&format!("{path}: \"{method}\" is not of the form package.Service/Method")],
        );
    }
}

#[test]
fn times_and_counts_that_are_nothing() {
    let mut plan = changed(|steps| {
        steps[0].action.timeout = Duration::ZERO;
        steps[0].action.retry.attempts_max = 0;
        let undo = steps[1].compensation.as_mut().unwrap();
        undo.retry.initial = Duration::ZERO;
        steps[1].action.retry.max = Duration::from_millis(1);
    });
    plan.spec.deadline = Some(Duration::ZERO);
    refuses(
        &plan,
        &[
            "deadline: must be longer than zero",
            "steps[0].action.timeout: must be longer than zero",
            "steps[0].action.retry.attempts_max: must be at least 1",
            "steps[1].action.retry.max_backoff: must not be shorter than initial_backoff",
            "steps[1].compensation.retry.initial_backoff: must be longer than zero",
        ],
    );
}

#[test]
fn only_what_is_tried_without_end_can_be_given_up_after_a_time() {
    let limit = Some(Duration::from_secs(60));
    let mut plan = Plan::new().step("a", &[]).query().pivot("p", &["a"]).retriable("r", &["p"]);
    let steps = &mut plan.spec.steps;
    steps[0].compensation.as_mut().unwrap().retry.give_up_after = limit;
    steps[2].action.retry.give_up_after = limit;
    plan.build();
    let steps = &mut plan.spec.steps;
    steps[0].action.retry.give_up_after = limit;
    steps[0].query.as_mut().unwrap().retry.give_up_after = limit;
    steps[1].action.retry.give_up_after = limit;
    steps[2].action.retry.give_up_after = Some(Duration::ZERO);
    let why = "only a compensation or the action of a RETRIABLE step is tried without end: say attempts_max";
    refuses(
        &plan,
        &[
            &format!("steps[0].action.retry.give_up_after: {why}"),
            &format!("steps[0].query.retry.give_up_after: {why}"),
            &format!("steps[1].action.retry.give_up_after: {why}"),
            "steps[2].action.retry.give_up_after: must be longer than zero",
        ],
    );
}

#[test]
fn doubts_that_cannot_be_treated_as_asked() {
    refuses(
        &Plan::new().step("a", &[]).in_doubt(InDoubt::Query),
        &["steps[0].query: QUERY needs the call that tells what happened"],
    );
    refuses(
        &Plan::new().step("a", &[]).in_doubt(InDoubt::Resend),
        &[
            "steps[0].in_doubt: RESEND needs a participant that deduplicates by key, and \"a\" is not registered \
           as such",
        ],
    );
    refuses(
        &Plan::new().pivot("p", &[]).in_doubt(InDoubt::Compensate),
        &["steps[0].in_doubt: a PIVOT or RETRIABLE step is never undone: say RESEND or QUERY"],
    );
}

#[test]
fn what_is_done_about_a_doubt_by_default() {
    let policies = |plan: Plan| plan.build().steps.iter().map(|step| step.doubt).collect::<Vec<_>>();
    use DoubtPolicy::{Compensate, Person, Query, Resend};
    let all_kinds =
        Plan::new().read_only("c", &[]).step("a", &["c"]).pivot("p", &["a"]).retriable("r", &["p"]);
    assert_eq!(policies(all_kinds), [Resend, Compensate, Person, Person]);
    let dedup = Plan::new().step("a", &[]).dedup().pivot("p", &["a"]).dedup().retriable("r", &["p"]).dedup();
    assert_eq!(policies(dedup), [Resend, Resend, Resend]);
    let query = Plan::new().step("a", &[]).query().pivot("p", &["a"]).query().retriable("r", &["p"]).query();
    assert_eq!(policies(query), [Query, Query, Query]);
    let said = Plan::new()
        .step("a", &[])
        .dedup()
        .in_doubt(InDoubt::Compensate)
        .step("b", &[])
        .dedup()
        .query()
        .in_doubt(InDoubt::Query)
        .step("c", &[])
        .query();
    assert_eq!(policies(said), [Compensate, Query, Query]);
}

#[test]
fn all_faults_come_at_once() {
    let mut plan = changed(|steps| {
        steps[0].compensation = None;
        steps[1].action.method = "Debit".to_owned();
        steps[1].depends_on.push("x".to_owned());
        steps.push(StepSpec { name: "c".to_owned(), kind: StepKind::Retriable, ..StepSpec::default() });
    });
    plan.spec.name = String::new();
    let faults = plan.check().unwrap_err();
    let paths: Vec<&str> = faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "name",
            "steps[1].depends_on[1]",
            "steps[2].kind",
            "steps[0].compensation",
            "steps[1].action.method",
            "steps[2].action.participant",
            "steps[2].action.method",
        ]
    );
}

#[test]
fn nothing_at_all_is_refused() {
    refuses(&Plan::new(), &["steps: a definition has at least one step"]);
}

fn chain(length: usize) -> Plan {
    (0..length).fold(Plan::new(), |plan, n| {
        let before = format!("s{}", n.wrapping_sub(1));
        let after: &[&str] = if n == 0 { &[] } else { &[&before] };
        plan.step(&format!("s{n}"), after)
    })
}

fn fan(width: usize) -> Plan {
    (0..width).fold(Plan::new(), |plan, n| plan.step(&format!("s{n}"), &[]))
}

#[test]
fn peer_46_as_many_steps_as_are_allowed_and_one_more() {
    assert_eq!(chain(STEPS_MAX).build().steps.len(), 256);
    refuses(&chain(STEPS_MAX + 1), &["steps: has 257 steps; the limit is 256"]);
}

#[test]
fn the_densest_graph_is_checked_in_no_time_cyclic_or_not() {
    // 32,640 edges. Looking for a cycle anew from each of them would take minutes here.
    let names: Vec<String> = (0..STEPS_MAX).map(|n| format!("s{n}")).collect();
    let mut plan = (0..STEPS_MAX).fold(Plan::new(), |plan, n| {
        let before: Vec<&str> = names[..n].iter().map(String::as_str).collect();
        plan.step(&names[n], &before)
    });
    assert_eq!(plan.build().steps[255].ancestors.iter().count(), 255);
    plan.spec.steps[0].depends_on.push("s255".to_owned());
    assert_eq!(plan.check().unwrap_err().len(), 32_641, "every edge is on a cycle now");
}

#[test]
fn a_chain_of_256_steps_runs_to_either_end() {
    let names: Vec<String> = (0..STEPS_MAX).map(|n| format!("s{n}")).collect();
    let mut story = Story::start_unchecked(&chain(STEPS_MAX));
    names.iter().for_each(|name| story.ok(name));
    story.is(SagaState::Succeeded);

    let mut story = Story::start_unchecked(&chain(STEPS_MAX));
    names[..255].iter().for_each(|name| story.ok(name));
    story.says("s255", backstop_core::Code::FailedPrecondition, "");
    names[..255].iter().rev().for_each(|name| story.ok(name));
    story.is(SagaState::RolledBack);
    story.replays();
}

#[test]
fn peer_46_a_fan_of_256_steps_runs_to_either_end() {
    let names: Vec<String> = (0..STEPS_MAX).map(|n| format!("s{n}")).collect();
    let mut story = Story::start_unchecked(&fan(STEPS_MAX));
    assert_eq!(story.agenda().calls.len(), 256);
    names.iter().for_each(|name| story.ok(name));
    story.is(SagaState::Succeeded);

    let mut story = Story::start_unchecked(&fan(STEPS_MAX).on_failure(OnFailure::Cancel));
    story.says("s0", backstop_core::Code::FailedPrecondition, "");
    assert_eq!(story.agenda().calls.len(), 255, "all were out: all are undone");
    names[1..].iter().for_each(|name| story.ok(name));
    story.is(SagaState::RolledBack);
    story.replays();
}

#[test]
fn participants_are_looked_up_by_name_and_bring_their_traits() {
    let plan = Plan::new().step("a", &[]).dedup().listens().step("b", &[]);
    let definition = plan.build();
    assert!(definition.steps[0].deduplicates && definition.steps[0].listens);
    assert!(!definition.steps[1].deduplicates && !definition.steps[1].listens);
    let nobody: BTreeMap<_, ParticipantTraits> = BTreeMap::new();
    let faults = backstop_core::validate(&plan.spec, Revision(1), &nobody, Arc::default()).unwrap_err();
    assert_eq!(faults.len(), 4, "two actions and two compensations");
}
