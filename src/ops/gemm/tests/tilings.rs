//! Each kernel of the GPU by itself, whatever a layer would take.

use super::*;
use crate::ops::gemm::tiling::{LINEAR, Tiling};

/// With one kernel; without a residual if not `residual`.
fn product(device: &Device, tiling: &Tiling, data: &Data, activation: Activation, residual: bool) -> Vec<f32> {
    let [m, k, n] = data.sizes;
    let layer = data.layer(device, Precision::F32, activation == Activation::Geglu);
    run(device, |e| {
        let x = e.input([m, k], &data.x)?;
        let residual = if residual { Some(e.input([m, n], &data.residual)?) } else { None };
        let mut out = e.alloc([m, n], device.storage())?;
        gpu::product(e, tiling, &layer, &x, None, activation, residual.as_ref(), &mut out)?;
        Ok(out)
    })
    .unwrap()
}

/// Rows and columns around the tile, each with each, and steps that end inside a stage, at its end and after it.
fn edges([rows, columns]: [usize; 2]) -> impl Iterator<Item = [usize; 3]> {
    const K: [usize; 5] = [8, 24, 32, 40, 136];
    let rows = [1, rows - 1, rows, rows + 1, 37];
    let columns = [columns - 8, columns, columns + 8, 8];
    (0..rows.len() * columns.len())
        .map(move |i| [rows[i / columns.len()], K[(i + i / columns.len()) % K.len()], columns[i % columns.len()]])
}

#[test]
fn integers_are_exact_at_every_edge_of_a_tile() {
    for device in gpus() {
        for tiling in &LINEAR {
            for sizes in edges(tiling.tile) {
                let data = Data::new(sizes, false, integers);
                let sums = data.reference(&device, Precision::F32, Activation::None);
                let expected: Vec<f32> = sums.iter().map(|s| s.exact as f32).collect();
                let found = product(&device, tiling, &data, Activation::None, true);
                assert_equal(&found, &stored(&device, &expected), &format!("{sizes:?} by {tiling:?} on {}", label(&device)));
            }
        }
    }
}

/// Sums, and sums with the bias, that the storage type does not hold: none of them is rounded before the residual has been added.
#[test]
fn nothing_is_rounded_before_the_result() {
    let mut data = Data::new([3, 64, 168], false, |_, len| vec![1.0; len]);
    data.x = [2048.0, 1.0, 1.0, 1.0].map(|x| [&[x][..], &[0.0; 15]].concat()).concat().repeat(3); // one in each step of 16
    (data.bias, data.residual) = (vec![2049.0; 168], vec![-4096.0; 3 * 168]);
    for device in gpus() {
        for tiling in &LINEAR {
            let found = product(&device, tiling, &data, Activation::None, true);
            assert_equal(&found, &[4.0; 3 * 168], &format!("{tiling:?} on {}", label(&device)));
        }
    }
}

/// Results of every kernel are close, and of the same bits.
fn check(device: &Device, data: &Data, activation: Activation, residual: bool) {
    let reference = data.reference(device, Precision::F32, activation);
    let mut first: Option<Vec<f32>> = None;
    for tiling in gpu::tilings(activation) {
        let found = product(device, tiling, data, activation, residual);
        let what = format!("{:?}, {activation:?}, residual: {residual}, by {tiling:?}", data.sizes);
        assert_close(device, &found, &reference, &what);
        assert_same_bits(&found, first.get_or_insert_with(|| found.clone()), &format!("{what} on {}", label(device)));
    }
}

#[test]
fn tilings_change_no_bit() {
    for device in gpus() {
        for sizes in [[1, 8, 8], [63, 24, 56], [65, 40, 64], [37, 136, 152], [127, 32, 160], [129, 72, 168], [40, 136, 328]] {
            check(&device, &Data::new(sizes, false, noise), Activation::QuickGelu, true);
            check(&device, &Data::new(sizes, true, noise), Activation::Geglu, true);
        }
    }
}

#[test]
fn every_activation_follows_with_and_without_bias_and_residual() {
    for device in gpus() {
        for activation in ACTIVATIONS {
            for (bias, residual) in [(true, true), (true, false), (false, true), (false, false)] {
                let mut data = Data::new([21, 40, 168], activation == Activation::Geglu, noise);
                if !bias {
                    data.bias.fill(0.0); // as layers without one have it
                }
                if !residual {
                    data.residual.fill(0.0);
                }
                check(&device, &data, activation, residual);
            }
        }
    }
}
