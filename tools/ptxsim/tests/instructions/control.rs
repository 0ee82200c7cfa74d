//! Branches, loops, tables of targets, calls, exits, and barriers that count.

use crate::harness::{id, module, run, table, warp, zero};
use ptxsim::{Launch, Memory, Module, Options, launch};

/// Steps of Collatz's sequence: every lane leaves the loop by itself, with a branch inside it.
#[test]
fn loops_of_different_lengths() {
    let body = "{.reg .pred %odd, %more; .reg .u32 %n, %bit; mov.u32 %d, 0; add.u32 %n, %a, 1;\n\
        HEAD: setp.eq.u32 %more, %n, 1; @%more bra DONE;\nand.b32 %bit, %n, 1; setp.eq.u32 %odd, %bit, 1; @%odd bra ODD;\n\
        shr.u32 %n, %n, 1; bra.uni NEXT;\nODD: mad.lo.u32 %n, %n, 3, 1;\nNEXT: add.u32 %d, %d, 1; \
        bra HEAD;\nDONE: add.u32 %d, %d, 1000;}";
    let steps = |start: u32| {
        let (mut n, mut steps) = (start, 0);
        while n != 1 {
            n = if n % 2 == 1 { 3 * n + 1 } else { n / 2 };
            steps += 1;
        }
        steps
    };
    assert_eq!(warp(body, id, zero, zero), (0..32).map(|lane| steps(lane + 1) + 1000).collect::<Vec<_>>());
}

/// Branches within branches rejoin: a vote behind them has all lanes.
#[test]
fn nested_branches_rejoin() {
    let body = "{.reg .pred %p, %q, %r; .reg .u32 %x; and.b32 %x, %a, 1; setp.eq.u32 %p, %x, 0; and.b32 %x, %a, 2; \
    setp.eq.u32 %q, %x, 0; mov.u32 %d, 0;\n\
        @%p bra A;\n@!%q bra B;\nadd.u32 %d, %d, 1; bra.uni C;\nB: add.u32 %d, %d, 2;\nC: add.u32 %d, %d, 10; bra.uni J;\n\
        A: @%q bra E;\nadd.u32 %d, %d, 3; bra.uni J;\nE: add.u32 %d, %d, 4;\n\
        J: setp.gt.u32 %r, %d, 5; vote.sync.ballot.b32 %x, %r, -1; mad.lo.u32 %d, %x, 100, %d;}";
    let path = |lane: u32| match lane % 4 {
        0 => 4,
        1 => 11,
        2 => 3,
        _ => 12,
    };
    let expected: Vec<u32> = (0..32).map(|lane| 0xaaaa_aaaa_u32.wrapping_mul(100).wrapping_add(path(lane))).collect();
    assert_eq!(warp(body, id, zero, zero), expected);
}

#[test]
fn branches_by_table() {
    let body = "{\nTARGETS: .branchtargets T0, T1, T2, T3;\n.reg .u32 %i; rem.u32 %i, %a, 4; mov.u32 %d, 0; \
    brx.idx %i, TARGETS;\n\
        T0: add.u32 %d, %d, 10;\nT1: add.u32 %d, %d, 100; \
        bra.uni OUT;\nT2: add.u32 %d, %d, 1000;\nT3: add.u32 %d, %d, 7;\nOUT: mad.lo.u32 %d, %d, 2, 1;}";
    let expected: Vec<u32> = (0..32).map(|lane| [110, 100, 1007, 7][lane % 4] * 2 + 1).collect();
    assert_eq!(warp(body, id, zero, zero), expected);
}

/// An array as a parameter, a call in a branch that some lanes take, a function that calls another in a loop.
#[test]
fn calls() {
    let declarations = "
        .func (.param .b32 result) add_one(.param .b32 x)
        {
            .reg .u32 %x; ld.param.u32 %x, [x]; add.u32 %x, %x, 1; st.param.b32 [result], %x; ret;
        }
        .func (.param .b32 result) sum_of(.param .b32 first, .param .align 8 .b8 rest[16])
        {
            .reg .u32 %x, %y; .reg .u64 %w;
            ld.param.u32 %x, [first]; ld.param.u32 %y, [rest+4]; add.u32 %x, %x, %y; ld.param.u64 %w, [rest+8]; \
            cvt.u32.u64 %y, %w;
            add.u32 %x, %x, %y; st.param.b32 [result], %x; ret;
        }
        .func (.param .b32 result) halvings(.param .b32 start)
        {
            .reg .u32 %n, %steps; .reg .pred %p;
            ld.param.u32 %n, [start]; mov.u32 %steps, 0; setp.gt.u32 %p, %n, 20; @%p bra LARGE;
            LOOP: setp.le.u32 %p, %n, 1; @%p bra OUT; shr.u32 %n, %n, 1;
            { .param .b32 r; .param .b32 x; st.param.b32 [x], %steps; call.uni (r), add_one, (x); ld.param.b32 %steps, [r]; }
            bra LOOP;
            LARGE: st.param.b32 [result], 99; ret;
            OUT: st.param.b32 [result], %steps; ret;
        }
    ";
    let body = "{.reg .u32 %x, %y; .reg .u64 %w; .reg .pred %q;\n\
        { .param .b32 r; .param .b32 f; .param .align 8 .b8 s[16]; mul.lo.u32 %x, %a, 2; st.param.b32 [f], %x; \
        st.param.b32 [s], 0; st.param.b32 [s+4], 5;\n\
        cvt.u64.u32 %w, %a; st.param.b64 [s+8], %w; call.uni (r), sum_of, (f, s); ld.param.b32 %y, [r]; }\n\
        setp.lt.u32 %q, %a, 24; mov.u32 %x, 1000; @!%q bra SKIP;\n\
        { .param .b32 r; .param .b32 f; st.param.b32 [f], %a; call (r), halvings, (f); ld.param.b32 %x, [r]; }\n\
        SKIP: mad.lo.u32 %d, %y, 10000, %x;}";
    let halvings = |lane: u32| match lane {
        24.. => 1000,
        21..=23 => 99,
        _ => lane.checked_ilog2().unwrap_or(0),
    };
    let rows: Vec<[u64; 3]> = (0..32).map(|lane| [lane, 0, 0]).collect();
    let expected: Vec<u64> = (0..32).map(|lane| u64::from((3 * lane + 5) * 10000 + halvings(lane))).collect();
    assert_eq!(table(declarations, body, ["b32"; 4], &rows), expected);
}

/// Lanes that have exited write no more; the others go on, and a barrier does not wait for them.
#[test]
fn exits() {
    let body = ".reg .u64 %at; .reg .pred %q; .reg .u32 %x; mad.lo.u64 %at, %t64, 4, %p0; st.global.u32 [%at], 1;\n\
        rem.u32 %x, %t, 3; setp.eq.u32 %q, %x, 1; @%q exit;\nbar.sync 0;\nst.global.u32 [%at], 2; setp.gt.u32 %q, %t, 40; \
        @%q ret;\nbar.sync 0; st.global.u32 [%at], 3;";
    let out = run(&module("", 1, body), [1, 1, 1], [64, 1, 1], 0, &[vec![0; 256]]);
    for (t, word) in (0u32..).zip(out[0].chunks_exact(4)) {
        let expected: u32 = if t % 3 == 1 {
            1
        } else if t > 40 {
            2
        } else {
            3
        };
        assert_eq!(word, expected.to_le_bytes(), "thread {t}");
    }
}

/// Barriers that count, or join, a predicate over all threads.
#[test]
fn barriers_with_a_result() {
    let body = ".reg .u64 %at; .reg .pred %p, %q; .reg .u32 %n, %x; mad.lo.u64 %at, %t64, 16, %p0; rem.u32 %x, %t, 5; \
    setp.eq.u32 %p, %x, 0;\n\
        bar.red.popc.u32 %n, 0, %p; st.global.u32 [%at], %n;\n\
        bar.red.and.pred %q, 0, %p; selp.b32 %n, 1, 0, %q; st.global.u32 [%at+4], %n;\n\
        bar.red.or.pred %q, 0, %p; selp.b32 %n, 1, 0, %q; st.global.u32 [%at+8], %n;\n\
        barrier.cta.red.popc.aligned.u32 %n, 1, 96, !%p; st.global.u32 [%at+12], %n;";
    let out = run(&module("", 1, body), [1, 1, 1], [96, 1, 1], 0, &[vec![0; 96 * 16]]);
    for words in out[0].chunks_exact(16) {
        assert_eq!(words, [20u32, 0, 1, 76].map(u32::to_le_bytes).concat());
    }
}

/// Kernel parameters of every width, and a struct.
#[test]
fn parameters() {
    let text = "
        .version 9.0
        .target sm_80
        .address_size 64
        .visible .entry test(
            .param .u64 .ptr .align 1 out, .param .u8 a, .param .s16 b, .param .f32 c, .param .align 8 .b8 d[24], .param .u32 e
        )
        {
            .reg .u64 %p, %x; .reg .u32 %y; .reg .f32 %f;
            ld.param.u64 %p, [out]; cvta.to.global.u64 %p, %p;
            ld.param.u8 %y, [a]; st.global.u32 [%p], %y;
            ld.param.s16 %y, [b]; st.global.u32 [%p+4], %y;
            ld.param.f32 %f, [c]; st.global.f32 [%p+8], %f;
            ld.param.u32 %y, [d+4]; st.global.u32 [%p+12], %y;
            ld.param.u64 %x, [d+16]; st.global.u64 [%p+16], %x;
            ld.param.u32 %y, [e]; st.global.u32 [%p+24], %y;
            ret;
        }";
    let kernel = Module::parse(text, "test.ptx").unwrap().kernel("test").unwrap();
    let places: Vec<_> = kernel.parameters().iter().map(|p| (p.offset, p.bytes, p.align)).collect();
    assert_eq!(places, [(0, 8, 8), (8, 1, 1), (10, 2, 2), (12, 4, 4), (16, 24, 8), (40, 4, 4)]);
    let memory = Memory::new();
    let out = memory.alloc(28);
    let mut block = out.to_le_bytes().to_vec();
    block.extend([200, 0]);
    block.extend((-5i16).to_le_bytes());
    block.extend(1.5f32.to_le_bytes());
    block.extend([1u32, 0xdead_beef, 3, 4].iter().flat_map(|word| word.to_le_bytes()));
    block.extend(99u64.to_le_bytes());
    block.extend(123u32.to_le_bytes());
    let shape = Launch { grid: [1, 1, 1], block: [1, 1, 1], shared: 0 };
    let report = launch(&kernel, &memory, &shape, &block, &Options::default()).unwrap();
    assert!(report.faults.is_empty(), "{}", report.faults[0]);
    let mut got = [0; 28];
    memory.read(out, &mut got).unwrap();
    let words: Vec<u32> = got.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect();
    assert_eq!(words, [200, -5i32 as u32, 1.5f32.to_bits(), 0xdead_beef, 99, 0, 123]);
}
