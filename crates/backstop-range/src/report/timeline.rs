//! The picture of a run as inline SVG: faults by target, what ended each second, and who stood still.
//!
//! # Not here
//! Colours: the page's style sheet has them, for light and for dark.

use super::html::escape;
use super::sheet::{Second, Timeline};
use std::fmt::Write;

/// The whole picture.
const WIDTH: f64 = 1080.0;
/// Left of the axis.
const GUTTER: f64 = 92.0;
/// Right of it.
const MARGIN: f64 = 12.0;
/// A line of faults.
const LANE: f64 = 20.0;
/// The bar in it.
const BAR: f64 = 12.0;
/// Height of a chart.
const CHART: f64 = 130.0;
/// Between two parts.
const GAP: f64 = 42.0;
/// Narrowest bar that can still be seen.
const BAR_MIN: f64 = 2.5;
/// Marks on the axis of time.
const MARKS_MAX: f64 = 12.0;

/// Maps seconds to places.
#[derive(Clone, Copy)]
struct Scale {
    length_s: f64,
}

impl Scale {
    fn x(self, second: f64) -> f64 {
        GUTTER + second.clamp(0.0, self.length_s) / self.length_s * (WIDTH - GUTTER - MARGIN)
    }
}

/// Draws it. Writing to a String cannot fail, so results of `write!` are dropped here.
#[must_use]
pub(super) fn svg(timeline: &Timeline) -> String {
    let scale = Scale { length_s: timeline.length_s.max(1.0) };
    let lanes_height = LANE * count(timeline.lanes.len());
    let (ended_top, still_top) = (lanes_height + GAP, lanes_height + CHART + 2.0 * GAP);
    let bottom = still_top + CHART;
    let mut svg = String::new();
    let _ = write!(
        svg,
        "<svg viewBox=\"0 -22 {WIDTH} {:.0}\" role=\"img\" aria-label=\"Timeline of faults, ended sagas and \
         standstills\" xmlns=\"http://www.w3.org/2000/svg\">",
        bottom + 62.0
    );
    let _ = write!(svg, "<text class=\"part\" x=\"{GUTTER}\" y=\"-8\">Faults, by what they hit</text>");
    grid(&mut svg, scale, bottom);
    lanes(&mut svg, timeline, scale);
    let ended = |second: &Second| [second.succeeded, second.rolled_back, second.interventions];
    let title = "Sagas that ended, per second (line: accepted)";
    let peak = peak(timeline, |second| ended(second).iter().sum::<u32>().max(second.accepted));
    chart_axis(&mut svg, ended_top, title, peak);
    stacked(&mut svg, timeline, scale, ended_top, peak);
    accepted(&mut svg, timeline, scale, ended_top, peak);
    let peak = self::peak(timeline, |second| second.standing_still);
    chart_axis(&mut svg, still_top, "Sagas standing still for more than 1 s", peak);
    standing(&mut svg, timeline, scale, still_top, peak);
    end_of_load(&mut svg, timeline, scale, bottom);
    svg.push_str("</svg>");
    svg
}

fn count(number: usize) -> f64 {
    f64::from(u32::try_from(number).unwrap_or(u32::MAX))
}

fn peak(timeline: &Timeline, of: impl Fn(&Second) -> u32) -> f64 {
    nice(f64::from(timeline.seconds.iter().map(of).max().unwrap_or_default()))
}

/// The next round number: 1, 2 or 5 times a power of ten.
fn nice(value: f64) -> f64 {
    if value <= 2.0 {
        return 2.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 6.0, 8.0, 10.0]
        .into_iter()
        .map(|times| times * power)
        .find(|round| *round >= value)
        .unwrap_or(value)
}

/// Upright lines with the time under them.
fn grid(svg: &mut String, scale: Scale, bottom: f64) {
    let steps = [1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1_800.0, 3_600.0];
    let step = steps.into_iter().find(|step| scale.length_s / step <= MARKS_MAX).unwrap_or(7_200.0);
    let mut at = 0.0;
    while at <= scale.length_s {
        let x = scale.x(at);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{bottom:.1}\"/>\
             <text class=\"tick\" text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
            bottom + 16.0,
            clock(at)
        );
        at += step;
    }
    let _ = write!(
        svg,
        "<text class=\"tick\" text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">time since the load began (min:s)</text>",
        f64::midpoint(GUTTER, WIDTH - MARGIN),
        bottom + 34.0
    );
}

/// `4:05`.
fn clock(second: f64) -> String {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a mark on the axis
    let whole = second.round() as u64;
    format!("{}:{:02}", whole / 60, whole % 60)
}

fn lanes(svg: &mut String, timeline: &Timeline, scale: Scale) {
    for (number, lane) in timeline.lanes.iter().enumerate() {
        let middle = LANE * count(number) + LANE / 2.0;
        let _ = write!(
            svg,
            "<line class=\"lane\" x1=\"{GUTTER}\" x2=\"{:.1}\" y1=\"{middle:.1}\" y2=\"{middle:.1}\"/>\
             <text class=\"name\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - MARGIN,
            GUTTER - 8.0,
            middle + 4.0,
            escape(&lane.name)
        );
        for bar in &lane.bars {
            let (from, until) = (scale.x(bar.from_s), scale.x(bar.until_s));
            let _ = write!(
                svg,
                "<rect class=\"bar {}\" x=\"{from:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{BAR}\" rx=\"2\">\
                 <title>{} of {}: {:.1} s to {:.1} s</title></rect>",
                class(&bar.kind),
                middle - BAR / 2.0,
                (until - from).max(BAR_MIN),
                escape(&bar.kind),
                escape(&lane.name),
                bar.from_s,
                bar.until_s
            );
        }
    }
}

/// The style of a kind of fault: `kill -9` → `k-kill-9`.
pub(super) fn class(kind: &str) -> String {
    let words: Vec<&str> =
        kind.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()).collect();
    format!("k-{}", words.join("-").to_ascii_lowercase())
}

fn y(top: f64, value: f64, peak: f64) -> f64 {
    top + CHART - (value / peak).min(1.0) * CHART
}

fn chart_axis(svg: &mut String, top: f64, title: &str, peak: f64) {
    let _ =
        write!(svg, "<text class=\"part\" x=\"{GUTTER}\" y=\"{:.1}\">{}</text>", top - 10.0, escape(title));
    for part in [0.0, 0.5, 1.0] {
        let y = y(top, peak * part, peak);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{GUTTER}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{:.0}</text>",
            WIDTH - MARGIN,
            GUTTER - 8.0,
            y + 4.0,
            peak * part
        );
    }
}

/// Bars on each other, one for each second; one shape for each colour, so that the page stays small.
fn stacked(svg: &mut String, timeline: &Timeline, scale: Scale, top: f64, peak: f64) {
    type Of = fn(&Second) -> u32;
    let mut below = vec![0_u32; timeline.seconds.len()];
    let parts: [(&str, Of); 3] = [
        ("succeeded", |second| second.succeeded),
        ("rolled-back", |second| second.rolled_back),
        ("intervention", |second| second.interventions),
    ];
    for (class, of) in parts {
        let mut path = String::new();
        for (number, (second, below)) in timeline.seconds.iter().zip(&mut below).enumerate() {
            let value = of(second);
            if value == 0 {
                continue;
            }
            let (left, right) = (scale.x(count(number)), scale.x(count(number) + 1.0));
            let (low, high) = (y(top, f64::from(*below), peak), y(top, f64::from(*below + value), peak));
            let _ = write!(path, "M{left:.1} {low:.1}V{high:.1}H{right:.1}V{low:.1}Z");
            *below += value;
        }
        let _ = write!(svg, "<path class=\"{class}\" d=\"{path}\"/>");
    }
}

fn accepted(svg: &mut String, timeline: &Timeline, scale: Scale, top: f64, peak: f64) {
    let mut path = String::new();
    for (number, second) in timeline.seconds.iter().enumerate() {
        let letter = if number == 0 { 'M' } else { 'L' };
        let (x, y) = (scale.x(count(number) + 0.5), y(top, f64::from(second.accepted), peak));
        let _ = write!(path, "{letter}{x:.1} {y:.1}");
    }
    let _ = write!(svg, "<path class=\"accepted\" d=\"{path}\"/>");
}

fn standing(svg: &mut String, timeline: &Timeline, scale: Scale, top: f64, peak: f64) {
    let mut path = String::new();
    for (number, second) in
        timeline.seconds.iter().enumerate().filter(|(_, second)| second.standing_still > 0)
    {
        let (left, right) = (scale.x(count(number)), scale.x(count(number) + 1.0));
        let (low, high) = (y(top, 0.0, peak), y(top, f64::from(second.standing_still), peak));
        let _ = write!(path, "M{left:.1} {low:.1}V{high:.1}H{right:.1}V{low:.1}Z");
    }
    let _ = write!(svg, "<path class=\"still\" d=\"{path}\"/>");
}

fn end_of_load(svg: &mut String, timeline: &Timeline, scale: Scale, bottom: f64) {
    let x = scale.x(timeline.load_until_s);
    let _ = write!(
        svg,
        "<line class=\"mark\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"0\" y2=\"{bottom:.1}\"/>\
         <text class=\"tick\" text-anchor=\"end\" x=\"{:.1}\" y=\"-8\">load ends</text>",
        x - 2.0
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::sheet::{Bar, Lane};

    #[test]
    fn every_fault_and_every_second_is_in_the_picture() {
        let bar = Bar { kind: "kill -9".to_owned(), from_s: 1.0, until_s: 2.0 };
        let second =
            Second { accepted: 3, succeeded: 2, rolled_back: 1, interventions: 0, standing_still: 4 };
        let timeline = Timeline {
            length_s: 3.0,
            load_until_s: 2.0,
            lanes: vec![Lane { name: "A<".to_owned(), bars: vec![bar] }],
            seconds: vec![second, Second::default(), second],
        };
        let svg = svg(&timeline);
        assert!(svg.contains("class=\"bar k-kill-9\"") && svg.contains("kill -9 of A&lt;: 1.0 s to 2.0 s"));
        let shapes = |class: &str| {
            let path = svg
                .split(&format!("<path class=\"{class}\" d=\""))
                .nth(1)
                .and_then(|rest| rest.split('"').next());
            path.map_or(0, |path| path.matches('M').count())
        };
        assert_eq!((shapes("succeeded"), shapes("rolled-back"), shapes("intervention")), (2, 2, 0));
        assert_eq!((shapes("still"), shapes("accepted")), (2, 1));
    }

    #[test]
    fn the_axis_ends_at_a_round_number_that_holds_the_peak() {
        let rounded: Vec<_> = [0.0, 3.0, 104.0, 999.0, 1_000.0].map(nice).into();
        assert_eq!(rounded, [2.0, 4.0, 200.0, 1_000.0, 1_000.0]);
        assert_eq!(clock(245.0), "4:05");
    }
}
