//! Curves, as SVG in `benches/results/`.

use plotters::prelude::*;

use crate::table::results;

/// One curve, by its points.
pub(crate) struct Curve {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

const COLOURS: [RGBColor; 4] = [RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44), BLACK];

/// Draws curves over a logarithmic axis, and says where.
pub(crate) fn draw(file: &str, title: &str, (across, up): (&str, &str), curves: &[Curve]) {
    let path = results(&format!("{file}.svg"));
    let points = || curves.iter().flat_map(|curve| &curve.points);
    let span = |value: fn(&(f64, f64)) -> f64| {
        points().map(value).fold((f64::MAX, 0.0_f64), |(low, high), value| (low.min(value), high.max(value)))
    };
    let ((left, right), (_, top)) = (span(|point| point.0), span(|point| point.1));
    let area = SVGBackend::new(&path, (720, 420)).into_drawing_area();
    area.fill(&WHITE).unwrap();
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d((left..right).log_scale(), 0.0..top * 1.1)
        .unwrap();
    chart.configure_mesh().x_desc(across).y_desc(up).light_line_style(WHITE).draw().unwrap();
    for (curve, colour) in curves.iter().zip(COLOURS) {
        let line = LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2)).point_size(3);
        let series = chart.draw_series(line).unwrap().label(curve.name);
        series.legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().border_style(BLACK).background_style(WHITE.mix(0.8)).draw().unwrap();
    area.present().unwrap();
    println!("drawn: {}", path.display());
}
