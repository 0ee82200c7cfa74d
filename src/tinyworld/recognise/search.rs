//! A matched filter: for each kind, the place and size at which its silhouette gathers most evidence of a colour.

use super::super::render::SIDE;
use super::super::scene::{Colour, Kind};
use super::super::shape::Shape;
use super::Candidate;
use super::evidence::Evidence;
use super::pose::{Frame, MOVES, Pose};
use std::sync::LazyLock;

/// Radii of masks, in pixels: the smallest objects of the world and the largest, and the ratio of two.
const RADII: (f32, f32, f32) = (6.9, 21.0, 1.13);

/// Kinds that gather less than this share of what the best one does are not it.
const HOPELESS: f32 = 0.6;

/// Most candidates of a colour.
const MOST: usize = 8;

/// A row of a silhouette: row, first column, past the last column, from its centre.
type Span = [i32; 3];

/// A silhouette at one radius, upright.
struct Mask {
    kind: Kind,
    radius: f32,
    spans: Vec<Span>,
}

static MASKS: LazyLock<Vec<Mask>> = LazyLock::new(|| {
    let radii = || std::iter::successors(Some(RADII.0), |radius| Some(radius * RADII.2)).take_while(|&radius| radius < RADII.1);
    Kind::ALL.into_iter().flat_map(|kind| radii().map(move |radius| Mask::new(kind, radius))).collect()
});

impl Mask {
    fn new(kind: Kind, radius: f32) -> Mask {
        let reach = radius.ceil() as i32 + 1;
        let inside = |x: i32, y: i32| Shape::of(kind).body([x, y].map(|p| (p as f32 + 0.5) / radius)) < 0.0;
        let mut spans = Vec::new();
        for y in -reach..=reach {
            let mut first = None;
            for x in -reach..=reach + 1 {
                match (inside(x, y), first) {
                    (true, None) => first = Some(x),
                    (false, Some(start)) => {
                        spans.push([y, start, x]);
                        first = None;
                    }
                    _ => {}
                }
            }
        }
        Mask { kind, radius, spans }
    }
}

/// Sums of a map over spans and boxes.
struct Sums {
    /// Of each row up to a column: [SIDE, SIDE + 1].
    rows: Vec<f32>,
    /// Of what is positive, above and to the left: [SIDE + 1, SIDE + 1].
    boxes: Vec<f32>,
}

impl Sums {
    const WIDTH: usize = SIDE + 1;

    fn of(map: &[f32]) -> Sums {
        let (mut rows, mut boxes) = (vec![0.0; Sums::WIDTH * SIDE], vec![0.0; Sums::WIDTH * Sums::WIDTH]);
        for y in 0..SIDE {
            let mut positive = 0.0;
            for x in 0..SIDE {
                let (value, at) = (map[y * SIDE + x], y * Sums::WIDTH + x + 1);
                rows[at] = rows[at - 1] + value;
                positive += value.max(0.0);
                boxes[at + Sums::WIDTH] = boxes[at] + positive;
            }
        }
        Sums { rows, boxes }
    }

    /// Under a mask centred at the corner of a pixel.
    fn under(&self, mask: &Mask, x: usize, y: usize) -> f32 {
        let span = |&[row, first, past]: &Span| {
            let row = y as i32 + row;
            let column = |c: i32| (x as i32 + c).clamp(0, SIDE as i32) as usize;
            if !(0..SIDE as i32).contains(&row) {
                return 0.0;
            }
            let start = row as usize * Sums::WIDTH;
            self.rows[start + column(past)] - self.rows[start + column(first)]
        };
        mask.spans.iter().map(span).sum()
    }

    /// The most that any mask of a reach can gather there.
    fn bound(&self, x: usize, y: usize, reach: usize) -> f32 {
        let [[left, right], [top, bottom]] = [x, y].map(|c| [c.saturating_sub(reach), (c + reach).min(SIDE)]);
        let to = |x: usize, y: usize| self.boxes[y * Sums::WIDTH + x];
        to(right, bottom) + to(left, top) - to(right, top) - to(left, bottom)
    }
}

/// The likeliest objects of a colour: at most one of each kind.
pub(super) fn propose(evidence: &Evidence, colour: Colour) -> Vec<Candidate> {
    let map = evidence.map(colour);
    if map.iter().map(|e| e.max(0.0)).sum::<f32>() < 25.0 {
        return Vec::new();
    }
    let candidate = |(kind, pose): (Kind, Pose)| {
        let pose = pose.climb(&MOVES[..4], &[1.0], |pose| Cover::of(pose, kind, evidence, map).gain);
        let Cover { gain, open, area } = Cover::of(&pose, kind, evidence, map);
        let seen = open > 0.35 * area && gain > 0.25 * open && gain > 20.0;
        seen.then_some(Candidate { kind, colour, pose, gain, share: gain / open, settled: false })
    };
    let mut candidates: Vec<Candidate> = places(map).into_iter().filter_map(candidate).collect();
    candidates.sort_by(|a, b| b.gain.total_cmp(&a.gain));
    candidates.truncate(MOST);
    candidates
}

/// For each kind the place and size of its best mask, on every second pixel.
fn places(map: &[f32]) -> Vec<(Kind, Pose)> {
    let sums = Sums::of(map);
    let mut best = [const { None }; Kind::ALL.len()];
    let mut most = 0.0f32;
    for mask in MASKS.iter() {
        let known = best[mask.kind as usize].map_or(0.0, |(sum, _)| sum);
        let mut top = (f32::max(known, HOPELESS * most), None);
        let edge = mask.radius as usize;
        for y in (edge..=SIDE - edge).step_by(2) {
            for x in (edge..=SIDE - edge).step_by(2) {
                if sums.bound(x, y, edge + 1) <= top.0 {
                    continue;
                }
                let sum = sums.under(mask, x, y);
                if sum > top.0 {
                    top = (sum, Some((x, y)));
                }
            }
        }
        if let (sum, Some((x, y))) = top {
            let pose = Pose { x: x as f32, y: y as f32, radius: mask.radius, angle: 0.0, blur: 0.0 };
            best[mask.kind as usize] = Some((sum, pose));
            most = most.max(sum);
        }
    }
    let kinds = Kind::ALL.into_iter().zip(best);
    kinds.filter_map(|(kind, best)| best.filter(|(sum, _)| *sum > HOPELESS * most).map(|(_, pose)| (kind, pose))).collect()
}

/// What a silhouette covers, in pixels.
struct Cover {
    /// Evidence.
    gain: f32,
    /// Pixels that no find covers.
    open: f32,
    area: f32,
}

impl Cover {
    fn of(pose: &Pose, kind: Kind, evidence: &Evidence, map: &[f32]) -> Cover {
        let [[left, right], [top, bottom]] = pose.window(1.0);
        let frame = Frame::new(pose, kind);
        let mut cover = Cover { gain: 0.0, open: 0.0, area: 0.0 };
        for y in top..=bottom {
            for x in left..=right {
                let share = (0.5 - frame.distances(x, y)[0]).clamp(0.0, 1.0);
                if share > 0.0 {
                    let i = y * SIDE + x;
                    cover.gain += share * map[i];
                    cover.area += share;
                    cover.open += if evidence.open[i] { share } else { 0.0 };
                }
            }
        }
        cover
    }
}
