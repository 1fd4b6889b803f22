//! A line chart as SVG.
//! Guarantees: it needs no script, no font and no other file; colours come from the page's style, so that
//! they follow its scheme. A series with gaps is drawn with gaps.

use std::fmt::Write as _;

/// Width of the drawing; the page scales it.
const WIDTH: f64 = 640.0;
/// Height of the drawing.
const HEIGHT: f64 = 240.0;
/// Room for the numbers at the left.
const LEFT: f64 = 64.0;
/// Room for the legend at the top.
const TOP: f64 = 30.0;
/// Room for the numbers at the bottom.
const BOTTOM: f64 = 40.0;
/// Room for half a number at the right.
const RIGHT: f64 = 24.0;
/// Steps that the vertical axis has at least; round numbers make it up to twice as many.
const STEPS: f64 = 4.0;

/// One line.
pub(super) struct Series {
    pub(super) name: &'static str,
    /// Horizontal and vertical; `None` is a gap.
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// A chart.
pub(super) struct Chart {
    pub(super) title: &'static str,
    /// What the vertical axis counts.
    pub(super) unit: &'static str,
    /// What the horizontal axis says.
    pub(super) along: &'static str,
    /// Numbers on the horizontal axis, where they are not just its own.
    pub(super) ticks: Option<Vec<(f64, String)>>,
    pub(super) series: Vec<Series>,
}

/// Which values the two axes show.
struct Axes {
    /// The horizontal one.
    from: f64,
    to: f64,
    /// The vertical one, from 0 on.
    top: f64,
    step: f64,
}

impl Axes {
    fn x(&self, at: f64) -> f64 {
        LEFT + (at - self.from) / (self.to - self.from).max(f64::EPSILON) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        TOP + (1.0 - value / self.top) * (HEIGHT - TOP - BOTTOM)
    }

    /// Lines and numbers of the vertical axis.
    fn draw_grid(&self, svg: &mut String) {
        let mut value = 0.0;
        while value <= self.top + self.step / 2.0 {
            let _ = write!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text class=\"number\" x=\"{}\" y=\"{:.1}\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                self.y(value) + 4.0,
                short(value),
                at = self.y(value)
            );
            value += self.step;
        }
    }

    /// Round numbers of the horizontal axis.
    fn ticks(&self) -> Vec<(f64, String)> {
        let step = round_step((self.to - self.from) / STEPS).max(1.0);
        let first = (self.from / step).ceil();
        let last = (self.to / step).floor();
        std::iter::successors(Some(first), |tick| Some(tick + 1.0))
            .take_while(|tick| *tick <= last)
            .map(|tick| (tick * step, short(tick * step)))
            .collect()
    }
}

impl Chart {
    /// The drawing; nothing where there is nothing to draw.
    pub(super) fn svg(&self) -> String {
        let Some(axes) = self.axes() else { return String::new() };
        let mut svg = format!(
            "<figure><figcaption>{}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-label=\"{}\">",
            self.title, self.title
        );
        let _ = write!(svg, "<text class=\"unit\" x=\"0\" y=\"12\">{}</text>", self.unit);
        axes.draw_grid(&mut svg);
        let ticks = self.ticks.clone().unwrap_or_else(|| axes.ticks());
        for (at, text) in ticks.iter().filter(|(at, _)| (axes.from..=axes.to).contains(at)) {
            let _ = write!(
                svg,
                "<text class=\"tick\" x=\"{:.1}\" y=\"{}\">{text}</text>",
                axes.x(*at),
                HEIGHT - BOTTOM + 18.0
            );
        }
        let _ = write!(
            svg,
            "<text class=\"tick\" x=\"{}\" y=\"{}\">{}</text>",
            f64::midpoint(LEFT, WIDTH - RIGHT),
            HEIGHT - 4.0,
            self.along
        );
        for (index, series) in self.series.iter().enumerate() {
            let _ = write!(svg, "<path class=\"line s{index}\" d=\"{}\"/>", series.path(&axes));
        }
        self.draw_legend(&mut svg);
        svg + "</svg></figure>\n"
    }

    /// What the axes show; `None` where fewer than two values are known.
    fn axes(&self) -> Option<Axes> {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let values = || points().filter_map(|(_, value)| *value);
        if values().count() < 2 {
            return None;
        }
        let (from, to) = points()
            .map(|(at, _)| *at)
            .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), at| (low.min(at), high.max(at)));
        let step = round_step(values().fold(0.0, f64::max) / STEPS);
        let top = (values().fold(0.0, f64::max) / step).ceil().max(1.0) * step;
        Some(Axes { from, to, top, step })
    }

    /// The names at the right, one beside the other.
    fn draw_legend(&self, svg: &mut String) {
        let mut right = WIDTH - RIGHT;
        for (index, series) in self.series.iter().enumerate().rev() {
            // Characters of the style's size are about this wide.
            #[expect(clippy::cast_precision_loss, reason = "names are short")]
            let width = series.name.chars().count() as f64 * 7.0;
            right -= width;
            let _ = write!(
                svg,
                "<text class=\"name\" x=\"{right:.0}\" y=\"12\">{}</text>\
                 <line class=\"line s{index}\" x1=\"{:.0}\" x2=\"{:.0}\" y1=\"8\" y2=\"8\"/>",
                series.name,
                right - 20.0,
                right - 6.0
            );
            right -= 36.0;
        }
    }
}

impl Series {
    /// The line as the data of a path.
    fn path(&self, axes: &Axes) -> String {
        let (mut path, mut pen) = (String::new(), 'M');
        for (at, value) in &self.points {
            if let Some(value) = value {
                let _ = write!(path, "{pen}{:.1} {:.1}", axes.x(*at), axes.y(*value));
            }
            pen = if value.is_some() { 'L' } else { 'M' };
        }
        path
    }
}

/// The next of 1, 2 and 5 times a power of ten.
fn round_step(least: f64) -> f64 {
    if least <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(least.log10().floor());
    let times = [1.0, 2.0, 5.0].into_iter().find(|times| times * power >= least).unwrap_or(10.0);
    times * power
}

/// A number as an axis has room for it.
fn short(value: f64) -> String {
    // Steps are round, but their sums only nearly.
    let plain = |value: f64| format!("{}", (value * 1e3).round() / 1e3);
    if value >= 1e6 {
        plain(value / 1e6) + " M"
    } else if value >= 1e4 {
        plain(value / 1e3) + " k"
    } else {
        plain(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_count_in_round_steps() {
        let steps = [0.3, 1.0, 1.1, 30.0, 7_000.0].map(|least| round_step(least).to_string());
        assert_eq!(steps, ["0.5", "1", "2", "50", "10000"]);
        assert_eq!(
            [0.0, 0.300_000_000_000_000_04, 1_500.0, 20_000.0, 2.5e6].map(short),
            ["0", "0.3", "1500", "20 k", "2.5 M"]
        );
    }

    #[test]
    fn a_gap_in_the_figures_is_a_gap_in_the_line() {
        let points = vec![(0.0, Some(1.0)), (1.0, None), (2.0, Some(2.0)), (3.0, Some(1.0))];
        let chart = Chart {
            title: "t",
            unit: "u",
            along: "s",
            ticks: None,
            series: vec![Series { name: "n", points }],
        };
        let svg = chart.svg();
        let path = svg.split("d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(path.matches('M').count(), 2, "{path}");
        assert_eq!(path.matches('L').count(), 1, "{path}");
    }

    #[test]
    fn a_chart_of_nothing_is_not_drawn() {
        let series = vec![Series { name: "n", points: vec![(0.0, None), (1.0, Some(1.0))] }];
        assert_eq!(Chart { title: "t", unit: "u", along: "s", ticks: None, series }.svg(), "");
    }
}
