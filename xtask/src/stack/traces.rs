//! Traces as Jaeger's API tells them, and what must be in one.

use super::http;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeSet;
use std::net::SocketAddr;

/// One span.
#[derive(Debug, Clone)]
struct Span {
    id: String,
    /// The span that it is a child of.
    parent: Option<String>,
    /// Spans that it links to.
    links: Vec<String>,
    service: String,
    name: String,
    tags: Vec<(String, String)>,
    start_micros: u64,
    lasted_micros: u64,
}

impl Span {
    fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
    }

    fn is_error(&self) -> bool {
        self.tag("otel.status_code") == Some("ERROR") || self.tag("error") == Some("true")
    }

    fn is(&self, step: &str, phase: &str) -> bool {
        self.tag("backstop.step") == Some(step) && self.tag("backstop.phase") == Some(phase)
    }
}

/// One trace, its spans by their start.
#[derive(Debug)]
pub(super) struct Trace {
    spans: Vec<Span>,
}

/// The trace of a saga, once it is as it should be.
pub(super) fn find(jaeger: SocketAddr, saga: &Value, whole: impl Fn(&Trace) -> Result<()>) -> Result<Trace> {
    let id = saga["traceId"].as_str().filter(|id| !id.is_empty()).context("the saga has no trace")?;
    let answer = http::get_json(jaeger, &format!("/api/traces/{id}"))?;
    let trace = Trace::read(answer.pointer("/data/0").context("Jaeger has no such trace")?);
    whole(&trace)?;
    Ok(trace)
}

impl Trace {
    fn read(json: &Value) -> Self {
        let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let service = |span: &Value| {
            let process = span["processID"].as_str().unwrap_or_default();
            text(&json["processes"][process]["serviceName"])
        };
        let references = |span: &Value, kind: &str| -> Vec<String> {
            let all = span["references"].as_array().into_iter().flatten();
            all.filter(|reference| reference["refType"] == kind)
                .map(|reference| text(&reference["spanID"]))
                .collect()
        };
        let mut spans: Vec<Span> = json["spans"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|span| Span {
                id: text(&span["spanID"]),
                parent: references(span, "CHILD_OF").pop(),
                links: references(span, "FOLLOWS_FROM"),
                service: service(span),
                name: text(&span["operationName"]),
                tags: span["tags"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|tag| (text(&tag["key"]), text(&tag["value"])))
                    .collect(),
                start_micros: span["startTime"].as_u64().unwrap_or_default(),
                lasted_micros: span["duration"].as_u64().unwrap_or_default(),
            })
            .collect();
        spans.sort_by_key(|span| span.start_micros);
        Self { spans }
    }

    fn services(&self) -> BTreeSet<&str> {
        self.spans.iter().map(|span| span.service.as_str()).collect()
    }

    fn span(&self, step: &str, phase: &str) -> Result<&Span> {
        let all = self.services().into_iter().collect::<Vec<_>>().join(", ");
        let found = self.spans.iter().find(|span| span.is(step, phase));
        found.with_context(|| format!("no span of {step}'s {phase} among {} of {all}", self.spans.len()))
    }

    /// A transfer whose debit was refused and whose credit was taken back.
    pub(super) fn is_of_an_undone_transfer(&self, fin_code: &str, tier: &str) -> Result<()> {
        for service in ["ledger_a", "ledger_b", "risk", "backstop"] {
            if !self.services().contains(service) {
                bail!("{service} is not in the trace, only {:?}", self.services());
            }
        }
        let roots: Vec<&Span> = self.spans.iter().filter(|span| span.parent.is_none()).collect();
        let [caller] = roots.as_slice() else {
            bail!("{} spans have no parent, and one should", roots.len())
        };
        if caller.service == "backstop" {
            bail!("the trace does not begin with its caller");
        }
        if let Some(orphan) = self.orphan() {
            bail!("the span above {} {} is not in the trace", orphan.service, orphan.name);
        }
        let failed = self.span("debit", "action")?;
        if !failed.is_error() || failed.tag("backstop.fin_code") != Some(fin_code) {
            bail!("the refused debit is not marked: {:?}", failed.tags);
        }
        if failed.tag("backstop.tier") != Some(tier) {
            bail!("the refused debit has no tier {tier}: {:?}", failed.tags);
        }
        let undo = self.span("credit", "compensation")?;
        self.links_to_a_failure(undo)?;
        let below = |parent: &Span, service: &str| {
            self.spans.iter().any(|span| span.parent.as_ref() == Some(&parent.id) && span.service == service)
        };
        if !below(failed, "ledger_a") || !below(undo, "ledger_b") {
            bail!("a participant's span is not below the call that it answered");
        }
        Ok(())
    }

    /// A span whose parent has not arrived.
    fn orphan(&self) -> Option<&Span> {
        let is_here = |id: &String| self.spans.iter().any(|span| span.id == *id);
        self.spans.iter().find(|span| span.parent.as_ref().is_some_and(|parent| !is_here(parent)))
    }

    fn links_to_a_failure(&self, undo: &Span) -> Result<()> {
        let is_failure = |id: &String| self.spans.iter().any(|span| span.id == *id && span.is_error());
        if undo.links.iter().any(is_failure) {
            return Ok(());
        }
        bail!("the compensation links to {:?}, which is no failing span of this trace", undo.links)
    }

    /// A credit that was made by one coordinator and undone by another. The spans that the killed one had not sent yet
    /// are gone with it; the participants' own, and those of its successor, are there.
    pub(super) fn goes_on_after_a_takeover(&self) -> Result<()> {
        let undo = self.span("credit", "compensation")?;
        self.links_to_a_failure(undo)?;
        let before = |span: &&Span| span.service == "ledger_b" && span.start_micros < undo.start_micros;
        let credited =
            self.spans.iter().find(before).context("ledger_b's span of the action is not in the trace")?;
        let undone = |span: &&Span| span.parent.as_ref() == Some(&undo.id) && span.service == "ledger_b";
        self.spans.iter().find(undone).context("ledger_b's span of the compensation is not in the trace")?;
        match credited.tag("backstop.phase") {
            Some("action") => Ok(()),
            other => bail!("ledger_b's span before the kill is of {other:?}, not of the action"),
        }
    }

    /// The trace as a person would draw it.
    pub(super) fn print(&self) {
        let began = self.spans.first().map_or(0, |span| span.start_micros);
        for span in &self.spans {
            let mut depth = 0;
            let mut at = span;
            while let Some(parent) =
                at.parent.as_ref().and_then(|id| self.spans.iter().find(|span| span.id == *id))
            {
                depth += 1;
                at = parent;
            }
            let mark = if span.is_error() { "ERROR " } else { "" };
            let said = ["backstop.step", "backstop.phase", "backstop.fin_code", "backstop.tier"];
            let said: Vec<&str> = said.iter().filter_map(|key| span.tag(key)).collect();
            let linked = if span.links.is_empty() { "" } else { "  → the failure" };
            println!(
                "            {:>8.1} ms {:>8.1} ms  {:indent$}{} {}  {mark}{}{linked}",
                (span.start_micros - began) as f64 / 1e3,
                span.lasted_micros as f64 / 1e3,
                "",
                span.service,
                span.name,
                said.join(" "),
                indent = depth * 2
            );
        }
    }
}
