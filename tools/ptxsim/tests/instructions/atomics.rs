//! `atom` and `red` on global and shared memory: the value they leave, the value they return, and many lanes at one place.

use crate::exact::{F16, Mode, flushed};
use crate::harness::{Word, module, run};
use half::f16;

/// [`each_in`] where global and shared memory do the same.
fn each<T: Word>(operation: &str, operands: &str, expected: impl Fn(T, T, T) -> T) {
    each_in(operation, operands, |_, a, b, c| expected(a, b, c));
}

/// Threads of the tests of one element a thread.
const COUNT: usize = 96;

/// One element a thread, in global and in shared memory, by `atom` and by `red`: what it returns, and what is there afterwards.
/// `operation` says SPACE where the space goes; `expected` gets the space.
fn each_in<T: Word>(operation: &str, operands: &str, expected: impl Fn(&str, T, T, T) -> T) {
    let edges = T::edges();
    let row = |i: usize| [i, i * 7 + 1, i * 5 / 2].map(|place| edges[place % edges.len()]);
    let expected = |space: &str, i: usize| {
        let [old, b, c] = row(i);
        (old, expected(space, old, b, c))
    };
    let bytes = |part: usize| (0..COUNT).flat_map(|i| row(i)[part].bits().to_le_bytes()).collect::<Vec<u8>>();
    let buffers = [vec![0; COUNT * 8], bytes(0), bytes(1), bytes(2)];
    let register = T::REGISTER;
    // %x is what is there; %near points to a copy in shared memory.
    let start = format!(
        ".shared .align 8 .b8 room[1024];\n.reg .u64 %at, %near; .reg .{register} %b, %c, %old, %x;\n\
         shl.b64 %at, %t64, 3; mov.u64 %near, room; add.u64 %near, %near, %at;\n\
         add.u64 %p0, %p0, %at; add.u64 %p1, %p1, %at; add.u64 %p2, %p2, %at; add.u64 %p3, %p3, %at;\n\
         ld.global.{register} %x, [%p1]; ld.global.{register} %b, [%p2]; ld.global.{register} %c, [%p3];\n\
         st.shared.{register} [%near], %x;\n"
    );
    let judge = |space: &str, text: String| {
        let returns = text.starts_with("atom");
        let mut body = format!("{start}{text}, {operands};\n");
        if space == "shared" {
            body += &format!("ld.shared.{register} %x, [%near]; st.global.{register} [%p1], %x;\n");
        }
        if returns {
            body += &format!("st.global.{register} [%p0], %old;");
        }
        let out = run(&module("", 4, &body), [1, 1, 1], [COUNT as u32, 1, 1], 0, &buffers);
        let word = |buffer: &[u8], i: usize| T::of(u64::from_le_bytes(buffer[i * 8..i * 8 + 8].try_into().unwrap()));
        for i in 0..COUNT {
            let (old, new) = expected(space, i);
            let (left, returned) = (word(&out[1], i), word(&out[0], i));
            assert!(left.same(new), "{text} {operands}, {space}, {i}: {old:?} becomes {left:?}, not {new:?}");
            assert!(!returns || returned.same(old), "{text} {operands}, {space}, {i}: returns {returned:?}, not {old:?}");
        }
    };
    let [global, shared] = ["global", "shared"].map(|space| operation.replacen("SPACE", space, 1));
    judge("global", format!("{global} %old, [%p1]"));
    judge("shared", format!("{shared} %old, [%near]"));
    judge("global", format!("{} %old, [%p1]", operation.replacen(".SPACE", "", 1)));
    if operands == "%b" && !operation.contains("exch") {
        judge("global", format!("{} [%p1]", global.replacen("atom", "red", 1)));
        judge("shared", format!("{} [%near]", shared.replacen("atom", "red", 1)));
    }
}

#[test]
fn integers() {
    each("atom.SPACE.add.u32", "%b", |a: u32, b, _| a.wrapping_add(b));
    each("atom.SPACE.add.s32", "%b", |a: i32, b, _| a.wrapping_add(b));
    each("atom.SPACE.add.u64", "%b", |a: u64, b, _| a.wrapping_add(b));
    each("atom.SPACE.min.u32", "%b", |a: u32, b, _| a.min(b));
    each("atom.SPACE.max.u32", "%b", |a: u32, b, _| a.max(b));
    each("atom.SPACE.min.s32", "%b", |a: i32, b, _| a.min(b));
    each("atom.SPACE.max.s32", "%b", |a: i32, b, _| a.max(b));
    each("atom.SPACE.min.u64", "%b", |a: u64, b, _| a.min(b));
    each("atom.SPACE.max.s64", "%b", |a: i64, b, _| a.max(b));
    each("atom.SPACE.and.b32", "%b", |a: u32, b, _| a & b);
    each("atom.SPACE.or.b32", "%b", |a: u32, b, _| a | b);
    each("atom.SPACE.xor.b32", "%b", |a: u32, b, _| a ^ b);
    each("atom.SPACE.and.b64", "%b", |a: u64, b, _| a & b);
    each("atom.SPACE.or.b64", "%b", |a: u64, b, _| a | b);
    each("atom.SPACE.xor.b64", "%b", |a: u64, b, _| a ^ b);
    // inc wraps to 0 past its bound, dec to its bound below 0 and from above it.
    each("atom.SPACE.inc.u32", "%b", |a: u32, b, _| if a >= b { 0 } else { a + 1 });
    each("atom.SPACE.dec.u32", "%b", |a: u32, b, _| if a == 0 || a > b { b } else { a - 1 });
}

#[test]
fn exchanges() {
    each("atom.SPACE.exch.b32", "%b", |_: u32, b, _| b);
    each("atom.SPACE.exch.b64", "%b", |_: u64, b, _| b);
    each("atom.SPACE.cas.b32", "%b, %c", |a: u32, b, c| if a == b { c } else { a });
    each("atom.SPACE.cas.b64", "%b, %c", |a: u64, b, c| if a == b { c } else { a });
    each("atom.SPACE.cas.b16", "%b, %c", |a: u16, b, c| if a == b { c } else { a });
    each("atom.SPACE.cas.b32", "%x, %c", |_: u32, _, c| c);
}

/// Sums of f32 flush subnormal numbers in global memory, not in shared.
#[test]
fn floats() {
    each_in(
        "atom.SPACE.add.f32",
        "%b",
        |space, a: f32, b, _| if space == "global" { flushed(flushed(a) + flushed(b)) } else { a + b },
    );
    each("atom.SPACE.add.f64", "%b", |a: f64, b, _| a + b);
    let sum = |a: f16, b: f16| f16::from_bits(F16.sum(a.to_f64(), b.to_f64(), Mode::Nearest) as u16);
    each("atom.SPACE.add.noftz.f16", "%b", |a, b, _| sum(a, b));
    each("atom.SPACE.add.noftz.f16x2", "%b", |a: [f16; 2], b: [f16; 2], _| [0, 1].map(|i| sum(a[i], b[i])));
}

#[test]
fn orders_and_scopes() {
    for qualifiers in ["relaxed.cta", "relaxed.gpu", "acquire.gpu", "release.sys", "acq_rel.gpu"] {
        for space in ["global", "shared"] {
            let pointer = if space == "global" { "%p0" } else { "%near" };
            let body = format!(
                ".shared .align 4 .b32 room;\n.reg .u64 %near, %at; .reg .u32 %x;\nmov.u64 %near, room; \
                 st.shared.u32 [room], 0; bar.warp.sync -1;\n\
                 atom.{qualifiers}.{space}.add.u32 %x, [{pointer}], 2;\nmad.lo.u64 %at, %t64, 4, %p0; st.global.u32 [%at+4], %x;"
            );
            let body =
                body.replace("st.shared.u32 [room], 0;", "{.reg .pred %q; setp.eq.u32 %q, %t, 0; @%q st.shared.u32 [room], 0;}");
            let mut old = numbers(&run(&module("", 1, &body), [1, 1, 1], [32, 1, 1], 0, &[vec![0; 132]])[0])[1..].to_vec();
            old.sort_unstable();
            assert_eq!(old, (0..32).map(|lane| lane * 2).collect::<Vec<_>>(), "{qualifiers} {space}");
        }
    }
}

fn numbers(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

/// 128 threads at one element: each sees the result of another, whatever their order.
#[test]
fn many_at_one_place() {
    let start = ".reg .u64 %at; .reg .u32 %x, %y; mad.lo.u64 %at, %t64, 4, %p1;";
    let go = |operation: &str, first: u32| {
        let body = format!("{start} add.u32 %y, %t, 1; {operation} st.global.u32 [%at], %x;");
        let out = run(&module("", 2, &body), [1, 1, 1], [128, 1, 1], 0, &[first.to_le_bytes().to_vec(), vec![0; 512]]);
        let mut old = numbers(&out[1]);
        old.sort_unstable();
        (numbers(&out[0])[0], old)
    };
    assert_eq!(go("atom.global.add.u32 %x, [%p0], 3;", 5), (5 + 384, (0..128).map(|i| 5 + 3 * i).collect()));
    assert_eq!(go("atom.global.inc.u32 %x, [%p0], 1000;", 0), (128, (0..128).collect()));
    let (last, old) = go("atom.global.inc.u32 %x, [%p0], 3;", 0);
    assert_eq!((last, old), (0, (0..128).map(|i| i / 32).collect()));
    // An exchange leaves one value and hands out all others and the first.
    let (last, old) = go("atom.global.exch.b32 %x, [%p0], %y;", 0);
    let mut all = [old, vec![last]].concat();
    all.sort_unstable();
    assert_eq!(all, (0..=128).collect::<Vec<_>>());
    let (last, old) = go("atom.global.max.u32 %x, [%p0], %y;", 40);
    assert_eq!(last, 128);
    assert!(old.iter().all(|&x| (40..=128).contains(&x)) && old[0] == 40, "{old:?}");
    // One thread finds the value it expects.
    let (last, old) = go("atom.global.cas.b32 %x, [%p0], 9, %y;", 9);
    assert_eq!(old.iter().filter(|&&x| x == 9).count(), 1);
    assert_eq!(old.iter().filter(|&&x| x == last).count(), 127);
}

/// Sums over all blocks of a grid.
#[test]
fn across_blocks() {
    let body = ".reg .u32 %n; mov.u32 %n, %ctaid.x; red.global.add.u32 [%p0], %n; red.global.or.b32 [%p0+4], %t; \
    red.global.add.f32 [%p0+8], 0f3F000000;";
    let out = run(&module("", 1, body), [20, 1, 1], [64, 1, 1], 0, &[vec![0; 12]]);
    assert_eq!(numbers(&out[0]), [190 * 64, 63, 640f32.to_bits()]);
}
