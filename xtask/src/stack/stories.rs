//! The stories that are told to the stack, and what must be seen of each.
//!
//! * A load: the transfers of examples/transfer/transfers.csv, as docker-compose.yml's `load` sends them.
//! * A transfer that is undone: the payee is credited, the payer's debit is refused, the credit is taken back.
//! * A failure of tier L1, which must reach the pager with its saga.
//! * A coordinator that is killed after an action has succeeded and before it is compensated: still one trace.
//!
//! # Invariants
//! * Nothing is asserted after a sleep of some length: what must come is looked for until it is there or [`SEEN_MAX`] has
//!   passed; a kill that came too late is tried again with another saga.

use super::http;
use super::parts::{COORDINATORS, Stack};
use super::processes::LOOK_EVERY;
use super::traces::{self, Trace};
use crate::deploy;
use crate::process::{command, root};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt;
use std::time::{Duration, Instant};

/// How long something that must come may take.
const SEEN_MAX: Duration = Duration::from_secs(60);
/// How often a coordinator is killed until it was in time.
const KILLS_MAX: usize = 5;

/// An account that holds 15.00 and one that is paid: a larger transfer between them is refused by the payer's ledger.
const POOR: &str = "DE02120300000000202051";
const RICH: &str = "DE75512108001245126199";
const PAYEE: &str = "NL39RABO0300065264";

/// What was looked for, and whether it was there.
#[derive(Debug, Default)]
pub(super) struct Seen(Vec<(bool, String)>);

impl Seen {
    pub(super) fn is_all_well(&self) -> bool {
        !self.0.is_empty() && self.0.iter().all(|(well, _)| *well)
    }

    /// Looks until it is there: `look` answers what it saw, or why not yet.
    fn until<T>(&mut self, what: &str, look: impl Fn() -> Result<T>) -> Option<T>
    where
        T: Sighting,
    {
        let deadline = Instant::now() + SEEN_MAX;
        loop {
            match look() {
                Ok(seen) => {
                    self.note(true, format!("{what}{}", seen.words()));
                    return Some(seen);
                }
                Err(error) if Instant::now() > deadline => {
                    self.note(false, format!("{what}: {error:#}"));
                    return None;
                }
                Err(_) => std::thread::sleep(LOOK_EVERY * 5),
            }
        }
    }

    pub(super) fn note(&mut self, well: bool, what: String) {
        println!("          {} {what}", if well { "ok  " } else { "FAIL" });
        self.0.push((well, what));
    }
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let well = self.0.iter().filter(|(well, _)| *well).count();
        write!(f, "{well} of {} things were seen as they should be", self.0.len())?;
        for (_, what) in self.0.iter().filter(|(well, _)| !well) {
            write!(f, "\n  not seen: {what}")?;
        }
        Ok(())
    }
}

/// What a look brings back.
trait Sighting {
    /// What to add to the line that says so.
    fn words(&self) -> String {
        String::new()
    }
}

impl Sighting for () {}
impl Sighting for Trace {}
impl Sighting for Value {}
impl Sighting for f64 {
    fn words(&self) -> String {
        format!(" = {self}")
    }
}

pub(super) fn tell(stack: &mut Stack, seen: &mut Seen) -> Result<()> {
    load(stack)?;
    undone(stack, seen)?;
    l1(stack, seen)?;
    counted(stack, seen);
    killed(stack, seen)
}

fn load(stack: &Stack) -> Result<()> {
    let mut load = stack.script("load.sh")?;
    let servers = stack.coordinators.map(|address| format!("http://{address}")).join(" ");
    load.env("SERVERS", servers).env("ROUNDS", "2").env("PAUSE", "0");
    load.env("TRANSFERS", root().join("examples/transfer/transfers.csv"));
    load.env("ALIVE", crate::process::tools().join("stack/alive"));
    let output = stack.exporting(&mut load).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || !said.trim().is_empty() {
        bail!("load.sh: {} {said}", output.status);
    }
    stack
        .processes
        .say("the load is through: twice the transfers of transfers.csv, by turns on both coordinators");
    Ok(())
}

/// Starts a transfer on a coordinator as a caller with a trace of its own.
fn transfer(stack: &Stack, on: usize, id: &str, from: &str, reference: &str, waits: bool) -> Result<()> {
    let input = json!({ "from": from, "to": PAYEE, "amount_minor": "250000", "currency": "EUR",
                        "reference": reference, "note": "" });
    let mut start = command(&stack.backstop);
    start.args(["--server", &format!("http://{}", stack.coordinators[on]), "saga", "start", "transfer"]);
    start.args(["--id", id, "--input", &input.to_string()]);
    if waits {
        start.args(["--wait", "30s"]);
    }
    let output = stack.exporting(&mut start).output()?;
    // 3: rolled back, which is what these are for.
    match output.status.code() {
        Some(0 | 3) => Ok(()),
        _ => bail!("saga start {id}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// A saga as the second coordinator tells it; that one is never killed.
fn show(stack: &Stack, id: &str) -> Result<Value> {
    let mut show = command(&stack.backstop);
    show.args(["--server", &format!("http://{}", stack.coordinators[1]), "saga", "show", id, "--json"]);
    let output = show.output()?;
    if !output.status.success() {
        bail!("saga show {id}: {}", String::from_utf8_lossy(&output.stderr));
    }
    let saga: Value = serde_json::from_slice(&output.stdout).context("saga show: no JSON")?;
    Ok(saga.get("saga").cloned().unwrap_or(saga))
}

fn transcript(saga: &Value) -> Vec<&str> {
    saga["transcript"].as_array().into_iter().flatten().filter_map(Value::as_str).collect()
}

/// The saga, once it is rolled back.
fn rolled_back(stack: &Stack, id: &str) -> Result<Value> {
    let deadline = Instant::now() + SEEN_MAX;
    loop {
        let saga = show(stack, id)?;
        if saga["state"].as_str().is_some_and(|state| state.ends_with("ROLLED_BACK")) {
            return Ok(saga);
        }
        if Instant::now() > deadline {
            bail!("{id} is not rolled back:\n{}", transcript(&saga).join("\n"));
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn print_transcript(stack: &Stack, id: &str, saga: &Value) {
    stack.processes.say(&format!("{id}, trace {}", saga["traceId"].as_str().unwrap_or_default()));
    for line in transcript(saga) {
        println!("            {line}");
    }
}

fn undone(stack: &Stack, seen: &mut Seen) -> Result<()> {
    // The debit waits before it is refused, so that the credit is booked when it is.
    transfer(stack, 0, "stack-undone", POOR, "chaos:debit:slow", true)?;
    let saga = rolled_back(stack, "stack-undone")?;
    print_transcript(stack, "stack-undone", &saga);
    let whole = |trace: &Trace| trace.is_of_an_undone_transfer("FIN-40005", "L3");
    let trace = seen.until(
        "Jaeger: caller, coordinator, participants, the failure and what undid it in one trace",
        || traces::find(stack.jaeger, &saga, whole),
    );
    if let Some(trace) = trace {
        trace.print();
    }
    Ok(())
}

fn l1(stack: &Stack, seen: &mut Seen) -> Result<()> {
    transfer(stack, 1, "stack-l1", RICH, "chaos:credit:internal", true)?;
    let saga = rolled_back(stack, "stack-l1")?;
    print_transcript(stack, "stack-l1", &saga);
    let trace_id = saga["traceId"].as_str().unwrap_or_default().to_owned();
    let of_the_saga = r#"saga_id="stack-l1", definition="transfer", step="credit", participant="ledger_b", grpc_code="INTERNAL", fin_code="FIN-50001""#;
    let shown = format!(r#"backstop_l1_failure{{{of_the_saga}, trace_id="{trace_id}"}} == 1"#);
    seen.until("Prometheus: backstop_l1_failure names saga, trace and participant", || number(stack, &shown));
    let firing = r#"ALERTS{alertname="L1Failure", alertstate="firing", saga_id="stack-l1", severity="page"}"#;
    seen.until("Prometheus: the alert L1Failure fires for it", || number(stack, firing));
    seen.until("Alertmanager: has L1Failure with saga and trace id", || {
        let path = format!("/api/v2/alerts?filter={}", http::encoded(r#"saga_id="stack-l1""#));
        let alerts = http::get_json(stack.alertmanager, &path)?;
        let alert = alerts.get(0).context("no such alert")?;
        if alert["labels"]["trace_id"] != trace_id.as_str() {
            bail!("it bears another trace: {}", alert["labels"]);
        }
        Ok(())
    });
    let page = seen.until("the pager was called, and the message names the saga", || {
        let posts = stack.pager.taken();
        let pages =
            posts.iter().filter(|(path, _)| path == "/page").flat_map(|(_, body)| body["alerts"].as_array());
        let page = pages.flatten().find(|alert| alert["labels"]["saga_id"] == "stack-l1");
        page.cloned().context("nobody was called")
    });
    for key in ["summary", "description", "runbook"] {
        if let Some(text) = page.as_ref().and_then(|page| page["annotations"][key].as_str()) {
            println!("            {key:<12} {text}");
        }
    }
    Ok(())
}

/// One number from Prometheus.
fn number(stack: &Stack, query: &str) -> Result<f64> {
    let answer = http::get_json(stack.prometheus, &format!("/api/v1/query?query={}", http::encoded(query)))?;
    let value = answer.pointer("/data/result/0/value/1").and_then(Value::as_str);
    Ok(value.with_context(|| format!("{query} is nothing"))?.parse()?)
}

/// The counters, with their labels, after load and stories.
fn counted(stack: &Stack, seen: &mut Seen) {
    for query in [
        r#"sum(up{job="backstop"}) == 2"#,
        r#"sum(backstop_sagas_ended_total{definition="transfer", state="SUCCEEDED"}) >= 6"#,
        r#"sum(backstop_sagas_ended_total{definition="transfer", state="ROLLED_BACK"}) >= 4"#,
        r#"sum(backstop_branch_failures_total{definition="transfer", step="debit", participant="ledger_a", grpc_code="FAILED_PRECONDITION", fin_code="FIN-40005", tier="L3"}) >= 2"#,
        r#"sum(backstop_branch_failures_total{definition="transfer", step="credit", participant="ledger_b", grpc_code="INTERNAL", fin_code="FIN-50001", tier="L1"}) >= 3"#,
        r#"sum(backstop_branches_total{definition="transfer", step="debit", result="failed"}) >= 2"#,
        r#"sum(backstop_branches_total{definition="transfer", step="credit", result="in_doubt"}) >= 3"#,
        r#"sum(backstop_rollback_signals_total{result="delivered"}) >= 1"#,
        r#"sum by (phase) (backstop_call_duration_seconds_count{participant="ledger_b", phase="compensation"}) >= 3"#,
        r#"sum(backstop_journal_append_seconds_count) >= 20"#,
        r#"min(backstop_lease_remaining_seconds) > 1"#,
        r#"count(backstop_build_info) == 2"#,
        r#"sum(backstop_spans_exported_total) > 0"#,
        r#"sum(backstop_spans_dropped_total) or vector(0) == 0"#,
    ] {
        seen.until(&format!("Prometheus: {query}"), || number(stack, query));
    }
    seen.until("Prometheus: evaluates every alert without an error", || {
        let answer = http::get_json(stack.prometheus, "/api/v1/rules?type=alert")?;
        let groups = answer.pointer("/data/groups").and_then(Value::as_array).context("no groups")?;
        let rules: Vec<&Value> =
            groups.iter().flat_map(|group| group["rules"].as_array()).flatten().collect();
        match rules.iter().find(|rule| rule["health"] != "ok") {
            Some(rule) => bail!("{}: {} {}", rule["name"], rule["health"], rule["lastError"]),
            None if rules.is_empty() => bail!("it has none"),
            None => Ok(rules.len() as f64),
        }
    });
    dashboards(stack, seen);
}

/// What Grafana would ask: each query is answered. What is empty is told: most of it is what has not gone wrong.
fn dashboards(stack: &Stack, seen: &mut Seen) {
    let queries = deploy::queries();
    let mut empty = BTreeSet::new();
    let mut faults = Vec::new();
    for (panel, query) in &queries {
        let path = format!("/api/v1/query?query={}", http::encoded(query));
        match http::get_json(stack.prometheus, &path) {
            Ok(answer) if answer.pointer("/data/result/0").is_none() => drop(empty.insert(panel.as_str())),
            Ok(_) => {}
            Err(error) => faults.push(format!("{panel}: {error:#}")),
        }
    }
    let what = format!("Prometheus: answers the dashboards' {} queries", queries.len());
    seen.note(
        faults.is_empty(),
        format!("{what}{}", faults.iter().map(|f| format!("; {f}")).collect::<String>()),
    );
    println!("            without a value: {}", empty.into_iter().collect::<Vec<_>>().join(" · "));
}

fn killed(stack: &mut Stack, seen: &mut Seen) -> Result<()> {
    for attempt in 1..=KILLS_MAX {
        let id = format!("stack-killed-{attempt}");
        transfer(stack, 0, &id, POOR, "chaos:debit:slow", false)?;
        // The credit's success is in the journal: the action is done. The debit waits, is refused, and then it is undone.
        let deadline = Instant::now() + SEEN_MAX;
        while !transcript(&show(stack, &id)?)
            .iter()
            .any(|line| line.contains("credit") && line.contains("succeeded"))
        {
            if Instant::now() > deadline {
                bail!("the credit of {id} does not succeed");
            }
            std::thread::sleep(LOOK_EVERY / 10);
        }
        stack.processes.kill(COORDINATORS[0])?;
        let saga = rolled_back(stack, &id)?;
        stack.start_coordinator(COORDINATORS[0])?;
        let was_taken_over = {
            let lines = transcript(&saga);
            let place = |word: &str| lines.iter().position(|line| line.contains(word));
            matches!((place("taken over"), place("compensated")), (Some(adopted), Some(undone)) if adopted < undone)
        };
        if !was_taken_over {
            stack.processes.say("the saga was quicker than the kill; once more");
            continue;
        }
        print_transcript(stack, &id, &saga);
        seen.note(
            true,
            "a coordinator was killed between action and compensation, and the other undid the saga".into(),
        );
        let whole = |trace: &Trace| trace.goes_on_after_a_takeover();
        let one = "Jaeger: the action before the kill and the compensation after it are in one trace";
        if let Some(trace) = seen.until(one, || traces::find(stack.jaeger, &saga, whole)) {
            trace.print();
        }
        return Ok(());
    }
    bail!("{KILLS_MAX} kills were too late")
}
