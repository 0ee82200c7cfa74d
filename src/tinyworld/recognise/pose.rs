//! Where an object is, and the way to a better place.

use super::super::render::SIDE;
use super::super::scene::Kind;
use super::super::shape::Shape;
use std::sync::LazyLock;

/// Cells along one side of a table of distances.
const CELLS: usize = 160;

/// Half of a table's extent, in radii.
const HALF: f32 = 1.3;

/// For each kind, in each cell: distance from the outline of the body and of the details, in radii.
static TABLES: LazyLock<Vec<Vec<[f32; 2]>>> = LazyLock::new(|| {
    let middle = |cell: usize| (cell as f32 + 0.5) * 2.0 * HALF / CELLS as f32 - HALF;
    let table = |kind| {
        let shape = Shape::of(kind);
        let at = (0..CELLS * CELLS).map(|i| [middle(i % CELLS), middle(i / CELLS)]);
        at.map(|at| [shape.body(at), shape.details(at)]).collect()
    };
    Kind::ALL.into_iter().map(table).collect()
});

/// Place, size, turn and blur of an object. Lengths are in pixels.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pose {
    pub x: f32,
    pub y: f32,
    pub radius: f32,
    /// Clockwise, in radians.
    pub angle: f32,
    /// Standard deviation of the blur.
    pub blur: f32,
}

/// A change of a pose by a number of steps.
pub(super) type Move = fn(&mut Pose, f32);

/// Changes of the pose; the last is of the blur, which only drawing knows.
pub(super) const MOVES: [Move; 5] = [
    |pose, by| pose.x += by,
    |pose, by| pose.y += by,
    |pose, by| pose.radius = (pose.radius * (1.0 + 0.06 * by)).clamp(6.5, 21.5),
    |pose, by| pose.angle = (pose.angle + 0.08 * by).clamp(-0.25, 0.25),
    |pose, by| pose.blur = (pose.blur + 0.4 * by).clamp(0.0, 2.0),
];

impl Pose {
    /// Distance of the centre of pixel `i` from the outline of the body and of the details of a kind; infinite far outside.
    pub fn distances(&self, kind: Kind, i: usize) -> [f32; 2] {
        Frame::new(self, kind).distances(i % SIDE, i / SIDE)
    }

    /// Whether what is seen of two objects may touch.
    pub fn reaches(&self, other: &Pose) -> bool {
        (self.x - other.x).hypot(self.y - other.y) < self.radius + other.radius + 3.0
    }

    /// Columns and rows, the last one included, that an object and a margin around it may cover.
    pub fn window(&self, margin: f32) -> [[usize; 2]; 2] {
        let reach = self.radius * 1.03 + margin;
        let last = SIDE - 1;
        [self.x, self.y].map(|c| [c - reach, c + reach].map(|edge| (edge.max(0.0) as usize).min(last)))
    }

    /// Coordinate ascent: the best pose near this one, by moves of each step size in turn.
    pub fn climb(self, moves: &[Move], steps: &[f32], mut value: impl FnMut(&Pose) -> f32) -> Pose {
        let (mut best, mut most) = (self, value(&self));
        for &step in steps {
            for _ in 0..2 {
                let before = most;
                for change in moves {
                    for by in [step, -step] {
                        let mut pose = best;
                        change(&mut pose, by);
                        let value = value(&pose);
                        if value > most {
                            (best, most) = (pose, value);
                        }
                    }
                }
                if most == before {
                    break;
                }
            }
        }
        best
    }
}

/// A pose made ready to look up many pixels.
pub(super) struct Frame<'p> {
    pose: &'p Pose,
    table: &'static [[f32; 2]],
    /// Cosine and sine of the angle, in cells a pixel.
    turn: [f32; 2],
}

impl Frame<'_> {
    pub fn new(pose: &Pose, kind: Kind) -> Frame<'_> {
        let (sin, cos) = pose.angle.sin_cos();
        let turn = [cos, sin].map(|t| t * CELLS as f32 / (2.0 * HALF * pose.radius));
        Frame { pose, table: &TABLES[kind as usize], turn }
    }

    /// As [`Pose::distances`].
    pub fn distances(&self, x: usize, y: usize) -> [f32; 2] {
        let [dx, dy] = [x as f32 + 0.5 - self.pose.x, y as f32 + 0.5 - self.pose.y];
        let [cos, sin] = self.turn;
        let [u, v] = [dx * cos + dy * sin, dy * cos - dx * sin].map(|p| p + CELLS as f32 / 2.0);
        let inside = |p: f32| (0.0..CELLS as f32).contains(&p);
        if !inside(u) || !inside(v) {
            return [f32::INFINITY; 2];
        }
        self.table[v as usize * CELLS + u as usize].map(|d| d * self.pose.radius)
    }
}
