//! "Comparison and Selection Instructions" of the PTX ISA.

use crate::harness::{Word, binary, ternary, unary};
use half::{bf16, f16};
use std::cmp::Ordering;

/// Whether an ordering (none: one side is not a number) satisfies a comparison.
fn holds(comparison: &str, order: Option<Ordering>) -> bool {
    let unordered = order.is_none();
    let one_of = |orders: &[Ordering]| order.is_some_and(|order| orders.contains(&order));
    use Ordering::{Equal, Greater, Less};
    match comparison {
        "eq" => one_of(&[Equal]),
        "ne" => one_of(&[Less, Greater]),
        "lt" | "lo" => one_of(&[Less]),
        "le" | "ls" => one_of(&[Less, Equal]),
        "gt" | "hi" => one_of(&[Greater]),
        "ge" | "hs" => one_of(&[Greater, Equal]),
        "num" => !unordered,
        "nan" => unordered,
        u => unordered || holds(u.strip_suffix('u').unwrap(), order),
    }
}

fn setp<T: Word + PartialOrd>(kind: &str, comparisons: &[&str]) {
    for comparison in comparisons {
        binary(&format!("setp.{comparison}.{kind} %d, %a, %b;"), |a: T, b: T| holds(comparison, a.partial_cmp(&b)));
    }
}

const SIGNED: [&str; 6] = ["eq", "ne", "lt", "le", "gt", "ge"];
const UNSIGNED: [&str; 10] = ["eq", "ne", "lt", "le", "gt", "ge", "lo", "ls", "hi", "hs"];
const FLOAT: [&str; 14] = ["eq", "ne", "lt", "le", "gt", "ge", "equ", "neu", "ltu", "leu", "gtu", "geu", "num", "nan"];

#[test]
fn integers() {
    setp::<u16>("u16", &UNSIGNED);
    setp::<u32>("u32", &UNSIGNED);
    setp::<u64>("u64", &UNSIGNED);
    setp::<i16>("s16", &SIGNED);
    setp::<i32>("s32", &SIGNED);
    setp::<i64>("s64", &SIGNED);
    setp::<u16>("b16", &["eq", "ne"]);
    setp::<u32>("b32", &["eq", "ne"]);
    setp::<u64>("b64", &["eq", "ne"]);
}

#[test]
fn floats() {
    setp::<f32>("f32", &FLOAT);
    setp::<f64>("f64", &FLOAT);
    setp::<f16>("f16", &FLOAT);
    setp::<bf16>("bf16", &FLOAT);
    let flushed = crate::exact::flushed;
    binary("setp.eq.ftz.f32 %d, %a, %b;", |a, b| flushed(a) == flushed(b));
    binary("setp.lt.ftz.f32 %d, %a, %b;", |a, b| flushed(a) < flushed(b));
}

/// p = test op c, q = !test op c.
#[test]
fn combined_with_a_predicate() {
    let both = |p: bool, q: bool| u32::from(p) | u32::from(q) << 1;
    let select = "selp.b32 %d, 1, 0, %p; selp.b32 %h, 2, 0, %q; or.b32 %d, %d, %h;}";
    for (name, connect) in [("and", (|x, y| x & y) as fn(bool, bool) -> bool), ("or", |x, y| x | y), ("xor", |x, y| x ^ y)] {
        let body = format!("{{.reg .pred %p, %q; .reg .b32 %h; setp.lt.{name}.s32 %p|%q, %a, %b, %c; {select}");
        ternary(&body, |a: i32, b: i32, c: bool| both(connect(a < b, c), connect(a >= b, c)));
        let body = format!("{{.reg .pred %p, %q; .reg .b32 %h; setp.gtu.{name}.f32 %p|%q, %a, %b, !%c; {select}");
        ternary(&body, |a: f32, b: f32, c: bool| {
            let test = holds("gtu", a.partial_cmp(&b));
            both(connect(test, !c), connect(!test, !c))
        });
        ternary(&format!("setp.eq.{name}.u32 %d, %a, %b, %c;"), |a: u32, b: u32, c: bool| connect(a == b, c));
    }
    let body = format!("{{.reg .pred %p, %q; .reg .b32 %h; setp.ge.u64 %p|%q, %a, %b; {select}");
    binary(&body, |a: u64, b: u64| both(a >= b, a < b));
    binary("setp.le.u32 %d|_, %a, %b;", |a: u32, b: u32| a <= b);
}

/// True is all ones in an integer and 1.0 in f32.
#[test]
fn set() {
    binary("set.lt.u32.s32 %d, %a, %b;", |a: i32, b: i32| if a < b { u32::MAX } else { 0 });
    binary("set.ge.s32.u32 %d, %a, %b;", |a: u32, b: u32| -i32::from(a >= b));
    binary("set.gt.f32.f32 %d, %a, %b;", |a: f32, b: f32| f32::from(u8::from(a > b)));
    binary("set.neu.f32.f32 %d, %a, %b;", |a: f32, b: f32| f32::from(u8::from(holds("neu", a.partial_cmp(&b)))));
    binary("set.eq.u32.f64 %d, %a, %b;", |a: f64, b: f64| if a == b { u32::MAX } else { 0 });
    binary("set.le.u32.u64 %d, %a, %b;", |a: u64, b: u64| if a <= b { u32::MAX } else { 0 });
    ternary("set.lt.or.u32.s32 %d, %a, %b, %c;", |a: i32, b: i32, c: bool| if a < b || c { u32::MAX } else { 0 });
    // Both halves at once.
    binary("set.gt.f16x2.f16x2 %d, %a, %b;", |a: [f16; 2], b: [f16; 2]| {
        [0, 1].map(|i| f16::from_f32(f32::from(u8::from(a[i] > b[i]))))
    });
    let body = "{.reg .pred %p, %q; .reg .b32 %h; setp.lt.f16x2 %p|%q, %a, %b; selp.b32 %d, 1, 0, %p; selp.b32 %h, 2, 0, %q; \
    or.b32 %d, %d, %h;}";
    binary(body, |a: [f16; 2], b: [f16; 2]| u32::from(a[0] < b[0]) | u32::from(a[1] < b[1]) << 1);
}

#[test]
fn selected() {
    ternary("selp.b16 %d, %a, %b, %c;", |a: u16, b: u16, c: bool| if c { a } else { b });
    ternary("selp.b32 %d, %a, %b, %c;", |a: u32, b: u32, c: bool| if c { a } else { b });
    ternary("selp.b64 %d, %a, %b, %c;", |a: u64, b: u64, c: bool| if c { a } else { b });
    ternary("selp.f32 %d, %a, %b, %c;", |a: u32, b: u32, c: bool| if c { a } else { b });
    ternary("selp.f64 %d, %a, %b, %c;", |a: u64, b: u64, c: bool| if c { a } else { b });
    ternary("selp.s32 %d, %a, %b, %c;", |a: i32, b: i32, c: bool| if c { a } else { b });
    binary("selp.u32 %d, 7, %a, %b;", |a: u32, b: bool| if b { 7 } else { a });
    // a where c is not negative; -0 is not.
    ternary("slct.u32.s32 %d, %a, %b, %c;", |a: u32, b: u32, c: i32| if c >= 0 { a } else { b });
    ternary("slct.f32.s32 %d, %a, %b, %c;", |a: u32, b: u32, c: i32| if c >= 0 { a } else { b });
    ternary("slct.b64.f32 %d, %a, %b, %c;", |a: u64, b: u64, c: f32| if c >= 0.0 { a } else { b });
    ternary("slct.ftz.u32.f32 %d, %a, %b, %c;", |a: u32, b: u32, c: f32| if crate::exact::flushed(c) >= 0.0 { a } else { b });
}

/// A guard keeps the old value.
#[test]
fn guarded() {
    ternary("mov.b32 %d, %b; @%c mov.b32 %d, %a;", |a: u32, b: u32, c: bool| if c { a } else { b });
    ternary("mov.b32 %d, %b; @!%c add.u32 %d, %a, %b;", |a: u32, b: u32, c: bool| if c { b } else { a.wrapping_add(b) });
    unary("mov.pred %d, 1; @%a setp.eq.u32 %d, 1, 2;", |a: bool| !a);
}
