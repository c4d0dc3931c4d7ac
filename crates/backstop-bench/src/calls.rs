//! What a call costs beside the wire: requests from templates, metadata, and what is made of a refusal.

use crate::bank;
use crate::turns::Teller;
use crate::{Broken, Entry, Run, require};
use backstop_core::{
    Call, Code, DefinitionSpec, ErrorTable, Evidence, NoAnswer, NotSent, Outcome, Phase, Saga, effect, tier,
};
use backstop_rpc::participants::bench::{Refusal, Requests};
use serde_json::{Value as Json, json};
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;

pub(crate) const CASES: &[Entry] = &[
    (
        "template/small",
        "a request of six fields: the saga's id, four of the input, one of an earlier answer",
        || request(&small(), &input(), 130),
    ),
    ("template/note_4k", "the same with a text of 4 KiB in it", || {
        let mut input = input();
        input["note"] = "Rent for the flat in the old town, paid in advance. ".repeat(79).into();
        let mut request_of = small();
        request_of["note"] = "${input.note}".into();
        request(&request_of, &input, 4096)
    }),
    ("template/lines_4k", "4 KiB in 78 lines, each made by an expression", || {
        let line = |n: usize| json!({"account": format!("DE0212030000000020{n:04}"), "amount_minor": (1000 + n).to_string(), "memo": "salary of March 2025"});
        let mut input = input();
        input["lines"] = (0..78).map(line).collect();
        let mut request_of = small();
        request_of["lines"] = "${input.lines.map(l, {'account': l.account, 'amount_minor': l.amount_minor, 'reference': l.memo})}".into();
        request(&request_of, &input, 4000)
    }),
    ("template/compensation", "a request with the cause in a text", || {
        let spec = bank::three();
        let (saga, call) = compensation(&spec)?;
        rendered(&spec, saga, call, 60)
    }),
    ("metadata/action", "the metadata of an action's call", || {
        let teller = Teller::new(&bank::three(), None)?;
        let story = teller.begin()?;
        let call = story.picture.calls.first().copied().ok_or_else(|| Broken::new("nothing is called"))?;
        metadata_of(story.saga, call, 13)
    }),
    ("metadata/compensation", "the same of a compensation's, with the cause", || {
        let (saga, call) = compensation(&bank::three())?;
        metadata_of(saga, call, 14)
    }),
    ("status/table", "effect and FIN code of every evidence with every code", || {
        let evidence = every_evidence();
        require(evidence.len() == 28, "there is other evidence than there was")?;
        let table = ErrorTable::default();
        Ok(Box::new(move || {
            for evidence in black_box(&evidence) {
                black_box((effect(*evidence), tier(&table, evidence.code())));
            }
        }))
    }),
    ("status/plain", "a refusal with a message, from trailers to what the core is told", || {
        refusal(
            Refusal::plain(Code::Unavailable, "no connection to the books: 100% busy"),
            |outcome| matches!(outcome, Outcome::Failed { message, .. } if message.ends_with("100% busy")),
        )
    }),
    ("status/detailed", "the same with a reason and two fields at fault", || {
        let violations = [("account", "is closed since 2024-11-30"), ("amount_minor", "must be positive")];
        let refused =
            Refusal::detailed(Code::FailedPrecondition, "the account is closed", "FIN-40017", &violations);
        refusal(
            refused,
            |outcome| matches!(outcome, Outcome::Failed { details, .. } if details.field_violations.len() == 2),
        )
    }),
];

fn input() -> Json {
    json!({
        "from": "DE02120300000000202051", "to": "DE02500105170137075030", "amount_minor": "125000",
        "currency": "EUR", "reference": "invoice 2025-0117",
    })
}

fn small() -> Json {
    json!({
        "transfer_id": "${saga.id}", "account": "${input.from}", "amount_minor": "${input.amount_minor}",
        "currency": "${input.currency}", "reference": "${input.reference}",
        "earlier_entry_id": "${steps.check.response.entry_id}",
    })
}

/// The request of a step after one that has answered.
fn request(template: &Json, input: &Json, bytes_min: usize) -> Result<Run, Broken> {
    let check = bank::step("check", &[], "");
    let spec = bank::spec(vec![check, bank::step("debit", &["check"], &template.to_string())]);
    let teller = Teller::with_input(&spec, None, input)?;
    let mut story = teller.begin()?;
    story.round()?;
    let call = story.picture.calls.first().copied().ok_or_else(|| Broken::new("nothing is called"))?;
    rendered(&spec, story.saga, call, bytes_min)
}

fn rendered(spec: &DefinitionSpec, saga: Arc<Saga>, call: Call, bytes_min: usize) -> Result<Run, Broken> {
    let requests = Requests::compile(spec, &bank::descriptors()).map_err(Broken::by)?;
    let bytes = requests.render(&saga, &call).map_err(Broken::by)?.len();
    require((bytes_min..bytes_min * 2).contains(&bytes), &format!("the request has {bytes} bytes"))?;
    Ok(Box::new(move || {
        let _ = black_box(requests.render(black_box(&saga), &call));
    }))
}

/// A saga that rolls back, and the first call that undoes something.
fn compensation(spec: &DefinitionSpec) -> Result<(Arc<Saga>, Call), Broken> {
    let teller = Teller::new(spec, Some(2))?;
    let mut story = teller.begin()?;
    story.round()?;
    let mut calls = story.picture.calls.iter();
    let call = calls.find(|call| call.phase == Phase::Compensation).copied();
    Ok((story.saga, call.ok_or_else(|| Broken::new("nothing is undone"))?))
}

fn metadata_of(saga: Arc<Saga>, call: Call, count: usize) -> Result<Run, Broken> {
    let left = Duration::from_millis(1999);
    let requests = Requests::compile(&bank::three(), &bank::descriptors()).map_err(Broken::by)?;
    let headers = requests.metadata(&saga, &call, left).unwrap_or_default();
    require(headers.len() == count, &format!("there are {} headers", headers.len()))?;
    Ok(Box::new(move || {
        black_box(requests.metadata(black_box(&saga), &call, left));
    }))
}

fn refusal(refusal: Result<Refusal, String>, is_right: fn(&Outcome) -> bool) -> Result<Run, Broken> {
    let refusal = refusal.map_err(Broken::new)?;
    require(is_right(&refusal.heard().outcome), "the refusal is read otherwise")?;
    Ok(Box::new(move || {
        black_box(black_box(&refusal).heard());
    }))
}

fn every_evidence() -> Vec<Evidence> {
    let said = Code::ALL.into_iter().map(Evidence::ParticipantSaid);
    let others = [Evidence::BadAnswer, Evidence::NotRendered];
    said.chain(NotSent::ALL.map(Evidence::NotSent))
        .chain(NoAnswer::ALL.map(Evidence::NoAnswer))
        .chain(others)
        .collect()
}
