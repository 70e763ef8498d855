//! Draws plots of curves, as SVG in `benches/results/`.

use plotters::coord::combinators::{BindKeyPoints, WithKeyPoints};
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;

use crate::table::results;

/// Describes a plot. The horizontal axis is always logarithmic.
pub(crate) struct Plot {
    /// The file's name, without `.svg`.
    pub(crate) file: &'static str,
    pub(crate) title: &'static str,
    pub(crate) across: &'static str,
    pub(crate) up: &'static str,
    pub(crate) curves: Vec<Curve>,
}

/// Holds the points of one curve.
pub(crate) struct Curve {
    name: String,
    points: Vec<(f64, f64)>,
}

const SIZE: (u32, u32) = (720, 440);
/// Height of the title and the names of the curves at the top, in pixels.
const HEAD: u32 = 64;
const COLOURS: [RGBColor; 5] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
];

impl Curve {
    pub(crate) fn new(name: impl Into<String>, points: Vec<(f64, f64)>) -> Self {
        Self { name: name.into(), points }
    }
}

impl Plot {
    /// Draws the vertical axis from 0, linearly.
    pub(crate) fn draw(&self) {
        let (_, top) = self.span(|point| point.1);
        self.draw_over::<RangedCoordf64>(0.0..top * 1.1);
    }

    /// Draws the vertical axis by powers of ten, for values that span several.
    pub(crate) fn draw_logarithmic(&self) {
        let (bottom, top) = self.span(|point| point.1);
        let (bottom, top) = (10_f64.powf(bottom.log10().floor()), 10_f64.powf(top.log10().ceil()));
        self.draw_over(logarithmic(bottom, top));
    }

    fn span(&self, value: fn(&(f64, f64)) -> f64) -> (f64, f64) {
        let values = self.curves.iter().flat_map(|curve| &curve.points).map(value);
        values.fold((f64::MAX, 0.0), |(low, high), value| (low.min(value), high.max(value)))
    }

    fn draw_over<Y>(&self, up: impl AsRangedCoord<Value = f64, CoordDescType = Y>)
    where
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let path = results(&format!("{}.svg", self.file));
        let area = SVGBackend::new(&path, SIZE).into_drawing_area();
        area.fill(&WHITE).unwrap();
        let (head, body) = area.split_vertically(HEAD);
        head.draw(&Text::new(self.title, (14, 10), ("sans-serif", 18))).unwrap();
        let mut x = 14;
        for (curve, colour) in self.curves.iter().zip(COLOURS) {
            head.draw(&PathElement::new([(x, 48), (x + 18, 48)], colour.stroke_width(3))).unwrap();
            head.draw(&Text::new(curve.name.as_str(), (x + 24, 40), ("sans-serif", 14))).unwrap();
            x += 24 + i32::try_from(8 * curve.name.len()).unwrap() + 16;
        }
        let (left, right) = self.span(|point| point.0);
        let mut chart = ChartBuilder::on(&body)
            .margin(14)
            .x_label_area_size(44)
            .y_label_area_size(72)
            .build_cartesian_2d(logarithmic(left, right), up)
            .unwrap();
        let short = |value: &f64| short(*value);
        chart
            .configure_mesh()
            .x_desc(self.across)
            .y_desc(self.up)
            .x_label_formatter(&short)
            .y_label_formatter(&short)
            .label_style(("sans-serif", 13))
            .light_line_style(WHITE)
            .draw()
            .unwrap();
        for (curve, colour) in self.curves.iter().zip(COLOURS) {
            chart.draw_series(LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2))).unwrap();
            let dots = curve.points.iter().map(|point| Circle::new(*point, 3, colour.filled()));
            chart.draw_series(dots).unwrap();
        }
        area.present().unwrap();
        println!("drawn: {}", path.display());
    }
}

/// Chooses the labels of an axis: powers of ten, and where these are few, twice and five times as much as well.
fn logarithmic(from: f64, to: f64) -> WithKeyPoints<LogCoord<f64>> {
    let between: &[f64] = if to / from > 1e4 { &[1.0] } else { &[1.0, 2.0, 5.0] };
    let powers = from.log10().floor() as i32..=to.log10().ceil() as i32;
    let labels = powers.flat_map(|power| between.iter().map(move |times| times * 10_f64.powi(power)));
    let labels = labels.filter(|label| (from..=to).contains(label)).collect();
    (from..to).log_scale().with_key_points(labels)
}

/// Formats a number, with 1000 as 1k.
fn short(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        1e6.. => format!("{}M", value / 1e6),
        1e3.. => format!("{}k", value / 1e3),
        _ => format!("{}", (value * 1e6).round() / 1e6),
    }
}
