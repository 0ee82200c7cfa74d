//! The edge between the layout of files and noise, `[C, H, W]` as torch has it, and that of the networks, `[H, W, C]`.

/// `[C, H, W]` -> `[H, W, C]`.
pub(super) fn to_channels_last(planes: &[f32], channels: usize, pixels: &mut [f32]) {
    let size = planes.len() / channels;
    for (at, pixel) in pixels.chunks_exact_mut(channels).enumerate() {
        for (c, value) in pixel.iter_mut().enumerate() {
            *value = planes[c * size + at];
        }
    }
}

/// `[H, W, C]` -> `[C, H, W]`.
pub(super) fn to_channels_first(pixels: &[f32], channels: usize, planes: &mut [f32]) {
    let size = pixels.len() / channels;
    for (at, pixel) in pixels.chunks_exact(channels).enumerate() {
        for (c, value) in pixel.iter().enumerate() {
            planes[c * size + at] = *value;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_inverse() {
        let planes: Vec<f32> = (0..24).map(|i| i as f32).collect();
        let (mut pixels, mut back) = (vec![0.0; 24], vec![0.0; 24]);
        to_channels_last(&planes, 4, &mut pixels);
        assert_eq!(pixels[..5], [0.0, 6.0, 12.0, 18.0, 1.0]);
        to_channels_first(&pixels, 4, &mut back);
        assert_eq!(back, planes);
    }
}
