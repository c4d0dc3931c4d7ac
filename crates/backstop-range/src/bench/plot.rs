//! Pictures of figures as inline SVG: lines over an axis, and bars of parts on each other.
//!
//! # Not here
//! Colours: the page's style sheet has them, for light and for dark. Which figures: `page`.

use crate::report::escape;
use std::fmt::Write;

/// The whole picture.
const WIDTH: f64 = 1080.0;
/// Left of the axis.
const GUTTER: f64 = 76.0;
/// Right of it: the names of the lines stand there.
const MARGIN: f64 = 190.0;
/// Above it: the title stands there.
const TOP: f64 = 30.0;
/// Height of the axis.
const HEIGHT: f64 = 230.0;
/// Below it.
const BELOW: f64 = 46.0;
/// Least distance of the names of two lines.
const NAME: f64 = 15.0;
/// Share of its place that a bar takes.
const BAR: f64 = 0.6;

/// A line.
#[derive(Debug, Clone, Default)]
pub(super) struct Series {
    /// Its name.
    pub(super) name: String,
    /// Its points, from left to right.
    pub(super) points: Vec<(f64, f64)>,
    /// Drawn with gaps: something to compare with.
    pub(super) is_dashed: bool,
}

/// How an upright axis grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// From nothing, evenly.
    Even,
    /// By powers of ten.
    Powers,
}

/// Lines over an axis.
#[derive(Debug, Clone)]
pub(super) struct Lines {
    /// What it shows.
    pub(super) title: String,
    /// Places on the lower axis, and what stands there.
    pub(super) marks: Vec<(f64, String)>,
    /// What the lower axis counts.
    pub(super) axis: &'static str,
    /// How the upright one grows.
    pub(super) scale: Scale,
    /// The lines.
    pub(super) series: Vec<Series>,
}

/// Maps figures to places.
struct Frame {
    left: (f64, f64),
    up: (f64, f64),
    scale: Scale,
}

impl Frame {
    fn x(&self, value: f64) -> f64 {
        let (from, until) = self.left;
        GUTTER + (value - from) / (until - from).max(f64::MIN_POSITIVE) * (WIDTH - GUTTER - MARGIN)
    }

    fn y(&self, value: f64) -> f64 {
        let (from, until) = self.up;
        let part = match self.scale {
            Scale::Even => (value - from) / (until - from),
            Scale::Powers => (value.max(from).log10() - from.log10()) / (until.log10() - from.log10()),
        };
        TOP + HEIGHT - part.clamp(0.0, 1.0) * HEIGHT
    }
}

/// Draws lines; nothing if there is no point. Writing to a String cannot fail, so results of `write!` are dropped here.
#[must_use]
pub(super) fn lines(lines: &Lines) -> String {
    let points = || lines.series.iter().flat_map(|series| &series.points);
    let Some(highest) = points().map(|(_, y)| *y).max_by(f64::total_cmp) else { return String::new() };
    let lowest = points().map(|(_, y)| *y).filter(|y| *y > 0.0).min_by(f64::total_cmp).unwrap_or(1.0);
    let places = || lines.marks.iter().map(|(x, _)| *x).chain(points().map(|(x, _)| *x));
    let left =
        (places().min_by(f64::total_cmp).unwrap_or(0.0), places().max_by(f64::total_cmp).unwrap_or(1.0));
    let up = match lines.scale {
        Scale::Even => (0.0, round_up(highest)),
        Scale::Powers => (power_below(lowest), power_below(highest) * 10.0),
    };
    let frame = Frame { left, up, scale: lines.scale };
    let mut svg = begin(&lines.title);
    upright(&mut svg, &frame);
    for (x, mark) in &lines.marks {
        let x = frame.x(*x);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{:.1}\"/>\
             <text text-anchor=\"middle\" x=\"{x:.1}\" y=\"{:.1}\">{}</text>",
            TOP + HEIGHT,
            TOP + HEIGHT + 16.0,
            escape(mark)
        );
    }
    caption(&mut svg, lines.axis);
    let mut names = Vec::new();
    for (number, series) in lines.series.iter().enumerate() {
        let mut path = String::new();
        for (place, (x, y)) in series.points.iter().enumerate() {
            let letter = if place == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{letter}{:.1} {:.1}", frame.x(*x), frame.y(*y));
        }
        let class = if series.is_dashed { "line dashed" } else { "line" };
        let _ = write!(svg, "<path class=\"{class} s{}\" d=\"{path}\"/>", number % COLOURS);
        for (x, y) in series.points.iter().filter(|_| series.points.len() <= 12) {
            let (x, y, figure) = (frame.x(*x), frame.y(*y), figure(*y));
            let _ = write!(
                svg,
                "<circle class=\"dot s{}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.5\"><title>{}: {figure}</title></circle>",
                number % COLOURS,
                escape(&series.name)
            );
        }
        if let Some((_, y)) = series.points.last() {
            names.push((frame.y(*y), number, &series.name));
        }
    }
    // Names that would lie on each other stand below each other.
    names.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = f64::MIN;
    for (y, number, name) in names {
        let y = y.max(free);
        free = y + NAME;
        let _ = write!(
            svg,
            "<text class=\"name t{}\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            number % COLOURS,
            WIDTH - MARGIN + 10.0,
            y + 4.0,
            escape(name)
        );
    }
    svg.push_str("</svg>");
    svg
}

/// Colours of the style sheet.
pub(super) const COLOURS: usize = 8;

/// Bars of parts on each other: what stands under each, and its parts. `parts` are the names in their order.
#[must_use]
pub(super) fn stacked(title: &str, axis: &str, parts: &[String], bars: &[(String, Vec<f64>)]) -> String {
    let sum = |bar: &(String, Vec<f64>)| bar.1.iter().sum::<f64>();
    let Some(highest) = bars.iter().map(sum).max_by(f64::total_cmp) else { return String::new() };
    let frame =
        Frame { left: (0.0, super::number(bars.len())), up: (0.0, round_up(highest)), scale: Scale::Even };
    let mut svg = begin(title);
    upright(&mut svg, &frame);
    caption(&mut svg, axis);
    for (number, bar) in bars.iter().enumerate() {
        let place = super::number(number);
        let (from, until) = (frame.x(place + (1.0 - BAR) / 2.0), frame.x(place + (1.0 + BAR) / 2.0));
        let mut below = 0.0;
        for (part, (name, value)) in parts.iter().zip(&bar.1).enumerate() {
            let (low, high) = (frame.y(below), frame.y(below + value));
            let _ = write!(
                svg,
                "<rect class=\"s{}\" x=\"{from:.1}\" y=\"{high:.1}\" width=\"{:.1}\" height=\"{:.1}\">\
                 <title>{}, {}: {}</title></rect>",
                part % COLOURS,
                until - from,
                low - high,
                escape(&bar.0),
                escape(name),
                figure(*value)
            );
            below += value;
        }
        let middle = f64::midpoint(from, until);
        let _ = write!(
            svg,
            "<text text-anchor=\"middle\" x=\"{middle:.1}\" y=\"{:.1}\">{}</text>\
             <text class=\"name\" text-anchor=\"middle\" x=\"{middle:.1}\" y=\"{:.1}\">{}</text>",
            TOP + HEIGHT + 16.0,
            escape(&bar.0),
            frame.y(below) - 5.0,
            figure(below)
        );
    }
    for (part, name) in parts.iter().enumerate() {
        let y = TOP + 8.0 + NAME * super::number(part);
        let _ = write!(
            svg,
            "<text class=\"name t{}\" x=\"{:.1}\" y=\"{y:.1}\">{}</text>",
            part % COLOURS,
            WIDTH - MARGIN + 10.0,
            escape(name)
        );
    }
    svg.push_str("</svg>");
    svg
}

fn begin(title: &str) -> String {
    format!(
        "<svg viewBox=\"0 0 {WIDTH} {:.0}\" role=\"img\" aria-label=\"{title}\" xmlns=\"http://www.w3.org/2000/svg\">\
         <text class=\"part\" x=\"{GUTTER}\" y=\"16\">{title}</text>",
        TOP + HEIGHT + BELOW,
        title = escape(title)
    )
}

fn caption(svg: &mut String, text: &str) {
    let _ = write!(
        svg,
        "<text text-anchor=\"middle\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
        f64::midpoint(GUTTER, WIDTH - MARGIN),
        TOP + HEIGHT + 36.0,
        escape(text)
    );
}

/// The upright axis: lines across, with what they stand for.
fn upright(svg: &mut String, frame: &Frame) {
    let (from, until) = frame.up;
    let marks: Vec<f64> = match frame.scale {
        Scale::Even => [0.0, 0.25, 0.5, 0.75, 1.0].map(|part| until * part).to_vec(),
        Scale::Powers => std::iter::successors(Some(from), |mark| Some(mark * 10.0))
            .take_while(|mark| *mark <= until * 1.01)
            .collect(),
    };
    for mark in marks {
        let y = frame.y(mark);
        let _ = write!(
            svg,
            "<line class=\"grid\" x1=\"{GUTTER}\" x2=\"{:.1}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>\
             <text text-anchor=\"end\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            WIDTH - MARGIN,
            GUTTER - 8.0,
            y + 4.0,
            figure(mark)
        );
    }
}

/// `0.05`, `7.5`, `250`, `12,500`.
fn figure(value: f64) -> String {
    if value == 0.0 {
        return "0".to_owned();
    }
    if value < 1.0 {
        return format!("{value:.2}");
    }
    if value < 10.0 && value.fract() > 0.05 {
        return format!("{value:.1}");
    }
    #[allow(clippy::cast_possible_truncation)] // a figure on a picture
    let whole = value.round() as i64;
    crate::report::sheet::grouped(whole)
}

/// The next round number.
fn round_up(value: f64) -> f64 {
    let power = power_below(value.max(f64::MIN_POSITIVE));
    let rounds = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0].map(|times| times * power);
    rounds.into_iter().find(|round| *round >= value).unwrap_or(value)
}

/// The power of ten that is not above it.
fn power_below(value: f64) -> f64 {
    10_f64.powf(value.log10().floor())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_its_points_and_its_name() {
        let line = |name: &str, points: &[(f64, f64)]| Series {
            name: name.to_owned(),
            points: points.to_vec(),
            is_dashed: name == "floor",
        };
        let svg = lines(&Lines {
            title: "Rate <".to_owned(),
            marks: vec![(0.0, "1".to_owned()), (1.0, "64".to_owned())],
            axis: "in flight",
            scale: Scale::Even,
            series: vec![
                line("us", &[(0.0, 500.0), (1.0, 950.0)]),
                line("floor", &[(0.0, 600.0), (1.0, 951.0)]),
            ],
        });
        assert!(svg.contains("Rate &lt;") && svg.contains(">1,000<"));
        assert_eq!((svg.matches("<path").count(), svg.matches("<circle").count()), (2, 4));
        assert!(svg.contains("line dashed s1"));
        // The highest stands at 5 % below the top, and the names do not lie on each other.
        let y: Vec<f64> = svg
            .split("class=\"name t")
            .skip(1)
            .map(|rest| rest.split("y=\"").nth(1).unwrap().split('"').next().unwrap().parse().unwrap())
            .collect();
        assert!((y[1] - y[0]).abs() >= NAME - 0.11, "{y:?}");
    }

    #[test]
    fn powers_of_ten_lie_evenly() {
        let frame = Frame { left: (0.0, 1.0), up: (0.1, 100.0), scale: Scale::Powers };
        assert!((frame.y(1.0) - frame.y(10.0) - HEIGHT / 3.0).abs() < 1e-6);
        assert!((frame.y(0.0) - (TOP + HEIGHT)).abs() < 1e-6);
    }

    #[test]
    fn parts_lie_on_each_other() {
        let parts = ["a", "b"].map(str::to_owned);
        let svg = stacked("CPU", "in flight", &parts, &[("us".to_owned(), vec![50.0, 50.0])]);
        let heights: Vec<&str> =
            svg.split("height=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert_eq!(heights, ["115.0", "115.0"]);
        assert!(stacked("CPU", "in flight", &parts, &[]).is_empty());
    }

    #[test]
    fn an_axis_ends_at_a_round_number() {
        assert_eq!([0.3, 3.0, 104.0, 1_000.0].map(round_up), [0.4, 4.0, 200.0, 1_000.0]);
        assert_eq!([0.05, 7.5, 250.0, 12_500.0].map(figure), ["0.05", "7.5", "250", "12,500"]);
    }
}
