//! One check's saga: the calls that it makes as Backstop makes them, and everything that was said.
//!
//! # Invariants
//! * Each call bears the whole metadata of DESIGN 3.2, clocks growing from call to call unless the check says
//!   that one comes late.
//! * A temporary failure is tried again, as Backstop does; it is never a finding.
//!
//! # Not here
//! What should have come: `checks`.

use super::peer::Answer;
use super::plan::{Template, at};
use super::{AT_ONCE, Suite};
use crate::cli::text::safe;
use backstop_core::Code;
use backstop_proto::v1::{RollbackCause, rollback_cause};
use prost::Message;
use serde_json::Value;
use tokio::task::JoinSet;
use tonic::Status;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};
use tonic_types::StatusExt;

/// Longest text of one answer in a report.
const SHOWN_CHARS_MAX: usize = 300;

/// One thing said and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Exchange {
    pub(super) sent: String,
    pub(super) came: String,
}

/// Why a check does not pass.
#[derive(Debug)]
pub(super) enum Finding {
    Failed { expected: String, came: String },
    Skipped(String),
}

/// Which call of the step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Action,
    Compensation,
    Query,
}

impl Phase {
    fn as_str(self) -> &'static str {
        match self {
            Self::Action => "action",
            Self::Compensation => "compensation",
            Self::Query => "query",
        }
    }
}

/// A saga.
pub(super) struct Case<'a> {
    suite: &'a Suite,
    pub(super) saga: String,
    clock: u64,
    attempts: [u32; 3],
    /// The number before the first call.
    base: Option<i128>,
    /// The action's first reply.
    reply: Option<Value>,
    may_have_booked: bool,
    pub(super) said: Vec<Exchange>,
}

impl<'a> Case<'a> {
    pub(super) async fn open(suite: &'a Suite, saga: String) -> Result<Self, Finding> {
        let mut case = Self {
            suite,
            saga,
            clock: 0,
            attempts: [0; 3],
            base: None,
            reply: None,
            may_have_booked: false,
            said: Vec::new(),
        };
        case.base = case.number().await?;
        Ok(case)
    }

    /// The next attempt of the action.
    pub(super) async fn action(&mut self) -> Answer {
        let template = &self.suite.plan.action;
        self.send(Phase::Action, template, None).await
    }

    /// The action with another request.
    pub(super) async fn action_with(&mut self, template: &Template) -> Answer {
        self.send(Phase::Action, template, None).await
    }

    /// An attempt of the action that was sent before everything else and arrives only now.
    pub(super) async fn late_action(&mut self) -> Answer {
        let template = &self.suite.plan.action;
        self.send(Phase::Action, template, Some(1)).await
    }

    /// The next attempt of the compensation.
    pub(super) async fn compensation(&mut self) -> Answer {
        let template = &self.suite.plan.compensation;
        self.send(Phase::Compensation, template, None).await
    }

    /// The next attempt of the question.
    pub(super) async fn query(&mut self) -> Result<Answer, Finding> {
        let query = self.suite.plan.query.as_ref();
        let template = query.ok_or_else(|| Finding::Skipped("no --query was given".to_owned()))?;
        Ok(self.send(Phase::Query, template, None).await)
    }

    async fn send(&mut self, phase: Phase, template: &Template, clock: Option<u64>) -> Answer {
        // The first number is kept for what comes late.
        self.clock = self.clock.max(1) + 1;
        let clock = clock.unwrap_or(self.clock);
        let first = self.attempts[phase as usize];
        let (request, shown) = match template.render(&self.saga, self.reply.as_ref()) {
            Ok(rendered) => rendered,
            Err(problem) => return Answer::Silence(format!("the request could not be made: {problem}")),
        };
        let saga = self.saga.clone();
        let metadata = |retries: u32| metadata(&saga, phase, first + retries + 1, clock);
        let (answer, attempts) = self.suite.peer.call_patiently(&template.path, &request, metadata).await;
        self.attempts[phase as usize] = first + attempts;
        self.take_in(phase, template, &answer);
        let late = if clock < self.clock { ", late" } else { "" };
        let what =
            format!("{} {} {shown}, attempt {}{late}", phase.as_str(), template.name(), first + attempts);
        self.note(what, show(template, &answer));
        answer
    }

    /// Many calls of one kind, or of two, at the same moment.
    pub(super) async fn at_once(&mut self, phases: &[Phase]) -> Vec<(Phase, Answer)> {
        self.clock = self.clock.max(1) + 1;
        let mut tasks = JoinSet::new();
        for (n, phase) in phases.iter().copied().enumerate() {
            let template = match phase {
                Phase::Action => self.suite.plan.action.clone(),
                Phase::Compensation | Phase::Query => self.suite.plan.compensation.clone(),
            };
            let rendered = template.render(&self.saga, self.reply.as_ref());
            let (peer, saga, clock) = (self.suite.peer.clone(), self.saga.clone(), self.clock);
            tasks.spawn(async move {
                let answer = match rendered {
                    Ok((request, _)) => {
                        let metadata = |retries: u32| metadata(&saga, phase, retries + 1, clock);
                        peer.call_patiently(&template.path, &request, metadata).await.0
                    }
                    Err(problem) => Answer::Silence(format!("the request could not be made: {problem}")),
                };
                (n, phase, answer)
            });
        }
        let mut answers = tasks.join_all().await;
        answers.sort_by_key(|(n, _, _)| *n);
        let templates = (&self.suite.plan.action, &self.suite.plan.compensation);
        for (_, phase, answer) in &answers {
            let template = if *phase == Phase::Action { templates.0 } else { templates.1 };
            self.take_in(*phase, template, answer);
            self.attempts[*phase as usize] += 1;
            let what = format!("{} {}, at the same moment", phase.as_str(), template.name());
            self.note(what, show(template, answer));
        }
        answers.into_iter().map(|(_, phase, answer)| (phase, answer)).collect()
    }

    /// As many of one kind as are sent at once.
    pub(super) async fn many(&mut self, phase: Phase) -> Vec<Answer> {
        let answers = self.at_once(&[phase; AT_ONCE]).await;
        answers.into_iter().map(|(_, answer)| answer).collect()
    }

    fn take_in(&mut self, phase: Phase, template: &Template, answer: &Answer) {
        match (phase, answer) {
            (Phase::Action, Answer::Reply(bytes)) => {
                self.may_have_booked = true;
                if self.reply.is_none() {
                    self.reply = template.reply(bytes.clone()).ok();
                }
            }
            (Phase::Action, Answer::Silence(_)) => self.may_have_booked = true,
            (Phase::Action, Answer::Status(_)) | (Phase::Compensation | Phase::Query, _) => {}
        }
    }

    fn note(&mut self, sent: String, came: String) {
        self.said.push(Exchange { sent, came });
    }

    /// The number that the read method shows; none if there is no such method.
    pub(super) async fn number(&mut self) -> Result<Option<i128>, Finding> {
        let Some((template, path)) = &self.suite.plan.read else { return Ok(None) };
        let failed = |came: String| Finding::Failed {
            expected: format!("{} shows a number at {path}", template.name()),
            came,
        };
        let (request, shown) = template.render(&self.saga, None).map_err(failed)?;
        // Its reader is nobody's saga.
        let plain = |_| MetadataMap::new();
        let (answer, _) = self.suite.peer.call_patiently(&template.path, &request, plain).await;
        let number = match &answer {
            Answer::Reply(bytes) => {
                template.reply(bytes.clone()).ok().and_then(|reply| match at(&reply, path) {
                    Value::Number(number) => number.as_i128(),
                    Value::String(text) => text.parse().ok(),
                    Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
                })
            }
            Answer::Status(_) | Answer::Silence(_) => None,
        };
        match number {
            Some(number) => {
                self.note(format!("read {} {shown}", template.name()), format!("{path} = {number}"));
                Ok(Some(number))
            }
            None => Err(failed(show(template, &answer))),
        }
    }

    /// By how much the number has moved since the case began.
    pub(super) async fn moved(&mut self) -> Result<Option<i128>, Finding> {
        let number = self.number().await?;
        Ok(number.zip(self.base).map(|(number, base)| number - base))
    }

    /// Asserts how often the action stands in the books, if a method shows it.
    pub(super) async fn expect_effects(&mut self, times: i128) -> Result<(), Finding> {
        let (Some(moved), Some(unit)) = (self.moved().await?, self.suite.unit) else { return Ok(()) };
        if moved == unit * times {
            return Ok(());
        }
        let count = if moved % unit == 0 {
            format!("it stands there {}", counted(moved / unit))
        } else {
            format!("one effect moves it by {unit}, which it is no multiple of")
        };
        Err(Finding::Failed {
            expected: format!("the action stands in the books {}", counted(times)),
            came: format!("the number has moved by {moved}: {count}"),
        })
    }

    /// The action, which has to succeed before anything else can be checked.
    pub(super) async fn succeed(&mut self) -> Result<Value, Finding> {
        let answer = self.action().await;
        self.expect_reply(Phase::Action, &answer, "OK")
    }

    /// Asserts OK and answers the reply as JSON.
    pub(super) fn expect_reply(
        &self,
        phase: Phase,
        answer: &Answer,
        expected: &str,
    ) -> Result<Value, Finding> {
        let plan = &self.suite.plan;
        let template = match phase {
            Phase::Action => &plan.action,
            Phase::Compensation => &plan.compensation,
            Phase::Query => plan.query.as_ref().unwrap_or(&plan.action),
        };
        let failed = |came: String| Finding::Failed { expected: expected.to_owned(), came };
        match answer {
            Answer::Reply(bytes) => template.reply(bytes.clone()).map_err(failed),
            Answer::Status(_) | Answer::Silence(_) => Err(failed(show(template, answer))),
        }
    }

    /// Asserts a status, and answers it.
    pub(super) fn expect_status<'s>(
        &self,
        answer: &'s Answer,
        expected: &str,
    ) -> Result<&'s Status, Finding> {
        match answer {
            Answer::Status(status) => Ok(status),
            Answer::Reply(_) | Answer::Silence(_) => Err(Finding::Failed {
                expected: expected.to_owned(),
                came: show(&self.suite.plan.action, answer),
            }),
        }
    }

    /// Undoes what the check may have left.
    pub(super) async fn tidy(&mut self) {
        if self.may_have_booked && self.attempts[Phase::Compensation as usize] == 0 {
            // What it answers is another check's matter.
            let said = self.said.len();
            self.compensation().await;
            self.said.truncate(said);
        }
    }
}

/// DESIGN 3.2, to the letter.
fn metadata(saga: &str, phase: Phase, attempt: u32, clock: u64) -> MetadataMap {
    let mut map = MetadataMap::new();
    let mut put = |key: &'static str, value: &str| {
        // All of them are visible ASCII.
        if let Ok(value) = value.parse() {
            map.insert(key, value);
        }
    };
    put("backstop-saga-id", saga);
    put("backstop-definition", "conformance@1");
    put("backstop-step", "checked");
    put("backstop-phase", phase.as_str());
    put("backstop-attempt", &attempt.to_string());
    put("backstop-clock", &clock.to_string());
    put("backstop-epoch", "1");
    put("idempotency-key", &format!("{saga}/checked/{}", phase.as_str()));
    put("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
    if phase == Phase::Compensation {
        let cause = RollbackCause {
            kind: rollback_cause::Kind::Cancelled.into(),
            by: "backstop participant check".to_owned(),
            reason: "the compensation is checked".to_owned(),
            ..RollbackCause::default()
        };
        map.insert_bin("backstop-cause-bin", BinaryMetadataValue::from_bytes(&cause.encode_to_vec()));
    }
    map
}

/// An answer on one line.
fn show(template: &Template, answer: &Answer) -> String {
    let text = match answer {
        Answer::Reply(bytes) => match template.reply(bytes.clone()) {
            Ok(reply) => format!("OK {reply}"),
            Err(problem) => format!("OK, unreadable: {problem}"),
        },
        Answer::Status(status) => show_status(status),
        Answer::Silence(problem) => format!("no answer: {problem}"),
    };
    let mut shown: String = safe(&text).chars().take(SHOWN_CHARS_MAX + 1).collect();
    if shown.chars().count() > SHOWN_CHARS_MAX {
        shown.pop();
        shown.push('…');
    }
    shown
}

pub(super) fn show_status(status: &Status) -> String {
    let info = status.get_details_error_info();
    let reason = info.as_ref().map(|info| format!(" {}", info.reason)).unwrap_or_default();
    let effect = if says_no_effect(status) { " effect=none" } else { "" };
    let code = Code::from_number(status.code() as i32).name();
    format!("{code}{reason}{effect} \"{}\"", status.message())
}

pub(super) fn says_no_effect(status: &Status) -> bool {
    let info = status.get_details_error_info();
    info.is_some_and(|info| info.metadata.get("effect").is_some_and(|effect| effect == "none"))
}

fn counted(times: i128) -> String {
    match times {
        0 => "not at all".to_owned(),
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        -1 => "less than not at all: it was undone once too often".to_owned(),
        ..0 => format!("less than not at all: it was undone {} times too often", times.unsigned_abs()),
        times => format!("{times} times"),
    }
}
