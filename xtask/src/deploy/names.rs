//! Whether what a PromQL expression asks for is told by the program: docs/metrics.md has every metric and its labels.
//!
//! # Invariants
//! * A metric of ours that docs/metrics.md lacks, and a label that none of an expression's metrics has, is a fault
//!   (`a_metric_or_a_label_that_is_not_there_is_named`).
//!
//! # Not here
//! PromQL's syntax: `promtool` knows it. That docs/metrics.md is what the program tells: a test of the engine's.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) const METRICS: &str = "docs/metrics.md";

/// Labels that Prometheus sets itself, or that a histogram has.
const ALWAYS: [&str; 3] = ["instance", "job", "le"];
/// What a histogram's series are called.
const SUFFIXES: [&str; 3] = ["_bucket", "_sum", "_count"];

/// Every metric, and its labels.
#[derive(Debug)]
pub(crate) struct Metrics(BTreeMap<String, BTreeSet<String>>);

impl Metrics {
    /// Reads the rows of the table: name, type, labels, what it tells.
    pub(crate) fn read(page: &str) -> Self {
        let names = |cell: &str| -> Vec<String> {
            cell.split(',').map(|name| name.trim().trim_matches('`').to_owned()).collect()
        };
        let mut all = BTreeMap::new();
        for line in page.lines().filter(|line| line.starts_with("| `backstop_")) {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            if let [name, kind, labels, ..] = cells.as_slice() {
                let labels: BTreeSet<String> =
                    names(labels).into_iter().filter(|label| !label.is_empty()).collect();
                let name = name.trim_matches('`');
                if *kind == "histogram" {
                    all.extend(SUFFIXES.map(|suffix| (format!("{name}{suffix}"), labels.clone())));
                }
                all.insert(name.to_owned(), labels);
            }
        }
        Self(all)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// What an expression names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Expression {
    /// Metrics of ours.
    metrics: BTreeSet<String>,
    /// Labels that it selects by.
    selected: BTreeSet<String>,
    /// Labels that its aggregations keep, if it aggregates.
    kept: Option<BTreeSet<String>>,
}

impl Expression {
    /// Reads words and brackets; what stands in quotes is passed over.
    pub(crate) fn read(text: &str) -> Self {
        let mut found = Self::default();
        let unquoted: String = text.split('"').step_by(2).collect::<Vec<_>>().join("\"\"");
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
        for word in unquoted.split(|c| !is_word(c)).filter(|word| word.starts_with("backstop_")) {
            found.metrics.insert(word.to_owned());
        }
        for part in unquoted.split('{').skip(1) {
            let inside = part.split('}').next().unwrap_or_default();
            let labels = inside.split(',').map(|matcher| matcher.trim().split(['=', '!']).next());
            found.selected.extend(labels.flatten().filter(|label| !label.is_empty()).map(str::to_owned));
        }
        for (at, _) in unquoted.match_indices("by (") {
            let kept = found.kept.get_or_insert_default();
            let inside = unquoted[at + 4..].split(')').next().unwrap_or_default();
            kept.extend(
                inside.split(',').map(|label| label.trim().to_owned()).filter(|label| !label.is_empty()),
            );
        }
        found
    }

    /// What it asks for that nobody tells.
    pub(crate) fn faults(&self, metrics: &Metrics) -> Vec<String> {
        let unknown = self.metrics.iter().filter(|name| !metrics.0.contains_key(*name));
        let mut faults: Vec<String> =
            unknown.map(|name| format!("{name} is no metric of {METRICS}")).collect();
        if faults.is_empty() && !self.metrics.is_empty() {
            let asked = self.selected.iter().chain(self.kept.iter().flatten());
            let missing = asked.filter(|label| !self.has(label, metrics)).collect::<BTreeSet<_>>();
            let of = self.metrics.iter().cloned().collect::<Vec<_>>().join(", ");
            faults.extend(missing.into_iter().map(|label| format!("{of} has no label {label}")));
        }
        faults
    }

    /// Whether its result bears a label.
    pub(crate) fn leaves(&self, label: &str, metrics: &Metrics) -> bool {
        match &self.kept {
            Some(kept) => kept.contains(label),
            None => self.has(label, metrics),
        }
    }

    fn has(&self, label: &str, metrics: &Metrics) -> bool {
        let labels = self.metrics.iter().filter_map(|name| metrics.0.get(name)).flatten();
        ALWAYS.contains(&label) || labels.into_iter().any(|known| known == label)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_or_a_label_that_is_not_there_is_named() {
        let metrics = Metrics::read(
            "| name | type |\n| `backstop_x_total` | counter | `step` | it |\n| `backstop_t_seconds` | histogram |  | it |",
        );
        let said = |text: &str| Expression::read(text).faults(&metrics);
        for fine in [
            "sum by (step) (rate(backstop_x_total{step=~\"backstop_y|{a}\"}[5m]))",
            "histogram_quantile(0.9, sum by (instance, le) (rate(backstop_t_seconds_bucket[5m])))",
            "up{job=\"backstop\", zone=\"any\"} == 0",
        ] {
            assert_eq!(said(fine), Vec::<String>::new(), "{fine}");
        }
        assert_eq!(
            said("rate(backstop_x_tota{step=\"a\"}[5m])"),
            ["backstop_x_tota is no metric of docs/metrics.md"]
        );
        assert_eq!(said("sum by (stop) (backstop_x_total)"), ["backstop_x_total has no label stop"]);
        assert_eq!(said("backstop_x_total{stop!=\"a\"}"), ["backstop_x_total has no label stop"]);
        assert_eq!(
            said("backstop_x_total_bucket"),
            ["backstop_x_total_bucket is no metric of docs/metrics.md"]
        );
    }
}
