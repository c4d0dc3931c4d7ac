//! What requests are rendered to.

use super::*;
use crate::participants::fixture::cause;
use crate::participants::template::encode;
use backstop_core::{Cause, CauseKind, Saga};
use std::sync::Arc;

#[test]
fn a_request_of_plain_json_is_the_message_that_the_json_mapping_makes_of_it() {
    let request = json!({
        "amount_minor": "9223372036854775807", "serial": "18446744073709551615", "small": -5, "rate": 0.5,
        "ratio": 2, "urgent": true, "account": "A-7", "token": "AQID", "currency": "CURRENCY_EUR",
        "money": {"currency": "EUR", "minor": "12"}, "lines": [{"account": "x"}, {"amountMinor": 3}],
        "numbers": [1, 2, 3], "totals": {"b": "2", "a": 1}, "by_day": {"2": {"account": "y"}},
        "iban": "DE02", "extra": {"k": [1, null, {"n": "x"}]}, "anything": null, "at": "2026-11-23T01:02:03Z",
        "within": "1.500s", "limit": "77", "maybe": 0, "zigzag": -3, "fixed": "4", "sfixed": -9, "count": 8,
        "currencies": ["CURRENCY_CNY", 1], "list": [true, "t"]
    });
    let mut expected = json!(null);
    let direct = message("bank.v1.Request", &request);
    expected.clone_from(&serde_json::to_value(&direct).unwrap());
    assert_eq!(shown(&request, &json!({}), &json!({})), expected);
    // And the bytes are those that the library would write, had it no maps.
    let mut without_maps = request.clone();
    for map in ["totals", "by_day", "extra"] {
        without_maps.as_object_mut().unwrap().remove(map);
    }
    let bytes = render(&without_maps, &json!({}), &json!({})).unwrap();
    assert_eq!(bytes, message("bank.v1.Request", &without_maps).encode_to_vec());
}

#[test]
fn a_whole_expression_keeps_its_type_and_integers_stay_exact() {
    let request = json!({
        "amount_minor": "${steps.debit.response.balance_minor}",
        "serial": "${steps.debit.response.serial}",
        "urgent": "${steps.debit.response.done}",
        "token": "${steps.debit.response.token}",
        "currency": "${steps.debit.response.currency}",
        "money": "${steps.debit.response.money}",
        "lines": "${steps.debit.response.lines}",
        "totals": "${steps.debit.response.totals}",
        "at": "${steps.debit.response.at}",
        "extra": "${steps.debit.response.extra}",
        "limit": "${steps.debit.response.limit}",
        "rate": "${steps.debit.response.rate}",
    });
    let debit = json!({
        "balanceMinor": "9007199254740993", "serial": "18446744073709551615", "done": true, "token": "/+8=",
        "currency": "CURRENCY_CNY", "money": {"currency": "CNY", "minor": "9007199254740995"},
        "lines": [{"account": "a", "amountMinor": "9007199254740997"}], "totals": {"x": "9007199254740999"},
        "at": "2026-11-23T01:02:03.000000004Z", "extra": {"a": [1.5, "b"]}, "limit": "9007199254741001",
        "rate": 0.1
    });
    let mut expected = debit.clone();
    let fields = expected.as_object_mut().unwrap();
    for (from, to) in [("balanceMinor", "amountMinor"), ("done", "urgent")] {
        let value = fields.remove(from).unwrap();
        fields.insert(to.to_owned(), value);
    }
    assert_eq!(shown(&request, &json!({}), &debit), expected);
}

#[test]
fn input_goes_where_the_json_mapping_would_put_it() {
    let request = json!({
        "amount_minor": "${input.amount}", "small": "${input.small}", "account": "${input.to.account}",
        "money": "${input.money}", "numbers": "${input.numbers}", "totals": "${input.totals}",
        "token": "${input.token}", "anything": "${input}", "currency": "${input.currency}", "at": "${input.at}",
        "by_day": "${input.by_day}", "lines": "${input.lines}"
    });
    let input = json!({
        "amount": "9007199254740993", "small": 5.0, "to": {"account": "B"}, "money": {"minor": "3", "currency": "EUR"},
        "numbers": [1, "2"], "totals": {"a": "1"}, "token": "AQI", "currency": 1, "at": "2026-11-23T01:02:03Z",
        "by_day": {"-3": {"account": "z"}}, "lines": [{"amount_minor": 2}]
    });
    let shown = shown(&request, &input, &json!({}));
    assert_eq!(shown["amountMinor"], "9007199254740993");
    assert_eq!(shown["small"], 5);
    assert_eq!(shown["money"], json!({"minor": "3", "currency": "EUR"}));
    assert_eq!(shown["numbers"], json!([1, 2]));
    assert_eq!(shown["token"], "AQI=");
    assert_eq!(shown["currency"], "CURRENCY_EUR");
    assert_eq!(shown["byDay"], json!({"-3": {"account": "z"}}));
    assert_eq!(shown["lines"], json!([{"amountMinor": "2"}]));
    assert_eq!(shown["anything"]["to"], json!({"account": "B"}));
}

#[test]
fn expressions_within_a_text_are_put_into_it() {
    let request = json!({
        "account": "${saga.definition}@${saga.revision}/${input.n}/$${x}/${steps.debit.response.done}",
        "amount_minor": "${input.n}00",
        "extra": {"note": "for ${input.name}", "whole": "${input.n}", "list": ["${saga.id}", 7]},
    });
    let shown = shown(&request, &json!({"n": 42, "name": "Ann"}), &json!({}));
    assert_eq!(shown["account"], "transfer@3/42/${x}/false");
    assert_eq!(shown["amountMinor"], "4200");
    assert_eq!(shown["extra"], json!({"note": "for Ann", "whole": 42.0, "list": ["pay/7", 7.0]}));
}

#[test]
fn cel_computes_what_its_definition_says() {
    for (expression, expected) in [
        ("1 + 2 * 3 - 7 / 2 % 2", json!(6)),
        ("'a' + 'b' == 'ab' ? 1 : 2", json!(1)),
        ("input.n >= 2 && input.n < 2.5", json!(true)),
        ("input.missing == 1 || true", json!(true)),
        ("false && input.missing == 1", json!(false)),
        ("has(input.missing)", json!(false)),
        ("has(input.n) && !has(input.o.p)", json!(true)),
        ("input.list.map(x, x * 2)", json!([2, 4, 6])),
        ("input.list.map(x, x > 1, x * 2)", json!([4, 6])),
        ("input.list.filter(x, x != 2)", json!([1, 3])),
        ("input.list.exists(x, x == 2)", json!(true)),
        ("input.list.exists_one(x, x > 2)", json!(true)),
        ("input.list.all(x, x > 1)", json!(false)),
        ("input.list.exists(x, 6 / (x - 1) == 6)", json!(true)),
        ("input.list.map(x, input.list.map(y, x * y))[1][2]", json!(6)),
        ("input.o.map(k, k)", json!(["a", "b", "c"])),
        ("2 in input.list && 'a' in input.o && !(7 in input.list)", json!(true)),
        ("input.o['b'] + input.list[0]", json!(3)),
        ("size('héé') + size(input.list) + input.o.size()", json!(9)),
        ("'transfer'.startsWith('tr') && 'transfer'.contains('sf') && 'x'.endsWith('')", json!(true)),
        ("int('42') + int(uint(1)) + int(2.9)", json!(45)),
        ("string(9223372036854775807)", json!("9223372036854775807")),
        ("double('1.5') + 1.5", json!(3)),
        ("bool('true') && dyn_free", json!(null)),
        ("1u == 1 && 1.0 == 1u && [1, {'a': 2u}] == [1.0, {'a': 2}]", json!(true)),
        ("-input.n", json!(-2)),
        ("{'x': input.n, 'y': [null]}", json!({"x": 2, "y": [null]})),
        ("input.o == {'c': 3, 'a': 1, 'b': 2}", json!(true)),
        ("null == input.nothing", json!(true)),
        ("steps.debit.response.lines.filter(l, l.amount_minor > 1).map(l, l.account)", json!(["b"])),
        ("steps.debit.response.money.minor", json!(0)),
        ("has(steps.debit.response.money)", json!(false)),
        ("steps.debit.response.at == null && steps.debit.response.limit == null", json!(true)),
        ("string(b'abc') + string(bytes('d'))", json!("abcd")),
    ] {
        if expression.contains("dyn_free") {
            assert!(
                fault(&json!({"anything": format!("${{{expression}}}")}))
                    .contains("no variable \"dyn_free\"")
            );
            continue;
        }
        let input = json!({"n": 2, "list": [1, 2, 3], "o": {"c": 3, "a": 1, "b": 2}, "nothing": null});
        let debit =
            json!({"lines": [{"account": "a", "amountMinor": "1"}, {"account": "b", "amountMinor": "2"}]});
        let shown = shown(&json!({"list": [format!("${{{expression}}}")]}), &input, &debit);
        let same = |a: &Json, b: &Json| match (a.as_f64(), b.as_f64()) {
            (Some(a), Some(b)) => a == b,
            _ => serde_json::from_str::<Json>(&a.to_string().replace(".0", "")).unwrap() == *b,
        };
        assert!(same(&shown["list"][0], &expected), "{expression}: {}", shown["list"][0]);
    }
}

#[test]
fn peer_15_what_goes_wrong_while_rendering_names_the_field_and_never_a_value() {
    let secret = "4929123456781234";
    let input = json!({"pan": secret, "n": 5, "big": 3_000_000_000_u32, "half": 2.5, "nil": null,
        "lines": [{"amount_minor": "1"}, {"amount_minor": secret.repeat(2)}], secret: 1});
    for (request, expected) in [
        (json!({"amount_minor": "${input.missing}"}), "request.amount_minor: there is no \"missing\""),
        (json!({"small": "${input.big}"}), "request.small: the number does not fit int32"),
        (json!({"amount_minor": "${input.half}"}), "request.amount_minor: a double cannot go into int64"),
        (json!({"serial": "${-input.n}"}), "request.serial: the number does not fit uint64"),
        (json!({"amount_minor": "${input.nil}"}), "request.amount_minor: null cannot go into int64"),
        (json!({"urgent": "${input.pan}"}), "request.urgent: a string cannot go into bool"),
        (json!({"lines": "${input.lines}"}), "request.lines[1].amount_minor: a string cannot go into int64"),
        (json!({"lines": [{"account": "x"}, {"account": "${input.n}"}]}), "request.lines[1].account: an int"),
        (json!({"totals": "${input.lines}"}), "request.totals: a list cannot go into map<string, int64>"),
        (json!({"money": "${input}"}), "request.money"),
        (json!({"currency": "${input.pan}"}), "request.currency: bank.v1.Currency has no value of that name"),
        (json!({"token": "${input.pan + '!'}"}), "request.token: the text is not base64"),
        (json!({"at": "${input.pan}"}), "request.at: the text is no RFC 3339 time"),
        (json!({"account": "x${input.lines}"}), "request.account: a list cannot be put into a text"),
        (json!({"amount_minor": "${input.n / (input.n - 5)}"}), "request.amount_minor: division by zero"),
        (
            json!({"amount_minor": "${input.n * 9223372036854775807}"}),
            "request.amount_minor: the result does not fit",
        ),
        (
            json!({"amount_minor": "${int(input.pan + 'x')}"}),
            "request.amount_minor: a string cannot be made into an int",
        ),
        (json!({"totals": {"a": "${input.pan + 'z'}"}}), "request.totals.a: a string cannot go into int64"),
        (json!({"extra": {"a": ["${input.nope.x}"]}}), "request.extra.a[0]: there is no \"nope\""),
        (json!({"numbers": "${[1, input.nil]}"}), "request.numbers[1]: null cannot go into int32"),
    ] {
        let text = refused(&request, &input, &json!({}));
        // The name of a key is part of a path; here the key itself is the secret.
        let told = text.replace(&format!("[\"{secret}\"]"), "").replace(&format!(".{secret}"), "");
        assert!(text.starts_with(expected), "{text}");
        assert!(!told.contains(secret), "{text}");
    }
}

#[test]
fn a_null_leaves_unset_what_can_be_unset() {
    let request = json!({"maybe": "${input.nil}", "money": "${input.nil}", "limit": "${input.nil}",
        "iban": "${input.nil}", "account": null, "anything": "${input.nil}"});
    assert_eq!(shown(&request, &json!({"nil": null}), &json!({})), json!({"anything": null}));
    let set = json!({"maybe": "${input.zero}", "limit": "${input.zero}"});
    assert_eq!(shown(&set, &json!({"zero": 0}), &json!({})), json!({"maybe": "0", "limit": "0"}));
}

#[test]
fn a_compensation_reads_its_own_response_and_the_cause() {
    let mut spec = transfer(&json!({}));
    let request = json!({"account": "${response.entry_id}", "amount_minor": "${response.balance_minor}",
        "iban": "${cause.fin_code} ${cause.grpc_code} ${cause.tier} ${cause.step}: ${cause.message}"});
    spec.steps[0].compensation = Some(fixture::call("Undo", &request.to_string()));
    let plan = plan(&spec);
    let mut saga =
        saga(&spec, &json!({}), &[("debit", reply(&json!({"entryId": "e-9", "balanceMinor": "-4"})))]);
    saga.cause = Some(Arc::new(cause("credit", "account closed")));
    let render = |saga: &Saga| {
        let bytes = template(&plan, 0, Phase::Compensation).render(saga, 0, BYTES_MAX)?;
        Ok::<_, String>(
            serde_json::to_value(DynamicMessage::decode(message_type("bank.v1.Request"), bytes).unwrap())
                .unwrap(),
        )
    };
    assert_eq!(
        render(&saga).unwrap(),
        json!({"account": "e-9", "amountMinor": "-4",
            "iban": "FIN-40005 FAILED_PRECONDITION L3 credit: account closed"})
    );
    let kind = CauseKind::Cancelled { by: "ops".into(), reason: "duplicate".into() };
    saga.cause = Some(Arc::new(Cause { kind, failure: None }));
    assert_eq!(render(&saga).unwrap()["iban"], "   : duplicate");
}

#[test]
fn a_response_that_never_came_is_null_so_that_nothing_is_undone_by_a_wrong_amount() {
    let careless = json!({"amount_minor": "${response.balance_minor}"});
    let careful = json!({"amount_minor": "${response == null ? input.amount : response.balance_minor}",
        "account": "${has(response.entry_id) ? response.entry_id : ''}"});
    let render = |request: &Json| {
        let mut spec = transfer(&json!({}));
        spec.steps[0].compensation = Some(fixture::call("Undo", &request.to_string()));
        let saga = saga(&spec, &json!({"amount": 5}), &[]);
        template(&plan(&spec), 0, Phase::Compensation).render(&saga, 0, BYTES_MAX)
    };
    let text = render(&careless).unwrap_err();
    assert!(text.starts_with("request.amount_minor: \"balance_minor\" of null"), "{text}");
    let expected = message("bank.v1.Request", &json!({"amountMinor": "5"})).encode_to_vec();
    assert_eq!(render(&careful).unwrap(), expected);
}

#[test]
fn the_same_saga_renders_to_the_same_bytes_in_whatever_order_its_maps_are_held() {
    let entries: serde_json::Map<String, Json> =
        (0..200).map(|n| (format!("k{n}"), json!(n.to_string()))).collect();
    let request = json!({"totals": "${input.m}", "extra": "${input.m}", "lines": "${input.m.map(k, {'account': k})}",
        "list": ["${steps.debit.response.totals}", "${steps.debit.response.totals.map(k, k)}"]});
    let (input, debit) = (json!({"m": entries}), json!({"totals": entries}));
    let first = render(&request, &input, &debit).unwrap();
    for _ in 0..20 {
        assert_eq!(render(&request, &input, &debit).unwrap(), first);
    }
    // A map within a message that is passed on whole.
    let encoded: std::collections::BTreeSet<_> =
        (0..20).map(|_| encode::message(&message("bank.v1.Reply", &debit))).collect();
    assert_eq!(encoded.len(), 1);
    let decoded =
        DynamicMessage::decode(message_type("bank.v1.Reply"), encoded.first().unwrap().as_slice()).unwrap();
    assert!(decoded == message("bank.v1.Reply", &debit), "and nothing is lost");
}

#[test]
fn unknown_fields_of_a_response_travel_on() {
    let spec = transfer(&json!({"money": "${steps.debit.response.money}"}));
    // Field 4 of Reply is money; within it field 9 is not known.
    let raw = Bytes::from_static(b"\x22\x04\x10\x07\x48\x05");
    let saga = saga(&spec, &json!({}), &[("debit", raw)]);
    let bytes = template(&plan(&spec), 1, Phase::Action).render(&saga, 1, BYTES_MAX).unwrap();
    assert_eq!(bytes, Bytes::from_static(b"\x52\x04\x10\x07\x48\x05"));
}

#[test]
fn an_action_without_a_request_takes_a_payload_and_other_calls_an_empty_message() {
    let definition = spec(vec![step("debit", &[], "")]);
    let plan = plan(&definition);
    assert!(matches!(plan.call(0, Phase::Action).unwrap().request, Source::Payload));
    assert!(plan.call(0, Phase::Query).is_none());
    let saga = saga(&definition, &json!({}), &[]);
    assert_eq!(template(&plan, 0, Phase::Compensation).render(&saga, 0, BYTES_MAX).unwrap(), Bytes::new());
    let names: Vec<&str> = crate::participants::payload_steps(&definition).collect();
    assert_eq!(names, ["debit"]);
}
