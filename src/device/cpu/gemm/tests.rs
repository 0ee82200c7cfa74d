use super::*;
use crate::device::Precision;

/// Every element of the result is written, and nothing around it, whatever the edges of tiles, panels and tasks.
#[test]
fn results_are_complete_and_nothing_else_is_written() {
    const GUARD: usize = 97;
    let window = Window { size: 3, stride: 1, before: 1, after: 1 };
    for threads in [1, 3] {
        let cpu = Cpu::new(threads).unwrap();
        for (batch, height, width, channels, outputs, gated) in [
            (1, 1, 1, 1, 1, false),
            (1, 5, 15, 3, 31, false),
            (2, 13, 14, 33, 33, false),
            (3, 29, 28, 4, 64, true),
            (1, 2, 401, 2, 5, true),
        ] {
            let layout = Layout { outputs, channels, taps: 9, gated, winograd: false };
            let weights =
                Weights::pack(&cpu, Precision::F32, layout, &vec![0.5; layout.columns()], |_, row| row.fill(1.0)).unwrap();
            let x = vec![1.0; batch * height * width * channels];
            let input = Input { x: &x, channels, skip: None, batch, height, width, upsample: None };
            let activation = if gated { Activation::Geglu } else { Activation::None };
            let epilogue = Epilogue { activation, ..Epilogue::default() };
            let mut out = vec![f32::NAN; GUARD + batch * height * width * outputs + GUARD];
            let inside = GUARD..out.len() - GUARD;
            product(&cpu, &weights, &input, window, &epilogue, &mut out[inside.clone()]);
            for (i, y) in out.iter().enumerate() {
                assert_eq!(y.is_nan(), !inside.contains(&i), "{y} at {i} of {batch} x {height} x {width}");
            }
        }
    }
}

/// Whatever the shape, the tasks cover every position and every panel once, and need no more memory than workers hold.
#[test]
fn tasks_cover_the_result_once() {
    let cpu = Cpu::new(1).unwrap();
    for (rows, columns, outputs, channels, taps, gated) in [
        (1, 8192, 2560, 320, 1, true),
        (1, 1, 1280, 1280, 1, false),
        (1, 77, 3072, 768, 1, false),
        (128, 64, 320, 320, 9, false),
        (16, 8, 1280, 64, 9, false),
        (512, 512, 3, 128, 9, false),
        (7, 1000, 40, 3, 9, false),
    ] {
        let layout = Layout { outputs, channels, taps, gated, winograd: false };
        let weights = Weights::pack(&cpu, Precision::F32, layout, &vec![0.0; layout.columns()], |_, row| row.fill(0.0)).unwrap();
        let panels = layout.panels();
        for threads in [1, 2, 64] {
            let tasks = Tasks::new(rows, columns, &weights, threads);
            let mut seen = vec![0u8; rows * columns * panels];
            for task in (0..tasks.count()).map(|i| tasks.get(i)) {
                for (row, column) in task.region.rows.clone().flat_map(|r| task.region.columns.clone().map(move |c| (r, c))) {
                    task.panels.clone().for_each(|panel| seen[(row * columns + column) * panels + panel] += 1);
                }
                let window = Window { size: if taps == 9 { 3 } else { 1 }, stride: 1, before: taps / 9, after: taps / 9 };
                let patch = Patch::new(window, task.region.clone(), rows);
                let slices = weights.blocks().map(|b| b.slices).max().unwrap_or(0);
                assert!(patch.elements(slices) + task.positions() * task.kept * PANEL <= SCRATCH, "{rows} x {columns}");
            }
            assert!(seen.iter().all(|&n| n == 1), "{rows} x {columns} x {outputs} with {threads} threads");
        }
    }
}
