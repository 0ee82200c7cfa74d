//! Outlines of the kinds of objects, as signed distances: negative inside, in units of the object's radius.
//!
//! A shape fits the square from -1 to 1, x to the right and y downwards. Distances are exact for a single part; where parts are
//! joined they are exact outside and near the outline, which is where the rasteriser looks.

use super::{Kind, Object};
use std::f32::consts::PI;
use std::sync::LazyLock;

/// A point, or a vector, in units of the radius.
pub(super) type Point = [f32; 2];

/// A part of a shape.
enum Part {
    /// Centre and radius.
    Disc(Point, f32),
    /// Radius of the middle line, half of the thickness; around the origin.
    Band(f32, f32),
    /// Corners in order.
    Polygon(Vec<Point>),
    /// The second part cut out of the first.
    Without(Box<Part>, Box<Part>),
}

/// A kind of object as it is drawn: its body, and details of a darker shade on it.
pub(super) struct Shape {
    body: Vec<Part>,
    details: Vec<Part>,
}

impl Shape {
    /// The shape of a kind.
    pub fn of(kind: Kind) -> &'static Shape {
        static SHAPES: LazyLock<Vec<Shape>> = LazyLock::new(|| Kind::ALL.into_iter().map(Shape::build).collect());
        &SHAPES[kind as usize]
    }

    fn build(kind: Kind) -> Shape {
        let plain = |part| Shape { body: vec![part], details: Vec::new() };
        match kind {
            Kind::Circle => plain(Part::Disc([0.0, 0.0], 0.92)),
            Kind::Square => plain(rectangle(-0.8, -0.8, 0.8, 0.8)),
            Kind::Triangle => plain(Part::Polygon(vec![[0.0, -0.92], [0.95, 0.75], [-0.95, 0.75]])),
            Kind::Star => plain(Part::Polygon(star())),
            Kind::Heart => plain(Part::Polygon(heart())),
            Kind::Ring => plain(Part::Band(0.68, 0.25)),
            Kind::Cross => {
                Shape { body: vec![rectangle(-0.3, -0.92, 0.3, 0.92), rectangle(-0.92, -0.3, 0.92, 0.3)], details: vec![] }
            }
            Kind::Moon => {
                let bite = Part::Disc([0.5, -0.12], 0.76);
                plain(Part::Without(Box::new(Part::Disc([-0.08, 0.0], 0.94)), Box::new(bite)))
            }
            Kind::House => Shape {
                body: vec![rectangle(-0.68, -0.12, 0.68, 0.88), Part::Polygon(vec![[0.0, -0.95], [0.98, -0.02], [-0.98, -0.02]])],
                details: vec![rectangle(-0.2, 0.3, 0.2, 0.88)],
            },
            Kind::Tree => Shape {
                body: vec![
                    Part::Polygon(vec![[0.0, -1.0], [0.5, -0.3], [-0.5, -0.3]]),
                    Part::Polygon(vec![[0.0, -0.65], [0.74, 0.45], [-0.74, 0.45]]),
                    rectangle(-0.16, 0.4, 0.16, 1.0),
                ],
                details: vec![rectangle(-0.16, 0.45, 0.16, 1.0)],
            },
            Kind::Fish => Shape {
                body: vec![
                    Part::Polygon(ellipse([-0.2, 0.0], 0.76, 0.48)),
                    Part::Polygon(vec![[0.4, 0.0], [0.98, -0.5], [0.98, 0.5]]),
                ],
                details: vec![Part::Disc([-0.6, -0.1], 0.11)],
            },
            Kind::Boat => Shape {
                body: vec![
                    Part::Polygon(vec![[-0.98, 0.32], [0.98, 0.32], [0.55, 0.85], [-0.6, 0.85]]),
                    Part::Polygon(vec![[-0.02, -0.95], [0.78, 0.14], [-0.02, 0.14]]),
                    rectangle(-0.14, -0.95, -0.02, 0.35),
                ],
                details: vec![rectangle(-0.14, -0.95, -0.02, 0.32)],
            },
        }
    }

    /// Distance from the outline of the whole.
    pub fn body(&self, at: Point) -> f32 {
        union(&self.body, at)
    }

    /// Distance from the outline of the details; infinite if there are none.
    pub fn details(&self, at: Point) -> f32 {
        union(&self.details, at)
    }
}

fn union(parts: &[Part], at: Point) -> f32 {
    parts.iter().map(|part| part.distance(at)).fold(f32::INFINITY, f32::min)
}

impl Object {
    /// The share of it that lies behind the body of `nearer`.
    pub(super) fn share_behind(&self, nearer: &Object) -> f32 {
        const STEPS: u16 = 24;
        let local = |object: &Object, [x, y]: Point| {
            let (sin, cos) = object.angle.sin_cos();
            let [dx, dy] = [x - object.x, y - object.y].map(|d| d / object.radius);
            [dx * cos + dy * sin, dy * cos - dx * sin]
        };
        let (mut own, mut hidden) = (0u16, 0u16);
        for i in 0..STEPS * STEPS {
            let step = |i: u16| ((f32::from(i) + 0.5) / f32::from(STEPS) * 2.0 - 1.0) * self.radius;
            let at = [self.x + step(i % STEPS), self.y + step(i / STEPS)];
            if Shape::of(self.kind).body(local(self, at)) < 0.0 {
                own += 1;
                hidden += u16::from(Shape::of(nearer.kind).body(local(nearer, at)) < 0.0);
            }
        }
        f32::from(hidden) / f32::from(own.max(1))
    }
}

impl Part {
    fn distance(&self, at: Point) -> f32 {
        match self {
            Part::Disc(centre, radius) => (at[0] - centre[0]).hypot(at[1] - centre[1]) - radius,
            Part::Band(radius, half) => (at[0].hypot(at[1]) - radius).abs() - half,
            Part::Polygon(corners) => polygon_distance(corners, at),
            Part::Without(whole, hole) => whole.distance(at).max(-hole.distance(at)),
        }
    }
}

/// Signed distance from a closed polygon: the nearest edge, and the side by the parity of the edges crossed to the left.
fn polygon_distance(corners: &[Point], at: Point) -> f32 {
    let mut nearest = f32::INFINITY;
    let mut inside = false;
    let mut from = corners[corners.len() - 1];
    for &to in corners {
        let edge = [to[0] - from[0], to[1] - from[1]];
        let offset = [at[0] - from[0], at[1] - from[1]];
        let along = ((offset[0] * edge[0] + offset[1] * edge[1]) / (edge[0] * edge[0] + edge[1] * edge[1])).clamp(0.0, 1.0);
        let across = [offset[0] - along * edge[0], offset[1] - along * edge[1]];
        nearest = nearest.min(across[0] * across[0] + across[1] * across[1]);
        if (from[1] > at[1]) != (to[1] > at[1]) && offset[0] < edge[0] * offset[1] / edge[1] {
            inside = !inside;
        }
        from = to;
    }
    if inside { -nearest.sqrt() } else { nearest.sqrt() }
}

fn rectangle(left: f32, top: f32, right: f32, bottom: f32) -> Part {
    Part::Polygon(vec![[left, top], [right, top], [right, bottom], [left, bottom]])
}

/// Five points, one up.
fn star() -> Vec<Point> {
    let corner = |i: u8| {
        let (angle, radius) = (PI * f32::from(i) / 5.0, if i.is_multiple_of(2) { 1.0 } else { 0.45 });
        [radius * angle.sin(), 0.06 - radius * angle.cos()]
    };
    (0..10).map(corner).collect()
}

/// The curve x = 16 sin^3 t, y = 13 cos t - 5 cos 2t - 2 cos 3t - cos 4t, scaled.
fn heart() -> Vec<Point> {
    let corner = |i: u8| {
        let t = 2.0 * PI * f32::from(i) / 32.0;
        let y = 13.0 * t.cos() - 5.0 * (2.0 * t).cos() - 2.0 * (3.0 * t).cos() - (4.0 * t).cos();
        [16.0 * t.sin().powi(3) / 17.0, -(y + 2.5) / 16.0]
    };
    (0..32).map(corner).collect()
}

fn ellipse(centre: Point, width: f32, height: f32) -> Vec<Point> {
    let corner = |i: u8| {
        let t = 2.0 * PI * f32::from(i) / 24.0;
        [centre[0] + width * t.cos(), centre[1] + height * t.sin()]
    };
    (0..24).map(corner).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Share of the square from -1 to 1 that the shape covers.
    fn area(kind: Kind) -> f32 {
        let n = 100;
        let inside = (0..n * n).filter(|i| {
            let at = [i % n, i / n].map(|j| (j as f32 + 0.5) * 2.0 / n as f32 - 1.0);
            Shape::of(kind).body(at) < 0.0
        });
        inside.count() as f32 / (n * n) as f32
    }

    #[test]
    fn shapes_fit_their_square_and_fill_a_part_of_it() {
        for kind in Kind::ALL {
            let area = area(kind);
            assert!((0.25..0.75).contains(&area), "{kind:?} covers {area}");
            for i in 0..400 {
                let s = (i % 100) as f32 / 50.0 - 1.0;
                let at = [[s, -1.07], [s, 1.07], [-1.07, s], [1.07, s]][i / 100];
                assert!(Shape::of(kind).body(at) > 0.0, "{kind:?} reaches {at:?}");
            }
        }
    }

    #[test]
    fn areas_and_distances_are_those_of_geometry() {
        assert!((area(Kind::Square) - 0.64).abs() < 0.01);
        assert!((area(Kind::Circle) - PI * 0.92 * 0.92 / 4.0).abs() < 0.01);
        assert!((area(Kind::Triangle) - 0.95 * 1.67 / 4.0).abs() < 0.01);
        assert!((area(Kind::Ring) - PI * (0.93f32.powi(2) - 0.43f32.powi(2)) / 4.0).abs() < 0.01);
        let square = Shape::of(Kind::Square);
        assert!((square.body([0.0, 0.0]) + 0.8).abs() < 1e-6);
        assert!((square.body([1.0, 1.0]) - 0.2 * 2f32.sqrt()).abs() < 1e-6);
        assert_eq!(square.details([0.0, 0.0]), f32::INFINITY);
        assert!(Shape::of(Kind::Moon).body([0.6, -0.1]) > 0.0, "the moon has its bite");
    }
}
