//! Tensor-core products and the loads that feed them.

use super::operands::Context;
use super::{LANES, Op, Reg};
use crate::count::Class;
use crate::error::Parsed;
use crate::number::mma::{Accumulator, MmaKind, Operand};
use crate::syntax::Space;

/// Floating-point operations of one issue by a full warp, and the operand type of a tensor product.
pub(super) fn work(op: &Op, class: Class, opcode: &str) -> (u64, &'static str) {
    match op {
        Op::Mma { kind, .. } => (kind.flops(), name(kind.a)),
        _ if matches!(class, Class::Float | Class::Double | Class::Half | Class::Special) => {
            let fused = opcode.starts_with("fma") || opcode.starts_with("mad");
            let packed = opcode.contains("x2");
            ((LANES as u64) << (u32::from(fused) + u32::from(packed)), "")
        }
        _ => (0, ""),
    }
}

fn name(operand: Operand) -> &'static str {
    match operand {
        Operand::F16 => "f16",
        Operand::Bf16 => "bf16",
        Operand::Tf32 => "tf32",
        Operand::E4m3 => "e4m3",
        Operand::E5m2 => "e5m2",
        Operand::S8 => "s8",
        Operand::U8 => "u8",
    }
}

impl Context<'_, '_> {
    pub(super) fn tensor(&mut self) -> Parsed<()> {
        let named = self.opcode.flag("sync") && self.opcode.flag("aligned");
        if !named {
            return self.unknown();
        }
        match self.opcode.name {
            "mma" => self.tensor_product(),
            "movmatrix" => {
                if !(self.opcode.flag("m8n8") && self.opcode.flag("trans") && self.opcode.flag("b16")) {
                    return self.unknown();
                }
                let (d, a) = (self.dest_bits(0, 32)?, self.value(1, 32)?);
                self.push(Class::Collective, Op::MoveMatrix { d, a })
            }
            _ => self.matrix(),
        }
    }

    fn matrix(&mut self) -> Parsed<()> {
        let load = self.opcode.name == "ldmatrix";
        let count = self.opcode.choice(&[("x1", 1), ("x2", 2), ("x4", 4)]);
        let (Some(count), true) = (count, self.opcode.flag("m8n8")) else { return self.unknown() };
        let transposed = self.opcode.flag("trans");
        let space = self.opcode.space();
        if !self.opcode.flag("b16") || !matches!(space, Space::Shared | Space::Generic) {
            return self.unknown();
        }
        let address = self.address(usize::from(load), space)?;
        let parts = if load { self.dests(0)? } else { self.registers(1)? };
        if parts.len() != count {
            return self.fail(format!("{count} matrices need {count} registers, not {}", parts.len()));
        }
        let op = match load {
            true => Op::LoadMatrix { address, parts, transposed },
            false => Op::StoreMatrix { address, parts, transposed },
        };
        self.push(Class::Shared, op)
    }

    fn tensor_product(&mut self) -> Parsed<()> {
        let k = self.opcode.choice(&[("m16n8k4", 4), ("m16n8k8", 8), ("m16n8k16", 16), ("m16n8k32", 32)]);
        let layout = self.statement.opcode.contains(".row.col.") && self.opcode.flag("row") && self.opcode.flag("col");
        let (Some(k), true) = (k, layout) else { return self.unknown() };
        let saturate = self.opcode.flag("satfinite");
        self.opcode.ignore(&["kind::f8f6f4"]);
        let results = [("f32", Accumulator::F32), ("f16", Accumulator::F16), ("s32", Accumulator::S32 { saturate })];
        let operands = [
            ("f16", Operand::F16),
            ("bf16", Operand::Bf16),
            ("tf32", Operand::Tf32),
            ("e4m3", Operand::E4m3),
            ("e5m2", Operand::E5m2),
            ("s8", Operand::S8),
            ("u8", Operand::U8),
        ];
        // The types end the name: of D, A, B and C.
        let types: Vec<&str> = self.statement.opcode.rsplit('.').take(4).collect();
        let result = |word: &str| results.iter().find(|(name, _)| *name == word).map(|&(_, found)| found);
        let operand = |word: &str| operands.iter().find(|(name, _)| *name == word).map(|&(_, found)| found);
        let (Some(accumulator), Some(a), Some(b), Some(c)) =
            (result(types[3]), operand(types[2]), operand(types[1]), result(types[0]))
        else {
            return self.unknown();
        };
        types.iter().for_each(|ty| _ = self.opcode.flag(ty));
        let kind = MmaKind { k, a, b, accumulator };
        if c != accumulator || !kind.is_valid() || (saturate && !matches!(accumulator, Accumulator::S32 { .. })) {
            return self.unknown();
        }
        self.expect_operands(4)?;
        let d = self.dests(0)?;
        let (a, b, c) = (self.registers(1)?, self.registers(2)?, self.registers(3)?);
        let check = |what: &str, found: &[Reg], expected: usize| match found.len() == expected {
            true => Ok(()),
            false => self.fail(format!("{what} needs {expected} registers, not {}", found.len())),
        };
        check("A", &a, kind.a_registers())?;
        check("B", &b, kind.b_registers())?;
        check("C", &c, kind.c_registers())?;
        check("D", &d, kind.c_registers())?;
        self.push(Class::Tensor, Op::Mma { kind, d, a, b, c })
    }
}
