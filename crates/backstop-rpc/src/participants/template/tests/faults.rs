//! What is refused at registration, with its path.

use super::*;

#[test]
fn faults_of_a_template_name_their_paths_and_come_all_at_once() {
    let request = json!({
        "amount": 1,
        "amount_minor": 9_007_199_254_740_992_u64,
        "small": "many",
        "rate": true,
        "urgent": "yes",
        "account": 5,
        "token": "***",
        "currency": "DOLLAR",
        "money": {"minor": [], "mayor": 1},
        "lines": [{"account": "x"}, {"acount": "y"}],
        "numbers": {"0": 1},
        "totals": {"a": "1", "b b": 1.5},
        "by_day": {"monday": {}},
        "iban": "a",
        "wallet": 1,
        "at": "noon",
        "within": 5,
        "any": {"@type": "x"},
        "extra": [1],
    });
    let paths: Vec<String> =
        faults(&request).iter().map(|fault| fault.split(": ").next().unwrap().to_owned()).collect();
    let expected = [
        "account",
        "amount",
        "amount_minor",
        "any",
        "at",
        "by_day.monday",
        "currency",
        "extra",
        "lines[1].acount",
        "money.mayor",
        "money.minor",
        "numbers",
        "rate",
        "small",
        "token",
        "totals[\"b b\"]",
        "urgent",
        "wallet",
        "within",
    ];
    let expected: Vec<String> =
        expected.iter().map(|path| format!("steps[1].action.request.{path}")).collect();
    assert_eq!(paths, expected);
}

#[test]
fn faults_of_expressions_say_what_is_wrong() {
    for (expression, expected) in [
        ("steps.debit.response.balance", "bank.v1.Reply has no field \"balance\""),
        ("steps.debit.response.money.minr", "bank.money.v1.Money has no field \"minr\""),
        ("steps.debit.respons", "of a step only its response can be read"),
        ("steps.debit", "of a step only its response can be read"),
        ("steps", "steps are read as steps.<name>.response"),
        ("steps.nobody.response.x", "there is no step \"nobody\""),
        ("steps.credit.response.entry_id", "step \"credit\" may not have succeeded by then"),
        ("inputs.x", "there is no variable \"inputs\""),
        ("response.entry_id", "\"response\" is there only in compensations"),
        ("cause.step", "\"cause\" is there only in compensations"),
        ("saga.state", "there is no \"state\" here; there are id, definition, revision"),
        ("now()", "there is no function \"now\""),
        ("timestamp('2026-01-01T00:00:00Z')", "there is no function \"timestamp\""),
        ("'a'.matches('b')", "there is no function \"matches\""),
        ("1 +", "the expression does not parse"),
        ("", "the expression does not parse"),
        ("'a' + 1", "a string and an int cannot be combined"),
        ("'a'.b", "a string has no field \"b\""),
        ("[1, 2].x", "a list has no field \"x\""),
        ("size()", "\"size\" is not called like this"),
        ("saga.id.map(x, x)", "a string has no elements"),
        ("[1].map(x, y)", "there is no variable \"y\""),
    ] {
        let text = fault(&json!({"anything": format!("${{{expression}}}")}));
        assert!(text.starts_with(&format!(".anything: {expected}")), "{expression}: {text}");
    }
    assert!(fault(&json!({"account": "a ${b"})).contains("has no closing"));
    let long = fault(&json!({"anything": format!("${{'{}'}}", "x".repeat(4096))}));
    assert!(long.contains("the limit is 4096"), "{long}");
}

#[test]
fn an_expression_of_a_known_type_that_cannot_go_into_the_field_is_a_fault() {
    for (field, expression, fits) in [
        ("amount_minor", "steps.debit.response.balance_minor", true),
        ("amount_minor", "steps.debit.response.entry_id", true),
        ("amount_minor", "steps.debit.response.rate", false),
        ("amount_minor", "1.0", false),
        ("amount_minor", "steps.debit.response.done", false),
        ("amount_minor", "steps.debit.response.money", false),
        ("amount_minor", "steps.debit.response.lines", false),
        ("amount_minor", "null", false),
        ("maybe", "null", true),
        ("account", "steps.debit.response.balance_minor", false),
        ("account", "string(steps.debit.response.balance_minor)", true),
        ("account", "saga.revision", false),
        ("account", "steps.debit.response.currency", true),
        ("currency", "steps.debit.response.currency", true),
        ("urgent", "steps.debit.response.entry_id", false),
        ("urgent", "steps.debit.response.balance_minor > 3", true),
        ("token", "steps.debit.response.token", true),
        ("token", "steps.debit.response.serial", false),
        ("money", "steps.debit.response.money", true),
        ("money", "steps.debit.response", false),
        ("lines", "steps.debit.response.lines", true),
        ("lines", "steps.debit.response.money", false),
        ("numbers", "steps.debit.response.lines", false),
        ("numbers", "[1, 2]", true),
        ("numbers", "['a', true]", true),
        ("numbers", "[true]", false),
        ("totals", "steps.debit.response.totals", true),
        ("by_day", "steps.debit.response.totals", false),
        ("extra", "steps.debit.response", true),
        ("extra", "steps.debit.response.lines", false),
        ("anything", "steps.debit.response.rate", true),
        ("at", "steps.debit.response.at", true),
        ("at", "steps.debit.response.serial", false),
        ("limit", "steps.debit.response.limit", true),
        ("limit", "steps.debit.response.done", false),
        ("rate", "steps.debit.response.balance_minor", true),
        ("amount_minor", "true ? 1 : 2", true),
        ("amount_minor", "true ? 1.0 : 2.0", false),
    ] {
        let request = json!({field: format!("${{{expression}}}")});
        let compiled = Plan::compile(&transfer(&request), &fixture::files().encode_to_vec());
        assert_eq!(compiled.is_ok(), fits, "{field}: {expression}: {:?}", compiled.err());
    }
}

#[test]
fn only_near_and_far_dependencies_can_be_read() {
    let read = |from: &str| format!(r#"{{"account": "${{steps.{from}.response.entry_id}}"}}"#);
    let steps = |reads: &str| {
        spec(vec![
            step("a", &[], "{}"),
            step("b", &["a"], "{}"),
            step("beside", &["a"], "{}"),
            step("c", &["b"], &read(reads)),
        ])
    };
    for (reads, allowed) in [("a", true), ("b", true), ("beside", false), ("c", false)] {
        assert_eq!(
            Plan::compile(&steps(reads), &fixture::files().encode_to_vec()).is_ok(),
            allowed,
            "{reads}"
        );
    }
}

#[test]
fn a_query_must_answer_what_the_action_answers_and_cannot_read_the_response() {
    let mut definition = transfer(&json!({}));
    definition.steps[0].query = Some(fixture::call("Find", r#"{"account": "${saga.id}"}"#));
    assert!(Plan::compile(&definition, &fixture::files().encode_to_vec()).is_ok());
    definition.steps[0].query = Some(fixture::call("Note", r#"{"account": "${response.entry_id}"}"#));
    let found = Plan::compile(&definition, &fixture::files().encode_to_vec()).err().unwrap();
    let paths: Vec<&str> = found.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(paths, ["steps[0].query.request.account", "steps[0].query.method"]);
}

#[test]
fn a_request_that_is_not_a_json_object_is_a_fault() {
    for text in ["[]", "5", "{", "{\"a\": }", "nonsense"] {
        let spec = spec(vec![step("debit", &[], text)]);
        let found = Plan::compile(&spec, &fixture::files().encode_to_vec()).err().unwrap();
        assert_eq!(found[0].path, "steps[0].action.request", "{text}");
    }
}
