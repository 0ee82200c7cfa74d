use super::*;
use crate::device::{Arena, Plan};

/// Values in [-1, 1], different for each seed.
fn noise(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn first_version_follows_the_formula() {
    let device = Device::cpu(2).unwrap();
    let (b, h, w, c1, c2, o) = (2, 5, 4, 3, 2, 7);
    let (x, s, weight) = (noise(1, b * h * w * c1), noise(2, b * h * w * c2), noise(3, o * (c1 + c2) * 9));
    let bytes: Vec<u8> = weight.iter().flat_map(|v| v.to_le_bytes()).collect();
    let host = HostTensor { name: "w".into(), shape: vec![o, c1 + c2, 3, 3], dtype: DType::F32, bytes: Some(&bytes) };
    let layer = Conv2d::prepare(&device, Precision::F32, host, None, 2, Padding::Same).unwrap();
    let mut out = vec![f32::NAN; b * h * w * o];
    let mut pass = |e: &Exec<'_>| {
        let (x, s) = (e.input([b, h, w, c1], &x)?, e.input([b, h, w, c2], &s)?);
        let y = conv2d(e, &layer, &x, Fused { skip: Some(&s), upsample: Some([2 * h, 2 * w]), ..Fused::default() })?;
        assert_eq!(y.dims(), [b, h, w, o]);
        y.read_f32(&mut out);
        Ok(())
    };
    let plan = Plan::record(&device, &mut pass).unwrap();
    Arena::new().run(&device, &plan, &mut pass).unwrap();
    for (at, y) in out.iter().enumerate() {
        let (n, j, i, k) = (at % o, at / o % w, at / o / w % h, at / o / w / h);
        let mut sum = 0f64;
        for (u, v, c) in (0..3).flat_map(|u| (0..3).flat_map(move |v| (0..c1 + c2).map(move |c| (u, v, c)))) {
            let (iy, ix) = (2 * i + u, 2 * j + v);
            if iy == 0 || ix == 0 || iy > 2 * h || ix > 2 * w {
                continue;
            }
            let pixel = (k * h + (iy - 1) / 2) * w + (ix - 1) / 2;
            let value = if c < c1 { x[pixel * c1 + c] } else { s[pixel * c2 + c - c1] };
            sum += f64::from(value) * f64::from(weight[(n * (c1 + c2) + c) * 9 + u * 3 + v]);
        }
        assert!((f64::from(*y) - sum).abs() < 1e-5, "{at}: {y} for {sum}");
    }
}
