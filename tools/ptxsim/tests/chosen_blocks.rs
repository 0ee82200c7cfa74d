//! Some blocks of a grid, on memory that is larger than this machine's.

use ptxsim::{Kernel, Launch, Memory, Module, Options, Report, launch};

/// Block b doubles numbers 32 b to 32 b + 31.
const DOUBLE: &str = r"
.version 9.0
.target sm_80
.address_size 64
.visible .entry double(.param .u64 data) {
    .reg .b32 %r<6>;
    .reg .b64 %d<4>;
    ld.param.u64 %d1, [data];
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, %ctaid.x;
    mad.lo.s32 %r3, %r2, 32, %r1;
    mul.wide.u32 %d2, %r3, 4;
    add.s64 %d3, %d1, %d2;
    ld.global.u32 %r4, [%d3];
    add.u32 %r5, %r4, %r4;
    st.global.u32 [%d3], %r5;
    ret;
}";

fn kernel() -> Kernel {
    Module::parse(DOUBLE, "double.ptx").unwrap().kernel("double").unwrap()
}

fn run(memory: &Memory, data: u64, grid: u32, blocks: &[u32]) -> ptxsim::Result<Report> {
    let options = Options { blocks: Some(blocks.to_vec()), ..Options::default() };
    launch(&kernel(), memory, &Launch { grid: [grid, 1, 1], block: [32, 1, 1], shared: 0 }, &data.to_le_bytes(), &options)
}

#[test]
fn only_chosen_blocks_run_and_are_counted() {
    let memory = Memory::new();
    let data = memory.alloc_filled(4 * 32 * 5, &3u32.to_le_bytes());
    let report = run(&memory, data, 5, &[4, 1]).unwrap();
    assert!(report.faults.is_empty(), "{}", report.faults[0]);
    assert_eq!((report.counts.blocks, report.counts.unique_read, report.counts.unique_written), (2, 256, 256));
    assert_eq!(report.counts.sites.iter().map(|site| site.warps).max(), Some(2));
    assert_eq!(memory.touched(data).unwrap(), (256, 256));
    for (block, expected) in [3u32, 6, 3, 3, 6].into_iter().enumerate() {
        let mut number = [0; 4];
        memory.read(data + 128 * block as u64 + 124, &mut number).unwrap();
        assert_eq!(u32::from_le_bytes(number), expected, "block {block}");
    }
    // Of the last launch alone.
    run(&memory, data, 5, &[]).unwrap();
    assert_eq!(memory.touched(data).unwrap(), (0, 0));
    assert!(memory.touched(1).is_err());
}

#[test]
fn blocks_outside_the_grid_and_twice_are_refused() {
    let memory = Memory::new();
    let data = memory.alloc_filled(4 * 32 * 5, &[0]);
    for (blocks, part) in [(&[0, 5][..], "block 5"), (&[3, 0, 3], "block 3 was chosen twice")] {
        let error = run(&memory, data, 5, blocks).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn memory_that_is_not_touched_takes_none() {
    let memory = Memory::new();
    let data = memory.alloc_filled(8 << 30, &[1, 0, 0, 0]);
    let last = ((8u64 << 30) / 128 - 1) as u32;
    let report = run(&memory, data, last + 1, &[last]).unwrap();
    assert!(report.faults.is_empty(), "{}", report.faults[0]);
    let mut number = [0; 4];
    memory.read(data + (8 << 30) - 4, &mut number).unwrap();
    assert_eq!(number, [2, 0, 0, 0]);
    // Past the end it is not memory, filled or not: neither the read nor the write.
    assert_eq!(run(&memory, data + 128, last + 1, &[last]).unwrap().faults.len(), 2);
}

#[test]
fn races_are_found_unless_nobody_asks() {
    let memory = Memory::new();
    let source = DOUBLE.replace("mad.lo.s32 %r3, %r2, 32, %r1;", "mov.u32 %r3, 0;");
    let kernel = Module::parse(&source, "race.ptx").unwrap().kernel("double").unwrap();
    let data = memory.alloc_filled(4, &[1, 0, 0, 0]);
    for (races, faults) in [(true, true), (false, false)] {
        let options = Options { races, ..Options::default() };
        let geometry = Launch { grid: [2, 1, 1], block: [32, 1, 1], shared: 0 };
        let report = launch(&kernel, &memory, &geometry, &data.to_le_bytes(), &options).unwrap();
        assert_eq!(!report.faults.is_empty(), faults);
    }
}
