//! A run as one page that needs nothing else: no script, no font, no other file.
//!
//! # Invariants
//! * Whatever came from a run is escaped.
//! * The verdict stands first, in words; colour only repeats it.

use super::Report;
use super::sheet::{Cell, Check, Sheet, Table};
use super::timeline;
use crate::faults::Kind as FaultKind;
use std::fmt::Write;

const STYLE: &str = include_str!("page.css");
/// Rows of a table that are shown; the JSON has all.
const ROWS_MAX: usize = 200;

/// Text as HTML.
#[must_use]
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The page. Writing to a String cannot fail, so results of `write!` are dropped here.
#[must_use]
pub(super) fn page(report: &Report, sheet: &Sheet) -> String {
    let title = escape(&report.scenario);
    let mut html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\
         <title>backstop-range: {title}</title><style>{STYLE}</style></head><body><main>\
         <h1>backstop-range: {title}</h1><p class=\"soft\">{}</p>",
        escape(&sheet.subtitle)
    );
    verdict(&mut html, report, sheet);
    html.push_str("<div class=\"tiles\">");
    for tile in &sheet.tiles {
        let _ = write!(
            html,
            "<div class=\"tile\"><span>{}</span><b>{}</b><span>{}</span></div>",
            escape(&tile.label),
            escape(&tile.value),
            escape(&tile.note)
        );
    }
    html.push_str("</div>");
    picture(&mut html, sheet);
    checks(&mut html, &sheet.checks);
    for table in &sheet.tables {
        html_table(&mut html, table);
    }
    figures(&mut html, report);
    let _ = write!(
        html,
        "<section><h2>The same faults again</h2><p class=\"note\">Save this as plan.toml and run \
         <code>backstop-range chaos --plan plan.toml</code> with the same seed and counts.</p>\
         <details><summary>The plan</summary><pre>{}</pre></details></section></main></body></html>",
        escape(&sheet.plan)
    );
    html
}

fn verdict(html: &mut String, report: &Report, sheet: &Sheet) {
    if report.passed() {
        let _ = write!(
            html,
            "<section class=\"verdict good\"><strong>Every promise held.</strong>{} checks, each over all that \
             happened, found nothing.</section>",
            sheet.checks.len()
        );
        return;
    }
    let _ = write!(
        html,
        "<section class=\"verdict bad\"><strong>{} did not hold.</strong><ul>",
        if report.failures.len() == 1 {
            "One thing".to_owned()
        } else {
            format!("{} things", report.failures.len())
        }
    );
    for failure in &report.failures {
        let (check, text) = (escape(&failure.check), escape(&failure.text));
        let _ = write!(html, "<li><b>{check}</b> ({:?}): {text}</li>", failure.kind);
    }
    html.push_str("</ul>");
    if !report.story.is_empty() {
        let story = escape(&report.story.join("\n"));
        let _ = write!(
            html,
            "<details open><summary>One saga that shows it</summary><pre>{story}</pre></details>"
        );
    }
    html.push_str("</section>");
}

fn picture(html: &mut String, sheet: &Sheet) {
    html.push_str("<section><h2>What happened when</h2><div class=\"legend\">");
    let bars = || sheet.timeline.lanes.iter().flat_map(|lane| &lane.bars);
    for kind in FaultKind::ALL.into_iter().filter(|kind| bars().any(|bar| bar.kind == kind.title())) {
        let _ = write!(
            html,
            "<span><i class=\"{}\"></i>{}</span>",
            timeline::class(kind.title()),
            escape(kind.title())
        );
    }
    html.push_str("</div><div class=\"legend\">");
    for (class, words) in [
        ("accepted", "accepted"),
        ("succeeded", "succeeded"),
        ("rolled-back", "rolled back"),
        ("intervention", "left to a person"),
        ("still", "standing still"),
    ] {
        let _ = write!(html, "<span><i class=\"{class}\"></i>{words}</span>");
    }
    html.push_str("</div>");
    html.push_str(&timeline::svg(&sheet.timeline));
    html.push_str("</section>");
}

fn checks(html: &mut String, checks: &[Check]) {
    html.push_str(
        "<section><h2>What was checked</h2><p class=\"note\">Once all was quiet, over every saga, call, journal \
         and account.</p><table><tr><th>check</th><th>what must hold</th><th>found</th></tr>",
    );
    for check in checks {
        let (class, found) = if check.violations == 0 {
            ("ok", "nothing".to_owned())
        } else {
            ("no", super::sheet::grouped(i64::try_from(check.violations).unwrap_or(i64::MAX)))
        };
        let _ = write!(
            html,
            "<tr><td>{}</td><td class=\"soft\">{}</td><td class=\"{class}\">{found}</td></tr>",
            escape(&check.name),
            escape(&check.meaning)
        );
    }
    html.push_str("</table></section>");
}

fn html_table(html: &mut String, table: &Table) {
    let _ = write!(
        html,
        "<section><h2>{}</h2><p class=\"note\">{}</p>",
        escape(&table.title),
        escape(&table.note)
    );
    if table.rows.is_empty() {
        html.push_str("<p>None.</p></section>");
        return;
    }
    html.push_str("<table><tr>");
    for (number, column) in table.columns.iter().enumerate() {
        let class = if table.is_number(number) { " class=\"n\"" } else { "" };
        let _ = write!(html, "<th{class}>{}</th>", escape(column));
    }
    html.push_str("</tr>");
    for row in table.rows.iter().take(ROWS_MAX) {
        html.push_str("<tr>");
        for cell in row {
            let class = if matches!(cell, Cell::Number(_)) { " class=\"n\"" } else { "" };
            let _ = write!(html, "<td{class}>{}</td>", escape(&cell.shown()));
        }
        html.push_str("</tr>");
    }
    html.push_str("</table>");
    if table.rows.len() > ROWS_MAX {
        let _ =
            write!(html, "<p class=\"note\">and {} more, in report.json</p>", table.rows.len() - ROWS_MAX);
    }
    html.push_str("</section>");
}

fn figures(html: &mut String, report: &Report) {
    html.push_str("<section><h2>Figures</h2><table>");
    for (name, value) in &report.figures {
        let text = super::lines_of(value).iter().map(|line| escape(line)).collect::<Vec<_>>().join("<br>");
        let _ = write!(html, "<tr><th>{}</th><td>{text}</td></tr>", escape(name));
    }
    html.push_str("</table></section>");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Kind;

    #[test]
    fn a_page_needs_nothing_else_and_escapes_what_it_shows() {
        let mut report = Report::new("chaos <1>");
        let sheet = Sheet { subtitle: "a & b".to_owned(), ..Sheet::default() };
        let good = page(&report, &sheet);
        assert!(
            good.contains("Every promise held.")
                && good.contains("chaos &lt;1&gt;")
                && good.contains("a &amp; b")
        );
        report.check(Kind::Safety, "books", false, "<script>");
        let bad = page(&report, &sheet);
        assert!(bad.contains("One thing did not hold.") && bad.contains("&lt;script&gt;"));
        for page in [good, bad] {
            let foreign = ["<script", "src=", "href=", "url(", "@import"];
            assert!(!foreign.iter().any(|foreign| page.contains(foreign)));
        }
    }
}
