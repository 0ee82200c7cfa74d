//! Loads, stores, atomics, asynchronous copies.

use super::operands::Context;
use super::values::{mask, number};
use super::{Atomic, CopyAsync, Load, Op, Store, Strength, Update};
use crate::count::Class;
use crate::error::Parsed;
use crate::number::arithmetic::{self, Extremum};
use crate::number::half::{self, Bf16, F16, HalfMode};
use crate::number::{arithmetic::Mode, double};
use crate::syntax::{Operand, Space, Type};

/// Modifiers of loads and stores that speak to caches.
const HINTS: [&str; 10] = [
    "L1::evict_normal",
    "L1::evict_unchanged",
    "L1::evict_first",
    "L1::evict_last",
    "L1::no_allocate",
    "L2::evict_first",
    "L2::evict_last",
    "L2::evict_normal",
    "cg",
    "cs",
];
/// Those of loads alone.
const LOAD_HINTS: [&str; 7] = ["ca", "lu", "cv", "unified", "L2::64B", "L2::128B", "L2::256B"];
/// Those of stores alone.
const STORE_HINTS: [&str; 2] = ["wb", "wt"];

impl Context<'_, '_> {
    pub(super) fn memory(&mut self) -> Parsed<()> {
        match self.opcode.name {
            "ld" | "ldu" => self.load(),
            "st" => self.store(),
            "atom" | "red" => self.atomic(),
            "cp" => self.copy(),
            "createpolicy" => {
                let form = self.opcode.choice(&[("fractional", (1, 2)), ("range", (4, 4)), ("cvt", (2, 2))]);
                if !form.is_some_and(|(least, most)| (least..=most).contains(&self.count())) {
                    return self.unknown();
                }
                let kinds = ["L2", "L2::evict_first", "L2::evict_last", "L2::evict_normal", "L2::evict_unchanged", "global"];
                self.opcode.ignore(&kinds);
                self.needs("b64")?;
                (1..self.count()).try_for_each(|index| self.operand(index).map(drop))?;
                let zero = self.constant(0);
                let d = self.dest_bits(0, 64)?;
                self.push(Class::Integer, Op::Value { f: super::values::map1(|_| 0), d, a: zero, b: zero, c: zero })
            }
            _ => {
                let space = self.opcode.space();
                let levels = [("L1", ()), ("L2", ()), ("L2::evict_last", ()), ("L2::evict_normal", ())];
                if self.opcode.choice(&levels).is_none() {
                    return self.unknown();
                }
                self.address(0, space)?;
                if self.opcode.name == "discard" || self.opcode.name == "applypriority" {
                    self.literal(1)?;
                }
                self.push(Class::Global, Op::Nothing)
            }
        }
    }

    /// Memory-ordering modifiers of a load, store or atomic.
    fn strength(&mut self) -> Parsed<Strength> {
        let volatile = self.opcode.flag("volatile");
        self.opcode.flag("mmio");
        let orders =
            [("relaxed", (false, false)), ("acquire", (true, false)), ("release", (false, true)), ("acq_rel", (true, true))];
        let order = self.opcode.choice(&orders);
        let (acquire, release) = order.unwrap_or_default();
        let weak = self.opcode.flag("weak");
        let scope = self.opcode.choice(&[("cta", true), ("cluster", false), ("gpu", false), ("sys", false)]);
        let strength = Strength { strong: order.is_some(), volatile, narrow: scope == Some(true), acquire, release };
        let known = match self.opcode.name {
            "ld" => !release,
            "st" => !acquire,
            "ldu" => !strength.strong && !volatile,
            "red" => !acquire && !weak && !volatile,
            _ => !weak && !volatile,
        };
        // Every form but the plain one and `.volatile` says whom it orders.
        let atomic = matches!(self.opcode.name, "atom" | "red");
        let alone = u32::from(strength.strong) + u32::from(volatile) + u32::from(weak) <= 1;
        let scoped = atomic || strength.strong == scope.is_some();
        if known && alone && scoped { Ok(strength) } else { self.unknown() }
    }

    /// The cache policy of an access, which changes no result.
    fn policy(&mut self, index: usize) -> Parsed<()> {
        if self.opcode.flag("L2::cache_hint") { self.value(index, 64).map(drop) } else { Ok(()) }
    }

    fn class(space: Space) -> Class {
        match space {
            Space::Shared => Class::Shared,
            Space::Const | Space::Param => Class::Constant,
            _ => Class::Global,
        }
    }

    /// Space, type and number of elements of a load or store.
    fn shape(&mut self, hints: &[&str]) -> Parsed<(Strength, Space, Type, usize)> {
        let strength = self.strength()?;
        let space = self.opcode.space();
        self.opcode.ignore(&HINTS);
        self.opcode.ignore(hints);
        let lanes = self.opcode.vector();
        let Some(ty) = self.opcode.ty() else { return self.unknown() };
        let typed = ty.is_integer() || matches!(ty, Type::F32 | Type::F64);
        let ordered = strength.strong || strength.volatile;
        if !typed || lanes as u32 * ty.bits() > 256 || (ordered && matches!(space, Space::Const | Space::Param)) {
            return self.unknown();
        }
        Ok((strength, space, ty, lanes))
    }

    fn load(&mut self) -> Parsed<()> {
        let uncached = self.opcode.flag("nc") || self.opcode.name == "ldu";
        let (strength, space, ty, lanes) = self.shape(&LOAD_HINTS)?;
        if uncached && !matches!((self.opcode.name, space), (_, Space::Global) | ("ldu", Space::Generic)) {
            return self.unknown();
        }
        self.policy(2)?;
        let address = self.address(1, space)?;
        let elements = self.elements(0)?;
        if elements.len() != lanes {
            return self.fail(format!("`{}` loads {lanes} elements, not {}", self.statement.opcode, elements.len()));
        }
        let (mut parts, mut widths) = (Vec::new(), Vec::new());
        for element in elements {
            let (register, width) = self.dest_of(element)?;
            if width < ty.bits() {
                return self.fail(format!("{} bits are loaded into a register of {width}", ty.bits()));
            }
            parts.push((*element != Operand::Sink).then_some(register));
            widths.push(width);
        }
        let signed_bits = ty.is_signed().then_some(ty.bits());
        let class = Self::class(address.space);
        self.push(class, Op::Load(Load { address, bytes: ty.bytes(), signed_bits, parts, widths, strength }))
    }

    fn store(&mut self) -> Parsed<()> {
        let (strength, space, ty, lanes) = self.shape(&STORE_HINTS)?;
        if space == Space::Const {
            return self.unknown();
        }
        self.policy(2)?;
        let address = self.address(0, space)?;
        let elements = self.elements(1)?;
        if elements.len() != lanes {
            return self.fail(format!("`{}` stores {lanes} elements, not {}", self.statement.opcode, elements.len()));
        }
        let literal = |operand: &Operand| matches!(operand, Operand::F64(_)).then_some(ty.bits());
        let parts = elements.iter().map(|e| self.value_of(e, literal(e))).collect::<Parsed<_>>()?;
        let class = Self::class(address.space);
        self.push(class, Op::Store(Store { address, bytes: ty.bytes(), parts, strength }))
    }

    fn atomic(&mut self) -> Parsed<()> {
        let fetches = self.opcode.name == "atom";
        let strength = self.strength()?;
        let space = self.opcode.space();
        let rounds = self.opcode.flag("noftz");
        let names = ["and", "or", "xor", "exch", "cas", "add", "inc", "dec", "min", "max"];
        let names: Vec<(&str, &'static str)> = names.iter().map(|&name| (name, name)).collect();
        let (Some(name), Some(ty)) = (self.opcode.choice(&names), self.opcode.ty()) else { return self.unknown() };
        let half = matches!(ty, Type::F16 | Type::F16x2 | Type::Bf16 | Type::Bf16x2);
        let there = matches!(space, Space::Global | Space::Shared | Space::Generic);
        if !there || (rounds && !half) || (!fetches && matches!(name, "exch" | "cas")) {
            return self.unknown();
        }
        let Some(f) = update(name, ty) else { return self.unknown() };
        let first = usize::from(fetches);
        let d = if fetches { Some(self.dest_bits(0, ty.bits())?) } else { None };
        let address = self.address(first, space)?;
        let b = self.value(first + 1, ty.bits())?;
        let c = if name == "cas" { self.value(first + 2, ty.bits())? } else { b };
        self.policy(first + if name == "cas" { 3 } else { 2 })?;
        let flushes = name == "add" && ty == Type::F32;
        self.push(Class::Atomic, Op::Atomic(Atomic { address, bytes: ty.bytes(), f, b, c, d, strength, flushes }))
    }

    fn copy(&mut self) -> Parsed<()> {
        if !self.opcode.flag("async") {
            return self.unknown();
        }
        if self.opcode.flag("commit_group") {
            return self.push(Class::Sync, Op::CopyCommit);
        }
        if self.opcode.flag("wait_all") {
            return self.push(Class::Sync, Op::CopyWait { newest: None });
        }
        if self.opcode.flag("wait_group") {
            let newest = Some(self.literal(0)?);
            return self.push(Class::Sync, Op::CopyWait { newest });
        }
        let cached_everywhere = self.opcode.flag("ca");
        if !cached_everywhere && !self.opcode.flag("cg") {
            return self.unknown();
        }
        let to = self.opcode.space();
        let global = self.opcode.flag("global");
        let hint = self.opcode.flag("L2::cache_hint");
        self.opcode.choice(&[("L2::64B", ()), ("L2::128B", ()), ("L2::256B", ())]);
        if to != Space::Shared || !global {
            return self.unknown();
        }
        let (to, from) = (self.address(0, Space::Shared)?, self.address(1, Space::Global)?);
        let size = self.literal(2)?;
        if !matches!((size, cached_everywhere), (16, _) | (4 | 8, true)) {
            return self.fail(format!("cp.async of {size} bytes: it copies 4, 8 or 16, and `.cg` 16"));
        }
        let extra = self.count() - usize::from(hint);
        if hint {
            self.value(extra.max(3), 64)?;
        }
        let (mut source_bytes, mut ignore) = (None, None);
        if extra > 3 {
            if self.is_pred(self.operand(3)?) { ignore = Some(self.guard(3)?) } else { source_bytes = Some(self.value(3, 32)?) }
        }
        self.push(Class::Global, Op::CopyAsync(CopyAsync { to, from, size, source_bytes, ignore }))
    }
}

/// What an atomic does to memory.
fn update(name: &'static str, ty: Type) -> Option<Update> {
    let bits = ty.bits();
    let keep = mask(bits);
    let sign = ty.is_signed();
    Some(match (name, ty) {
        ("and", Type::B32 | Type::B64) => Box::new(|a, b, _| a & b),
        ("or", Type::B32 | Type::B64) => Box::new(|a, b, _| a | b),
        ("xor", Type::B32 | Type::B64) => Box::new(|a, b, _| a ^ b),
        ("exch", Type::B16 | Type::B32 | Type::B64 | Type::U32 | Type::U64 | Type::F32) => Box::new(|_, b, _| b),
        ("cas", Type::B16 | Type::B32 | Type::B64 | Type::U32 | Type::U64) => Box::new(|a, b, c| if a == b { c } else { a }),
        ("add", Type::U32 | Type::S32 | Type::U64 | Type::S64) => Box::new(move |a, b, _| a.wrapping_add(b) & keep),
        ("add", Type::F32) => Box::new(|a, b, _| {
            let sum = arithmetic::add(f32::from_bits(a as u32), f32::from_bits(b as u32), Mode::default());
            sum.to_bits().into()
        }),
        ("add", Type::F64) => Box::new(|a, b, _| double::add(f64::from_bits(a), f64::from_bits(b), Mode::default()).to_bits()),
        ("add", Type::F16) => Box::new(|a, b, _| half::add::<F16>(a as u16, b as u16, HalfMode::default()).into()),
        ("add", Type::Bf16) => Box::new(|a, b, _| half::add::<Bf16>(a as u16, b as u16, HalfMode::default()).into()),
        ("add", Type::F16x2) => {
            Box::new(|a, b, _| super::values::halves([a, b], |[x, y]| half::add::<F16>(x, y, HalfMode::default())))
        }
        ("add", Type::Bf16x2) => {
            Box::new(|a, b, _| super::values::halves([a, b], |[x, y]| half::add::<Bf16>(x, y, HalfMode::default())))
        }
        ("min" | "max", Type::F16 | Type::Bf16 | Type::F16x2 | Type::Bf16x2) => {
            let larger = name == "max";
            Box::new(move |a, b, _| {
                super::values::halves([a, b], |[x, y]| match (ty, larger) {
                    (Type::F16 | Type::F16x2, false) => half::min::<F16>(x, y, Extremum::default()),
                    (Type::F16 | Type::F16x2, true) => half::max::<F16>(x, y, Extremum::default()),
                    (_, false) => half::min::<Bf16>(x, y, Extremum::default()),
                    (_, true) => half::max::<Bf16>(x, y, Extremum::default()),
                }) & keep
            })
        }
        ("inc", Type::U32) => Box::new(|a, b, _| if a >= b { 0 } else { a + 1 }),
        ("dec", Type::U32) => Box::new(|a, b, _| if a == 0 || a > b { b } else { a - 1 }),
        ("min", Type::U32 | Type::S32 | Type::U64 | Type::S64) => {
            Box::new(move |a, b, _| if number(b, bits, sign) < number(a, bits, sign) { b } else { a })
        }
        ("max", Type::U32 | Type::S32 | Type::U64 | Type::S64) => {
            Box::new(move |a, b, _| if number(b, bits, sign) > number(a, bits, sign) { b } else { a })
        }
        _ => return None,
    })
}
