//! What is too much is given up, at registration or while rendering, and never overflows.

use super::*;
use std::sync::Arc;

#[test]
fn deeply_nested_input_is_rendered_as_far_as_a_request_can_be_read_and_never_overflows() {
    let nested = |levels: usize| {
        (0..levels).fold(
            json!(1),
            |inner, level| {
                if level % 2 == 0 { json!([inner]) } else { json!({"a": inner}) }
            },
        )
    };
    let of =
        |levels| render(&json!({"anything": "${input.deep}"}), &json!({"deep": nested(levels)}), &json!({}));
    assert!(DynamicMessage::decode(message_type("bank.v1.Request"), of(31).unwrap()).is_ok());
    assert_eq!(
        of(32).unwrap_err().rsplit(": ").next().unwrap(),
        "the value is nested deeper than 64 messages"
    );
    let deep = nested(120);
    assert!(of(120).is_err());
    let mut deeper = deep.to_string();
    deeper = format!("{}{deeper}{}", "[".repeat(200), "]".repeat(200));
    let spec = transfer(&json!({"anything": "${input}"}));
    let mut saga = saga(&spec, &json!({}), &[("debit", Bytes::new())]);
    let mut started = (*saga.started).clone();
    started.input = deeper.into();
    saga.started = Arc::new(started);
    assert_eq!(
        template(&plan(&spec), 1, Phase::Action).render(&saga, 1, BYTES_MAX).unwrap_err(),
        "the saga's input is not JSON"
    );
}

#[test]
fn a_rendering_that_is_too_large_or_too_long_is_given_up() {
    let text = {
        let spec = transfer(&json!({"account": "${input.text}"}));
        let saga = saga(&spec, &json!({"text": "x".repeat(2000)}), &[("debit", Bytes::new())]);
        template(&plan(&spec), 1, Phase::Action).render(&saga, 1, 1000).unwrap_err()
    };
    assert_eq!(text, "the request has 2003 bytes; the limit is 1000");
    let list: Vec<u32> = (0..10_000).collect();
    for slow in [
        "input.l.map(x, input.l.map(y, x * y))",
        "input.l.map(x, size(input.l.filter(y, y == x)))",
        "input.l.exists(x, input.l.all(y, x == y + 1))",
        "input.l.map(x, input.l + input.l)",
        "input.l.map(x, x in input.l)",
        "input.l.map(x, input.l == input.l)",
    ] {
        let text = refused(&json!({"anything": format!("${{{slow}}}")}), &json!({"l": list}), &json!({}));
        assert!(text.contains("more than 200000 steps"), "{slow}: {text}");
    }
    let doubling = "input.s + input.s".replace("input.s", &["input.s"; 30].join(" + "));
    let input = json!({"s": "x".repeat(1 << 20)});
    let text = refused(&json!({"account": format!("${{{doubling}}}")}), &input, &json!({}));
    assert!(text.contains("more than 200000 steps"), "{text}");
}

#[test]
fn deep_nesting_is_a_fault_and_not_an_overflow() {
    for deep in [
        "1".to_owned() + &" + 1".repeat(1000),
        "(".repeat(1000) + "1" + &")".repeat(1000),
        "[".repeat(1000) + &"]".repeat(1000),
        "size(-".repeat(500) + "1" + &")".repeat(500),
        "input".to_owned() + &".a".repeat(1000),
        "input".to_owned() + &"[0]".repeat(1000),
        "true ? ".repeat(300) + "1" + &" : 2".repeat(300),
        "size(".repeat(600) + "''" + &")".repeat(600),
    ] {
        let text = fault(&json!({"anything": format!("${{{deep}}}")}));
        assert!(text.contains("nested deeper") || text.contains("does not parse"), "{text}");
    }
    let mut json = json!(1);
    for _ in 0..100 {
        json = json!([json]);
    }
    assert!(fault(&json!({"anything": json})).contains("nested deeper than 32"));
}

#[test]
fn no_copy_and_no_conversion_is_free() {
    let input = json!({"l": (0..4_000).collect::<Vec<u32>>(), "s": "x".repeat(1 << 16), "t": "x".repeat(1 << 16),
        "o": {"k".repeat(1 << 16): 1}});
    let long = "y".repeat(1 << 16);
    let debit = json!({"extra": {"a": (0..20_000).collect::<Vec<u32>>()}, "currency": 1,
        "lines": [{"account": long}, {"account": long}], "token": "A".repeat(1 << 16)});
    for (field, bomb) in [
        // What comes out is a thousand times what went in.
        ("list", "input.l.map(x, input.s)"),
        ("list", "input.l.map(x, input.o)"),
        ("list", "input.l.map(x, steps.debit.response.token)"),
        ("lines", "input.l.map(x, steps.debit.response.lines[0])"),
        ("anything", "input.l.map(x, steps.debit.response)"),
        // What stands in between is.
        ("anything", "size(input.l.map(x, string(b'a' + bytes(input.s))))"),
        ("anything", "size([input.s + input.s].map(x, input.l.map(y, x + 'z')))"),
        ("list", "[input.s + input.s].map(x, input.l.map(y, [x]))"),
        ("anything", "size(input.l.map(x, input.o.map(k, k)))"),
        ("anything", "size(input.l.map(x, {input.s: x}))"),
        // Nothing is kept, but every one of these takes as long as what it looks at.
        ("anything", "size(input.l.filter(x, input.s == input.t))"),
        ("anything", "size(input.l.filter(x, input.s < input.t))"),
        ("anything", "size(input.l.filter(x, input.s in input.o))"),
        ("anything", "size(input.l.filter(x, size(steps.debit.response.extra) == 7))"),
        (
            "anything",
            "size(input.l.filter(x, steps.debit.response.lines[0] == steps.debit.response.lines[1]))",
        ),
        ("anything", "size(input.l.filter(x, string(steps.debit.response.token) == ''))"),
    ] {
        let rendered = render(&json!({field: format!("${{{bomb}}}")}), &input, &debit);
        let text = rendered.map(|bytes| format!("{} bytes", bytes.len())).unwrap_or_else(|text| text);
        assert!(text.contains("more than 200000 steps"), "{bomb}: {text}");
    }
}
