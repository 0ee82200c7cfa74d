use super::*;
use crate::count::chip::{A100, CHIPS, H100};

fn site(class: Class, line: u32, text: &str) -> Site {
    Site {
        class,
        flops: 0,
        tensor_type: "",
        ptx_line: 100 + line,
        source: Some(("/kernels/gemm/gemm.cu".into(), line)),
        text: text.into(),
    }
}

/// The row of the table of lines that starts with `place`, cut at spaces.
fn row<'a>(report: &'a str, place: &str) -> Vec<&'a str> {
    let line = report.lines().find(|line| line.trim_start().starts_with(place));
    line.unwrap_or_else(|| panic!("no line for {place} in\n{report}")).split_whitespace().collect()
}

/// A product with a conflicted store to shared memory and a strided load.
fn product() -> (Vec<Site>, Counts) {
    let mut sites = vec![
        site(
            Class::Tensor,
            40,
            "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%f1,%f2,%f3,%f4}, {%r1,%r2,%r3,%r4}, {%r5,%r6}, {%f1};",
        ),
        site(Class::Shared, 30, "st.shared.f32 [%r7], %f1;"),
        site(Class::Global, 20, "ld.global.f32 %f1, [%rd1];"),
        site(Class::Integer, 20, "add.s64 %rd1, %rd1, 128;"),
        site(Class::Control, 50, "bra $L_1;"),
    ];
    (sites[0].flops, sites[0].tensor_type) = (4096, "f16");
    let warps = 1000;
    let each = SiteCounts { warps, lanes: 32 * warps, ..SiteCounts::default() };
    let counts = Counts {
        sites: vec![
            SiteCounts { warps: 100 * warps, lanes: 3200 * warps, ..SiteCounts::default() },
            SiteCounts { bytes: 128 * warps, wavefronts: 32 * warps, ideal_wavefronts: warps, ..each },
            // A stride of 128 bytes: each lane has a sector for its four bytes.
            SiteCounts { bytes: 128 * warps, sectors: 32 * warps, ..each },
            each,
            SiteCounts { lanes: 16 * warps, ..each },
        ],
        unique_read: 1_024_000,
        unique_written: 0,
        blocks: 108,
        block_threads: 256,
        shared_bytes: 49_152,
    };
    (sites, counts)
}

#[test]
fn conflicts_and_strides_are_told_per_line() {
    let (sites, counts) = product();
    let report = report("gemm", &sites, &counts, &[&A100]);
    assert!(report.starts_with("gemm: 108 blocks of 256 threads, 49152 B of shared memory a block\n"), "{report}");
    let shared = row(&report, "gemm.cu:30");
    assert_eq!(shared[3..7], ["1000", "32.0k", "1000", "32-way"], "{report}");
    let load = row(&report, "gemm.cu:20");
    // Both of its instructions count; 4 of 32 bytes are used.
    assert_eq!(load[3..7], ["2000", "32.0k", "12", "%"], "{report}");
    assert!(load.contains(&"ld.global.f32"), "{report}");
    assert!(report.contains("409.6M"), "tensor FLOP: {report}");
    // The branch has no part in the bound.
    assert!(!report.contains("gemm.cu:50") && report.contains("and 1 more lines with 1000 warp instructions"), "{report}");
}

#[test]
fn the_efficiency_of_a_line_is_that_of_its_global_memory() {
    let (mut sites, counts) = product();
    sites[1].source = sites[2].source.clone();
    let report = report("gemm", &sites, &counts, &[&A100]);
    assert_eq!(row(&report, "gemm.cu:20")[3..9], ["3000", "32.0k", "1000", "32-way", "32.0k", "12"], "{report}");
}

#[test]
fn lines_are_sorted_by_their_share() {
    let (sites, mut counts) = product();
    // 409.6 MFLOP on 312 TFLOP/s: 1.3 us; 32,000 wavefronts on 108 * 1.41 GHz: 0.2 us.
    let tensor = report("gemm", &sites, &counts, &[&A100, &H100]);
    assert_eq!(row(&tensor, "a100")[1..4], ["1.3", "us", "tensor"], "{tensor}");
    assert_eq!(row(&tensor, "gemm.cu:40")[1..5], ["100.0", "%", "100.0", "%"], "{tensor}");
    let at = |report: &str, place: &str| report.find(place).unwrap_or_else(|| panic!("{place} in {report}"));
    assert!(at(&tensor, "gemm.cu:40") < at(&tensor, "gemm.cu:30"));
    // A hundred times the wavefronts bind: 3.2 M on 152 G/s: 21 us.
    counts.sites[1].wavefronts *= 100;
    let shared = report("gemm", &sites, &counts, &[&A100]);
    assert_eq!(row(&shared, "a100")[1..4], ["21.0", "us", "shared"], "{shared}");
    assert!(at(&shared, "gemm.cu:30") < at(&shared, "gemm.cu:20"));
    assert_eq!(row(&shared, "gemm.cu:30")[1..3], ["100.0", "%"], "{shared}");
}

#[test]
fn active_lanes_and_shares_of_the_mix() {
    let (sites, counts) = product();
    let report = report("gemm", &sites, &counts, &[&A100]);
    assert_eq!(row(&report, "control"), ["control", "1000", "1.0", "%", "16.0"], "{report}");
    assert_eq!(row(&report, "tensor  ")[..5], ["tensor", "100.0k", "96.2", "%", "32.0"], "{report}");
    assert_eq!(row(&report, "all"), ["all", "104.0k"], "{report}");
}

#[test]
fn every_chip_has_a_row() {
    let (mut sites, counts) = product();
    sites[0].tensor_type = "e4m3";
    let report = report("gemm", &sites, &counts, &CHIPS.iter().collect::<Vec<_>>());
    for chip in &CHIPS {
        row(&report, chip.name);
    }
    assert_eq!(row(&report, "a100")[1..4], ["cannot", "run", "tensor"], "{report}");
    // The rate of mma.sync on Hopper is an estimate.
    assert!(row(&report, "h100").iter().any(|cell| cell.starts_with('~')), "{report}");
}

#[test]
fn ptx_lines_stand_in_for_missing_sources() {
    let (mut sites, counts) = product();
    for site in &mut sites {
        site.source = None;
    }
    let report = report("gemm", &sites, &counts, &[&A100]);
    assert_eq!(row(&report, "ptx:130")[3..7], ["1000", "32.0k", "1000", "32-way"]);
    // Without a launch there is nothing to tell, but no division by zero either.
    let empty = super::report("nothing", &[], &Counts::default(), &[&A100]);
    assert!(!empty.contains("NaN") && !empty.contains("inf"), "{empty}");
}

#[test]
fn numbers_are_short() {
    for (number, want) in
        [(0.0, "0"), (7.0, "7"), (9999.0, "9999"), (12_345.0, "12.3k"), (2.5e6, "2.5M"), (3e9, "3.0G"), (4.56e12, "4.6T")]
    {
        assert_eq!(short(number), want);
    }
    for (seconds, want) in [(0.0, "0"), (2.5e-8, "25.0 ns"), (1.25e-5, "12.5 us"), (3.456e-3, "3.46 ms"), (2.0, "2.00 s")] {
        assert_eq!(time(seconds), want);
    }
    let counts = |wavefronts, ideal_wavefronts| SiteCounts { wavefronts, ideal_wavefronts, ..SiteCounts::default() };
    for (own, want) in [(counts(4, 4), "none"), (counts(32, 1), "32-way"), (counts(5, 2), "2.5-way"), (counts(0, 0), "")] {
        assert_eq!(conflict(&own), want);
    }
}
