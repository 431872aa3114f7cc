//! A plain chart: both axes from 0 to 1, a line a curve, a legend. For a look; papers draw from the data.

use std::fmt::Write as _;

use super::data::Curve;
use crate::args::CurveKind;

/// Side of the square that holds the curves, and the room around it.
const SIDE: f64 = 360.0;
const LEFT: f64 = 56.0;
const TOP: f64 = 16.0;
const BELOW: f64 = 48.0;
const LINE: f64 = 18.0;

/// Colours that people with the common colour deficiencies tell apart (Okabe and Ito 2008), without the yellow.
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"];

/// The chart.
pub fn chart(curves: &[Curve], kind: CurveKind) -> String {
    let (across, up) = titles(kind);
    let widest = curves.iter().map(|curve| curve.name.chars().count()).max().unwrap_or(0) as f64;
    let width = LEFT + SIDE + 60.0 + 7.0 * widest;
    let height = (TOP + SIDE + BELOW).max(TOP + LINE * (curves.len() + 1) as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n"
    );
    axes(&mut svg, across, up);
    if matches!(kind, CurveKind::Reliability | CurveKind::Roc) {
        let ends = path([(0.0, 0.0), (1.0, 1.0)].into_iter());
        add(
            &mut svg,
            &format!("<path d=\"{ends}\" fill=\"none\" stroke=\"#999\" stroke-dasharray=\"4 4\"/>"),
        );
    }
    for (index, curve) in curves.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        // After one round of the colours, curves are dashed.
        let dash = if index < COLOURS.len() { "" } else { " stroke-dasharray=\"6 3\"" };
        let stroke = format!("fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"{dash}");
        add(&mut svg, &format!("<path d=\"{}\" {stroke}/>", path(ends(curve, kind))));
        if kind == CurveKind::Reliability {
            for (x, y) in ends(curve, kind) {
                let (x, y) = place(x, y);
                add(&mut svg, &format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\"/>"));
            }
        }
        let (x, y) = (LEFT + SIDE + 16.0, TOP + 8.0 + LINE * index as f64);
        add(&mut svg, &format!("<path d=\"M{x:.1} {y:.1}h20\" {stroke}/>"));
        add(
            &mut svg,
            &format!("<text x=\"{:.1}\" y=\"{:.1}\">{}</text>", x + 26.0, y + 4.0, escaped(&curve.name)),
        );
    }
    svg + "</svg>\n"
}

fn titles(kind: CurveKind) -> (&'static str, &'static str) {
    match kind {
        CurveKind::Reliability => ("confidence", "accuracy"),
        CurveKind::RiskCoverage => ("coverage", "risk"),
        CurveKind::Roc => ("false-positive rate", "true-positive rate"),
        CurveKind::Pr => ("recall", "precision"),
    }
}

/// Both coordinates of each point that has them.
fn ends(curve: &Curve, kind: CurveKind) -> impl Iterator<Item = (f64, f64)> + '_ {
    let (across, up) = match kind {
        CurveKind::Reliability => (3, 4),
        CurveKind::RiskCoverage | CurveKind::Roc | CurveKind::Pr => (1, 2),
    };
    curve.points.iter().filter_map(move |point| point[across].zip(point[up]))
}

fn axes(svg: &mut String, across: &str, up: &str) {
    add(
        svg,
        &format!(
            "<rect x=\"{LEFT}\" y=\"{TOP}\" width=\"{SIDE}\" height=\"{SIDE}\" fill=\"none\" stroke=\"#333\"/>"
        ),
    );
    for tick in 0..=5 {
        let value = f64::from(tick) / 5.0;
        let ((x, bottom), (left, y)) = (place(value, 0.0), place(0.0, value));
        add(svg, &format!("<path d=\"M{x:.1} {bottom:.1}v4M{left:.1} {y:.1}h-4\" stroke=\"#333\"/>"));
        let (below, beside) = (bottom + 17.0, left - 8.0);
        add(svg, &format!("<text x=\"{x:.1}\" y=\"{below:.1}\" text-anchor=\"middle\">{value:.1}</text>"));
        add(
            svg,
            &format!("<text x=\"{beside:.1}\" y=\"{:.1}\" text-anchor=\"end\">{value:.1}</text>", y + 4.0),
        );
    }
    let (middle, low) = (LEFT + SIDE / 2.0, TOP + SIDE + 38.0);
    add(svg, &format!("<text x=\"{middle:.1}\" y=\"{low:.1}\" text-anchor=\"middle\">{across}</text>"));
    let (x, y) = (16.0, TOP + SIDE / 2.0);
    let turned = format!("transform=\"rotate(-90 {x:.1} {y:.1})\"");
    add(svg, &format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\" {turned}>{up}</text>"));
}

fn path(points: impl Iterator<Item = (f64, f64)>) -> String {
    let mut path = String::new();
    for (index, (x, y)) in points.enumerate() {
        let (x, y) = place(x, y);
        // Writing to a string cannot fail.
        let _ = write!(path, "{}{x:.1} {y:.1}", if index == 0 { 'M' } else { 'L' });
    }
    path
}

/// From the unit square to the picture.
fn place(x: f64, y: f64) -> (f64, f64) {
    (LEFT + SIDE * x, TOP + SIDE * (1.0 - y))
}

fn add(svg: &mut String, element: &str) {
    svg.push_str(element);
    svg.push('\n');
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_has_a_line_and_a_name_for_each_curve() {
        let curve = |name: &str| Curve {
            name: name.to_owned(),
            points: vec![vec![None, Some(0.0), Some(0.0)], vec![Some(0.5), Some(0.25), Some(1.0)]],
        };
        let svg = chart(&[curve("a < b"), curve("c")], CurveKind::Roc);
        assert_eq!(svg.matches("<path d=\"M56.0 376.0L146.0 16.0\"").count(), 2, "{svg}");
        assert!(svg.contains(">a &lt; b</text>") && svg.contains(">c</text>"));
        assert!(svg.ends_with("</svg>\n"));
    }

    #[test]
    fn a_bin_that_is_empty_is_not_drawn() {
        let points = vec![
            vec![Some(0.0), Some(0.1), Some(0.0), None, None],
            vec![Some(0.1), Some(0.2), Some(3.0), Some(0.15), Some(1.0)],
        ];
        let svg = chart(&[Curve { name: String::new(), points }], CurveKind::Reliability);
        assert_eq!(svg.matches("<circle").count(), 1);
    }
}
