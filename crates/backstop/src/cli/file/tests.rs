//! Stories of definition files: what people write, and where it says what is wrong.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::read::{DEPTH_MAX, NODES_MAX};
use super::*;
use crate::cli::out::Paint;
use backstop_proto::v1::{CompensationOrder, InDoubt, OnFailure, StepKind};

const TRANSFER: &str = r#"# Money from one account to another.
name: transfer
description: "Moves money: debit, then credit"
deadline: 30s
compensation_order: LIFO
onFailure: CANCEL
steps:
  - name: risk
    kind: READ_ONLY
    action: { participant: risk, method: bank.risk.v1.RiskService/Check, request: { amount: "${input.amount}" } }
  - name: debit
    depends_on: [risk]
    in_doubt: IN_DOUBT_RESEND
    action: &ledger
      participant: ledger
      method: bank.ledger.v1.LedgerService/Debit
      timeout: 500ms
      retry: { initial_backoff: 50ms, attempts_max: 3 }
      request:
        account: "${input.from}"
        units: 12
        fee: 0.25
        flags: [true, ~, "007"]
    compensation: *ledger
"#;

/// The faults of a text that is no definition, as the user reads them.
fn faults(text: &str) -> Vec<String> {
    match definition("t.yaml", text) {
        Ok((definition, _)) => panic!("this is a definition: {definition:?}"),
        Err(CliError::Faults { faults, .. }) => faults.iter().map(ToString::to_string).collect(),
        Err(other) => panic!("{}", other.render(Paint::OFF)),
    }
}

fn understood(text: &str) -> v1::Definition {
    match definition("t.yaml", text) {
        Ok((definition, _)) => definition,
        Err(error) => panic!("{}", error.render(Paint::OFF)),
    }
}

#[test]
fn a_file_may_say_things_shorter_than_the_json_mapping() {
    let transfer = understood(TRANSFER);
    assert_eq!(transfer.compensation_order(), CompensationOrder::Lifo);
    assert_eq!(transfer.on_failure(), OnFailure::Cancel);
    assert_eq!(transfer.deadline, Some(prost_types::Duration { seconds: 30, nanos: 0 }));
    let [risk, debit] = transfer.steps.as_slice() else { panic!("two steps") };
    assert_eq!(risk.kind(), StepKind::ReadOnly);
    assert_eq!((debit.kind(), debit.in_doubt()), (StepKind::Unspecified, InDoubt::Resend));
    assert_eq!(debit.depends_on, ["risk"]);
    let action = debit.action.as_ref().unwrap();
    assert_eq!(action.timeout, Some(prost_types::Duration { seconds: 0, nanos: 500_000_000 }));
    assert_eq!(action.retry.as_ref().unwrap().attempts_max, 3);
    assert_eq!(
        json::of_struct(action.request.as_ref().unwrap()).to_string(),
        r#"{"account":"${input.from}","fee":0.25,"flags":[true,null,"007"],"units":12}"#
    );
    assert_eq!(debit.compensation, debit.action, "an alias repeats its value");
}

#[test]
fn a_json_file_is_a_file_too() {
    let compact = r#"{"name":"transfer","compensationOrder":"COMPENSATION_ORDER_LIFO","steps":[{"name":"debit","kind":"PIVOT","action":{"timeout":"2s","request":{"amount":"1050"}}}]}"#;
    let pretty =
        serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(compact).unwrap()).unwrap();
    let with_tabs = pretty.replace("  ", "\t");
    assert!(with_tabs.contains("\n\t\""), "this is indented with tabs");
    let definition = understood(compact);
    assert_eq!(definition.steps[0].kind(), StepKind::Pivot);
    assert_eq!(understood(&pretty), definition);
    assert_eq!(understood(&with_tabs), definition);
}

#[test]
fn json_may_escape_a_character_in_two_halves() {
    let definition = understood(r#"{"name": "a", "description": "\ud83d\ude00 \u00fc \\ud83d\\ude00 \/"}"#);
    assert_eq!(definition.description, "\u{1f600} ü \\ud83d\\ude00 /");
    assert!(faults(r#"{"name": "\ud83d"}"#)[0].contains("this is not YAML"));
}

#[test]
fn all_faults_of_shape_are_told_at_once_with_line_and_path() {
    let text = "\
name: 7
stepz: []
steps:
  - name: debit
    kind: pivot
    dependsOn: risk
    depends_on: [a, 3]
    action:
      participent: ledger
      timeout: 5
      retry: {attempts_max: -1}
      request: [1]
  - just a text
";
    assert_eq!(
        faults(text),
        [
            "1:7  name: here goes a text, not a number: put it in quotes",
            "2:1  stepz: a Definition has no such field; did you mean steps?",
            "5:11  steps[0].kind: there is no pivot; here goes COMPENSATABLE or READ_ONLY or PIVOT or RETRIABLE",
            "6:16  steps[0].dependsOn: here goes a list, not a text",
            "7:5  steps[0].depends_on: the field is here a second time; the first is in line 6",
            "7:21  steps[0].depends_on[1]: here goes a text, not a number: put it in quotes",
            "9:7  steps[0].action.participent: a Call has no such field; did you mean participant?",
            "10:16  steps[0].action.timeout: here goes a duration with its unit, such as 50ms or 2s",
            "11:29  steps[0].action.retry.attempts_max: -1 is not within 0 and 4294967295",
            "12:16  steps[0].action.request: here goes a mapping, not a list",
            "13:5  steps[1]: here go the fields of a Step, not a text",
        ]
    );
}

#[test]
fn a_field_unlike_any_other_lists_what_there_is() {
    assert_eq!(
        faults("name: a\nretries: 3"),
        ["2:1  retries: a Definition has no such field; it has name, revision, description, error_domain, \
         deadline, compensation_order, on_failure, steps, create_time"]
    );
}

#[test]
fn a_number_that_a_double_would_change_is_refused_before_it_is_sent() {
    let with = |number: &str| format!("steps:\n- action:\n    request: {{amount: {number}}}\n");
    for kept in ["0", "-7", "9007199254740991", "0.1", "10.50", "1e3", "123456789012.345", "1.0"] {
        understood(&with(kept));
    }
    for (lost, why) in [
        ("9007199254740992", "beyond 2^53"),
        ("-9007199254740993", "beyond 2^53"),
        ("123456789012345678901234567890123456789012", "beyond 2^53"),
        ("1e20", "beyond 2^53"),
        ("1e999", "beyond 2^53"),
        ("0.1234567890123456", "more than the 15 digits"),
        ("0123", "lose its leading zeros"),
        ("0x1F", "not written in decimal"),
        (".nan", "no number that JSON can say"),
    ] {
        let told = faults(&with(lost));
        assert_eq!(told.len(), 1, "{lost}");
        assert!(told[0].starts_with("3:23  steps[0].action.request.amount: "), "{told:?}");
        assert!(told[0].contains(why), "{told:?}");
    }
    understood(&with("\"9007199254740993\""));
    understood(&with("!!str 9007199254740993"));
}

#[test]
fn yes_no_and_dates_are_texts_as_yaml_1_2_has_them() {
    let definition = understood("name: no\ndescription: 2026-11-23\nerror_domain: on\n");
    assert_eq!(
        [definition.name, definition.description, definition.error_domain],
        ["no", "2026-11-23", "on"]
    );
}

#[test]
fn a_key_that_is_there_twice_is_a_fault_and_names_the_first() {
    assert_eq!(
        faults("name: a\nsteps: []\nname: b\n"),
        ["3:1  name: the key is here a second time; the first is in line 1"]
    );
    assert_eq!(
        faults("steps:\n- action:\n    request:\n      a: 1\n      a: 2\n"),
        ["5:7  steps[0].action.request.a: the key is here a second time; the first is in line 4"]
    );
}

#[test]
fn what_is_no_single_yaml_document_is_told_with_its_line() {
    assert_eq!(faults("name: a\n---\nname: b\n"), ["2:1  a second document begins: one file, one document"]);
    assert_eq!(faults(""), ["1:1  it is empty"]);
    assert_eq!(faults("# only a comment\n"), ["1:1  it is empty"]);
    assert_eq!(faults("- a"), ["1:1  here go the fields of a Definition, not a list"]);
    let tab = faults("name: a\nsteps:\n\t- name: b\n");
    assert!(tab[0].starts_with("3:") && tab[0].ends_with("indent with spaces, not with tabs"), "{tab:?}");
    let open = faults("name: \"a\nsteps: []\n");
    assert!(open[0].contains("this is not YAML"), "{open:?}");
    assert!(faults("<<: {name: a}\n")[0].contains("merge keys are not part of YAML 1.2"));
    assert_eq!(faults("name: !secret a\n"), ["1:7  name: the tag !secret means nothing here"]);
    assert_eq!(faults("? [a]\n: b\n"), ["1:3  a key must be a plain name"]);
}

#[test]
fn a_bomb_of_anchors_is_defused() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..10 {
        let inner = level - 1;
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![format!("*a{inner}"); 10].join(", "));
    }
    let told = faults(&bomb);
    assert_eq!(told.len(), 1);
    assert!(told[0].contains(&format!("more than {NODES_MAX} values")), "{told:?}");
    let told = faults("name: &a [*a]\n");
    assert!(told[0].contains("refers to the value that it stands in"), "{told:?}");
}

#[test]
fn nesting_is_bounded_well_within_what_protobuf_bears() {
    let nested = |levels: usize| {
        let request = "[".repeat(levels) + &"]".repeat(levels);
        format!("steps: [{{action: {{request: {{a: {request}}}}}}}]")
    };
    // Definition, steps, step, action and request are five levels, and the innermost list a sixth.
    understood(&nested(DEPTH_MAX - 4));
    let told = faults(&nested(DEPTH_MAX - 3));
    assert!(told[0].contains("nested deeper"), "{told:?}");
}

#[test]
fn a_server_fault_finds_its_line_or_the_nearest_parent() {
    let (_, source) = definition("transfer.yaml", TRANSFER).unwrap();
    let place = |path| {
        let Position { line, column } = source.place(path).unwrap();
        (line, column)
    };
    assert_eq!(place("steps[1].depends_on[0]"), (12, 18));
    assert_eq!(place("steps[1].action.request.account"), (20, 18));
    assert_eq!(place("steps[1].action.request.flags[2]"), (23, 26));
    assert_eq!(place("steps[1].query.method"), (11, 5), "there is no query: the step");
    assert_eq!(place("steps[9].name"), (7, 1), "there is no such step: the steps");
    assert_eq!(place("on_failure"), (6, 12), "the file says onFailure");
    assert_eq!(place(""), (2, 1));
    assert_eq!(place("definition.steps[0].kind"), (9, 11), "a path from the request's root");
    assert_eq!(source.place("descriptors"), None, "that is not in the file");
    let (_, dotted) = input("i", "a: {x: 1}\na.b: {c: 2}\n").unwrap();
    assert_eq!(dotted.place("input.a.b.c"), Some(Position { line: 2, column: 10 }), "the longest key wins");
    assert_eq!(dotted.place("labels"), None, "that is not in the input");
}

#[test]
fn what_is_shown_can_be_registered_again() {
    let mut transfer = understood(TRANSFER);
    transfer.description = "two\nlines, \"quoted\": # and \u{9b} odd 转账 \u{1f600}".to_owned();
    transfer.steps[1].query = Some(v1::Call::default());
    transfer.steps.push(v1::Step::default());
    let odd = input(
        "i",
        r#"{"null": "null", "": "", "a: b": "- x", "n": -1.5, "e": {}, "l": [], "k": [[1], {"y": "no"}]}"#,
    );
    transfer.steps[0].action.as_mut().unwrap().request = Some(odd.unwrap().0);
    let yaml = write_definition(&v1::Definition { revision: 3, ..transfer.clone() }).unwrap();
    assert_eq!(understood(&yaml), transfer, "{yaml}");
    assert!(yaml.contains("\n  - name: debit\n    depends_on: [risk]\n"), "{yaml}");
    assert!(yaml.contains("kind: READ_ONLY"), "{yaml}");
    assert!(!yaml.contains("revision"), "what only the server says is left out");
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let endless = std::io::repeat(b'a');
    let told = bounded("big.yaml", endless).unwrap_err().render(Paint::OFF);
    assert!(told.contains("big.yaml cannot be read: it is larger than"), "{told}");
}

#[test]
fn an_anchor_within_an_anchor_neither_digs_a_hole_nor_repeats_a_long_text() {
    let mut deep = String::from("a0: &a0 [[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]\n");
    for level in 1..3_000 {
        deep.push_str(&format!("a{level}: &a{level} [[[[[[[[[[[[[[*a{}]]]]]]]]]]]]]]\n", level - 1));
    }
    assert!(input("deep.yaml", &deep).is_err_and(|e| e.render(Paint::OFF).contains("nested deeper than 32")));
    let long = format!("a: &a \"{}\"\nb: [{}]\n", "x".repeat(100_000), "*a, ".repeat(1_000));
    assert!(
        input("long.yaml", &long).is_err_and(|e| e.render(Paint::OFF).contains("anchors hold more than"))
    );
    let modest = format!("a: &a {{ b: [[[1]]] }}\nc: [{}]\n", "*a, ".repeat(1_000));
    assert!(input("modest.yaml", &modest).is_ok());
}
