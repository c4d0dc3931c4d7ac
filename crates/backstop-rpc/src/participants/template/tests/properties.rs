//! Whatever a template and an input hold.

use super::*;
use crate::participants::fixture::cause;
use proptest::prelude::*;
use std::sync::Arc;

/// Strings that look like expressions more often than chance would have it.
fn expressions() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "input",
        ".a",
        ".b",
        "steps.debit.response",
        ".money",
        ".lines",
        ".totals",
        "saga",
        ".id",
        "cause",
        "response",
        "+",
        "-",
        "*",
        "/",
        "%",
        "==",
        "!=",
        "<",
        ">=",
        "&&",
        "||",
        "!",
        "?",
        ":",
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        "${",
        "$${",
        "}",
        "'a'",
        "\"b\"",
        "'",
        "1",
        "2u",
        "3.5",
        "null",
        "true",
        ".map(x, x)",
        ".filter(x, x > 1)",
        ".exists(y, y == x)",
        ".all(x, true)",
        "size(",
        "int(",
        "string(",
        "bytes(",
        "has(",
        "in",
        ",",
        " ",
        "x",
        "é",
        "\\",
        "b'\\xff'",
        "9223372036854775807",
        "-9223372036854775808",
        "0x",
        "1e400",
    ]);
    prop_oneof![
        prop::collection::vec(word, 0..12).prop_map(|words| words.join(" ").replace(" .", ".")),
        ".{0,40}",
    ]
}

fn json_with_expressions() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        Just(Json::Null),
        any::<bool>().prop_map(Json::from),
        any::<i64>().prop_map(Json::from),
        any::<f64>().prop_map(Json::from),
        expressions().prop_map(Json::from),
        expressions().prop_map(|text| Json::from(format!("${{{text}}}"))),
    ];
    let name = prop_oneof![
        prop::sample::select(vec![
            "amount_minor",
            "money",
            "minor",
            "lines",
            "numbers",
            "totals",
            "by_day",
            "iban",
            "wallet",
            "extra",
            "anything",
            "at",
            "within",
            "limit",
            "maybe",
            "any",
            "list",
            "token",
            "currency",
            "currencies",
            "a",
        ])
        .prop_map(str::to_owned),
        ".{0,8}",
    ];
    leaf.prop_recursive(4, 32, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Json::from),
            prop::collection::btree_map(name.clone(), inner, 0..6)
                .prop_map(|map| Json::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    #[test]
    fn no_template_and_no_input_makes_rendering_panic(request in json_with_expressions(), input in json_with_expressions()) {
        let mut spec = transfer(&request);
        spec.steps[1].compensation = Some(fixture::call("Undo", &request.to_string()));
        if let Ok(plan) = Plan::compile(&spec, &fixture::files().encode_to_vec()) {
            let mut saga = saga(&spec, &input, &[("debit", reply(&json!({"totals": {"a": 1}, "money": {}})))]);
            saga.cause = Some(Arc::new(cause("credit", "m")));
            for phase in [Phase::Action, Phase::Compensation] {
                if matches!(plan.call(1, phase).unwrap().request, Source::Payload) { continue }
                let once = template(&plan, 1, phase).render(&saga, 1, BYTES_MAX);
                prop_assert_eq!(&once, &template(&plan, 1, phase).render(&saga, 1, BYTES_MAX));
                if let Ok(bytes) = once {
                    prop_assert!(DynamicMessage::decode(message_type("bank.v1.Request"), bytes).is_ok());
                }
            }
        }
    }

    #[test]
    fn what_json_holds_arrives_through_an_expression_as_the_json_mapping_has_it(
        minor in any::<i64>(), serial in any::<u64>(), text in ".{0,20}", numbers in prop::collection::vec(any::<i32>(), 0..5),
    ) {
        let input = json!({"minor": minor, "as_text": minor.to_string(), "serial": serial, "text": text, "numbers": numbers});
        let request = json!({"amount_minor": "${input.minor}", "wallet": "${input.as_text}", "serial": "${input.serial}",
            "account": "${input.text}", "numbers": "${input.numbers}"});
        let direct = json!({"amount_minor": minor.to_string(), "wallet": minor.to_string(), "serial": serial.to_string(),
            "account": text, "numbers": numbers});
        prop_assert_eq!(render(&request, &input, &json!({})).unwrap(), message("bank.v1.Request", &direct).encode_to_vec());
    }
}
