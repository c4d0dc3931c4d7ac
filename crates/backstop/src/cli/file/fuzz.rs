//! Files of definitions and inputs, and the paths by which a server finds fault with them.
#![allow(clippy::unwrap_used, clippy::panic)]

use super::*;
use crate::cli::out::Paint;
use crate::cli::text::parse_duration;
use backstop_fuzz::{Kind, Target};

const WORDS: &[&str] = &[
    "name: ",
    "steps:\n  - ",
    "kind: PIVOT",
    "deadline: 30s",
    "&a ",
    "*a",
    "<<: *a",
    "!!str ",
    "!!binary ",
    "? ",
    "| \n",
    ">-\n",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "~",
    ".inf",
    ".nan",
    "0x1F",
    "0o7",
    "1_000",
    "007",
    "+7",
    "'",
    "\"\\u0000\"",
    "\"\\ud83d\\ude00\"",
    "\\ud83d",
    "{ a: 1 }",
    "[ ",
    "}",
    "\t",
    "\r",
    "# ",
    "nullValue",
    "request: ",
    "\"${input.a}\"",
];

fn target(name: &'static str) -> Target {
    Target::new(name, env!("CARGO_MANIFEST_DIR"), Kind::Text).words(WORDS)
}

fn is_told(error: &CliError, text: &str) {
    if let CliError::Faults { faults, .. } = error {
        assert!(!faults.is_empty());
        for fault in faults {
            assert!(fault.at.line >= 1 && fault.at.column >= 1 && !fault.problem.is_empty(), "{fault:?}");
            assert!(fault.at.line <= text.split(['\n', '\r']).count() + 1, "{fault:?}");
        }
    }
    assert!(!error.render(Paint::OFF).is_empty());
}

#[test]
fn definition_file() {
    target("definition_file").run(1_500, |input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        match definition("f.yaml", text) {
            Ok((read, source)) => {
                // What is shown can be registered again.
                let shown = write_definition(&read).unwrap();
                let own = v1::Definition { revision: 0, create_time: None, ..read };
                let again = definition("shown.yaml", &shown);
                assert_eq!(
                    again.map(|(again, _)| again).map_err(|e| e.render(Paint::OFF)),
                    Ok(own),
                    "{shown}"
                );
                for path in text.lines().take(20) {
                    let place = source.place(path);
                    assert!(place.is_none_or(|at| at.line >= 1));
                }
            }
            Err(error) => is_told(&error, text),
        }
    });
}

#[test]
fn input_file() {
    target("input_file").run(1_500, |text| {
        let Ok(text) = std::str::from_utf8(text) else { return };
        match input("i.json", text) {
            // Nothing went in that the server would have to refuse as inexact or not finite.
            Ok((read, _)) => assert!(read.fields.values().all(is_exact), "{text}"),
            Err(error) => is_told(&error, text),
        }
        if let Ok(duration) = parse_duration(text) {
            assert!(crate::cli::text::to_wire(duration).seconds >= 0);
        }
    });
}

fn is_exact(value: &prost_types::Value) -> bool {
    use prost_types::value::Kind as Of;
    match &value.kind {
        Some(Of::NumberValue(number)) => {
            number.is_finite() && (number.fract() != 0.0 || number.abs() < 9_007_199_254_740_992.0)
        }
        Some(Of::StructValue(inner)) => inner.fields.values().all(is_exact),
        Some(Of::ListValue(list)) => list.values.iter().all(is_exact),
        None | Some(Of::NullValue(_) | Of::BoolValue(_) | Of::StringValue(_)) => true,
    }
}
