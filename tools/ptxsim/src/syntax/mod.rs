//! PTX text as a tree: variables, functions, and instructions whose names are resolved but whose meaning is not yet known.

mod body;
pub(crate) mod lexer;
mod parser;

pub(crate) use parser::parse;

use std::sync::Arc;

/// A PTX module.
#[derive(Debug, Default)]
pub(crate) struct Module {
    /// `.target`'s architecture: "sm_80".
    pub target: String,
    /// Variables outside all functions.
    pub variables: Vec<Variable>,
    pub functions: Vec<Function>,
    /// `.file` table: index and path.
    pub files: Vec<(u32, Arc<str>)>,
}

/// Where a variable lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Space {
    Generic,
    Global,
    Shared,
    Local,
    Const,
    /// Kernel parameters, and the argument slots of calls.
    Param,
}

/// A declared variable.
#[derive(Clone, Debug)]
pub(crate) struct Variable {
    pub space: Space,
    pub align: u64,
    /// Bytes; 0 for an `extern .shared` array, which is as long as the launch says.
    pub bytes: u64,
    pub dynamic: bool,
    /// Initial bytes, shorter than the variable if the rest is zero.
    pub init: Vec<u8>,
    pub line: u32,
}

/// An entry or a device function.
#[derive(Debug)]
pub(crate) struct Function {
    pub name: String,
    pub entry: bool,
    /// Indices into `variables`.
    pub parameters: Vec<usize>,
    pub results: Vec<usize>,
    /// Variables declared inside, parameters included.
    pub variables: Vec<Variable>,
    /// Types of the registers, by number.
    pub registers: Vec<Type>,
    pub body: Option<Vec<Statement>>,
    /// Targets of labels: indices into `body`.
    pub labels: Vec<Option<usize>>,
    /// Branch tables of `brx.idx`: label numbers.
    pub tables: Vec<Vec<usize>>,
    /// `.maxntid`: threads a block may have at most.
    pub max_threads: Option<u64>,
    /// `.reqntid`: the extents that a block must have.
    pub required_block: Option<[u64; 3]>,
    pub line: u32,
}

/// One instruction.
#[derive(Clone, Debug)]
pub(crate) struct Statement {
    /// `@p` or `@!p`: the predicate register and whether it is negated.
    pub guard: Option<(usize, bool)>,
    pub opcode: String,
    pub operands: Vec<Operand>,
    pub line: u32,
    pub source: Option<Source>,
}

/// A CUDA source position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// Index of the `.file` table.
    pub file: u32,
    pub line: u32,
    /// Where the function that holds this line was inlined: the next position outwards.
    pub inlined_at: Option<(u32, u32)>,
}

/// An operand with its name resolved.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    Register(usize),
    /// `!%p`.
    NotRegister(usize),
    Int(u64),
    F32(u32),
    F64(u64),
    /// `%tid.x` and its like, by name.
    Special(String),
    /// A variable of the function.
    Local(usize),
    /// A variable of the module.
    Global(usize),
    Label(usize),
    /// A branch table.
    Table(usize),
    /// A function by name.
    Function(String),
    /// `[base + offset]`.
    Address(Box<Operand>, i64),
    /// `name + offset` outside brackets.
    Offset(Box<Operand>, i64),
    /// `{a, b, ...}`.
    Vector(Vec<Operand>),
    /// `a|b`: two destinations.
    Pair(Box<Operand>, Box<Operand>),
    /// `(a, b)` of a call.
    List(Vec<Operand>),
    /// `_`.
    Sink,
}

/// Element types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Type {
    Pred,
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F64,
    E4m3,
    E5m2,
    E4m3x2,
    E5m2x2,
    U16x2,
    S16x2,
}

impl Type {
    pub(crate) fn parse(name: &str) -> Option<Type> {
        Some(match name {
            "pred" => Type::Pred,
            "b8" => Type::B8,
            "b16" => Type::B16,
            "b32" => Type::B32,
            "b64" => Type::B64,
            "b128" => Type::B128,
            "u8" => Type::U8,
            "u16" => Type::U16,
            "u32" => Type::U32,
            "u64" => Type::U64,
            "s8" => Type::S8,
            "s16" => Type::S16,
            "s32" => Type::S32,
            "s64" => Type::S64,
            "f16" => Type::F16,
            "f16x2" => Type::F16x2,
            "bf16" => Type::Bf16,
            "bf16x2" => Type::Bf16x2,
            "tf32" => Type::Tf32,
            "f32" => Type::F32,
            "f64" => Type::F64,
            "e4m3" => Type::E4m3,
            "e5m2" => Type::E5m2,
            "e4m3x2" => Type::E4m3x2,
            "e5m2x2" => Type::E5m2x2,
            "u16x2" => Type::U16x2,
            "s16x2" => Type::S16x2,
            _ => return None,
        })
    }

    pub(crate) fn bits(self) -> u32 {
        match self {
            Type::Pred => 1,
            Type::B8 | Type::U8 | Type::S8 | Type::E4m3 | Type::E5m2 => 8,
            Type::B16 | Type::U16 | Type::S16 | Type::F16 | Type::Bf16 | Type::E4m3x2 | Type::E5m2x2 => 16,
            Type::B64 | Type::U64 | Type::S64 | Type::F64 => 64,
            Type::B128 => 128,
            _ => 32,
        }
    }

    pub(crate) fn bytes(self) -> u64 {
        u64::from(self.bits().div_ceil(8))
    }

    pub(crate) fn is_signed(self) -> bool {
        matches!(self, Type::S8 | Type::S16 | Type::S32 | Type::S64)
    }

    pub(crate) fn is_integer(self) -> bool {
        use Type::*;
        matches!(self, B8 | B16 | B32 | B64 | U8 | U16 | U32 | U64 | S8 | S16 | S32 | S64)
    }
}
