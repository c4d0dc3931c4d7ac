//! Whole screens of sagas as operators meet them. A change of what they read shows in these snapshots.
#![allow(clippy::unwrap_used)]

mod stories;

use super::diagram::Diagram;
use super::{Canvas, Part, Story, block, sequence, show};
use crate::cli::out::Paint;
use backstop_proto::v1::{BranchState, StepKind};
use stories::{NOW, awaiting, big, quarantined, retired, retrying, rolled_back_diamond, stuck};

/// 100 columns, without colour, at the present of the stories.
const CANVAS: Canvas = Canvas { paint: Paint::OFF, width: 100, is_ascii: false, now: NOW };

fn screen(story: &Story) -> String {
    show(story, &[], &CANVAS)
}

#[test]
fn a_stuck_saga_says_why_it_waits_what_is_exposed_and_what_to_type() {
    insta::assert_snapshot!(screen(&stuck()), @r#"
saga        pay-7
definition  transfer@3
state       NEEDS_INTERVENTION: nothing goes on until a person decides
cause       step credit failed: the participant answered FAILED_PRECONDITION: account closed
waits       step debit cannot be undone: the participant answered PERMISSION_DENIED: not today (FIN-50099, L1)
fin code    FIN-40005, tier L3: the caller can mend it; docs/errors/FIN-40005.md
started     2026-11-24 00:00:00Z, 1m 0s ago
labels      customer=42
trace       4bf92f3577b34da6a3ce929d0e0e4736

TRANSCRIPT
0001 saga     started        transfer@3
0002 hold     succeeded      #1  12.0ms
0003 debit    succeeded      #1  30.0ms
0004 credit   failed         #1  FIN-40005 FAILED_PRECONDITION  account closed
0005 saga     rolling back   cause credit
0006 debit    undo failed    #1  FIN-50099 PERMISSION_DENIED  not today
0007 debit    undo failed    #2  FIN-50099 PERMISSION_DENIED  not today
0008 debit    stuck          #3  FIN-50099 PERMISSION_DENIED  not today
0009 saga     needs a person

STEPS
  ●  hold    SUCCEEDED  limits
  !  debit   STUCK      ledger_a  undo 3x  FIN-50099 PERMISSION_DENIED: not today
  ✗  credit  FAILED     ledger_b  FIN-40005 FAILED_PRECONDITION: account closed

TIME
  00:00:00Z   ──────────────────────────────────────────────────────────────────  800.0ms
  hold        █                                                                   12.0ms
  debit        ██                                                                 30.0ms
  credit         ▒▒▒                                                              35.0ms
  debit undo        ▒▒···············▒·······································▒▒   3 x, last 25.0ms
  saga              R                                                          !
  R rollback decided at +80.0ms, ! needs a person at +800.0ms
  █ done  ▒ no effect

EXPOSED  by pay-7, NEEDS_INTERVENTION
2 effects stand: 2 for certain
  debit  certain: took effect, its undo is stuck
         key pay-7/debit/action at ledger_a (bank.ledger.v1.Ledger/Debit)
         3 attempts to undo it, none with effect:
         key pay-7/debit/compensation at ledger_a (bank.ledger.v1.Ledger/ReverseDebit)
  hold   certain: took effect, not undone yet
         key pay-7/hold/action at limits (bank.limits.v1.Limits/Hold)

AWAITED
  hold    is undone after debit
  debit   waits for a person, nothing is tried by itself; last: the participant answered PERMISSION_DENIED: not today (FIN-50099, L1)
  signal  rollback signal not delivered to limits; delivered to ledger_a

NEXT
  once ledger_a will take the undo of debit, have it tried again:
    backstop branch retry pay-7 debit --reason …
  or, if debit has been undone by hand at ledger_a, say so:
    backstop branch resolve pay-7 debit --resolution undone --reason …
  what the codes mean: docs/errors/FIN-40005.md, docs/errors/FIN-50099.md
"#);
}

#[test]
fn a_saga_under_way_says_what_is_tried_when() {
    insta::assert_snapshot!(screen(&retrying()), @r#"
saga        pay-7
definition  transfer@3
state       RUNNING: going forward
started     2026-11-24 00:00:00Z, 1m 0s ago
deadline    00:01:30Z, in 30.0s
labels      customer=42
owner       host-1/4711, epoch 1
trace       4bf92f3577b34da6a3ce929d0e0e4736

TRANSCRIPT
0001 saga     started        transfer@3
0002 hold     succeeded      #1  12.0ms
0003 debit    will retry     #1  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt
0004 debit    will retry     #2  FIN-50302 DEADLINE_EXCEEDED (deadline) in doubt

STEPS
  ●  hold    SUCCEEDED  limits
  ◐  debit   RUNNING    ledger_a  tried 2x  FIN-50302 in doubt: the participant did not answer in t…
  ○  credit  PENDING    ledger_b

TIME
  00:00:00Z  ─────────────────────────────────────╌╌╌───────────────────────────  1m 0s
  hold       █                                    ╌╌╌                             12.0ms
  debit                          ░░░░░░░░░░░░░░░░░╌╌╌░░░░░░░░░░░░░░░░░            2 x, last 900.0ms
  █ done  ░ in doubt  ╌ nothing for 56.6s

EXPOSED  by pay-7, RUNNING
2 effects stand so far: 1 for certain, 1 in doubt
  debit  in doubt: may have taken effect: no attempt has settled it
         key pay-7/debit/action at ledger_a (bank.ledger.v1.Ledger/Debit)
  hold   certain: took effect
         key pay-7/hold/action at limits (bank.limits.v1.Limits/Hold)

AWAITED
  debit   action #3 to ledger_a in 3.2s (at 00:01:03Z); last: the participant did not answer in time (FIN-50302, L2, in doubt)
  credit  is called after debit
  saga    coordinator host-1/4711 drives it, epoch 1

NEXT
  it goes on by itself; to look on:
    backstop saga watch pay-7
  or, to have it undone:
    backstop saga cancel pay-7 --reason …
"#);
}

#[test]
fn a_compensation_that_is_retried_counts_down_and_is_in_doubt() {
    insta::assert_snapshot!(show(&awaiting(), &[Part::Exposed, Part::Awaited, Part::Next], &CANVAS), @r#"
EXPOSED
2 effects stand: 1 for certain, 1 in doubt
  debit  in doubt: may have taken effect, being undone
         key pay-7/debit/action at ledger_a (bank.ledger.v1.Ledger/Debit)
         3 attempts to undo it, of which one may have worked:
         key pay-7/debit/compensation at ledger_a (bank.ledger.v1.Ledger/ReverseDebit)
  hold   certain: took effect, not undone yet
         key pay-7/hold/action at limits (bank.limits.v1.Limits/Hold)

AWAITED
  hold    is undone after debit
  debit   undo #4 to ledger_a in 3.2s (at 00:01:03Z); left to a person from 00:10:00Z; last: the participant did not answer in time (FIN-50302, L2, in doubt)
  signal  rollback signal not delivered to limits; delivered to ledger_a
  saga    coordinator host-1/4711 drives it, epoch 1

NEXT
  it goes on by itself; to look on:
    backstop --server http://bank:7420 saga watch 'pay $7'
"#);
}

#[test]
fn a_diamond_that_was_rolled_back_has_nothing_exposed() {
    insta::assert_snapshot!(screen(&rolled_back_diamond()), @r#"
saga        pay-7
definition  transfer@3
state       ROLLED_BACK: nothing of it stands any more
cause       step credit failed: the participant answered FAILED_PRECONDITION: account closed
fin code    FIN-40005, tier L3: the caller can mend it; docs/errors/FIN-40005.md
started     2026-11-24 00:00:00Z, ended after 120.0ms
labels      customer=42
trace       4bf92f3577b34da6a3ce929d0e0e4736

TRANSCRIPT
0001 saga     started        transfer@3

STEPS
  ◌    hold    COMPENSATED  limits
  ├─╮
  ◌ │  debit   COMPENSATED  ledger_a
  │ ◌  fx      COMPENSATED  fx
  ├─╯
  ✗    credit  FAILED       ledger_b  FIN-40005 FAILED_PRECONDITION: account closed
  -    settle  SKIPPED      ledger_b

TIME
  00:00:00Z   ──────────────────────────────────────────────────────────────────  120.0ms
  hold        █████                                                               10.0ms
  debit            █████████████████                                              30.0ms
  fx               ████████████████████████████                                   50.0ms
  credit                                       ▒▒▒▒▒▒▒▒                           15.0ms
  debit undo                                           ███████████                20.0ms
  fx undo                                              ████████████████           30.0ms
  hold undo                                                            ████████   15.0ms
  saga                                                 R
  R rollback decided at +75.0ms
  █ done  ▒ no effect

EXPOSED  by pay-7, ROLLED_BACK
nothing stands
"#);
}

#[test]
fn a_quarantined_saga_tells_what_its_head_row_tells() {
    insta::assert_snapshot!(screen(&quarantined()), @r#"
saga        pay-7
definition  transfer@3
state       NEEDS_INTERVENTION: its journal cannot be followed; nobody goes on with it
started     2026-11-24 00:00:00Z, 1m 0s ago
labels      customer=42
quarantine  event 3 does not fit: its clock does not grow
trace       4bf92f3577b34da6a3ce929d0e0e4736

EXPOSED  by pay-7, NEEDS_INTERVENTION
not known: the journal cannot be followed; look for keys that begin with pay-7/

AWAITED
  saga  a person mends its journal and releases it; no coordinator touches it before

NEXT
  its journal cannot be followed; once somebody has mended it:
    backstop saga release pay-7 --reason …
"#);
}

#[test]
fn a_saga_whose_journal_is_retired_tells_what_is_left_of_it() {
    insta::assert_snapshot!(screen(&retired()), @r#"
saga        pay-7
definition  transfer@3
state       ROLLED_BACK: nothing of it stands any more
fin code    FIN-40005; docs/errors/FIN-40005.md
started     2026-11-24 00:00:00Z, ended after 120.0ms
labels      customer=42
journal     retired: only this is left of it
"#);
}

#[test]
fn a_saga_of_256_steps_fits_the_page() {
    let story = big();
    let page = screen(&story);
    assert!(page.lines().count() <= 210, "{} lines\n{page}", page.lines().count());
    assert!(page.lines().all(|line| line.chars().count() <= 130), "{page}");
    insta::assert_snapshot!(show(&story, &[Part::Exposed, Part::Awaited, Part::Next], &CANVAS).lines().take(4).collect::<Vec<_>>().join("\n"), @r#"
EXPOSED
101 effects stand: 101 for certain
  step_100  certain: took effect, its undo is stuck
            key pay-7/step_100/action at bank
"#);
    let steps = page.split("STEPS\n").nth(1).unwrap().split("\n\n").next().unwrap();
    insta::assert_snapshot!(steps, @r#"
256 steps in 86 layers: 100 SUCCEEDED, 1 FAILED, 149 COMPENSATED, 1 STUCK, 5 SKIPPED
 34 ! after step_098, step_083  step_100  STUCK   bank  undo 3x  FIN-50099 PERMISSION_DENIED: not…
 84 ✗ after step_248, step_233  step_250  FAILED  bank
--only dag shows every step
"#);
    let all = show(&story, &[Part::Dag], &CANVAS);
    for branch in &story.saga.branches {
        assert!(all.contains(&format!(" {} ", branch.step)), "{} is not in\n{all}", branch.step);
    }
}

#[test]
fn ascii_alone_draws_the_same() {
    let canvas = Canvas { is_ascii: true, ..CANVAS };
    let shown = show(&rolled_back_diamond(), &[Part::Dag, Part::Bars], &canvas);
    assert!(shown.is_ascii(), "{shown}");
    insta::assert_snapshot!(shown, @r#"
STEPS
  .    hold    COMPENSATED  limits
  +-+
  . |  debit   COMPENSATED  ledger_a
  | .  fx      COMPENSATED  fx
  +-+
  x    credit  FAILED       ledger_b  FIN-40005 FAILED_PRECONDITION: account closed
  -    settle  SKIPPED      ledger_b

TIME
  00:00:00Z   ------------------------------------------------------------------  120.0ms
  hold        #####                                                               10.0ms
  debit            #################                                              30.0ms
  fx               ############################                                   50.0ms
  credit                                       xxxxxxxx                           15.0ms
  debit undo                                           ###########                20.0ms
  fx undo                                              ################           30.0ms
  hold undo                                                            ########   15.0ms
  saga                                                 R
  R rollback decided at +75.0ms
  # done  x no effect
"#);
}

#[test]
fn what_is_read_from_outside_cannot_act_on_the_terminal() {
    let mut story = stuck();
    let evil = "a\u{1b}[2J\u{202e}\n";
    story.saga.id = evil.to_owned();
    story.saga.transcript.push(evil.to_owned());
    story.saga.owner = evil.to_owned();
    story.saga.quarantine.clear();
    for branch in &mut story.saga.branches {
        branch.participant = evil.to_owned();
        branch.idempotency_key = evil.to_owned();
        if let Some(failure) = &mut branch.compensation_failure {
            failure.message = evil.to_owned();
            failure.fin_code = evil.to_owned();
        }
    }
    story.definition = None;
    let shown = [
        screen(&story),
        Diagram::of_saga(&story.saga).mermaid(),
        Diagram::of_saga(&story.saga).dot(),
        sequence::of_saga(&story.saga, story.events(), None),
        block(&story, &CANVAS),
    ];
    for text in shown {
        assert!(!text.chars().any(|c| super::super::text::is_harmful(c) && c != '\n'), "{text:?}");
    }
}

#[test]
fn what_is_exposed_is_what_may_stand() {
    use BranchState as State;
    let certain = Some(true);
    let doubt = Some(false);
    // State, in doubt, waits for another attempt; then whether it stands, and for certain.
    let cases = [
        (State::Pending, false, false, None),
        (State::Running, false, false, doubt),
        (State::Running, false, true, None),
        (State::Running, true, true, doubt),
        (State::Succeeded, false, false, certain),
        (State::Failed, false, false, None),
        (State::InDoubt, true, false, doubt),
        (State::Compensating, false, false, certain),
        (State::Compensating, true, true, doubt),
        (State::Compensated, false, false, None),
        (State::Compensated, true, false, None),
        (State::Stuck, false, false, certain),
        (State::Stuck, true, false, doubt),
        (State::Skipped, false, false, None),
    ];
    for (state, in_doubt, waits, expected) in cases {
        for kind in [StepKind::Compensatable, StepKind::ReadOnly, StepKind::Pivot] {
            let mut story = stuck();
            story.saga.branches.truncate(1);
            let branch = &mut story.saga.branches[0];
            branch.set_state(state);
            branch.set_kind(kind);
            branch.in_doubt = in_doubt;
            branch.next_attempt_time =
                waits.then_some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 });
            let shown = show(&story, &[Part::Exposed], &CANVAS);
            let summary = shown.lines().next().unwrap();
            let expected = match expected.filter(|_| kind != StepKind::ReadOnly) {
                None => "nothing stands",
                Some(true) => "1 effect stands: 1 for certain",
                Some(false) => "1 effect stands: 1 in doubt",
            };
            assert_eq!(summary, expected, "{state:?} {kind:?} {in_doubt} {waits}");
            assert_eq!(shown.contains("key pay-7/hold/action at limits"), expected != "nothing stands");
        }
    }
}

#[test]
fn what_a_person_can_say_of_a_pivot_differs_from_what_of_a_retriable_step() {
    let mut story = stuck();
    story.saga.cause = None;
    story.saga.branches.truncate(1);
    story.saga.branches[0].set_state(BranchState::InDoubt);
    story.saga.branches[0].set_kind(StepKind::Pivot);
    insta::assert_snapshot!(show(&story, &[Part::Next], &CANVAS), @r#"
if limits cannot do hold twice under one key, have it sent, or asked about, again:
  backstop branch retry pay-7 hold --reason …
or, if hold took effect or was done by hand at limits:
  backstop branch resolve pay-7 hold --resolution took-effect --reason …
or, if hold certainly had no effect (the saga then rolls back):
  backstop branch resolve pay-7 hold --resolution no-effect --reason …
what the codes mean: docs/errors/FIN-40005.md
"#);
    story.saga.branches[0].set_state(BranchState::Failed);
    story.saga.branches[0].set_kind(StepKind::Retriable);
    insta::assert_snapshot!(show(&story, &[Part::Next], &CANVAS), @r#"
once limits will take hold, have it tried again:
  backstop branch retry pay-7 hold --reason …
or, if hold took effect or was done by hand at limits:
  backstop branch resolve pay-7 hold --resolution took-effect --reason …
what the codes mean: docs/errors/FIN-40005.md
"#);
}

#[test]
fn the_live_block_has_no_line_that_the_terminal_would_break() {
    let canvas = Canvas { width: 60, ..CANVAS };
    for story in [stuck(), retrying(), awaiting(), big()] {
        let block = block(&story, &canvas);
        assert!(block.lines().all(|line| line.chars().count() < 60), "{block}");
    }
    insta::assert_snapshot!(block(&retrying(), &CANVAS), @r#"
── pay-7 RUNNING for 1m 0s: 1 PENDING, 1 RUNNING, 1 SUCCEEDED
  debit   action #3 to ledger_a in 3.2s (at 00:01:03Z); last: the participant did not answer in ti…
  credit  is called after debit
  saga    coordinator host-1/4711 drives it, epoch 1
"#);
}

#[test]
fn diagrams_have_every_step_and_every_edge() {
    insta::assert_snapshot!(Diagram::of_saga(&rolled_back_diamond().saga).mermaid(), @r#"
%% pay-7 ROLLED_BACK (transfer@3)
flowchart TD
  n0["hold<br/>COMPENSATED<br/>limits"]:::undone
  n1["debit<br/>COMPENSATED<br/>ledger_a"]:::undone
  n2["fx<br/>COMPENSATED<br/>fx"]:::undone
  n3["credit<br/>FAILED<br/>ledger_b"]:::failed
  n4["settle<br/>SKIPPED<br/>ledger_b"]:::idle
  n0 --> n1
  n0 --> n2
  n1 --> n3
  n2 --> n3
  n3 --> n4
  classDef failed fill:#ffcdd2,stroke:#c62828,color:#212121
  classDef undone fill:#e1bee7,stroke:#6a1b9a,color:#212121
  classDef idle fill:#eeeeee,stroke:#9e9e9e,color:#212121
"#);
    insta::assert_snapshot!(Diagram::of_saga(&rolled_back_diamond().saga).dot(), @r##"
digraph "pay-7 ROLLED_BACK (transfer@3)" {
  rankdir=TB
  node [shape=box, style="rounded,filled", fontname="sans-serif"]
  n0 [label="hold\nCOMPENSATED\nlimits", fillcolor="#e1bee7", color="#6a1b9a"]
  n1 [label="debit\nCOMPENSATED\nledger_a", fillcolor="#e1bee7", color="#6a1b9a"]
  n2 [label="fx\nCOMPENSATED\nfx", fillcolor="#e1bee7", color="#6a1b9a"]
  n3 [label="credit\nFAILED\nledger_b", fillcolor="#ffcdd2", color="#c62828"]
  n4 [label="settle\nSKIPPED\nledger_b", fillcolor="#eeeeee", color="#9e9e9e"]
  n0 -> n1
  n0 -> n2
  n1 -> n3
  n2 -> n3
  n3 -> n4
}
"##);
    let story = stuck();
    let definition = story.definition.as_ref();
    insta::assert_snapshot!(sequence::of_saga(&story.saga, story.events(), definition), @r#"
%% pay-7 (transfer@3)
sequenceDiagram
  participant B as Backstop
  participant P0 as limits
  participant P1 as ledger_a
  participant P2 as ledger_b
  Note over B: saga started transfer@3
  B->>P0: hold action #35;1
  P0-->>B: 12.0ms
  B->>P1: debit action #35;1
  P1-->>B: 30.0ms
  B->>P2: credit action #35;1
  P2--xB: FIN-40005 FAILED_PRECONDITION 35.0ms
  Note over B: saga rolling back cause credit
  B->>P1: debit compensation #35;1
  P1--xB: FIN-50099 PERMISSION_DENIED 18.0ms
  B->>P1: debit compensation #35;2
  P1--xB: FIN-50099 PERMISSION_DENIED 20.0ms
  B->>P1: debit compensation #35;3
  P1--xB: FIN-50099 PERMISSION_DENIED 25.0ms
  Note over B: saga needs a person
"#);
    let big = big();
    let edges: usize = big.saga.branches.iter().map(|branch| branch.depends_on.len()).sum();
    let (mermaid, dot) = (Diagram::of_saga(&big.saga).mermaid(), Diagram::of_saga(&big.saga).dot());
    assert_eq!(mermaid.lines().filter(|line| line.contains("[\"")).count(), 256);
    assert_eq!(mermaid.lines().filter(|line| line.contains("-->")).count(), edges);
    assert_eq!(dot.lines().filter(|line| line.contains("[label=")).count(), 256);
    assert_eq!(dot.lines().filter(|line| line.contains("->")).count(), edges);
}
