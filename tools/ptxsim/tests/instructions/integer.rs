//! "Integer Arithmetic Instructions" and "Extended-Precision Integer Arithmetic Instructions" of the PTX ISA.

use crate::harness::{binary, binary_where, table, ternary, unary};

#[test]
fn add_and_sub_wrap() {
    binary("add.u16 %d, %a, %b;", u16::wrapping_add);
    binary("add.s16 %d, %a, %b;", i16::wrapping_add);
    binary("add.u32 %d, %a, %b;", u32::wrapping_add);
    binary("add.s32 %d, %a, %b;", i32::wrapping_add);
    binary("add.u64 %d, %a, %b;", u64::wrapping_add);
    binary("add.s64 %d, %a, %b;", i64::wrapping_add);
    binary("sub.u16 %d, %a, %b;", u16::wrapping_sub);
    binary("sub.s16 %d, %a, %b;", i16::wrapping_sub);
    binary("sub.u32 %d, %a, %b;", u32::wrapping_sub);
    binary("sub.s32 %d, %a, %b;", i32::wrapping_sub);
    binary("sub.u64 %d, %a, %b;", u64::wrapping_sub);
    binary("sub.s64 %d, %a, %b;", i64::wrapping_sub);
}

#[test]
fn add_and_sub_saturate() {
    binary("add.sat.s32 %d, %a, %b;", i32::saturating_add);
    binary("sub.sat.s32 %d, %a, %b;", i32::saturating_sub);
}

#[test]
fn add_and_sub_in_pairs() {
    binary("add.u16x2 %d, %a, %b;", |a: [u16; 2], b: [u16; 2]| [a[0].wrapping_add(b[0]), a[1].wrapping_add(b[1])]);
    binary("add.s16x2 %d, %a, %b;", |a: [i16; 2], b: [i16; 2]| [a[0].wrapping_add(b[0]), a[1].wrapping_add(b[1])]);
}

#[test]
fn immediates() {
    unary("add.s32 %d, %a, -5;", |a: i32| a.wrapping_sub(5));
    unary("sub.s32 %d, 0x7fffffff, %a;", |a: i32| i32::MAX.wrapping_sub(a));
    unary("add.u64 %d, %a, 0x123456789abcdef0;", |a: u64| a.wrapping_add(0x1234_5678_9abc_def0));
    unary("add.s64 %d, %a, -9223372036854775808;", |a: i64| a.wrapping_add(i64::MIN));
    unary("add.u32 %d, %a, 0b1011;", |a: u32| a.wrapping_add(11));
    unary("add.u32 %d, %a, 0755;", |a: u32| a.wrapping_add(0o755));
    unary("add.u32 %d, %a, 42U;", |a: u32| a.wrapping_add(42));
}

#[test]
fn multiply() {
    binary("mul.lo.u16 %d, %a, %b;", u16::wrapping_mul);
    binary("mul.lo.s16 %d, %a, %b;", i16::wrapping_mul);
    binary("mul.lo.u32 %d, %a, %b;", u32::wrapping_mul);
    binary("mul.lo.s32 %d, %a, %b;", i32::wrapping_mul);
    binary("mul.lo.u64 %d, %a, %b;", u64::wrapping_mul);
    binary("mul.lo.s64 %d, %a, %b;", i64::wrapping_mul);
    binary("mul.hi.u16 %d, %a, %b;", |a: u16, b: u16| ((u32::from(a) * u32::from(b)) >> 16) as u16);
    binary("mul.hi.s16 %d, %a, %b;", |a: i16, b: i16| ((i32::from(a) * i32::from(b)) >> 16) as i16);
    binary("mul.hi.u32 %d, %a, %b;", |a: u32, b: u32| ((u64::from(a) * u64::from(b)) >> 32) as u32);
    binary("mul.hi.s32 %d, %a, %b;", |a: i32, b: i32| ((i64::from(a) * i64::from(b)) >> 32) as i32);
    binary("mul.hi.u64 %d, %a, %b;", |a: u64, b: u64| ((u128::from(a) * u128::from(b)) >> 64) as u64);
    binary("mul.hi.s64 %d, %a, %b;", |a: i64, b: i64| ((i128::from(a) * i128::from(b)) >> 64) as i64);
    binary("mul.wide.u16 %d, %a, %b;", |a: u16, b: u16| u32::from(a) * u32::from(b));
    binary("mul.wide.s16 %d, %a, %b;", |a: i16, b: i16| i32::from(a) * i32::from(b));
    binary("mul.wide.u32 %d, %a, %b;", |a: u32, b: u32| u64::from(a) * u64::from(b));
    binary("mul.wide.s32 %d, %a, %b;", |a: i32, b: i32| i64::from(a) * i64::from(b));
}

#[test]
fn multiply_and_add() {
    ternary("mad.lo.u16 %d, %a, %b, %c;", |a: u16, b: u16, c: u16| a.wrapping_mul(b).wrapping_add(c));
    ternary("mad.lo.s32 %d, %a, %b, %c;", |a: i32, b: i32, c: i32| a.wrapping_mul(b).wrapping_add(c));
    ternary("mad.lo.u32 %d, %a, %b, %c;", |a: u32, b: u32, c: u32| a.wrapping_mul(b).wrapping_add(c));
    ternary("mad.lo.s64 %d, %a, %b, %c;", |a: i64, b: i64, c: i64| a.wrapping_mul(b).wrapping_add(c));
    let high = |a: i32, b: i32| ((i64::from(a) * i64::from(b)) >> 32) as i32;
    ternary("mad.hi.s32 %d, %a, %b, %c;", |a, b, c: i32| high(a, b).wrapping_add(c));
    ternary("mad.hi.sat.s32 %d, %a, %b, %c;", |a, b, c: i32| high(a, b).saturating_add(c));
    ternary("mad.hi.u32 %d, %a, %b, %c;", |a: u32, b: u32, c: u32| {
        (((u64::from(a) * u64::from(b)) >> 32) as u32).wrapping_add(c)
    });
    ternary("mad.wide.u16 %d, %a, %b, %c;", |a: u16, b: u16, c: u32| (u32::from(a) * u32::from(b)).wrapping_add(c));
    ternary("mad.wide.s16 %d, %a, %b, %c;", |a: i16, b: i16, c: i32| (i32::from(a) * i32::from(b)).wrapping_add(c));
    ternary("mad.wide.u32 %d, %a, %b, %c;", |a: u32, b: u32, c: u64| (u64::from(a) * u64::from(b)).wrapping_add(c));
    ternary("mad.wide.s32 %d, %a, %b, %c;", |a: i32, b: i32, c: i64| (i64::from(a) * i64::from(b)).wrapping_add(c));
}

/// Operands of 24 bits.
#[test]
fn multiply_of_24_bits() {
    let unsigned = |a: u32| u64::from(a & 0xff_ffff);
    let signed = |a: i32| i64::from(a << 8 >> 8);
    binary("mul24.lo.u32 %d, %a, %b;", |a, b| (unsigned(a) * unsigned(b)) as u32);
    binary("mul24.hi.u32 %d, %a, %b;", |a, b| ((unsigned(a) * unsigned(b)) >> 16) as u32);
    binary("mul24.lo.s32 %d, %a, %b;", |a, b| (signed(a) * signed(b)) as i32);
    binary("mul24.hi.s32 %d, %a, %b;", |a, b| ((signed(a) * signed(b)) >> 16) as i32);
    ternary("mad24.lo.u32 %d, %a, %b, %c;", |a, b, c: u32| ((unsigned(a) * unsigned(b)) as u32).wrapping_add(c));
    ternary("mad24.lo.s32 %d, %a, %b, %c;", |a, b, c: i32| ((signed(a) * signed(b)) as i32).wrapping_add(c));
}

#[test]
fn divide() {
    binary_where("div.u16 %d, %a, %b;", |a: u16, b: u16| a.checked_div(b));
    binary_where("div.s16 %d, %a, %b;", |a: i16, b: i16| a.checked_div(b));
    binary_where("div.u32 %d, %a, %b;", |a: u32, b: u32| a.checked_div(b));
    binary_where("div.s32 %d, %a, %b;", |a: i32, b: i32| a.checked_div(b));
    binary_where("div.u64 %d, %a, %b;", |a: u64, b: u64| a.checked_div(b));
    binary_where("div.s64 %d, %a, %b;", |a: i64, b: i64| a.checked_div(b));
    binary_where("rem.u16 %d, %a, %b;", |a: u16, b: u16| a.checked_rem(b));
    binary_where("rem.s16 %d, %a, %b;", |a: i16, b: i16| a.checked_rem(b));
    binary_where("rem.u32 %d, %a, %b;", |a: u32, b: u32| a.checked_rem(b));
    binary_where("rem.s32 %d, %a, %b;", |a: i32, b: i32| a.checked_rem(b));
    binary_where("rem.u64 %d, %a, %b;", |a: u64, b: u64| a.checked_rem(b));
    binary_where("rem.s64 %d, %a, %b;", |a: i64, b: i64| a.checked_rem(b));
}

#[test]
fn sign_and_order() {
    unary("abs.s16 %d, %a;", i16::wrapping_abs);
    unary("abs.s32 %d, %a;", i32::wrapping_abs);
    unary("abs.s64 %d, %a;", i64::wrapping_abs);
    unary("neg.s16 %d, %a;", i16::wrapping_neg);
    unary("neg.s32 %d, %a;", i32::wrapping_neg);
    unary("neg.s64 %d, %a;", i64::wrapping_neg);
    binary("min.u16 %d, %a, %b;", u16::min);
    binary("min.s16 %d, %a, %b;", i16::min);
    binary("min.u32 %d, %a, %b;", u32::min);
    binary("min.s32 %d, %a, %b;", i32::min);
    binary("min.u64 %d, %a, %b;", u64::min);
    binary("min.s64 %d, %a, %b;", i64::min);
    binary("max.u16 %d, %a, %b;", u16::max);
    binary("max.s16 %d, %a, %b;", i16::max);
    binary("max.u32 %d, %a, %b;", u32::max);
    binary("max.s32 %d, %a, %b;", i32::max);
    binary("max.u64 %d, %a, %b;", u64::max);
    binary("max.s64 %d, %a, %b;", i64::max);
}

#[test]
fn sum_of_absolute_difference() {
    ternary("sad.u32 %d, %a, %b, %c;", |a: u32, b: u32, c: u32| c.wrapping_add(a.abs_diff(b)));
    ternary("sad.s32 %d, %a, %b, %c;", |a: i32, b: i32, c: u32| c.wrapping_add(a.abs_diff(b)));
}

#[test]
fn counts_of_bits() {
    unary("popc.b32 %d, %a;", u32::count_ones);
    unary("popc.b64 %d, %a;", u64::count_ones);
    unary("clz.b32 %d, %a;", u32::leading_zeros);
    unary("clz.b64 %d, %a;", u64::leading_zeros);
    unary("brev.b32 %d, %a;", u32::reverse_bits);
    unary("brev.b64 %d, %a;", u64::reverse_bits);
}

/// The highest bit that differs from the sign; all ones if there is none. With shiftamt, how far it is from the top.
#[test]
fn highest_bit() {
    unary("bfind.u32 %d, %a;", |a: u32| a.checked_ilog2().unwrap_or(u32::MAX));
    unary("bfind.u64 %d, %a;", |a: u64| a.checked_ilog2().unwrap_or(u32::MAX));
    unary("bfind.s32 %d, %a;", |a: i32| ((a ^ (a >> 31)) as u32).checked_ilog2().unwrap_or(u32::MAX));
    unary("bfind.s64 %d, %a;", |a: i64| ((a ^ (a >> 63)) as u64).checked_ilog2().unwrap_or(u32::MAX));
    unary("bfind.shiftamt.u32 %d, %a;", |a: u32| a.checked_ilog2().map_or(u32::MAX, |bit| 31 - bit));
    unary("bfind.shiftamt.s64 %d, %a;", |a: i64| ((a ^ (a >> 63)) as u64).checked_ilog2().map_or(u32::MAX, |bit| 63 - bit));
}

/// Position and length are the low bytes of b and c; bits above the top of a are its sign, if it has one.
#[test]
fn extract_bits() {
    let bit = |a: i128, top: u32, at: u32| (a >> at.min(top)) & 1;
    let field = move |a: i128, width: u32, signed: bool, position: u32, length: u32| {
        let (position, length) = (position & 0xff, length & 0xff);
        let last = (position + length).saturating_sub(1).min(width - 1);
        let sign = if signed && length > 0 { bit(a, width - 1, last) } else { 0 };
        (0..width).fold(0i128, |out, i| {
            let inside = i < length && position + i < width;
            out | (if inside { bit(a, width - 1, position + i) } else { sign }) << i
        })
    };
    ternary("bfe.u32 %d, %a, %b, %c;", |a: u32, b, c| field(a.into(), 32, false, b, c) as u32);
    ternary("bfe.s32 %d, %a, %b, %c;", |a: i32, b, c| field(a.into(), 32, true, b, c) as i32);
    ternary("bfe.u64 %d, %a, %b, %c;", |a: u64, b, c| field(a.into(), 64, false, b, c) as u64);
    ternary("bfe.s64 %d, %a, %b, %c;", |a: i64, b, c| field(a.into(), 64, true, b, c) as i64);
}

#[test]
fn insert_bits() {
    let insert = |a: u64, b: u64, width: u32, position: u32, length: u32| {
        let (position, length) = (position & 0xff, length & 0xff);
        (0..length)
            .filter(|i| position + i < width)
            .fold(b, |out, i| (out & !(1 << (position + i))) | ((a >> i & 1) << (position + i)))
    };
    for (position, length) in [(0, 8), (4, 12), (31, 1), (30, 5), (0, 32), (7, 0), (32, 4), (200, 40), (16, 255)] {
        let body = format!("bfi.b32 %d, %a, %b, {position}, {length};");
        binary(&body, |a: u32, b: u32| insert(a.into(), b.into(), 32, position, length) as u32);
        let body = format!("bfi.b64 %d, %a, %b, {position}, {length};");
        binary(&body, |a: u64, b: u64| insert(a, b, 64, position, length));
    }
    ternary("bfi.b32 %d, %a, 0x5a5a5a5a, %b, %c;", |a: u32, b, c| insert(a.into(), 0x5a5a_5a5a, 32, b, c) as u32);
}

#[test]
fn dot_products_of_bytes() {
    let bytes = |a: u32, signed: bool| a.to_le_bytes().map(|byte| if signed { i64::from(byte as i8) } else { byte.into() });
    let dot = |a: [i64; 4], b: [i64; 4], c: i64| (0..4).map(|i| a[i] * b[i]).sum::<i64>().wrapping_add(c) as u32;
    ternary("dp4a.u32.u32 %d, %a, %b, %c;", |a, b, c: u32| dot(bytes(a, false), bytes(b, false), c.into()));
    ternary("dp4a.s32.s32 %d, %a, %b, %c;", |a, b, c: i32| dot(bytes(a, true), bytes(b, true), c.into()));
    ternary("dp4a.u32.s32 %d, %a, %b, %c;", |a, b, c: i32| dot(bytes(a, false), bytes(b, true), c.into()));
    ternary("dp4a.s32.u32 %d, %a, %b, %c;", |a, b, c: i32| dot(bytes(a, true), bytes(b, false), c.into()));
    let halves =
        |a: u32, signed: bool| [a as u16, (a >> 16) as u16].map(|half| if signed { i64::from(half as i16) } else { half.into() });
    let dot = |a: [i64; 2], b: [i64; 4], high: usize, c: i64| (a[0] * b[high] + a[1] * b[high + 1] + c) as u32;
    ternary("dp2a.lo.u32.u32 %d, %a, %b, %c;", |a, b, c: u32| dot(halves(a, false), bytes(b, false), 0, c.into()));
    ternary("dp2a.hi.u32.u32 %d, %a, %b, %c;", |a, b, c: u32| dot(halves(a, false), bytes(b, false), 2, c.into()));
    ternary("dp2a.lo.s32.s32 %d, %a, %b, %c;", |a, b, c: i32| dot(halves(a, true), bytes(b, true), 0, c.into()));
    ternary("dp2a.hi.s32.u32 %d, %a, %b, %c;", |a, b, c: i32| dot(halves(a, true), bytes(b, false), 2, c.into()));
}

/// Sums and differences of 64 bits in two halves, with the carry between them.
#[test]
fn carries() {
    let halves = "{.reg .b32 %al, %ah, %bl, %bh, %l, %h; mov.b64 {%al, %ah}, %a; mov.b64 {%bl, %bh}, %b;\n";
    let join = "\nmov.b64 %d, {%l, %h};}";
    let body = |lines: &str| format!("{halves}{lines}{join}");
    binary(&body("add.cc.u32 %l, %al, %bl; addc.u32 %h, %ah, %bh;"), u64::wrapping_add);
    binary(&body("sub.cc.u32 %l, %al, %bl; subc.u32 %h, %ah, %bh;"), u64::wrapping_sub);
    binary(&body("add.cc.s32 %l, %al, %bl; addc.cc.s32 %h, %ah, %bh; addc.u32 %l, 0, 0; mov.u32 %h, 7;"), |a: u64, b: u64| {
        u64::from(a.overflowing_add(b).1) | 7 << 32
    });
    // A borrow is taken off: 0 - 0 - 1.
    binary(&body("sub.cc.s32 %l, %al, %bl; subc.cc.s32 %h, %ah, %bh; subc.u32 %l, 0, 0; mov.u32 %h, 0;"), |a: u64, b: u64| {
        if a < b { u64::from(u32::MAX) } else { 0 }
    });
    // The low half of a product of 64 bits.
    binary(
        &body("mul.lo.u32 %l, %al, %bl; mul.hi.u32 %h, %al, %bl; mad.lo.u32 %h, %ah, %bl, %h; mad.lo.u32 %h, %al, %bh, %h;"),
        u64::wrapping_mul,
    );
    // al * bl + (b of 64 bits) with the carry of the low half.
    binary(&body("mad.lo.cc.u32 %l, %al, %bl, %bl; madc.hi.u32 %h, %al, %bl, %bh;"), |a: u64, b: u64| {
        (a & 0xffff_ffff).wrapping_mul(b & 0xffff_ffff).wrapping_add(b)
    });
    binary("add.cc.u64 %d, %a, %b; addc.u64 %d, 0, 0;", |a: u64, b: u64| u64::from(a.overflowing_add(b).1));
}

/// Between the halves of one sum, other instructions leave the carry alone.
#[test]
fn carry_is_kept() {
    let rows: Vec<[u64; 3]> = (0..32).map(|lane| [u64::from(u32::MAX) - lane, 16, 0]).collect();
    let body = "add.cc.u32 %d, %a, %b; add.u32 %c, %a, %b; mul.lo.u32 %c, %c, 3; addc.u32 %d, 0, 0;";
    let carries = table("", body, ["b32"; 4], &rows);
    assert_eq!(carries, (0..32).map(|lane| u64::from(lane < 16)).collect::<Vec<_>>());
}
