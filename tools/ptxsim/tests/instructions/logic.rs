//! "Logic and Shift Instructions", and `prmt`.

use crate::harness::{binary, ternary, unary};

#[test]
fn bitwise() {
    binary("and.b16 %d, %a, %b;", |a: u16, b: u16| a & b);
    binary("and.b32 %d, %a, %b;", |a: u32, b: u32| a & b);
    binary("and.b64 %d, %a, %b;", |a: u64, b: u64| a & b);
    binary("or.b16 %d, %a, %b;", |a: u16, b: u16| a | b);
    binary("or.b32 %d, %a, %b;", |a: u32, b: u32| a | b);
    binary("or.b64 %d, %a, %b;", |a: u64, b: u64| a | b);
    binary("xor.b16 %d, %a, %b;", |a: u16, b: u16| a ^ b);
    binary("xor.b32 %d, %a, %b;", |a: u32, b: u32| a ^ b);
    binary("xor.b64 %d, %a, %b;", |a: u64, b: u64| a ^ b);
    unary("not.b16 %d, %a;", |a: u16| !a);
    unary("not.b32 %d, %a;", |a: u32| !a);
    unary("not.b64 %d, %a;", |a: u64| !a);
    unary("cnot.b16 %d, %a;", |a: u16| u16::from(a == 0));
    unary("cnot.b32 %d, %a;", |a: u32| u32::from(a == 0));
    unary("cnot.b64 %d, %a;", |a: u64| u64::from(a == 0));
}

#[test]
fn on_predicates() {
    binary("and.pred %d, %a, %b;", |a: bool, b: bool| a && b);
    binary("or.pred %d, %a, %b;", |a: bool, b: bool| a || b);
    binary("xor.pred %d, %a, %b;", |a: bool, b: bool| a != b);
    unary("not.pred %d, %a;", |a: bool| !a);
    unary("mov.pred %d, %a;", |a: bool| a);
    binary("not.pred %d, %a; and.pred %d, %d, %b;", |a: bool, b: bool| !a && b);
    unary("mov.pred %d, 0; or.pred %d, %d, %a;", |a: bool| a);
}

/// Bit by bit: the table's entry at 4 a + 2 b + c.
#[test]
fn any_logic_of_three() {
    let of_bits = |lut: u32, a: u32, b: u32, c: u32| {
        (0..32).fold(0u32, |out, i| {
            let index = (a >> i & 1) * 4 + (b >> i & 1) * 2 + (c >> i & 1);
            out | (lut >> index & 1) << i
        })
    };
    for lut in [0x00, 0x01, 0x80, 0xff, 0xc0, 0x3c, 0x96, 0xe8, 0xca, 0xf8, 0x1b, 0x54, 0xaa, 0xcc, 0xf0, 0x6a] {
        ternary(&format!("lop3.b32 %d, %a, %b, %c, {lut:#x};"), |a, b, c| of_bits(lut, a, b, c));
    }
}

/// Amounts past the width give 0, or all sign bits.
#[test]
fn shifts() {
    binary("shl.b16 %d, %a, %b;", |a: u16, b: u32| a.checked_shl(b).unwrap_or(0));
    binary("shl.b32 %d, %a, %b;", |a: u32, b: u32| a.checked_shl(b).unwrap_or(0));
    binary("shl.b64 %d, %a, %b;", |a: u64, b: u32| a.checked_shl(b).unwrap_or(0));
    binary("shr.u16 %d, %a, %b;", |a: u16, b: u32| a.checked_shr(b).unwrap_or(0));
    binary("shr.b32 %d, %a, %b;", |a: u32, b: u32| a.checked_shr(b).unwrap_or(0));
    binary("shr.u32 %d, %a, %b;", |a: u32, b: u32| a.checked_shr(b).unwrap_or(0));
    binary("shr.u64 %d, %a, %b;", |a: u64, b: u32| a.checked_shr(b).unwrap_or(0));
    binary("shr.s16 %d, %a, %b;", |a: i16, b: u32| a >> b.min(15));
    binary("shr.s32 %d, %a, %b;", |a: i32, b: u32| a >> b.min(31));
    binary("shr.s64 %d, %a, %b;", |a: i64, b: u32| a >> b.min(63));
}

/// `%b:%a` as 64 bits; l gives the high half of a left shift, r the low half of a right shift.
#[test]
fn funnel_shifts() {
    let both = |a: u32, b: u32| u64::from(b) << 32 | u64::from(a);
    ternary("shf.l.wrap.b32 %d, %a, %b, %c;", |a, b, c: u32| (both(a, b) << (c & 31) >> 32) as u32);
    ternary("shf.r.wrap.b32 %d, %a, %b, %c;", |a, b, c: u32| (both(a, b) >> (c & 31)) as u32);
    ternary("shf.l.clamp.b32 %d, %a, %b, %c;", |a, b, c: u32| ((u128::from(both(a, b)) << c.min(32)) >> 32) as u32);
    ternary("shf.r.clamp.b32 %d, %a, %b, %c;", |a, b, c: u32| (both(a, b) >> c.min(32)) as u32);
}

/// Four selectors of four bits: which of the eight bytes of `%b:%a`, and whether its sign is repeated instead.
#[test]
fn permuted_bytes() {
    let bytes = |a: u32, b: u32| (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
    let expected = move |a, b, c: u32| {
        u32::from_le_bytes(std::array::from_fn(|i| {
            let selector = c >> (4 * i) & 0xf;
            let byte = bytes(a, b)[selector as usize & 7];
            if selector & 8 == 0 {
                byte
            } else if byte & 0x80 == 0 {
                0
            } else {
                0xff
            }
        }))
    };
    ternary("prmt.b32 %d, %a, %b, %c;", expected);
    for selectors in [0x3210u32, 0x7654, 0x5410, 0x7632, 0x0123, 0x4321, 0x8888, 0xba98, 0xfedc, 0x1032] {
        binary(&format!("prmt.b32 %d, %a, %b, {selectors:#x};"), |a, b| expected(a, b, selectors));
    }
}

/// The modes, from the manual's table: for each selector, which bytes go to places 0 to 3.
#[test]
fn permuted_bytes_by_mode() {
    let modes = [
        ("f4e", [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]]),
        ("b4e", [[0, 7, 6, 5], [1, 0, 7, 6], [2, 1, 0, 7], [3, 2, 1, 0]]),
        ("rc8", [[0; 4], [1; 4], [2; 4], [3; 4]]),
        ("ecl", [[0, 1, 2, 3], [1, 1, 2, 3], [2, 2, 2, 3], [3, 3, 3, 3]]),
        ("ecr", [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 2, 2], [0, 1, 2, 3]]),
        ("rc16", [[0, 1, 0, 1], [2, 3, 2, 3], [0, 1, 0, 1], [2, 3, 2, 3]]),
    ];
    for (mode, places) in modes {
        ternary(&format!("prmt.b32.{mode} %d, %a, %b, %c;"), |a: u32, b: u32, c: u32| {
            let bytes = (u64::from(b) << 32 | u64::from(a)).to_le_bytes();
            u32::from_le_bytes(places[c as usize & 3].map(|place: usize| bytes[place]))
        });
    }
}
