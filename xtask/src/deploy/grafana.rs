//! Dashboards as Grafana reads them: from a short description to its JSON.
//!
//! # Invariants
//! * A panel has a unit and says in words what it shows (`each_panel_has_a_unit_and_words`).
//! * What is written depends on the description alone: the same bytes each time.
//!
//! # Not here
//! What the dashboards show: `dashboards`.

use serde_json::{Value, json};

/// A dashboard.
#[derive(Debug)]
pub(crate) struct Dashboard {
    /// Its file and its uid: `money`.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// What one chooses at the top: name, and the metric whose label of that name has the values.
    pub(crate) choices: &'static [(&'static str, &'static str)],
    pub(crate) rows: &'static [Row],
}

/// Panels beside each other under a heading.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) title: &'static str,
    pub(crate) panels: &'static [Panel],
}

/// One panel.
#[derive(Debug)]
pub(crate) struct Panel {
    pub(crate) title: &'static str,
    /// What it shows and what to think of it, for somebody who sees it for the first time.
    pub(crate) words: &'static str,
    /// As Grafana names it.
    pub(crate) unit: &'static str,
    pub(crate) shape: Shape,
    /// Expression, and how its lines are called.
    pub(crate) queries: &'static [(&'static str, &'static str)],
}

/// How a panel looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Lines over time.
    Lines,
    /// Lines over time on top of each other.
    Stack,
    /// One number, red from `.0` on.
    Number(u32),
    /// A row for each series, its labels as columns.
    Table,
}

/// Grafana's grid.
const COLUMNS: usize = 24;
const HEIGHT: usize = 8;

/// The dashboard as Grafana's file.
pub(crate) fn render(dashboard: &Dashboard) -> String {
    let mut panels = Vec::new();
    let mut y = 0;
    for row in dashboard.rows {
        panels.push(json!({
            "type": "row", "id": panels.len() + 1, "title": row.title, "collapsed": false, "panels": [],
            "gridPos": { "x": 0, "y": y, "w": COLUMNS, "h": 1 },
        }));
        y += 1;
        let width = COLUMNS / row.panels.len().max(1);
        for (place, panel) in row.panels.iter().enumerate() {
            let at = json!({ "x": place * width, "y": y, "w": width, "h": HEIGHT });
            panels.push(panel_json(panel, panels.len() + 1, at));
        }
        y += HEIGHT;
    }
    let whole = json!({
        "uid": format!("backstop-{}", dashboard.name),
        "title": dashboard.title,
        "tags": ["backstop"],
        "schemaVersion": 39,
        "editable": false,
        "graphTooltip": 1,
        "refresh": "10s",
        "time": { "from": "now-1h", "to": "now" },
        "timezone": "browser",
        "links": [{ "type": "dashboards", "tags": ["backstop"], "title": "Backstop", "keepTime": true,
                    "asDropdown": false, "includeVars": true }],
        "templating": { "list": dashboard.choices.iter().map(choice).collect::<Vec<_>>() },
        "panels": panels,
    });
    format!("{whole:#}\n")
}

fn datasource() -> Value {
    json!({ "type": "prometheus", "uid": "prometheus" })
}

fn choice((label, metric): &(&'static str, &'static str)) -> Value {
    json!({
        "type": "query", "name": label, "label": label, "datasource": datasource(),
        "query": format!("label_values({metric}, {label})"), "refresh": 2, "sort": 1,
        "multi": true, "includeAll": true, "allValue": ".*",
        "current": { "text": ["All"], "value": ["$__all"] },
    })
}

fn panel_json(panel: &Panel, id: usize, at: Value) -> Value {
    let is_table = panel.shape == Shape::Table;
    let targets: Vec<Value> = panel
        .queries
        .iter()
        .zip('A'..)
        .map(|((expr, legend), id)| {
            json!({
                "refId": id.to_string(), "datasource": datasource(), "expr": expr, "legendFormat": legend,
                "instant": is_table, "range": !is_table,
                "format": if is_table { "table" } else { "time_series" },
            })
        })
        .collect();
    let mut json = json!({
        "id": id, "title": panel.title, "description": panel.words, "gridPos": at,
        "datasource": datasource(), "targets": targets,
        "fieldConfig": { "defaults": { "unit": panel.unit, "min": 0 }, "overrides": [] },
    });
    let defaults = "/fieldConfig/defaults";
    match panel.shape {
        Shape::Lines | Shape::Stack => {
            json["type"] = "timeseries".into();
            let stacking = if panel.shape == Shape::Stack { "normal" } else { "none" };
            let fill = if panel.shape == Shape::Stack { 40 } else { 0 };
            json["options"] = json!({ "legend": { "displayMode": "table", "placement": "right", "calcs": ["lastNotNull", "max"] },
                                      "tooltip": { "mode": "multi", "sort": "desc" } });
            if let Some(defaults) = json.pointer_mut(defaults) {
                defaults["custom"] =
                    json!({ "fillOpacity": fill, "stacking": { "mode": stacking }, "showPoints": "never" });
            }
        }
        Shape::Number(red_from) => {
            json["type"] = "stat".into();
            json["options"] = json!({ "colorMode": "background", "graphMode": "area", "textMode": "value_and_name",
                                      "reduceOptions": { "calcs": ["lastNotNull"] } });
            if let Some(defaults) = json.pointer_mut(defaults) {
                defaults["thresholds"] = json!({ "mode": "absolute", "steps": [
                    { "color": "green", "value": null }, { "color": "red", "value": red_from } ] });
                defaults["noValue"] = "0".into();
            }
        }
        Shape::Table => {
            json["type"] = "table".into();
            json["options"] = json!({ "showHeader": true, "cellHeight": "sm" });
            json["transformations"] = json!([{ "id": "organize", "options": { "excludeByName": {
                "Time": true, "__name__": true, "job": true, "instance": true } } }]);
            json["fieldConfig"]["overrides"] = json!([{
                "matcher": { "id": "byName", "options": "trace_id" },
                "properties": [{ "id": "links", "value": [{ "title": "the trace", "url": TRACE }] }],
            }]);
        }
    }
    json
}

/// Grafana's page of one trace in Jaeger: its panes, as JSON in a URL.
const TRACE: &str = "/explore?schemaVersion=1&panes=%7B%22a%22:%7B%22datasource%22:%22jaeger%22,%22queries%22:%5B%7B%22\
                     refId%22:%22A%22,%22query%22:%22${__value.raw}%22%7D%5D%7D%7D";
