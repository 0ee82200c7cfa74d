//! `mov` with packing, special registers, address spaces.

use crate::harness::{binary, module, run, table, unary};

#[test]
fn packed_and_unpacked() {
    unary("mov.b16 %d, %a;", |a: u16| a);
    unary("mov.b32 %d, %a;", |a: u32| a);
    unary("mov.b64 %d, %a;", |a: u64| a);
    unary("mov.u32 %d, %a;", |a: u32| a);
    unary("mov.f32 %d, %a;", |a: u32| a);
    unary("mov.f64 %d, %a;", |a: u64| a);
    binary("mov.b32 %d, {%a, %b};", |a: u16, b: u16| u32::from(a) | u32::from(b) << 16);
    binary("mov.b64 %d, {%a, %b};", |a: u32, b: u32| u64::from(a) | u64::from(b) << 32);
    unary("{.reg .b16 %l, %h; mov.b32 {%l, %h}, %a; mov.b32 %d, {%h, %l};}", |a: u32| a.rotate_left(16));
    unary("{.reg .b32 %l, %h; mov.b64 {%l, %h}, %a; mov.b64 %d, {%h, %l};}", |a: u64| a.rotate_left(32));
    unary("{.reg .b16 %x<4>; mov.b64 {%x0, %x1, %x2, %x3}, %a; mov.b64 %d, {%x3, %x0, %x1, %x2};}", |a: u64| a.rotate_left(16));
    unary("{.reg .b32 %h; mov.b64 {_, %h}, %a; mov.b32 %d, %h;}", |a: u64| (a >> 32) as u32);
}

/// Four blocks in a plane, of 5x3x2 threads.
#[test]
fn special_registers() {
    let names: Vec<&str> =
        "%tid.x %tid.y %tid.z %ntid.x %ntid.y %ntid.z %ctaid.x %ctaid.y %ctaid.z %nctaid.x %nctaid.y %nctaid.z %laneid \
                            %warpid %lanemask_eq %lanemask_lt %lanemask_le %lanemask_gt %lanemask_ge %dynamic_smem_size"
            .split_whitespace()
            .collect();
    let mut body = String::from(
        ".reg .u32 %n, %x, %y;\n.reg .u64 %at;\nmov.u32 %x, %ctaid.x; mov.u32 %y, %ctaid.y; mad.lo.u32 %n, %y, 2, %x;\n\
         mov.u32 %x, %tid.z; mad.lo.u32 %n, %n, 2, %x;\nmov.u32 %x, %tid.y; mad.lo.u32 %n, %n, 3, %x;\n\
         mov.u32 %x, %tid.x; mad.lo.u32 %n, %n, 5, %x;\n",
    );
    body += &format!("mad.wide.u32 %at, %n, {}, %p0;\n", names.len() * 4);
    for (i, name) in names.iter().enumerate() {
        body += &format!("mov.u32 %x, {name};\nst.global.u32 [%at+{}], %x;\n", i * 4);
    }
    let out = run(&module("", 1, &body), [2, 2, 1], [5, 3, 2], 48, &[vec![0; 4 * 30 * names.len() * 4]]);
    let words: Vec<u32> = out[0].chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
    for (n, got) in (0u32..).zip(words.chunks_exact(names.len())) {
        let (block, thread) = (n / 30, n % 30);
        let (bit, below) = (1u32 << thread, (1u32 << thread) - 1);
        let mut expected = vec![thread % 5, thread / 5 % 3, thread / 15, 5, 3, 2, block % 2, block / 2, 0, 2, 2, 1];
        expected.extend([thread, 0, bit, below, below | bit, !(below | bit), !below, 48]);
        assert_eq!(got, expected, "block {block} thread {thread} {names:?}");
    }
}

#[test]
fn warps_are_numbered() {
    let body = "{.reg .u64 %at; .reg .u32 %x, %y; mad.lo.u64 %at, %t64, 8, %p0; mov.u32 %x, %warpid; mov.u32 %y, %laneid;\n\
                st.global.v2.u32 [%at], {%x, %y};}";
    let out = run(&module("", 1, body), [1, 1, 1], [100, 1, 1], 0, &[vec![0; 800]]);
    for (thread, pair) in (0u32..).zip(out[0].chunks_exact(8)) {
        assert_eq!(pair, [(thread / 32).to_le_bytes(), (thread % 32).to_le_bytes()].concat());
    }
}

/// A later reading of the clock is not before an earlier one.
#[test]
fn clocks_go_on() {
    let body = "{.reg .u64 %x, %y; .reg .pred %p; mov.u64 %x, %clock64; mov.u64 %y, %clock64; setp.gt.u64 %p, %x, %y; \
    selp.b32 %d, 1, 0, %p;}";
    unary(body, |_: u32| 0u32);
}

/// Addresses of all spaces as generic ones: they lie in their space, no other, and come back.
#[test]
fn generic_addresses() {
    let declarations = ".global .u32 far[4];";
    let setup = "{.reg .u64 %g, %back; .reg .pred %p<4>; .reg .b32 %bit<4>;\n.local .b32 own[4];\n.shared .b32 near[4];\n";
    let space = |variable: &str, space: &str| {
        format!(
            "{setup}mov.u64 %back, {variable};\ncvta.{space}.u64 %g, %back;\ncvta.to.{space}.u64 %g, %g;\n\
             setp.ne.u64 %p0, %g, %back;\n\
             cvta.{space}.u64 %g, {variable};\n\
             isspacep.global %p1, %g;\nisspacep.shared %p2, %g;\nisspacep.local %p3, %g;\n\
             selp.b32 %d, 8, 0, %p0;\nselp.b32 %bit1, 1, 0, %p1;\nselp.b32 %bit2, 2, 0, %p2;\nselp.b32 %bit3, 4, 0, %p3;\n\
             or.b32 %d, %d, %bit1;\nor.b32 %d, %d, %bit2;\nor.b32 %d, %d, %bit3;}}"
        )
    };
    let rows = [[0, 0, 0]; 32];
    for (variable, name, expected) in [("far", "global", 1), ("near", "shared", 2), ("own", "local", 4)] {
        assert_eq!(table(declarations, &space(variable, name), ["b32"; 4], &rows), [expected; 32], "{name}");
    }
}

/// One instruction reads shared memory in some lanes, global, constant and local memory in others.
#[test]
fn generic_loads() {
    let body = "{.reg .u64 %g<4>, %at; .reg .pred %p<3>; \
    .reg .b32 %x, %y;\n.local .align 4 .b32 own;\n.shared .align 4 .b32 near[32];\n\
        mov.u32 %y, near; mad.lo.u32 %y, %t, 4, %y; add.u32 %x, %a, 100; st.shared.u32 [%y], %x;\n\
        add.u32 %x, %a, 300; st.local.u32 [own], %x;\n\
        cvt.u64.u32 %at, %y; cvta.shared.u64 %g0, %at; cvta.local.u64 %g1, own; cvta.const.u64 %g2, fixed; \
        cvta.global.u64 %g3, far;\n\
        and.b32 %x, %a, 3; setp.eq.u32 %p0, %x, 0; setp.eq.u32 %p1, %x, 1; setp.eq.u32 %p2, %x, 2;\n\
        selp.b64 %at, %g2, %g3, %p2; selp.b64 %at, %g1, %at, %p1; selp.b64 %at, %g0, %at, %p0;\n\
        ld.u32 %d, [%at];}";
    let rows: Vec<[u64; 3]> = (0..32).map(|lane| [lane, 0, 0]).collect();
    let got = table(".global .u32 far = 777;\n.const .u32 fixed = 555;", body, ["b32"; 4], &rows);
    let expected: Vec<u64> = (0..32).map(|lane| [lane + 100, lane + 300, 555, 777][lane as usize % 4]).collect();
    assert_eq!(got, expected);
}
