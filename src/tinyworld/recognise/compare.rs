//! Candidates drawn, blurred and compared with the picture.

use super::super::render::{OUTLINE, SIDE};
use super::super::scene::{Colour, Kind};
use super::Candidate;
use super::evidence::Evidence;
use super::paint::{Paint, minus, norm};
use super::pose::{Frame, MOVES, Pose};

/// Distance of colours beyond which a pixel shows something else.
const ELSE: f32 = 0.25;

/// Candidates that are worth moving to their best pose.
const WORTH: usize = 5;

/// Compares drawings with a picture.
pub(super) struct Compare {
    /// Blur of the last find: where the next begin.
    blur: f32,
    /// For each pixel of a window, the object's share of it, and that share times the brightness of its surface.
    drawing: Vec<[f32; 2]>,
    /// Between the passes of a blur.
    half: Vec<[f32; 2]>,
}

impl Default for Compare {
    fn default() -> Compare {
        Compare { blur: 0.8, drawing: Vec::new(), half: Vec::new() }
    }
}

impl Compare {
    /// Candidates as they compare where they are.
    pub fn judged(&mut self, evidence: &Evidence, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
        for c in &mut candidates {
            c.pose.blur = self.blur;
            (c.gain, c.share) = self.gain(evidence, c.kind, c.colour, &c.pose);
        }
        candidates
    }

    /// The candidate that gains most, when the first few have been moved to their best poses.
    pub fn best(&mut self, evidence: &Evidence, candidates: &mut [Candidate]) -> Option<Candidate> {
        candidates.sort_by(|a, b| b.gain.total_cmp(&a.gain));
        let leading = candidates.len().min(WORTH);
        for c in candidates[..leading].iter_mut().filter(|c| !c.settled) {
            c.pose = c.pose.climb(&MOVES, &[1.0, 0.5], |pose| self.gain(evidence, c.kind, c.colour, pose).0);
            (c.gain, c.share) = self.gain(evidence, c.kind, c.colour, &c.pose);
            c.settled = true;
        }
        let mut best = candidates[..leading].iter().max_by(|a, b| a.gain.total_cmp(&b.gain))?.clone();
        for colour in Colour::ALL {
            let (gain, share) = self.gain(evidence, best.kind, colour, &best.pose);
            if gain > best.gain {
                best = Candidate { colour, gain, share, ..best };
            }
        }
        self.blur = best.pose.blur;
        Some(best)
    }

    /// [`Candidate`]'s `gain` and `share`.
    fn gain(&mut self, evidence: &Evidence, kind: Kind, colour: Colour, pose: &Pose) -> (f32, f32) {
        let [[left, right], [top, bottom]] = pose.window(1.0 + 2.0 * pose.blur);
        let pixels = (top..=bottom).flat_map(|y| (left..=right).map(move |x| (x, y)));
        self.draw(kind, pose, pixels.clone());
        self.soften(right + 1 - left, pose.blur);
        let paint = Paint::of(colour);
        let (mut better, mut worse, mut covered) = (0.0, 0.0, 0.0);
        for ((x, y), &[cover, brightness]) in pixels.zip(&self.drawing) {
            let i = y * SIDE + x;
            if cover < 0.02 || !evidence.open[i] {
                continue;
            }
            let off = misfit(evidence, paint, i, cover.min(1.0), brightness);
            // What neither explains speaks against an object that claims to cover it.
            let gain = (evidence.behind[i].min(ELSE) - off.min(ELSE * (1.0 + 0.4 * cover))) / ELSE;
            better += gain.max(0.0);
            worse += (-gain).max(0.0);
            covered += cover;
        }
        (better - 2.0 * worse, (better - worse) / f32::max(covered, 1.0))
    }

    /// Draws a silhouette as the renderer does.
    fn draw(&mut self, kind: Kind, pose: &Pose, pixels: impl Iterator<Item = (usize, usize)>) {
        let frame = Frame::new(pose, kind);
        self.drawing.clear();
        self.drawing.extend(pixels.map(|(x, y)| {
            let [outline, detail] = frame.distances(x, y);
            let cover = (0.5 - outline).clamp(0.0, 1.0);
            let dark = (0.5 - detail).clamp(0.0, 1.0).max((outline + OUTLINE + 0.5).clamp(0.0, 1.0));
            [cover, cover * (1.0 - 0.5 * dark)]
        }));
    }

    /// Blurs the drawing, along rows and then along columns; the border repeats.
    fn soften(&mut self, width: usize, blur: f32) {
        if blur < 0.3 {
            return;
        }
        let weights = [0i16, 1, 2, 3].map(|k| (-f32::from(k * k) / (2.0 * blur * blur)).exp());
        let total = 2.0 * weights.iter().sum::<f32>() - weights[0];
        let weights = weights.map(|w| w / total);
        let height = self.drawing.len() / width;
        for (step, length) in [(1, width), (width, height)] {
            let pass = |i: usize| {
                let place = i / step % length;
                let mut sum = self.drawing[i].map(|v| v * weights[0]);
                for (k, weight) in weights.iter().enumerate().skip(1) {
                    let before = self.drawing[i - place.min(k) * step];
                    let after = self.drawing[i + (length - 1 - place).min(k) * step];
                    sum = [0, 1].map(|c| sum[c] + weight * (before[c] + after[c]));
                }
                sum
            };
            self.half.clear();
            self.half.extend((0..width * height).map(pass));
            std::mem::swap(&mut self.drawing, &mut self.half);
        }
    }
}

/// Distance of a pixel from the nearest mixture of an object's paint and what is behind: the background, perhaps in a shadow.
fn misfit(evidence: &Evidence, paint: &Paint, i: usize, cover: f32, brightness: f32) -> f32 {
    let bare = 1.0 - cover;
    let shadows: &[f32] = if cover > 0.9 { &[1.0] } else { &[1.0, 0.75, 0.5] };
    let under = |dim: &f32| {
        let painted = minus(evidence.pixels[i], bare * dim, evidence.shade[i]);
        let (rest, share) = paint.rest(painted, brightness);
        let [low, high] = evidence.pattern.map(|grey| bare * grey);
        let grey = (rest.iter().sum::<f32>() / 3.0).clamp(low, high);
        // Main colours are likelier than second ones.
        norm(rest.map(|c| c - grey)) + 0.05 * share * cover
    };
    shadows.iter().map(under).fold(f32::INFINITY, f32::min)
}
