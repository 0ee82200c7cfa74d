//! Normalisations on the CPU.

use super::Norm;
use rayon::prelude::*;

pub(super) fn group_norm(norm: &Norm, positions: usize, x: &[f32], skip: Option<&[f32]>, silu: bool, out: &mut [f32]) {
    let channels = norm.channels();
    let rows = out.len() / channels;
    let x_channels = x.len() / rows;
    let at = |row: usize, c: usize| match skip {
        Some(skip) if c >= x_channels => skip[row * (channels - x_channels) + c - x_channels],
        _ => x[row * x_channels + c],
    };
    let size = channels / norm.groups;
    out.par_chunks_mut(positions * channels).enumerate().for_each(|(b, out)| {
        for group in 0..norm.groups {
            let range = group * size..(group + 1) * size;
            let values = || (0..positions).flat_map(|p| range.clone().map(move |c| (p, c)));
            let count = (positions * size) as f64;
            let mean = values().map(|(p, c)| f64::from(at(b * positions + p, c))).sum::<f64>() / count;
            let var = values().map(|(p, c)| (f64::from(at(b * positions + p, c)) - mean).powi(2)).sum::<f64>() / count;
            let factor = 1.0 / (var + f64::from(norm.eps)).sqrt();
            for (p, c) in values() {
                let y = (at(b * positions + p, c) - mean as f32) * factor as f32 * norm.weight.f32()[c] + norm.bias.f32()[c];
                out[p * channels + c] = if silu { y / (1.0 + (-y).exp()) } else { y };
            }
        }
    });
}

pub(super) fn layer_norm(norm: &Norm, x: &[f32], out: &mut [f32]) {
    let channels = norm.channels();
    out.par_chunks_mut(channels).zip(x.par_chunks(channels)).for_each(|(out, x)| {
        let mean = x.iter().sum::<f32>() / channels as f32;
        let var = x.iter().map(|x| (x - mean).powi(2)).sum::<f32>() / channels as f32;
        let factor = 1.0 / (var + norm.eps).sqrt();
        for (c, (o, x)) in out.iter_mut().zip(x).enumerate() {
            *o = (x - mean) * factor * norm.weight.f32()[c] + norm.bias.f32()[c];
        }
    });
}
