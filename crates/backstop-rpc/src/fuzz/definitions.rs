//! RegisterDefinition: a definition and its descriptors, from the bytes to a plan that renders.

use super::requests::is_a_clear_refusal;
use crate::convert::definition::{spec, wire_spec};
use crate::participants::{GatherError, fuzz as inside};
use crate::services::definitions::each_once;
use backstop_core::{DefinitionSpec, Fault, ParticipantTraits, Revision, simulate, validate};
use backstop_fuzz::{Kind, Target};
use backstop_proto::v1;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Words of templates: strings of a definition are mostly these.
const WORDS: &[&str] = &[
    "${input.amount}",
    "${input}",
    "${steps.debit.response.entry_id}",
    "${saga.id}",
    "${cause.message}",
    "${response}",
    "bank.v1.Ledger/Debit",
    "bank.v1.Ledger/Undo",
    "bank.v1.Ledger/Watch",
    "ledger",
    "debit",
    "amount_minor",
    "extra",
];

#[test]
fn definition() {
    Target::new("definition", env!("CARGO_MANIFEST_DIR"), Kind::Protobuf).words(WORDS).run(250, |input| {
        let Ok(request) = v1::RegisterDefinitionRequest::decode(input) else { return };
        let Some(wire) = request.definition else { return };
        let mut faults = Vec::new();
        let read = spec(&wire, &mut faults);
        if faults.is_empty() {
            // Nothing is lost on the way there and back.
            let mut again = Vec::new();
            assert_eq!(spec(&wire_spec(&read), &mut again), read);
            assert_eq!(again, Vec::new());
        }
        let given = request.descriptors.unwrap_or_else(inside::bank_files);
        faults.extend(check(&read, given));
        if !faults.is_empty() {
            is_a_clear_refusal(&each_once(faults));
        }
    });
}

/// As registration does it; a definition that is accepted renders each of its calls, or says why not.
fn check(read: &DefinitionSpec, given: prost_types::FileDescriptorSet) -> Vec<Fault> {
    let mut faults = Vec::new();
    let descriptors = match inside::from_given(read, given) {
        Ok(bytes) => bytes,
        Err(GatherError::Faults { faults: more, found }) => {
            faults.extend(more);
            found
        }
        Err(GatherError::Unreachable { .. }) => panic!("nobody was asked"),
    };
    let mut traits = BTreeMap::new();
    simulate::assume_participants(read, &mut traits);
    let valid = validate(read, Revision(1), &traits, Arc::default());
    let _: &BTreeMap<_, ParticipantTraits> = &traits;
    let compiled = inside::compile(read, &descriptors);
    match (valid, compiled) {
        (Ok(valid), Ok(plan)) if faults.is_empty() => {
            inside::render_all(&plan, read);
            if valid.steps.len() <= 8 {
                let runs = simulate::simulate(&Arc::new(valid));
                assert!(runs.len() > read.steps.len());
            }
        }
        (valid, compiled) => {
            faults.extend(valid.err().unwrap_or_default());
            faults.extend(compiled.err().unwrap_or_default());
        }
    }
    faults
}

#[test]
fn descriptors() {
    let bank = inside::bank_definition();
    Target::new("descriptors", env!("CARGO_MANIFEST_DIR"), Kind::Protobuf).words(WORDS).run(400, |input| {
        let Ok(given) = prost_types::FileDescriptorSet::decode(input) else { return };
        let faults = check(&bank, given);
        if !faults.is_empty() {
            is_a_clear_refusal(&each_once(faults));
        }
    });
}

#[test]
fn a_chain_of_imports_as_long_as_a_request_is_refused_and_never_overflows() {
    let chain = |length: usize| prost_types::FileDescriptorSet {
        file: (0..length)
            .map(|n| prost_types::FileDescriptorProto {
                name: Some(format!("{n}")),
                dependency: if n == 0 { Vec::new() } else { vec![format!("{}", n - 1)] },
                ..Default::default()
            })
            .chain([prost_types::FileDescriptorProto {
                name: Some("top".to_owned()),
                dependency: vec![format!("{}", length - 1)],
                ..inside::bare_bank()
            }])
            .collect(),
    };
    let bank = inside::bank_definition();
    for (length, within) in [(1_500, true), (200_000, false)] {
        let given = chain(length);
        assert!(given.encoded_len() < 4 << 20, "it fits into a request");
        let bank = bank.clone();
        let on_a_runtimes_stack = std::thread::Builder::new().stack_size(2 << 20);
        let checked =
            on_a_runtimes_stack.spawn(move || inside::from_given(&bank, given)).unwrap().join().unwrap();
        match checked {
            Ok(found) => {
                let files = prost_types::FileDescriptorSet::decode(found).unwrap().file;
                assert!(within && files.len() == length + 1, "all of them, each behind its import");
                assert!(
                    files.iter().enumerate().all(|(n, file)| n == length || file.name() == n.to_string())
                );
            }
            Err(GatherError::Faults { faults, .. }) => {
                assert!(
                    !within && faults.iter().any(|f| f.description.contains("the limit is 2000")),
                    "{faults:?}"
                );
            }
            Err(GatherError::Unreachable { .. }) => panic!("nobody was asked"),
        }
    }
}

#[test]
fn a_mebibyte_of_the_same_fault_is_told_without_comparing_each_with_each() {
    let step = v1::Step { depends_on: vec![String::new(); 300_000], ..v1::Step::default() };
    let wire = v1::Definition { steps: vec![step], ..v1::Definition::default() };
    let mut faults = Vec::new();
    let read = spec(&wire, &mut faults);
    faults.extend(validate(&read, Revision(1), &BTreeMap::new(), Arc::default()).err().unwrap_or_default());
    assert!(
        faults.iter().any(|f| f.path == "steps[0].depends_on" && f.description.contains("300000")),
        "{faults:?}"
    );
    assert!(faults.len() < 1_000);
    let wire = v1::Definition { steps: vec![v1::Step::default(); 300_000], ..v1::Definition::default() };
    let mut faults = Vec::new();
    assert!(spec(&wire, &mut faults).steps.len() <= 256);
    assert!(
        faults.iter().any(|f| f.path == "steps" && f.description.contains("300000")),
        "{:?}",
        &faults[..3]
    );
    is_a_clear_refusal(&each_once(faults));
    let many =
        |n: usize| (0..n).map(|n| Fault::new(format!("a[{n}].action.method"), "x")).collect::<Vec<_>>();
    assert_eq!(each_once(many(100_000)).len(), 100_000);
}
