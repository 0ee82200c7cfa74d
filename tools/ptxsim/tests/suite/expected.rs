//! What the clean kernels compute, by formulas of their own: no word of the simulator's goes in.
//!
//! A row is the name of an entry, and what it leaves in its buffers: `each(0, |x, i| ...)` says what element `i` of argument 0
//! becomes, where `x[1][k]` is element `k` of argument 1 before the launch. What no row names must stay as it was.

use super::buffers::Outcome;
use half::f16;

/// What is expected of an entry.
pub type Expectation = fn(&mut Outcome) -> &mut Outcome;

/// The place of element `i` where every `n` elements are turned round.
fn mirrored(i: usize, n: usize) -> usize {
    i / n * n + n - 1 - i % n
}

/// How many values are `key` modulo `modulus`.
fn count(values: &[f64], modulus: usize, key: usize) -> f64 {
    values.iter().filter(|&&value| value as usize % modulus == key).count() as f64
}

/// Two halves as the word they make up.
fn word(low: f64, high: f64) -> f64 {
    (u32::from(f16::from_f64(low).to_bits()) | u32::from(f16::from_f64(high).to_bits()) << 16).into()
}

/// Word `i` of what `ldmatrix.x4` gives a warp of a 16x16 tile: four 8x8 matrices, down the columns of matrices. A lane gets two
/// neighbours of row `lane / 4`.
fn quarter(tile: impl Fn(usize, usize) -> f64, i: usize) -> f64 {
    let (matrix, lane) = (i / 32, i % 32);
    let (row, column) = (matrix % 2 * 8 + lane / 4, matrix / 2 * 8 + lane % 4 * 2);
    word(tile(row, column), tile(row, column + 1))
}

/// Sum of the eight tiles of 64 of a block, turned round.
fn eight_tiles(x: &[Vec<f64>], i: usize) -> f64 {
    (0..8).map(|k| x[1][i / 64 * 512 + k * 64 + 63 - i % 64]).sum()
}

fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

/// Three steps of a mean of three, each rounded as in the kernel.
fn stencil(x: &[Vec<f64>], i: usize) -> f64 {
    let mut line: Vec<f32> = x[1][i / 128 * 128..][..130].iter().map(|&value| value as f32).collect();
    for _ in 0..3 {
        let before = line.clone();
        for t in 0..128 {
            line[t + 1] = (before[t] + before[t + 1] + before[t + 2]) / 3.0;
        }
    }
    line[i % 128 + 1].into()
}

/// In step s, threads from s on add what the thread beside them (five places off, bit by bit) has put down last.
fn uniform_loop(x: &[Vec<f64>], i: usize) -> f64 {
    let mut value = x[1][i / 64 * 64..][..64].to_vec();
    let mut slot = vec![0.0; 64];
    for step in 0..4 {
        let takes_part = |t: &usize| step <= t % 4;
        (0..64).filter(takes_part).for_each(|t| slot[t] = value[t]);
        (0..64).filter(takes_part).for_each(|t| value[t] += slot[t ^ 5]);
    }
    value[i % 64]
}

/// Steps until a number comes up, or patience ends.
fn uneven_work(t: u32, seed: u32) -> u32 {
    let (mut state, mut steps) = (seed.wrapping_add(t.wrapping_mul(2_654_435_761)), 0);
    while state % 16 != 3 && steps < 100 {
        state = match state % 5 {
            0 => state.wrapping_mul(3).wrapping_add(1),
            1 => state ^ state >> 5,
            2 => state.wrapping_add(t),
            3 if t % 2 == 1 => {
                state = state.wrapping_add(7);
                continue;
            }
            _ => state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223),
        };
        steps += 1;
        if steps > 50 && t.is_multiple_of(3) {
            break;
        }
    }
    steps
}

/// Odd values of a warp before even ones, else in their order.
fn odd_first(x: &[Vec<f64>], i: usize) -> f64 {
    let (odd, even): (Vec<f64>, Vec<f64>) = x[1][i / 32 * 32..][..32].iter().partition(|&&value| value % 2.0 == 1.0);
    [odd, even].concat()[i % 32]
}

/// Sum, maximum, exclusive or, and whether any (2) and all (1) are above 100, of the values of a warp.
fn reductions(x: &[Vec<f64>], i: usize) -> f64 {
    let values = &x[1][i / 4 * 32..][..32];
    let above = |value: &f64| *value > 100.0;
    match i % 4 {
        0 => values.iter().sum(),
        1 => largest(values),
        2 => values.iter().fold(0, |bits, &value| bits ^ value as u32).into(),
        _ => f64::from(values.iter().any(above)) * 2.0 + f64::from(values.iter().all(above)),
    }
}

/// Value less the mean of its 128, over their deviation.
fn normalised(x: &[Vec<f64>], i: usize) -> f64 {
    let row = &x[1][i / 128 * 128..][..128];
    let mean = row.iter().sum::<f64>() / 128.0;
    let squares = row.iter().map(|value| value * value).sum::<f64>() / 128.0;
    (x[1][i] - mean) / (squares - mean * mean + 1e-5).sqrt()
}

/// Block 0 hands on a message, which two others turn round.
fn spoken(o: &mut Outcome) -> &mut Outcome {
    let blocks = o.each(0, |x, i| x[3][if i < 32 { i } else { 31 - i % 32 }]);
    blocks.each(1, |x, i| x[3][i]).each(2, |_, _| 1.0)
}

/// A number after so many steps of a generator.
fn waited(steps: usize) -> u32 {
    (0..steps).fold(0u32, |wait, _| wait.wrapping_mul(1_664_525).wrapping_add(1_013_904_223))
}

#[rustfmt::skip]
pub const EXPECTED: &[(&str, Expectation)] = &[
    // alignment.cu
    ("fours", |o| o.each(0, |x, i| x[1][i + 4])),
    ("shared_pairs", |o| o.each(0, |x, i| x[1][(i ^ 1) + 2])),
    ("matrix_rows", |o| o.each(0, |x, i| quarter(|row, column| x[1][row * 16 + column], i))),
    ("copied_sixteen", |o| o.each(0, |x, i| x[1][i + 4])),
    ("long_counter", |o| o.some(0, 1..33, |_, _| 3.0)),
    ("doubled_half_pairs", |o| o.some(0, 2..66, |x, i| 2.0 * x[0][i])),
    // async_copies.cu
    ("copied", |o| o.each(0, |x, i| x[1][mirrored(i, 64)])),
    ("source_used_again", |o| o.each(0, |x, i| x[1][mirrored(i, 64)] + 1.0).each(1, |_, _| 0.0)),
    ("copied_for_itself", |o| o.each(0, |x, i| x[1][i])),
    ("copied_tail", |o| o.each(0, |x, i| if 63 - i < 54 { x[1][63 - i] } else { 0.0 })),
    ("copied_then_masked", |o| o.each(0, |x, i| if (31 - i) % 4 == 3 { 0.0 } else { x[1][31 - i] })),
    // barrier_counts.cu
    ("all_and_their_number", |o| o.each(0, |x, i| x[1][mirrored(i, 64)])),
    ("all_and_their_number_rounded", |o| o.each(0, |x, i| x[1][39 - i])),
    // barriers.cu
    ("tree_sum", |o| o.each(0, |x, i| x[1][i * 128..][..128].iter().sum())),
    ("transpose", |o| o.each(0, |x, i| x[1][i % 128 * 64 + i / 128])),
    ("stencil", |o| o.each(0, stencil)),
    ("prefix_sum", |o| o.each(0, |x, i| x[1][i / 128 * 128..=i].iter().sum())),
    ("double_buffer", |o| o.each(0, |x, i| {
        let tiles = x[1][i / 64 * 512..][..512].chunks(64);
        tiles.map(|tile| tile[(i % 64) ^ 32] * tile[63 - i % 64]).sum()
    })),
    ("histogram", |o| o.each(0, |x, i| count(&x[1], 64, i))),
    ("leader_tells", |o| o.each(0, |x, i| x[1][i] - largest(&x[1][i / 96 * 96..][..96]))),
    ("cleared_counter", |o| o.each(0, |_, _| 32.0)),
    // bounds.cu
    ("shift", |o| o.some(0, 1..512, |x, i| x[1][i - 1])),
    ("differences", |o| o.each(0, |x, i| x[1].get(i + 1).unwrap_or(&0.0) - x[1][i])),
    ("previous", |o| o.each(0, |x, i| x[1][i.saturating_sub(1)])),
    ("doubled", |o| o.each(0, |x, i| 2.0 * x[1][i])),
    ("strided_loop", |o| o.each(0, |x, i| x[1][i] + 1.0)),
    ("negated_matrix", |o| o.each(0, |x, i| -x[1][i])),
    ("copied_in_fours", |o| o.each(0, |x, i| x[1][i])),
    ("optional_bias", |o| o.each(0, |x, i| x[1][i])),
    ("reversed", |o| o.each(0, |x, i| x[1][63 - i])),
    ("reversed_dynamic", |o| o.each(0, |x, i| x[1][mirrored(i, 128)])),
    ("newest_of_ring", |o| o.each(0, |x, i| x[1][i * 8 + 7])),
    // deadlocks.cu
    ("lock_released", |o| o.each(1, |_, i| i as f64)),
    ("flag_set", |o| o.some(0, [0], |_, _| 1.0).each(1, |_, i| i as f64)),
    ("blocks_meet", |o| o.each(0, |_, _| 1.0)),
    ("flag_before_barrier", |o| o.each(0, |_, i| i as f64)),
    ("all_arrive", |o| o.each(0, |_, _| 3.0)),
    ("lock_with_tries", |o| o.each(1, |_, _| 8.0).each(2, |_, _| 0.0).anything(2)),
    // divergence.cu
    ("barrier_behind_branch", |o| o.each(0, |x, i| if i % 32 < 16 { 0.0 } else { x[1][mirrored(i, 64)] })),
    ("barrier_in_both_uniform_branches", |o| o.each(0, |x, i| x[1][mirrored(i, 64)] * if i < 64 { 1.0 } else { -2.0 })),
    ("barrier_in_uniform_loop", |o| o.each(0, uniform_loop)),
    ("early_return", |o| o.some(0, (0..40).chain(64..104), |x, i| x[1][i / 64 * 64 + 39 - i % 64])),
    ("uniform_warps_part", |o| o.each(0, |x, i| {
        let (first, t) = (i / 96 * 96, i % 96);
        x[1][i] + x[1][first + 95 - t] + if t < 32 { 0.0 } else { x[1][first + 127 - t] }
    })),
    ("return_in_a_loop", |o| o.each(0, |x, i| {
        let t = 63 - i;
        x[1][t] + x[1][t..=t + t % 5].iter().sum::<f64>()
    })),
    ("halves_at_a_barrier", |o| o.each(0, |x, i| x[1][i ^ 1])),
    // endless_loops.cu
    ("flags_polled_in_turn", |o| o.some(0, [5], |_, _| f64::from(waited(20_000) | 1)).some(1, [0], |_, _| 5.0)),
    ("steps_end", |o| o.each(1, |_, _| 100_000.0)),
    // exits.cu
    ("half_shuffles", |o| o.each(0, |x, i| x[1][i] + x[1][if i % 32 < 16 { i ^ 1 } else { i }])),
    // The first vote is of 32 lanes, the next of 31.
    ("lanes_drop_out", |o| o.each(0, |_, i| (0..=i % 32).map(|lane| 32.0 - lane as f64).sum())),
    ("half_synchronises", |o| o.some(0, 0..16, |_, i| (i ^ 1) as f64).some(0, 48..64, |_, i| (2 * (i - 32)) as f64)),
    // global_races.cu
    ("neighbours", |o| o.each(0, |x, i| x[2][i].powi(2)).each(1, |x, i| x[2][(i + 64) % 256].powi(2))),
    ("block_ids", |o| o.each(0, |_, i| (i / 64) as f64)),
    ("counter", |o| o.each(0, |_, _| 256.0)),
    ("warps_through_global", |o| o.each(0, |x, i| x[2][i]).each(1, |x, i| x[2][mirrored(i, 128)])),
    ("added_to_next", |o| o.each(0, |x, i| x[1][i] + x[1][(i + 1) % 128])),
    // 23 is the inverse of 7 modulo 32.
    ("scattered", |o| o.each(0, |_, i| (i * 23 % 32) as f64)),
    ("last_block_sums", |o| {
        let blocks = o.each(0, |x, _| x[3].iter().sum()).each(1, |x, i| x[3][i * 64..][..64].iter().sum());
        blocks.each(2, |_, _| 4.0)
    }),
    ("flagged", |o| o.some(0, 32..96, |x, i| x[3][31 - i % 32]).each(1, |x, i| x[3][i]).each(2, |_, _| 1.0)),
    ("flagged_by_atomic", |o| o.some(0, 0..128, |x, i| x[3][63 - i % 64]).each(1, |x, i| x[3][i]).each(2, |_, _| 1.0)),
    ("flagged_by_release", |o| o.each(0, |x, i| x[3][31 - i]).each(1, |x, i| x[3][i]).each(2, |_, _| 1.0)),
    ("grid_barrier", |o| {
        let sums = o.each(0, |x, i| x[3][i] + 2.0 * x[3][(i + 32) % 128] + x[3][(i + 64) % 128]);
        sums.each(1, |x, i| x[3][i] + x[3][(i + 32) % 128]).each(2, |_, _| 16.0)
    }),
    ("grid_barrier_by_release", |o| o.each(0, |x, i| x[3][(i + 32) % 128]).each(1, |x, i| x[3][i]).each(2, |_, _| 4.0)),
    ("ordered_sum", |o| o.each(0, |x, i| (0..4).map(|block| x[2][block * 32 + i]).sum()).each(1, |_, _| 4.0)),
    ("locked_sum", |o| o.each(0, |x, _| x[2].iter().skip(1).step_by(8).sum())),
    ("tried_sum", |o| o.each(0, |x, _| x[2].iter().sum())),
    // hand_overs.cu
    ("spoken_for", spoken),
    ("heard_by_all_lanes", spoken),
    ("heard_in_shared", |o| o.each(0, |_, i| (3 * (i + 32)) as f64)),
    ("relayed", |o| o.each(0, |x, _| x[3][0]).each(1, |x, _| x[3][0]).each(2, |_, i| (2 - i) as f64)),
    ("overwritten_last", |o| o.each(0, |_, _| 5.0).each(1, |_, _| 23.0).each(2, |_, i| i as f64)),
    ("added_in_order", |o| {
        let sum = (0..24).rev().fold(0, |sum, block| 3 * sum % 1009 + block);
        o.each(0, |_, _| f64::from(sum)).each(1, |_, _| 24.0)
    }),
    ("left_behind_a_barrier", |o| o.each(0, |_, i| (5 * (15 - i)) as f64)),
    ("counter_set_back", |o| o.each(0, |_, _| 15.0).each(1, |_, i| i as f64).each(2, |_, _| 0.0)),
    ("written_together", |o| o.each(0, |_, i| (i / 32) as f64).each(1, |_, _| 8.0)),
    ("grid_meets", |o| {
        let blocks = o.each(0, |_, _| 96.0).each(1, |_, i| (i * 5 % 1536 * 7 % 1536) as f64);
        blocks.each(2, |_, i| (i * 7 % 1536) as f64)
    }),
    // idioms.cu
    ("tile_product", |o| o.each(0, |x, i| (0..16).map(|k| x[1][i / 8 * 16 + k] * x[2][k * 8 + i % 8]).sum())),
    ("either_memory", |o| o.each(0, |x, i| if (i % 64 + 48) % 3 == 0 { x[1][i] } else { 2.0 * x[1][mirrored(i, 64)] })),
    ("sorted_locally", |o| o.each(0, |x, i| {
        let mut own = x[1][i * 16..][..16].to_vec();
        own.sort_by(f64::total_cmp);
        own[8]
    })),
    ("neighbouring_bytes", |o| o.each(0, |_, i| ((63 - i % 64) * 3) as f64).each(1, |_, i| (i % 64) as f64)),
    ("read_by_all", |o| o.each(0, |x, i| x[1][i] - x[1][0] + x[1][127])),
    ("wide_loads", |o| o.each(0, |x, i| x[1][i] * x[2][i])),
    ("grid_of_two_dimensions", |o| o.each(0, |x, i| x[1][i].max(0.0))),
    // rsqrtf has an error of up to 2 units in the last place, and the results are up to 2.
    ("normalised", |o| o.each(0, normalised).within(0, 2e-6)),
    // Four products, each rounded or not.
    ("convolved", |o| o.each(0, |x, i| {
        let weights = [0.1, 0.2, 0.3, 0.4];
        weights[..3 + i % 2].iter().zip(&x[1][i..]).map(|(weight, value)| weight * value).sum()
    }).within(0, 2e-7)),
    ("uneven_work", |o| o.each(0, |x, i| uneven_work(i as u32, x[1][0] as u32).into())),
    ("counted_by_barrier", |o| o.each(0, |x, i| {
        let values = &x[1][i / 3 * 64..][..64];
        let above = values.iter().filter(|&&value| value > 0.25).count() as f64;
        [above, values.iter().any(|&value| value > 0.9).into(), 1.0][i % 3]
    })),
    ("flag_between_warps", |o| o.each(0, |x, i| x[1][mirrored(i, 32)])),
    ("volatile_flag_between_warps", |o| o.each(0, |x, i| x[1][mirrored(i, 32)])),
    // Tiles of 32x32, transposed.
    ("swizzled_tile", |o| o.each(0, |x, i| x[1][i / 1024 * 1024 + i % 32 * 32 + i / 32 % 32])),
    ("gathered_by_one_warp", |o| o.each(0, |x, i| x[1][i * 128..][..128].iter().sum())),
    ("highest_by_exchange", |o| o.each(0, |x, i| largest(&x[1][i * 64..][..64]))),
    ("appended", |o| {
        let chosen = |x: &[Vec<f64>]| x[2].iter().copied().filter(|value| value % 3.0 == 0.0).collect::<Vec<_>>();
        o.each(0, |x, _| chosen(x).len() as f64).each(1, |x, i| chosen(x).get(i).copied().unwrap_or(0.0)).in_any_order(1)
    }),
    // Ten tiles, and a draw too many by each of three blocks.
    ("drawn_tiles", |o| o.each(0, |x, i| x[2][i] * 0.5).each(1, |_, _| 13.0)),
    ("cut_and_used_again", |o| o.each(0, |x, i| {
        let mut order: Vec<usize> = (0..64).collect();
        order.sort_by(|&one, &other| x[1][one].total_cmp(&x[1][other]));
        order[i] as f64
    })),
    ("copies_of_all_sizes", |o| o.each(0, |x, i| x[1][31 - i / 4] + x[1][95 - i / 4] + x[1][223 - i])),
    ("segments_of_eight", |o| o.each(0, |x, i| x[1][i / 8 * 8..=i].iter().sum())),
    ("summed_in_double", |o| o.each(0, |x, _| x[1].iter().sum())),
    ("own_column", |o| o.each(0, |x, i| x[1][mirrored(i / 64, 4) * 64 + i % 64])),
    ("barrier_for_some_warps", |o| o.each(0, |x, i| x[1][if i < 64 { 63 - i } else { i }])),
    // named_barriers.cu
    // Both of a pair have the same after the first step, and then twice as much each step.
    ("halves", |o| o.each(0, |x, i| 4.0 * (x[1][i] + x[1][i ^ 32]))),
    ("producers_and_consumers", |o| o.each(0, |x, i| x[1][mirrored(i, 64)])),
    ("hand_over", |o| o.each(0, |x, i| x[1][mirrored(i, 64)])),
    ("two_rendezvous", |o| o.each(0, |x, i| {
        let from = mirrored(i, 128);
        x[1][from] + if from % 128 < 64 { 0.0 } else { x[1][from - 64] }
    })),
    // pipelines.cu
    ("two_stages", |o| o.each(0, eight_tiles)),
    ("three_stages", |o| o.each(0, |x, i| {
        let places = (0..8).map(|k| k * 64 + 63 - i % 64).filter(|&place| place < 498);
        places.map(|place| x[1][i / 64 * 500 + place]).sum()
    })),
    ("register_stage", |o| o.each(0, eight_tiles)),
    ("specialised_warps", |o| o.each(0, eight_tiles)),
    // uninitialised.cu
    ("filled_with_zeros", |o| o.each(0, |x, i| if 127 - i % 128 < 100 { x[1][mirrored(i, 128)] } else { 0.0 })),
    ("accumulated", |o| o.each(0, |x, i| (0..4).map(|k| x[1][k * 128 + i]).sum())),
    ("row_sums", |o| o.each(0, |x, i| x[1][i * 32..][..32].iter().sum())),
    ("counted", |o| o.each(0, |x, i| count(&x[1], 32, i))),
    ("smoothed", |o| o.each(0, |x, i| {
        let at = |i: Option<usize>| i.and_then(|i| x[1].get(i)).copied().unwrap_or(0.0);
        at(i.checked_sub(1)) + 2.0 * x[1][i] + at(Some(i + 1))
    })),
    ("half_a_matrix", |o| o.each(0, |x, i| quarter(|row, column| if row < 8 { x[1][row * 16 + column] } else { 0.0 }, i))),
    ("coordinates", |o| {
        let points = o.each(0, |x, i| if i % 4 < 3 { x[2][i / 4 * 3 + i % 4] } else { 1.0 });
        points.each(1, |x, i| x[2][(63 - i) * 3..][..3].iter().map(|axis| axis * axis).sum())
    }),
    // warp.cu
    ("lanes_exchange", |o| o.each(0, |x, i| x[1][i ^ 1])),
    ("warp_sum", |o| o.each(0, |x, i| x[1][i * 32..][..32].iter().sum())),
    ("shuffle_sum", |o| o.each(0, |x, i| x[1][i * 32..][..32].iter().sum())),
    ("shuffle_in_half", |o| o.each(0, |x, i| x[1][i] + if i % 32 < 16 { x[1][i ^ 1] } else { 0.0 })),
    ("shuffle_before_return", |o| o.some(0, (0..20).chain(32..52), |x, i| {
        x[1][i] - if i % 32 < 19 { x[1][i + 1] } else { 0.0 }
    })),
    ("ballot_positions", |o| o.each(0, odd_first)),
    ("syncwarp_at_two_places", |o| o.each(0, |x, i| if i % 32 < 16 { 2.0 * x[1][i + 16] } else { x[1][i - 16] - 1.0 })),
    ("matched_counts", |o| o.each(0, |x, i| count(&x[1], 8, i))),
    ("reduced_in_hardware", |o| o.each(0, reductions)),
];
