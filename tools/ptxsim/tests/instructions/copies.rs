//! `cp.async`: sizes, zero fill, ignored sources, groups.

use crate::harness::{module, run};

fn byte(at: usize) -> u8 {
    (at * 29 + 5) as u8 | 1
}

/// Copies of `bytes` bytes a lane by `copy` (with %to, %from, %s ready), then out again.
fn copied(copy: &str, bytes: usize) -> Vec<u8> {
    let body = format!(
        ".shared .align 16 .b8 room[512];\n.reg .u64 %from, %to, %out; .reg .u32 %near, %s, %x; .reg .pred %q;\n\
         mad.lo.u64 %from, %t64, {bytes}, %p1; mad.lo.u64 %out, %t64, {bytes}, %p0; mov.u64 %to, room; \
         mad.lo.u64 %to, %t64, {bytes}, %to; cvt.u32.u64 %near, %to;\n\
         rem.u32 %s, %t, {}; setp.gt.u32 %q, %t, 15;\n{copy}\ncp.async.wait_all;\n",
        bytes + 1
    );
    let out = (0..bytes)
        .step_by(4)
        .map(|i| format!("ld.shared.u32 %x, [%near+{i}]; st.global.u32 [%out+{i}], %x;\n"))
        .collect::<String>();
    let input: Vec<u8> = (0..32 * bytes).map(byte).collect();
    run(&module("", 2, &(body + &out)), [1, 1, 1], [32, 1, 1], 0, &[vec![0; input.len()], input]).swap_remove(0)
}

#[test]
fn sizes() {
    for (copy, bytes) in [
        ("cp.async.ca.shared.global [%to], [%from], 4;", 4),
        ("cp.async.ca.shared.global [%near], [%from], 8;", 8),
        ("cp.async.ca.shared.global [%near], [%from], 16;", 16),
        ("cp.async.cg.shared.global [%near], [%from], 16;", 16),
        ("cp.async.cg.shared.global.L2::128B [%near], [%from], 16;", 16),
        ("cp.async.ca.shared.global.L2::256B [%near], [%from], 8;", 8),
        ("cp.async.ca.shared::cta.global [%near], [%from], 4;", 4),
        ("cp.async.ca.shared.global [%near+0], [%from+0], 4, 4;", 4),
    ] {
        assert_eq!(copied(copy, bytes), (0..32 * bytes).map(byte).collect::<Vec<_>>(), "{copy}");
    }
}

/// Lane t copies t mod (bytes + 1) bytes; the others become zero.
#[test]
fn part_of_the_source() {
    for (copy, bytes) in [
        ("cp.async.ca.shared.global [%near], [%from], 4, %s;", 4),
        ("cp.async.ca.shared.global [%near], [%from], 8, %s;", 8),
        ("cp.async.cg.shared.global [%near], [%from], 16, %s;", 16),
    ] {
        let expected = |at: usize| if at % bytes < at / bytes % (bytes + 1) { byte(at) } else { 0 };
        assert_eq!(copied(copy, bytes), (0..32 * bytes).map(expected).collect::<Vec<_>>(), "{copy}");
    }
    let none = copied("cp.async.cg.shared.global [%near], [%from], 16, 0;", 16);
    assert_eq!(none, [0; 512]);
}

/// An ignored source is all zeros, and may lie anywhere.
#[test]
fn no_source() {
    let expected = |at: usize| if at / 16 > 15 { 0 } else { byte(at) };
    let copy = "@%q mov.u64 %from, 0;\ncp.async.cg.shared.global [%near], [%from], 16, %q;";
    assert_eq!(copied(copy, 16), (0..512).map(expected).collect::<Vec<_>>());
}

/// Three groups; a wait leaves the newest ones.
#[test]
fn groups() {
    let body = ".shared .align 16 .b8 room[1536];\n.reg .u64 %from, %out; .reg .u32 %near, %x, %y;\n\
        mad.lo.u64 %from, %t64, 4, %p1; mad.lo.u64 %out, %t64, 4, %p0; mov.u32 %near, room; mad.lo.u32 %near, %t, 4, %near;\n\
        cp.async.ca.shared.global [%near], [%from], 4; cp.async.commit_group;\n\
        cp.async.ca.shared.global [%near+128], [%from+128], 4; cp.async.ca.shared.global [%near+512], [%from+512], 4; \
        cp.async.commit_group;\n\
        cp.async.ca.shared.global [%near+256], [%from+256], 4; cp.async.commit_group;\n\
        cp.async.wait_group 2; ld.shared.u32 %x, [%near];\ncp.async.wait_group 1; ld.shared.u32 %y, [%near+128]; \
        xor.b32 %x, %x, %y; ld.shared.u32 %y, [%near+512]; xor.b32 %x, %x, %y;\n\
        cp.async.wait_group 0; ld.shared.u32 %y, [%near+256]; xor.b32 %x, %x, %y; st.global.u32 [%out], %x;";
    let input: Vec<u8> = (0..640).map(byte).collect();
    let out = run(&module("", 2, body), [1, 1, 1], [32, 1, 1], 0, &[vec![0; 128], input]);
    let expected: Vec<u8> = (0..128).map(|at| byte(at) ^ byte(at + 128) ^ byte(at + 256) ^ byte(at + 512)).collect();
    assert_eq!(out[0], expected);
}
