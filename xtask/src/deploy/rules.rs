//! The alerts, read off `deploy/observability/alerts.yml`, and what must be true of each beyond its syntax.
//!
//! # Invariants
//! * Every alert has a severity, a summary, a description and a page that exists; its words name only labels that its
//!   expression leaves; `alerts_test.yml` has a case for it (`what_is_wrong_with_an_alert_is_said`).
//! * The PrometheusRule of Kubernetes has the same groups, line for line.
//!
//! # Not here
//! YAML: `promtool` reads the file as Prometheus does; this only reads the lines of a file that is ours. Whether a metric
//! exists: `names`.

use super::names::{Expression, Metrics};
use anyhow::{Context, Result};
use std::path::Path;

pub(crate) const ALERTS: &str = "deploy/observability/alerts.yml";
pub(crate) const ALERTS_TEST: &str = "deploy/observability/alerts_test.yml";
pub(crate) const PROMETHEUS_RULE: &str = "deploy/kubernetes/prometheusrule.yaml";

/// Who is told: a person at once, or in the morning.
const SEVERITIES: [&str; 2] = ["page", "ticket"];

/// One alert, as its lines say it.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Alert {
    pub(crate) name: String,
    pub(crate) expr: String,
    severity: String,
    summary: String,
    description: String,
    runbook: String,
}

impl Alert {
    fn field(&mut self, key: &str) -> Option<&mut String> {
        match key {
            "expr" => Some(&mut self.expr),
            "severity" => Some(&mut self.severity),
            "summary" => Some(&mut self.summary),
            "description" => Some(&mut self.description),
            "runbook" => Some(&mut self.runbook),
            _ => None,
        }
    }
}

/// Every alert of a rule file. What is no field that we know is left to promtool.
pub(crate) fn read(text: &str) -> Vec<Alert> {
    let mut alerts: Vec<Alert> = Vec::new();
    // The field whose block of further lines we are in, and how far those are indented at least.
    let mut block: Option<(String, usize)> = None;
    for line in text.lines() {
        let trimmed = line.trim();
        let indent = line.len() - line.trim_start().len();
        if let Some((key, least)) = &block {
            if trimmed.is_empty() || indent >= *least {
                if let Some(field) = alerts.last_mut().and_then(|alert| alert.field(key)) {
                    field.push_str(trimmed);
                    field.push(' ');
                }
                continue;
            }
            block = None;
        }
        if let Some(name) = trimmed.strip_prefix("- alert: ") {
            alerts.push(Alert { name: name.to_owned(), ..Alert::default() });
        } else if let Some((key, value)) = trimmed.split_once(':') {
            match value.trim() {
                "|" | ">-" => block = Some((key.to_owned(), indent + 1)),
                value => {
                    if let Some(field) = alerts.last_mut().and_then(|alert| alert.field(key)) {
                        value.trim_matches('"').clone_into(field);
                    }
                }
            }
        }
    }
    alerts
}

/// What is wrong with the alerts.
pub(crate) fn faults(root: &Path, metrics: &Metrics) -> Result<Vec<String>> {
    let text = |path: &str| std::fs::read_to_string(root.join(path)).with_context(|| path.to_owned());
    let (alerts, tests) = (text(ALERTS)?, text(ALERTS_TEST)?);
    let mut faults = Vec::new();
    if text(PROMETHEUS_RULE)? != prometheus_rule(&alerts) {
        faults.push(format!("{PROMETHEUS_RULE} is not {ALERTS}: cargo xtask deploy --write"));
    }
    let all = read(&alerts);
    if all.is_empty() {
        faults.push(format!("{ALERTS} has no alert"));
    }
    for alert in &all {
        let page = |path: &str| std::fs::read_to_string(root.join(path)).ok();
        let said = alert_faults(alert, metrics, &tests, page);
        faults.extend(said.into_iter().map(|fault| format!("alert {}: {fault}", alert.name)));
    }
    Ok(faults)
}

fn alert_faults(
    alert: &Alert,
    metrics: &Metrics,
    tests: &str,
    page: impl Fn(&str) -> Option<String>,
) -> Vec<String> {
    let mut faults = Vec::new();
    if !SEVERITIES.contains(&alert.severity.as_str()) {
        faults.push(format!("its severity must be one of {}", SEVERITIES.join(", ")));
    }
    for (what, text) in [("summary", &alert.summary), ("description", &alert.description)] {
        if text.is_empty() {
            faults.push(format!("it has no {what}"));
        }
    }
    let expression = Expression::read(&alert.expr);
    faults.extend(expression.faults(metrics));
    for label in labels_in_words(&format!("{} {}", alert.summary, alert.description)) {
        if !expression.leaves(&label, metrics) {
            faults.push(format!("its words name the label {label}, which the expression does not leave"));
        }
    }
    match alert.runbook.split_once('#').unwrap_or((&alert.runbook, "")) {
        ("", _) => faults.push("it has no runbook".to_owned()),
        (path, anchor) => match page(path) {
            None => faults.push(format!("its page {path} is not there")),
            Some(text) if !anchor.is_empty() && !anchors(&text).any(|there| there == anchor) => {
                faults.push(format!("{path} has no heading #{anchor}"));
            }
            Some(_) => {}
        },
    }
    let case = [format!("alertname: {}\n", alert.name), format!("alertname=\"{}\"", alert.name)];
    if !case.iter().any(|case| tests.contains(case)) {
        faults.push(format!("{ALERTS_TEST} has no case for it"));
    }
    faults
}

/// Labels that a text names as `{{ $labels.x }}`.
fn labels_in_words(text: &str) -> Vec<String> {
    let parts = text.split("$labels.").skip(1);
    parts.map(|part| part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()).collect()
}

/// A page's headings, as links to them are written.
fn anchors(page: &str) -> impl Iterator<Item = String> + '_ {
    let headings = page.lines().filter_map(|line| line.strip_prefix('#'));
    headings.map(|line| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-"))
}

/// The same groups as a resource of the Prometheus operator.
pub(crate) fn prometheus_rule(alerts: &str) -> String {
    let mut text = format!(
        "# Made of {ALERTS} by `cargo xtask deploy --write`; the words and the reasons are there.\n\
         apiVersion: monitoring.coreos.com/v1\nkind: PrometheusRule\nmetadata:\n  name: backstop\n  labels:\n    \
         app.kubernetes.io/name: backstop\nspec:\n"
    );
    for line in alerts.lines().skip_while(|line| !line.starts_with("groups:")) {
        let line = format!("  {line}");
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const FILE: &str = "groups:\n  - name: g\n    rules:\n      - alert: Slow\n        expr: |\n          max by \
                        (step) (\n            backstop_a{step=\"x\"}\n          ) > 1\n        for: 5m\n        \
                        labels:\n          severity: page\n        annotations:\n          summary: \"{{ \
                        $labels.step }} is slow\"\n          description: >-\n            In {{ $labels.step }}\n            \
                        it is slow.\n          runbook: docs/operations.md#slow\n";

    fn metrics() -> Metrics {
        Metrics::read("| `backstop_a` | gauge | `definition`, `step` | what |")
    }

    fn said(file: &str) -> Vec<String> {
        let page = |path: &str| (path == "docs/operations.md").then(|| "# Top\n### Slow\n".to_owned());
        alert_faults(&read(file)[0], &metrics(), "alertname: Slow\n", page)
    }

    #[test]
    fn what_is_wrong_with_an_alert_is_said() {
        assert_eq!(said(FILE), Vec::<String>::new());
        for (from, to, fault) in [
            ("severity: page", "severity: loud", "severity must be"),
            ("backstop_a{", "backstop_b{", "backstop_b is no metric"),
            ("{step=", "{stop=", "has no label stop"),
            ("In {{ $labels.step }}", "In {{ $labels.definition }}", "name the label definition"),
            ("#slow", "#fast", "no heading #fast"),
            ("docs/operations.md", "docs/elsewhere.md", "is not there"),
            ("alert: Slow", "alert: Slower", "has no case"),
            ("summary: \"{{ $labels.step }} is slow\"", "", "no summary"),
        ] {
            let faults = said(&FILE.replace(from, to));
            assert!(faults.iter().any(|said| said.contains(fault)), "{fault}: {faults:?}");
        }
    }

    #[test]
    fn the_rule_of_kubernetes_is_the_file_two_columns_further() {
        let rule = prometheus_rule("# words\ngroups:\n  - name: g\n");
        assert!(rule.ends_with("spec:\n  groups:\n    - name: g\n"), "{rule}");
    }
}
