//! `ldmatrix`, `stmatrix`, `movmatrix` and `mma.sync`: which lane holds which element, and the products.

use crate::exact::{BF16, E4M3, E5M2, F16, Format, Mode};
use crate::harness::{module, run};

fn words(bytes: &[u8]) -> Vec<u32> {
    bytes.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().unwrap())).collect()
}

fn bytes(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

/// Element of row `row` and column `column` of matrix `matrix`.
fn element(matrix: u32, row: u32, column: u32) -> u32 {
    0x4000 + matrix * 0x100 + row * 0x10 + column
}

/// The two elements of matrix `matrix` that lane `lane` holds.
fn held(matrix: u32, lane: u32, transposed: bool) -> u32 {
    let (row, column) = (lane / 4, lane % 4 * 2);
    let at = |i: u32| if transposed { element(matrix, column + i, row) } else { element(matrix, row, column + i) };
    at(0) | at(1) << 16
}

/// The rows of four matrices, last row first.
fn rows() -> Vec<u8> {
    let row = |number: u32| (0..8).flat_map(move |column| (element(number / 8, number % 8, column) as u16).to_le_bytes());
    (0..32).rev().flat_map(row).collect()
}

const FILL: &str = ".shared .align 16 .b8 room[512];\n.reg .u64 %at; .reg .u32 %near, %i; .reg .b32 %x<4>, %r<4>;\n\
    mad.lo.u64 %at, %t64, 16, %p1; ld.global.v4.u32 {%x0, %x1, %x2, %x3}, [%at]; mov.u32 %near, room; \
    mad.lo.u32 %i, %t, 16, %near;\n\
    st.shared.v4.u32 [%i], {%x0, %x1, %x2, %x3}; bar.warp.sync -1;\nsub.u32 %i, 31, %t; mad.lo.u32 %near, %i, 16, %near;\n\
    mov.u32 %r0, 0; mov.u32 %r1, 0; mov.u32 %r2, 0; mov.u32 %r3, 0; mad.lo.u64 %at, %t64, 16, %p0;\n";

/// The rows lie in reverse order: lane i points to row 31 - i of memory, which is row i % 8 of matrix i / 8.
#[test]
fn loaded() {
    for (count, list) in [(1u32, "{%r0}"), (2, "{%r0, %r1}"), (4, "{%r0, %r1, %r2, %r3}")] {
        for transposed in [false, true] {
            let name = format!("ldmatrix.sync.aligned.m8n8.x{count}{}.shared.b16", if transposed { ".trans" } else { "" });
            let body = format!("{FILL}{name} {list}, [%near];\nst.global.v4.u32 [%at], {{%r0, %r1, %r2, %r3}};");
            let out = words(&run(&module("", 2, &body), [1, 1, 1], [32, 1, 1], 0, &[vec![0; 512], rows()])[0]);
            for (lane, got) in (0..).zip(out.chunks_exact(4)) {
                let expected: Vec<u32> = (0..4).map(|i| if i < count { held(i, lane, transposed) } else { 0 }).collect();
                assert_eq!(got, expected, "{name} lane {lane}");
            }
        }
    }
}

/// What ldmatrix gives, stmatrix puts back; a transposed store transposes.
#[test]
fn stored() {
    for (count, list) in [(1u32, "{%r0}"), (2, "{%r0, %r1}"), (4, "{%r0, %r1, %r2, %r3}")] {
        for transposed in [false, true] {
            let name = format!("stmatrix.sync.aligned.m8n8.x{count}{}.shared.b16", if transposed { ".trans" } else { "" });
            let body = format!(
                "{FILL}ldmatrix.sync.aligned.m8n8.x{count}.shared.b16 {list}, [%near];\nbar.warp.sync -1;\n\
                 {name} [%near], {list};\nbar.warp.sync -1;\n\
                 ld.shared.v4.u32 {{%x0, %x1, %x2, %x3}}, [%near]; st.global.v4.u32 [%at], {{%x0, %x1, %x2, %x3}};"
            );
            let out = run(&module("", 2, &body), [1, 1, 1], [32, 1, 1], 0, &[vec![0; 512], rows()]).swap_remove(0);
            for (lane, got) in (0u32..).zip(out.chunks_exact(16)) {
                let (matrix, row) = (lane / 8, lane % 8);
                let at = |column| {
                    if transposed && matrix < count { element(matrix, column, row) } else { element(matrix, row, column) }
                };
                let expected: Vec<u8> = (0..8).flat_map(|column| (at(column) as u16).to_le_bytes()).collect();
                assert_eq!(got, expected, "{name} row {row} of matrix {matrix}");
            }
        }
    }
}

#[test]
fn moved() {
    let body = format!(
        "{FILL}ldmatrix.sync.aligned.m8n8.x1.shared.b16 {{%r0}}, [%near];\nmovmatrix.sync.aligned.m8n8.trans.b16 %r1, %r0;\n\
         st.global.v4.u32 [%at], {{%r0, %r1, %r2, %r3}};"
    );
    let out = words(&run(&module("", 2, &body), [1, 1, 1], [32, 1, 1], 0, &[vec![0; 512], rows()])[0]);
    for (lane, got) in (0..).zip(out.chunks_exact(4)) {
        assert_eq!(got[..2], [held(0, lane, false), held(0, lane, true)], "lane {lane}");
    }
}

/// A product of a 16xK and a Kx8 matrix.
struct Product {
    /// Shape and types in the instruction's name.
    name: &'static str,
    k: usize,
    /// Elements in 32 bits of A and B.
    packed: usize,
    /// Code of a small integer in the type of A and B.
    code: fn(i32) -> u32,
    /// C and D are pairs of f16, f32, or s32.
    sums: Sums,
}

#[derive(Clone, Copy, PartialEq)]
enum Sums {
    F32,
    F16,
    S32,
}

fn in_format(format: Format, x: i32) -> u32 {
    format.round(x.into(), Mode::Nearest) as u32
}

const PRODUCTS: [Product; 11] = [
    Product { name: "m16n8k16.row.col.f32.f16.f16.f32", k: 16, packed: 2, code: |x| in_format(F16, x), sums: Sums::F32 },
    Product { name: "m16n8k16.row.col.f16.f16.f16.f16", k: 16, packed: 2, code: |x| in_format(F16, x), sums: Sums::F16 },
    Product { name: "m16n8k16.row.col.f32.bf16.bf16.f32", k: 16, packed: 2, code: |x| in_format(BF16, x), sums: Sums::F32 },
    Product { name: "m16n8k8.row.col.f32.f16.f16.f32", k: 8, packed: 2, code: |x| in_format(F16, x), sums: Sums::F32 },
    Product { name: "m16n8k8.row.col.f32.bf16.bf16.f32", k: 8, packed: 2, code: |x| in_format(BF16, x), sums: Sums::F32 },
    Product { name: "m16n8k8.row.col.f32.tf32.tf32.f32", k: 8, packed: 1, code: |x| (x as f32).to_bits(), sums: Sums::F32 },
    Product { name: "m16n8k4.row.col.f32.tf32.tf32.f32", k: 4, packed: 1, code: |x| (x as f32).to_bits(), sums: Sums::F32 },
    Product { name: "m16n8k32.row.col.f32.e4m3.e4m3.f32", k: 32, packed: 4, code: |x| in_format(E4M3, x), sums: Sums::F32 },
    Product { name: "m16n8k32.row.col.f32.e5m2.e5m2.f32", k: 32, packed: 4, code: |x| in_format(E5M2, x), sums: Sums::F32 },
    Product { name: "m16n8k32.row.col.s32.s8.s8.s32", k: 32, packed: 4, code: |x| (x as u32) & 0xff, sums: Sums::S32 },
    Product { name: "m16n8k16.row.col.s32.s8.s8.s32", k: 16, packed: 4, code: |x| (x as u32) & 0xff, sums: Sums::S32 },
];

/// Small integers that every type holds, without a pattern in rows or columns.
fn small(seed: i32, row: usize, column: usize) -> i32 {
    (row as i32 * 7 + column as i32 * 5 + (row as i32 * column as i32) % 3 + seed) % 5 - 2
}

/// In every fragment, lane l stands at row (of A, C, D) or column (of B) l / 4, and four lanes share it: each holds 32 bits of
/// neighbouring elements along K. A register of A covers rows l/4 or l/4 + 8, then the next 4 registers' worth of K.
fn product(p: &Product) {
    let (rows, step) = (16, 4 * p.packed);
    let registers = |count: usize| (0..count).collect::<Vec<_>>();
    let a_registers = registers(p.k * rows / 32 / p.packed);
    let b_registers = registers(p.k * 8 / 32 / p.packed);
    let pack = |elements: Vec<i32>| {
        elements
            .iter()
            .enumerate()
            .fold(0u32, |word, (i, &x)| word | (p.code)(x).checked_shl((32 / p.packed * i) as u32).unwrap_or(0))
    };
    let mut input = Vec::new();
    for lane in 0..32 {
        let (group, place) = (lane / 4, lane % 4 * p.packed);
        for &r in &a_registers {
            let (row, column) = (group + r % 2 * 8, place + r / 2 * step);
            input.push(pack((0..p.packed).map(|i| small(1, row, column + i)).collect()));
        }
        for &r in &b_registers {
            input.push(pack((0..p.packed).map(|i| small(2, place + r * step + i, group)).collect()));
        }
        let c = |r: usize| small(3, group + r / 2 * 8, lane % 4 * 2 + r % 2) * 3;
        match p.sums {
            Sums::F32 => input.extend((0..4).map(|r| (c(r) as f32).to_bits())),
            Sums::S32 => input.extend((0..4).map(|r| c(r) as u32)),
            Sums::F16 => input.extend((0..2).map(|r| in_format(F16, c(2 * r)) | in_format(F16, c(2 * r + 1)) << 16)),
        }
    }
    let sums = if p.sums == Sums::F16 { 2 } else { 4 };
    let names = |letter: char, count: usize| (0..count).map(|i| format!("%{letter}{i}")).collect::<Vec<_>>();
    let (a, b) = (names('a', a_registers.len()), names('b', b_registers.len()));
    let (c, d) = (names('c', sums), names('d', sums));
    let stride = (a.len() + b.len() + sums) * 4;
    let mut body = format!(".reg .u64 %at; .reg .b32 %a<4>, %b<4>, %c<4>, %d<4>; mad.lo.u64 %at, %t64, {stride}, %p1;\n");
    for (i, name) in a.iter().chain(&b).chain(&c).enumerate() {
        body += &format!("ld.global.b32 {name}, [%at+{}];\n", i * 4);
    }
    let list = |names: &[String]| format!("{{{}}}", names.join(", "));
    body += &format!("mma.sync.aligned.{} {}, {}, {}, {};\n", p.name, list(&d), list(&a), list(&b), list(&c));
    body += &format!("mad.lo.u64 %at, %t64, {}, %p0;\n", sums * 4);
    for (i, name) in d.iter().enumerate() {
        body += &format!("st.global.b32 [%at+{}], {name};\n", i * 4);
    }
    let out = words(&run(&module("", 2, &body), [1, 1, 1], [32, 1, 1], 0, &[vec![0; 128 * sums], bytes(&input)])[0]);
    for lane in 0..32 {
        let d = |r: usize| {
            let (row, column) = (lane / 4 + r / 2 * 8, lane % 4 * 2 + r % 2);
            (0..p.k).map(|k| small(1, row, k) * small(2, k, column)).sum::<i32>() + small(3, row, column) * 3
        };
        let expected: Vec<u32> = match p.sums {
            Sums::F32 => (0..4).map(|r| (d(r) as f32).to_bits()).collect(),
            Sums::S32 => (0..4).map(|r| d(r) as u32).collect(),
            Sums::F16 => (0..2).map(|r| in_format(F16, d(2 * r)) | in_format(F16, d(2 * r + 1)) << 16).collect(),
        };
        assert_eq!(out[lane * sums..(lane + 1) * sums], expected, "{} lane {lane}", p.name);
    }
}

#[test]
fn products_of_16_bits() {
    PRODUCTS[..5].iter().for_each(product);
}

#[test]
fn products_of_tf32() {
    PRODUCTS[5..7].iter().for_each(product);
}

#[test]
fn products_of_8_bit_floats() {
    PRODUCTS[7..9].iter().for_each(product);
}

#[test]
fn products_of_8_bit_integers() {
    PRODUCTS[9..].iter().for_each(product);
}
