//! What stands in `deploy/` and docker-compose.yml is what the programs that it is for accept, and asks for nothing that
//! is not there.
//!
//! # Invariants
//! * A tool that is there and finds something is a failure. One that cannot be had is said in a line, NOT CHECKED.
//! * What is read off files alone is always checked: alerts and dashboards against docs/metrics.md, pages, pinned images.
//!
//! # Not here
//! Whether the parts work together: `stack`.

mod dashboards;
mod grafana;
mod names;
mod rules;

use crate::process::{self, command, on_path, root, show, tools};
use crate::tools as programs;
use anyhow::{Context, Result, bail};
use names::{Expression, METRICS, Metrics};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;

const OBSERVABILITY: &str = "deploy/observability";
const KUBERNETES: &str = "deploy/kubernetes";

/// Checks all of it; `--write` first writes what is made of something else.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    match arguments {
        [] => {}
        [word] if word == "--write" => write()?,
        _ => bail!("usage: cargo xtask deploy [--write]"),
    }
    let mut faults = Vec::new();
    faults.extend(file_faults()?);
    for fault in &faults {
        println!("deploy: {fault}");
    }
    let mut count = faults.len();
    let mut check =
        |tool: &str, program: Result<PathBuf>, calls: &dyn Fn(&PathBuf) -> Result<Vec<Command>>| {
            let program = match program {
                Ok(program) => program,
                Err(error) => return println!("NOT CHECKED by {tool}: {error:#}"),
            };
            let outcome = calls(&program)
                .and_then(|calls| calls.into_iter().try_for_each(|mut call| announced(&mut call)));
            if let Err(error) = outcome {
                println!("deploy: {error:#}");
                count += 1;
            }
        };
    check("promtool", programs::prometheus("promtool"), &promtool);
    check("amtool", programs::alertmanager("amtool"), &|amtool| {
        let mut call = command(amtool);
        call.arg("check-config").arg(format!("{OBSERVABILITY}/alertmanager.yml"));
        Ok(vec![call])
    });
    check("docker compose", programs::compose(), &|compose| {
        let mut call = command(compose);
        call.args(["--file", "docker-compose.yml", "config", "--quiet"]);
        Ok(vec![call])
    });
    check("kubeconform", programs::kubeconform(), &kubeconform);
    let collector =
        programs::collector_that_is_there().context("it has not been built: cargo xtask stack does");
    check("the collector", collector, &|collector| {
        let mut call = command(collector);
        call.args(["validate", "--config"]).arg(format!("{OBSERVABILITY}/otel-collector.yaml"));
        Ok(vec![call])
    });
    check("sh", on_path("sh").context("there is none"), &|sh| {
        let scripts = ["deploy/demo/register.sh", "deploy/demo/load.sh", "deploy/secrets/make.sh"];
        let call = |script: &str| {
            let mut call = command(sh);
            call.args(["-n", script]);
            call
        };
        Ok(scripts.map(call).into())
    });
    match count {
        0 => {
            println!("deploy: all accepted");
            Ok(())
        }
        1 => bail!("one fault"),
        count => bail!("{count} faults"),
    }
}

/// Writes what is made of something else: dashboards, and the rules for Kubernetes.
fn write() -> Result<()> {
    for dashboard in dashboards::ALL {
        std::fs::write(root().join(file_of(dashboard)), grafana::render(dashboard))?;
    }
    let alerts = std::fs::read_to_string(root().join(rules::ALERTS))?;
    std::fs::write(root().join(rules::PROMETHEUS_RULE), rules::prometheus_rule(&alerts))?;
    Ok(())
}

fn file_of(dashboard: &grafana::Dashboard) -> String {
    format!("{OBSERVABILITY}/dashboards/{}.json", dashboard.name)
}

/// What can be read off files.
fn file_faults() -> Result<Vec<String>> {
    let page = std::fs::read_to_string(root().join(METRICS)).context(METRICS)?;
    let metrics = Metrics::read(&page);
    if metrics.is_empty() {
        return Ok(vec![format!("{METRICS} has no row that begins with a metric of ours")]);
    }
    let mut faults = rules::faults(&root(), &metrics)?;
    for dashboard in dashboards::ALL {
        let file = file_of(dashboard);
        let written = std::fs::read_to_string(root().join(&file)).unwrap_or_default();
        if written != grafana::render(dashboard) {
            faults.push(format!(
                "{file} is not what xtask/src/deploy/dashboards.rs says: cargo xtask deploy --write"
            ));
        }
        for panel in dashboard.rows.iter().flat_map(|row| row.panels) {
            for (expr, _) in panel.queries {
                let said = Expression::read(expr).faults(&metrics);
                faults.extend(said.into_iter().map(|fault| format!("{file}, {}: {fault}", panel.title)));
            }
        }
        for (label, metric) in dashboard.choices {
            let said = Expression::read(&format!("sum by ({label}) ({metric})")).faults(&metrics);
            faults.extend(said.into_iter().map(|fault| format!("{file}, choice {label}: {fault}")));
        }
    }
    for file in ["docker-compose.yml", "deploy/Dockerfile", "deploy/observability/Dockerfile.collector"] {
        let text = std::fs::read_to_string(root().join(file)).with_context(|| file.to_owned())?;
        faults.extend(image_faults(&text).map(|fault| format!("{file}: {fault}")));
    }
    Ok(faults)
}

/// Images whose version is left to the day on which they are fetched.
fn image_faults(text: &str) -> impl Iterator<Item = String> + '_ {
    let images = text.lines().filter_map(|line| {
        let line = line.trim();
        line.strip_prefix("image: ").or_else(|| line.strip_prefix("FROM ")?.split(' ').next())
    });
    let unpinned = |image: &&str| match image.rsplit_once([':', '@']) {
        Some((_, version)) => version == "latest" || version.contains('/'),
        None => true,
    };
    images.filter(unpinned).map(|image| format!("{image} names no version"))
}

fn promtool(promtool: &PathBuf) -> Result<Vec<Command>> {
    let call = |words: &[&str], file: &str| {
        let mut call = command(promtool);
        call.args(words).arg(file);
        call
    };
    let queries = tools().join("dashboards.yml");
    std::fs::create_dir_all(tools())?;
    std::fs::write(&queries, queries_as_rules())?;
    Ok(vec![
        call(&["check", "rules"], rules::ALERTS),
        call(&["test", "rules"], rules::ALERTS_TEST),
        call(&["check", "config"], &format!("{OBSERVABILITY}/prometheus.yml")),
        call(&["check", "rules"], &queries.to_string_lossy()),
    ])
}

/// Every query of every dashboard, with the panel that asks it; what Grafana puts in is put in.
pub(crate) fn queries() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for dashboard in dashboards::ALL {
        for panel in dashboard.rows.iter().flat_map(|row| row.panels) {
            for (expr, _) in panel.queries {
                let mut expr = expr.replace("$__rate_interval", "1m");
                for (label, _) in dashboard.choices {
                    expr = expr.replace(&format!("${label}"), ".*");
                }
                all.push((format!("{}: {}", dashboard.name, panel.title), expr));
            }
        }
    }
    all
}

/// The same as rules, so that promtool parses them.
fn queries_as_rules() -> String {
    let mut text = "groups:\n  - name: dashboards\n    rules:\n".to_owned();
    for (number, (_, expr)) in queries().iter().enumerate() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "      - record: dashboards:{number}\n        expr: |-\n          {expr}");
    }
    text
}

fn kubeconform(kubeconform: &PathBuf) -> Result<Vec<Command>> {
    let schemas = programs::kubernetes_schemas()?;
    let mut call = command(kubeconform);
    call.args(["-summary", "-schema-location"]);
    call.arg(format!("{}/{{{{.ResourceKind}}}}{{{{.KindSuffix}}}}.json", schemas.display()));
    // kustomize's own file is no resource of a cluster.
    call.args(["-ignore-filename-pattern", "kustomization.yaml", KUBERNETES]);
    Ok(vec![call])
}

fn announced(command: &mut Command) -> Result<()> {
    println!("$ {}", show(command));
    process::run(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_without_a_version_is_named() {
        let text = "image: a:1.2\n image: b\nFROM c:latest AS x\nFROM d@sha256:00\nFROM host:5000/e\n";
        assert_eq!(
            image_faults(text).collect::<Vec<_>>(),
            ["b names no version", "c:latest names no version", "host:5000/e names no version"]
        );
    }

    #[test]
    fn each_panel_has_a_unit_and_words() {
        for dashboard in dashboards::ALL {
            for panel in dashboard.rows.iter().flat_map(|row| row.panels) {
                assert!(!panel.unit.is_empty() && !panel.words.is_empty(), "{}", panel.title);
                assert!(!panel.queries.is_empty(), "{}", panel.title);
            }
            assert_eq!(grafana::render(dashboard), grafana::render(dashboard));
        }
    }
}
