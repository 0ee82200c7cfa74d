//! `ld` and `st` of every width, vector and space; variables with initial values.

use crate::harness::{module, run, table};

/// Loads of one narrow type: name, whether it has a sign, bytes.
const NARROW: [(&str, bool, usize); 8] = [
    ("u8", false, 1),
    ("s8", true, 1),
    ("b8", false, 1),
    ("u16", false, 2),
    ("s16", true, 2),
    ("u32", false, 4),
    ("s32", true, 4),
    ("b64", false, 8),
];

fn byte(at: usize) -> u8 {
    (at * 37 + 0x7b) as u8
}

/// `size` bytes of [`byte`] from `at` on, widened to 64 bits.
fn number(at: usize, size: usize, signed: bool) -> u64 {
    let value = (0..size).fold(0u64, |value, i| value | u64::from(byte(at + i)) << (8 * i));
    let unused = 64 - 8 * size as u32;
    if signed { ((value << unused) as i64 >> unused) as u64 } else { value }
}

/// Fills 1 KiB of `space` by bytes, then loads elements of `kind` into 64-bit registers, which widens them.
#[test]
fn loads_widen() {
    for (space, declare, base) in [
        ("shared", ".shared .align 16 .b8 room[1024];", "mov.u64 %base, room;"),
        ("local", ".local .align 16 .b8 room[1024];", "mov.u64 %base, room;"),
        ("global", "", "mad.lo.u64 %base, %t64, 1024, %p1;"),
    ] {
        for (kind, signed, size) in NARROW {
            let fill = "mov.u32 %i, 0;\nFILL: mad.lo.u32 %v, %i, 37, 0x7b; cvt.u64.u32 %at, %i; add.u64 %at, %at, %base;\n";
            let body = format!(
                "{declare}\n.reg .u64 %base, %at, %to; .reg .u32 %i, %v; .reg .pred %p; .reg .b64 %x;\n{base}\n{fill}\
                 st.{space}.u8 [%at], %v;\nadd.u32 %i, %i, 1; setp.lt.u32 %p, %i, 1024; @%p bra FILL;\nbar.sync 0;\n\
                 mad.lo.u64 %at, %t64, {size}, %base; ld.{space}.{kind} %x, [%at+{}];\n\
                 mad.lo.u64 %to, %t64, 8, %p0; st.global.b64 [%to], %x;",
                size * 3
            );
            let body = match space {
                // All threads would fill the same bytes: one does.
                "shared" => body
                    .replace("mov.u32 %i, 0;\n", "mov.u32 %i, 0;\nsetp.ne.u32 %p, %t, 0; @%p bra FILLED;\n")
                    .replace("bar.sync 0;", "FILLED: bar.sync 0;"),
                _ => body,
            };
            let out = run(&module("", 2, &body), [1, 1, 1], [32, 1, 1], 0, &[vec![0; 256], vec![0; 32 * 1024]]);
            for (lane, word) in out[0].chunks_exact(8).enumerate() {
                let expected = number((lane + 3) * size, size, signed);
                assert_eq!(u64::from_le_bytes(word.try_into().unwrap()), expected, "ld.{space}.{kind} lane {lane}");
            }
        }
    }
}

/// Narrow stores keep the low bits and leave the neighbours alone.
#[test]
fn stores_narrow() {
    for (kind, size) in [("u8", 1), ("s8", 1), ("u16", 2), ("b16", 2), ("u32", 4), ("f32", 4)] {
        let body = format!(
            "{{.reg .u64 %at; .reg .b32 %x; mad.lo.u32 %x, %t, 0x01020304, 0xa0b0c0d0; mad.lo.u64 %at, %t64, {}, %p0; \
             st.global.{kind} [%at+{size}], %x;}}",
            size * 2
        );
        let out = run(&module("", 1, &body), [1, 1, 1], [32, 1, 1], 0, &[vec![0x55; 64 * size]]);
        for lane in 0..32u32 {
            let value = 0xa0b0_c0d0u32.wrapping_add(lane * 0x0102_0304).to_le_bytes();
            let at = lane as usize * size * 2;
            assert_eq!(out[0][at..at + size], [0x55; 4][..size], "beside st.{kind}");
            assert_eq!(out[0][at + size..at + 2 * size], value[..size], "st.{kind}");
        }
    }
}

/// Vectors of two and four, moved from one buffer to another by way of shared memory, their elements in turn.
#[test]
fn vectors() {
    for (kind, register, size) in
        [("u8", "b16", 1), ("b16", "b16", 2), ("u32", "b32", 4), ("f32", "f32", 4), ("b64", "b64", 8), ("f64", "f64", 8)]
    {
        for count in [2usize, 4].into_iter().filter(|count| count * size <= 16) {
            let bytes = count * size;
            let names: Vec<String> = (0..count).map(|i| format!("%x{i}")).collect();
            let turned: Vec<String> = (0..count).map(|i| format!("%x{}", (i + 1) % count)).collect();
            let (names, turned) = (names.join(", "), turned.join(", "));
            let body = format!(
                ".shared .align 16 .b8 room[512];\n.reg .u64 %from, %to, %near; .reg .{register} %x<4>;\n\
                 mad.lo.u64 %from, %t64, {bytes}, %p1; mad.lo.u64 %to, %t64, {bytes}, %p0; mov.u64 %near, room; \
                 mad.lo.u64 %near, %t64, 16, %near;\n\
                 ld.global.v{count}.{kind} {{{names}}}, [%from];\nst.shared.v{count}.{kind} [%near], {{{names}}};\n\
                 ld.shared.v{count}.{kind} {{{names}}}, [%near];\nst.global.v{count}.{kind} [%to], {{{turned}}};"
            );
            let input: Vec<u8> = (0..32 * bytes).map(byte).collect();
            let out = run(&module("", 2, &body), [1, 1, 1], [32, 1, 1], 0, &[vec![0; input.len()], input.clone()]);
            let expected: Vec<u8> =
                input.chunks_exact(bytes).flat_map(|vector| [&vector[size..], &vector[..size]].concat()).collect();
            assert_eq!(out[0], expected, "v{count}.{kind}");
        }
    }
}

/// Qualifiers that change nothing but the way to memory.
#[test]
fn cache_hints_and_strengths() {
    for (load, store) in [
        ("ld.global.ca", "st.global.wb"),
        ("ld.global.cg", "st.global.cg"),
        ("ld.global.cs", "st.global.cs"),
        ("ld.global.lu", "st.global.wt"),
        ("ld.global.cv", "st.global"),
        ("ld.volatile.global", "st.volatile.global"),
        ("ld.global.nc", "st.global"),
        ("ld.global.nc.L1::no_allocate.L2::128B", "st.global.L1::no_allocate"),
        ("ld.global.L2::256B", "st.weak.global"),
        ("ld.relaxed.gpu.global", "st.relaxed.sys.global"),
        ("ld.acquire.cta.global", "st.release.gpu.global"),
        ("ld.weak.global", "st.global"),
        ("ld", "st"),
        ("ld.volatile", "st.volatile"),
        ("ldu.global", "st.global"),
    ] {
        let body = format!(
            "{{.reg .u64 %at, %to; .reg .b32 %x; mad.lo.u64 %at, %t64, 4, %p1; {load}.u32 %x, [%at]; \
             mad.lo.u64 %to, %t64, 4, %p0; {store}.u32 [%to], %x;}}"
        );
        let input: Vec<u8> = (0..128).map(byte).collect();
        assert_eq!(
            run(&module("", 2, &body), [1, 1, 1], [32, 1, 1], 0, &[vec![0; 128], input.clone()])[0],
            input,
            "{load} {store}"
        );
    }
}

/// Offsets to both sides, and addresses that are a variable and an offset.
#[test]
fn addresses() {
    let body = "{.reg .u64 %at, %base; .reg .b32 %x, %y, %z;\n.shared .align 4 .b32 room[40];\n\
        mov.u64 %base, room; mad.lo.u64 %at, %t64, 4, %base; st.shared.u32 [%at+16], %a;\nbar.warp.sync -1;\n\
        sub.u64 %at, %at, %t64; sub.u64 %at, %at, %t64; sub.u64 %at, %at, %t64; sub.u64 %at, %at, %t64; add.u64 %at, %at, 80;\n\
        ld.shared.u32 %x, [%at+-60];\nld.shared.u32 %y, [room+24];\nld.shared.u32 %z, [room+28];\nmad.lo.u32 %x, %x, 100, %y; \
        mad.lo.u32 %d, %x, 100, %z;}";
    let rows: Vec<[u64; 3]> = (0..32).map(|lane| [lane + 10, 0, 0]).collect();
    // 80 - 60 = 20 is the second element, 24 the third, 28 the fourth.
    assert_eq!(table("", body, ["b32"; 4], &rows), [(11 * 100 + 12) * 100 + 13; 32]);
}

#[test]
fn initial_values() {
    let declarations = "
        .const .align 4 .b8 letters[8] = {1, 2, 0xff, 4, 5};
        .const .f32 thirds[2] = {0f3EAAAAAB, 0.5};
        .global .align 8 .u64 wide[3] = {1, 0xffffffffffffffff, 3};
        .global .s16 signs[4] = {-1, -2, 3, 4};
        .global .f64 half_ = 0d3FE0000000000000;
        .global .u32 blank[4];
    ";
    let body = "{.reg .b64 %x, %y; .reg .b32 %w, %v; .reg .u64 %at; .reg .b16 %h; .reg .f64 %f; .reg .f32 %g;\n\
        ld.const.u8 %w, [letters+2]; cvt.u64.u32 %x, %w; ld.const.u8 %w, [letters+6]; cvt.u64.u32 %y, %w; shl.b64 %y, %y, 8; \
        or.b64 %x, %x, %y;\n\
        ld.const.f32 %g, [thirds+4]; mov.b32 %w, %g; cvt.u64.u32 %y, %w; shl.b64 %y, %y, 16; xor.b64 %x, %x, %y;\n\
        ld.global.u64 %y, [wide+8]; add.u64 %x, %x, %y; ld.global.s16 %w, [signs+2]; cvt.s64.s32 %y, %w; add.s64 %x, %x, %y;\n\
        ld.global.f64 %f, [half_]; mov.b64 %y, %f; xor.b64 %x, %x, %y;\n\
        cvta.global.u64 %at, wide; ld.u64 %y, [%at+16]; mad.lo.u64 %x, %x, 1, %y; ld.global.u32 %w, [blank+4]; \
        cvt.u64.u32 %y, %w; add.u64 %x, %x, %y;\n\
        mov.b64 %d, %x;}";
    let expected =
        ((0xff_u64 ^ u64::from(0.5f32.to_bits()) << 16).wrapping_add(u64::MAX).wrapping_add_signed(-2) ^ 0.5f64.to_bits()) + 3;
    assert_eq!(table(declarations, body, ["b64", "b32", "b32", "b32"], &[[0; 3]; 32]), [expected; 32]);
}

/// Shared variables lie at their alignment, without overlap. One lane asks.
#[test]
fn variables_lie_apart() {
    let body = "{.reg .u64 %x<4>, %sum, %y; .reg .pred %p;\n\
        .shared .align 1 .b8 one[3];\n.shared .align 16 .b8 two[20];\n\
        .shared .align 8 .u64 three;\n.shared .align 2 .b16 four[5];\n\
        mov.u64 %d, 0; setp.ne.u32 %p, %t, 0; @%p bra SKIP;\n\
        mov.u64 %x0, one; mov.u64 %x1, two; mov.u64 %x2, three; mov.u64 %x3, four;\n\
        and.b64 %sum, %x1, 15; and.b64 %y, %x2, 7; add.u64 %sum, %sum, %y; and.b64 %y, %x3, 1; add.u64 %d, %sum, %y;\n\
        st.shared.u8 [one+2], 1; st.shared.u32 [two+16], 2; st.shared.u64 [three], 3; st.shared.u16 [four+8], 4;\n\
        ld.shared.u8 %y, [one+2]; mad.lo.u64 %d, %d, 10, %y; ld.shared.u32 %y, [two+16]; mad.lo.u64 %d, %d, 10, %y;\n\
        ld.shared.u64 %y, [three]; mad.lo.u64 %d, %d, 10, %y; ld.shared.u16 %y, [four+8]; \
        mad.lo.u64 %d, %d, 10, %y;\nSKIP: add.u64 %d, %d, 0;}";
    assert_eq!(table("", body, ["b64", "b32", "b32", "b32"], &[[0; 3]])[0], 1234);
}

/// Each thread has local memory of its own, also under one address.
#[test]
fn local_memory_is_private() {
    let body = "{.reg .u32 %x, %i; .reg .pred %p;\n.local .align 4 .b32 own[4];\n\
        st.local.u32 [own+4], %a; bar.warp.sync -1; ld.local.u32 %x, [own+4]; st.local.v2.u32 [own+8], {%x, 7}; \
        ld.local.u64 %d, [own+8];}";
    let rows: Vec<[u64; 3]> = (0..64).map(|row| [row * 3, 0, 0]).collect();
    let expected: Vec<u64> = (0..64).map(|row| (7 << 32) | (row * 3)).collect();
    assert_eq!(table("", body, ["b64", "b32", "b32", "b32"], &rows), expected);
}

/// Variables as large as a device's memory: what has no initial value is zero, and takes no memory until it is touched.
#[test]
fn large_variables() {
    let declarations = ".global .align 4 .b8 large[4294967296];\n.global .align 4 .u32 table[3000] = {7, 8};";
    let body = ".reg .u64 %x, %y; .reg .u32 %v; mov.u64 %x, large; mad.lo.u64 %x, %t64, 134217728, %x; \
        ld.global.u32 %v, [%x]; add.u32 %v, %v, %t; st.global.u32 [%x+4], %v; ld.global.u32 %v, [%x+4];\n\
        mov.u64 %y, table; mad.lo.u64 %y, %t64, 4, %y; ld.global.u32 %x32, [%y]; mad.lo.u32 %v, %v, 100, %x32; \
        ld.global.u32 %x32, [%y+11872]; add.u32 %v, %v, %x32; mad.lo.u64 %y, %t64, 4, %p0; st.global.u32 [%y], %v;";
    let body = format!(".reg .u32 %x32; {body}");
    let out = run(&module(declarations, 1, &body), [1, 1, 1], [32, 1, 1], 0, &[vec![0; 128]]);
    for (t, word) in (0u32..).zip(out[0].chunks_exact(4)) {
        let initial = [7, 8].get(t as usize).copied().unwrap_or(0);
        assert_eq!(u32::from_le_bytes(word.try_into().unwrap()), 100 * t + initial, "thread {t}");
    }
}

#[test]
fn variables_that_no_machine_holds_are_refused() {
    let declarations: String = (0..9).map(|i| format!(".global .align 4 .b8 large{i}[4294967296];\n")).collect();
    let uses: String = (0..9).map(|i| format!("mov.u64 %x, large{i};\n")).collect();
    let kernel = ptxsim::Module::parse(&module(&declarations, 0, &format!(".reg .u64 %x;\n{uses}")), "test.ptx").unwrap();
    let launch = ptxsim::Launch { grid: [1, 1, 1], block: [1, 1, 1], shared: 0 };
    let kernel = kernel.kernel("test").unwrap();
    let refused = ptxsim::launch(&kernel, &ptxsim::Memory::new(), &launch, &[], &ptxsim::Options::default());
    let message = refused.unwrap_err().to_string();
    assert!(message.contains("38654705664 bytes of module variables"), "{message}");
}
