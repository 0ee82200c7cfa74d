//! Kernels around a few lines of PTX, and tables of their results.

use half::{bf16, f16};
use ptxsim::{Launch, Memory, Module, Options, launch};
use std::fmt::Debug;

/// Most rows of a table: where all combinations of edge values are more, every so many are taken.
const MOST_ROWS: usize = 4096;

/// What a register holds.
pub trait Word: Copy + Debug {
    /// Type of the register.
    const REGISTER: &'static str;
    /// As an unsigned integer, high bits zero.
    fn bits(self) -> u64;
    fn of(bits: u64) -> Self;
    /// Values at which things go wrong.
    fn edges() -> Vec<Self>;
    /// Equal, or both not a number.
    fn same(self, other: Self) -> bool {
        self.bits() == other.bits()
    }
}

macro_rules! integers {
    ($($unsigned:ident $signed:ident $register:literal),*) => {$(
        impl Word for $unsigned {
            const REGISTER: &'static str = $register;
            fn bits(self) -> u64 { self as u64 }
            fn of(bits: u64) -> Self { bits as $unsigned }
            fn edges() -> Vec<Self> {
                let top = $unsigned::BITS;
                let mut edges = vec![0, 1, 2, 3, 7, 8, 15, 16, 17, 31, 32, 33, 63, 64, 65, 100];
                let most = $unsigned::MAX;
                edges.extend([most, most - 1, most / 2, most / 2 + 1, most / 2 + 2, most / 3, most / 5 * 4, most / 7]);
                edges.extend([1 << (top / 2), (1 << (top / 2)) - 1]);
                edges.extend((1..7u64).map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15) as $unsigned));
                edges
            }
        }
        impl Word for $signed {
            const REGISTER: &'static str = $register;
            fn bits(self) -> u64 { self as $unsigned as u64 }
            fn of(bits: u64) -> Self { bits as $unsigned as $signed }
            fn edges() -> Vec<Self> { $unsigned::edges().into_iter().map(|edge| edge as $signed).collect() }
        }
    )*};
}
integers!(u16 i16 "b16", u32 i32 "b32", u64 i64 "b64");

/// A predicate.
impl Word for bool {
    const REGISTER: &'static str = "pred";
    fn bits(self) -> u64 {
        self.into()
    }
    fn of(bits: u64) -> Self {
        bits != 0
    }
    fn edges() -> Vec<Self> {
        vec![false, true]
    }
}

macro_rules! floats {
    ($($float:ident $register:literal $of:expr),*) => {$(
        impl Word for $float {
            const REGISTER: &'static str = $register;
            fn bits(self) -> u64 { self.to_bits().into() }
            fn of(bits: u64) -> Self { $float::from_bits(bits as _) }
            fn edges() -> Vec<Self> {
                let mut numbers = vec![0.0, 1.0, 1.5, 2.75, 0.1, 1.0 / 3.0, 0.5, 2.5, 3.5, 7.0];
                numbers.extend([1e-3, 250.0, 2049.0, 65504.0, 1e-7, 3e10, 1e-20, 2e19]);
                let mut edges: Vec<_> = numbers.iter().map(|&number| $of(number)).collect();
                edges.extend([$float::MAX, $float::MIN_POSITIVE, $float::INFINITY, $float::from_bits(1), $float::from_bits(5)]);
                edges.extend([$float::EPSILON, $float::from_bits($float::MIN_POSITIVE.to_bits() - 1)]);
                let negative: Vec<_> = edges.iter().map(|&edge| -edge).collect();
                edges.extend(negative);
                edges.push($float::NAN);
                edges
            }
            fn same(self, other: Self) -> bool { self.to_bits() == other.to_bits() || self.is_nan() && other.is_nan() }
        }
    )*};
}
floats!(f32 "b32" |x: f64| x as f32, f64 "b64" |x: f64| x, f16 "b16" f16::from_f64, bf16 "b16" bf16::from_f64);

macro_rules! pairs {
    ($($part:ident $register:literal $width:literal),*) => {$(
        /// Two halves of a register, the low one first.
        impl Word for [$part; 2] {
            const REGISTER: &'static str = $register;
            fn bits(self) -> u64 { self[0].bits() | self[1].bits() << $width }
            fn of(bits: u64) -> Self { [$part::of(bits), $part::of(bits >> $width)] }
            fn edges() -> Vec<Self> {
                let edges = $part::edges();
                (0..edges.len()).map(|i| [edges[i], edges[(i * 5 + 3) % edges.len()]]).collect()
            }
            fn same(self, other: Self) -> bool { self[0].same(other[0]) && self[1].same(other[1]) }
        }
    )*};
}
pairs!(f16 "b32" 16, bf16 "b32" 16, u16 "b32" 16, i16 "b32" 16, u32 "b64" 32);

/// Runs the entry `test` of `text`, whose parameters are pointers to the buffers.
pub fn run(text: &str, grid: [u32; 3], block: [u32; 3], shared: u32, buffers: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let numbered = || text.lines().zip(1..).map(|(line, number)| format!("{number:4} {line}\n")).collect::<String>();
    let module = Module::parse(text, "test.ptx").unwrap_or_else(|error| panic!("{error}\n{}", numbered()));
    let kernel = module.kernel("test").unwrap_or_else(|error| panic!("{error}\n{}", numbered()));
    let memory = Memory::new();
    let addresses: Vec<u64> = buffers.iter().map(|buffer| memory.alloc(buffer.len() as u64)).collect();
    for (&address, buffer) in addresses.iter().zip(buffers) {
        memory.write(address, buffer).unwrap();
    }
    let parameters: Vec<u8> = addresses.iter().flat_map(|address| address.to_le_bytes()).collect();
    let report = launch(&kernel, &memory, &Launch { grid, block, shared }, &parameters, &Options::default());
    let report = report.unwrap_or_else(|error| panic!("{error}\n{}", numbered()));
    let faults: String = report.faults.iter().map(|fault| format!("{fault}\n")).collect();
    assert!(faults.is_empty(), "{faults}{}", numbered());
    let read = |(&address, buffer): (&u64, &Vec<u8>)| {
        let mut bytes = vec![0; buffer.len()];
        memory.read(address, &mut bytes).unwrap();
        bytes
    };
    addresses.iter().zip(buffers).map(read).collect()
}

/// A module whose entry `test` takes `pointers` buffers, with their addresses in `%p0`, `%p1`... and the thread's number in its
/// block in `%t` (.u32) and `%t64`.
pub fn module(declarations: &str, pointers: usize, body: &str) -> String {
    let parameters: Vec<String> = (0..pointers).map(|i| format!(".param .u64 in{i}")).collect();
    let loads: String =
        (0..pointers).map(|i| format!("ld.param.u64 %p{i}, [in{i}];\ncvta.to.global.u64 %p{i}, %p{i};\n")).collect();
    format!(
        ".version 9.0\n.target sm_90\n.address_size 64\n{declarations}\n.visible .entry test({})\n{{\n\
         .reg .b64 %p<{}>;\n.reg .u32 %t;\n.reg .u64 %t64;\n{loads}\
         mov.u32 %t, %tid.x;\ncvt.u64.u32 %t64, %t;\n{body}\nret;\n}}\n",
        parameters.join(", "),
        pointers.max(1)
    )
}

/// Runs `body` in one thread a row, with the row in `%a`, `%b`, `%c`, and gives each thread's `%d`. `registers` are the types of
/// `%d`, `%a`, `%b`, `%c`; a block is one warp. `declarations` stand before the entry.
pub fn table(declarations: &str, body: &str, registers: [&str; 4], rows: &[[u64; 3]]) -> Vec<u64> {
    let warps = rows.len().div_ceil(32);
    let mut text = String::from(".reg .b64 %row, %word;\n.reg .u32 %block;\n");
    for (name, register) in ["%d", "%a", "%b", "%c"].iter().zip(registers) {
        text += &format!(".reg .{register} {name};\n");
    }
    text += "mov.u32 %block, %ctaid.x;\nmad.wide.u32 %row, %block, 32, %t64;\nmad.lo.u64 %p1, %row, 24, %p1;\n";
    text += "shl.b64 %row, %row, 3;\nadd.u64 %p0, %p0, %row;\n";
    for (i, (name, register)) in ["%a", "%b", "%c"].iter().zip(&registers[1..]).enumerate() {
        text += &format!("ld.global.u64 %word, [%p1+{}];\n", i * 8);
        text += &match *register {
            "pred" => format!("setp.ne.u64 {name}, %word, 0;\n"),
            "b16" => format!("cvt.u16.u64 {name}, %word;\n"),
            "b32" => format!("cvt.u32.u64 {name}, %word;\n"),
            _ => format!("mov.b64 {name}, %word;\n"),
        };
    }
    text += body;
    text += match registers[0] {
        "pred" => "\nselp.u64 %word, 1, 0, %d;",
        "b16" => "\ncvt.u64.u16 %word, %d;",
        "b32" => "\ncvt.u64.u32 %word, %d;",
        _ => "\nmov.b64 %word, %d;",
    };
    text += "\nst.global.u64 [%p0], %word;";
    let mut words: Vec<u64> = rows.iter().flatten().copied().collect();
    words.resize(warps * 32 * 3, 1);
    let buffers = [vec![0xee; warps * 32 * 8], words.iter().flat_map(|word| word.to_le_bytes()).collect()];
    let out = run(&module(declarations, 2, &text), [warps as u32, 1, 1], [32, 1, 1], 0, &buffers);
    let results = out[0].chunks_exact(8).map(|word| u64::from_le_bytes(word.try_into().unwrap()));
    results.take(rows.len()).collect()
}

/// [`table`] for one warp of 32-bit registers: `%d` of each lane, from the lane's `%a`, `%b` and `%c`.
pub fn warp(body: &str, a: impl Fn(u32) -> u32, b: impl Fn(u32) -> u32, c: impl Fn(u32) -> u32) -> Vec<u32> {
    let rows: Vec<[u64; 3]> = (0..32).map(|lane| [a(lane).into(), b(lane).into(), c(lane).into()]).collect();
    table("", body, ["b32"; 4], &rows).into_iter().map(|word| word as u32).collect()
}

/// For [`warp`]: the number of the lane.
pub fn id(lane: u32) -> u32 {
    lane
}

/// For [`warp`]: nothing.
pub fn zero(_: u32) -> u32 {
    0
}

/// Compares `%d` with `expected` for edge values of `%a`.
pub fn unary<A: Word, D: Word>(body: &str, expected: impl Fn(A) -> D) {
    judge(body, [D::REGISTER, A::REGISTER, "b32", "b32"], &A::edges(), &[0u32], &[0u32], |a, _, _| Some(expected(a)));
}

/// The same with `%a` and `%b`.
pub fn binary<A: Word, B: Word, D: Word>(body: &str, expected: impl Fn(A, B) -> D) {
    judge(body, [D::REGISTER, A::REGISTER, B::REGISTER, "b32"], &A::edges(), &B::edges(), &[0u32], |a, b, _| {
        Some(expected(a, b))
    });
}

/// The same with `%a`, `%b` and `%c`.
pub fn ternary<A: Word, B: Word, C: Word, D: Word>(body: &str, expected: impl Fn(A, B, C) -> D) {
    let registers = [D::REGISTER, A::REGISTER, B::REGISTER, C::REGISTER];
    judge(body, registers, &A::edges(), &B::edges(), &C::edges(), |a, b, c| Some(expected(a, b, c)));
}

/// [`binary`] where some rows have no defined result.
pub fn binary_where<A: Word, B: Word, D: Word>(body: &str, expected: impl Fn(A, B) -> Option<D>) {
    judge(body, [D::REGISTER, A::REGISTER, B::REGISTER, "b32"], &A::edges(), &B::edges(), &[0u32], |a, b, _| expected(a, b));
}

fn judge<A: Word, B: Word, C: Word, D: Word>(
    body: &str,
    registers: [&str; 4],
    a: &[A],
    b: &[B],
    c: &[C],
    expected: impl Fn(A, B, C) -> Option<D>,
) {
    let count = a.len() * b.len() * c.len();
    // A step without common factors with the lengths reaches all values of each operand.
    let step =
        (count / MOST_ROWS..).find(|&step| step > 0 && [2, 3, 5, 7, 11, 17].iter().all(|prime| step % prime != 0)).unwrap_or(1);
    let row = |i: usize| (a[i % a.len()], b[i / a.len() % b.len()], c[i / a.len() / b.len()]);
    let rows: Vec<_> = (0..count).step_by(step).map(row).collect();
    let rows: Vec<_> = rows.into_iter().filter_map(|(a, b, c)| Some((a, b, c, expected(a, b, c)?))).collect();
    let words: Vec<[u64; 3]> = rows.iter().map(|&(a, b, c, _)| [a.bits(), b.bits(), c.bits()]).collect();
    let results = table("", body, registers, &words);
    let wrong = |&(&(.., expected), result): &(&(A, B, C, D), u64)| !expected.same(D::of(result));
    let all: Vec<_> = rows.iter().zip(results).collect();
    let some: Vec<String> = all
        .iter()
        .copied()
        .filter(wrong)
        .take(8)
        .map(|(&(a, b, c, expected), result)| {
            let bits = |word: u64| format!("{word:#x}");
            let got = D::of(result);
            format!(
                "  a {a:?} ({}) b {b:?} c {c:?}: {got:?} ({}), not {expected:?} ({})\n",
                bits(a.bits()),
                bits(result),
                bits(expected.bits())
            )
        })
        .collect();
    let count = all.iter().copied().filter(wrong).count();
    assert!(count == 0, "{body}\n{count} of {} rows are wrong:\n{}", all.len(), some.concat());
}
