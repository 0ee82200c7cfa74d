//! A kernel ready to run: operands are register numbers, operations are closures over 32 lanes, branches know where they rejoin.
//!
//! Every source operand is a register. Immediates, addresses of variables and special registers are registers too, filled when a
//! warp starts ([`Preset`]), so that executing an instruction never asks what kind of operand it has.

mod control;
mod decode;
mod float;
mod integer;
mod memory;
mod moves;
mod opcode;
mod operands;
mod postdominators;
mod tensor;
mod values;

pub(crate) use decode::decode;
pub(crate) use values::signed;

use crate::count::Site;
use crate::exec::Spot;
use crate::number::mma::MmaKind;
use crate::syntax::Space;

/// Lanes of a warp.
pub(crate) const LANES: usize = 32;
/// One register of all lanes. Narrower registers keep their high bits zero.
pub(crate) type Lanes = [u64; LANES];
/// Numbers of the lanes in a mask.
pub(crate) fn lanes(mask: u32) -> impl Iterator<Item = usize> {
    (0..LANES).filter(move |lane| mask >> lane & 1 == 1)
}

/// The mask of some lanes: the reverse of [`lanes`].
pub(crate) fn mask_of(lanes: impl Iterator<Item = usize>) -> u32 {
    lanes.fold(0, |mask, lane| mask | 1 << lane)
}

/// Number of a value register.
pub(crate) type Reg = u32;
/// Number of a predicate register; its 32 lanes are the bits of a `u32`.
pub(crate) type Pred = u32;

/// Where shared memory begins among generic addresses.
pub(crate) const SHARED_WINDOW: u64 = 1 << 60;
/// Where each thread's local memory begins among generic addresses.
pub(crate) const LOCAL_WINDOW: u64 = 2 << 60;
/// Where kernel parameters begin among generic addresses.
pub(crate) const PARAM_WINDOW: u64 = 3 << 60;

/// A lane-wise operation on up to three registers.
pub(crate) type Value = Box<dyn Fn(&Lanes, &Lanes, &Lanes) -> Lanes + Send + Sync>;
/// A lane-wise comparison; bit i is lane i.
pub(crate) type Test = Box<dyn Fn(&Lanes, &Lanes) -> u32 + Send + Sync>;
/// a, b, c, carry in -> result, carry out.
pub(crate) type Carry = Box<dyn Fn(u64, u64, u64, bool) -> (u64, bool) + Send + Sync>;
/// memory before, operand b, operand c -> memory after.
pub(crate) type Update = Box<dyn Fn(u64, u64, u64) -> u64 + Send + Sync>;

/// One instruction.
pub(crate) struct Inst {
    pub guard: Option<Guard>,
    pub op: Op,
}

/// A predicate that may be negated.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guard {
    pub pred: Pred,
    pub negated: bool,
}

/// `base + offset` in a state space.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub space: Space,
    pub base: Reg,
    pub offset: i64,
}

/// How a memory access orders others (PTX ISA, memory consistency model).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Strength {
    /// Relaxed or atomic: two strong accesses do not race.
    pub strong: bool,
    /// Strong too, but see [`crate::memory::Tag::strong`].
    pub volatile: bool,
    /// The scope is the block.
    pub narrow: bool,
    pub acquire: bool,
    pub release: bool,
}

/// What a collective operation of a warp computes.
pub(crate) enum Collective {
    Shuffle {
        mode: ShuffleMode,
        value: Reg,
        lane: Reg,
        clamp: Reg,
        out: Reg,
        valid: Option<Pred>,
    },
    Vote {
        mode: VoteMode,
        input: Guard,
        out: VoteOut,
    },
    MatchAny {
        value: Reg,
        out: Reg,
    },
    MatchAll {
        value: Reg,
        out: Reg,
        all: Option<Pred>,
    },
    Reduce {
        f: fn(u64, u64) -> u64,
        value: Reg,
        out: Reg,
    },
    Elect {
        out: Reg,
        elected: Pred,
    },
    /// `bar.warp.sync`: also orders memory among its lanes.
    Barrier,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ShuffleMode {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum VoteMode {
    All,
    Any,
    Uniform,
    Ballot,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum VoteOut {
    Pred(Pred),
    Value(Reg),
}

/// What threads do at a barrier of the block.
#[derive(Clone, Copy, Debug)]
pub(crate) enum BarrierKind {
    Sync,
    Arrive,
    /// Count of threads whose predicate holds.
    Popc {
        input: Guard,
        out: Reg,
    },
    /// Whether it holds for all.
    And {
        input: Guard,
        out: Pred,
    },
    /// Whether it holds for any.
    Or {
        input: Guard,
        out: Pred,
    },
}

/// Part of the name of `mov`'s unpacked destinations.
pub(crate) type Parts = Vec<Option<Reg>>;

/// Loads `parts` elements of `bytes` bytes each, one after another in memory; a part that is `None` is not kept.
pub(crate) struct Load {
    pub address: Address,
    pub bytes: u64,
    pub signed_bits: Option<u32>,
    pub parts: Parts,
    pub widths: Vec<u32>,
    pub strength: Strength,
}

/// Stores `parts` elements of `bytes` bytes each.
pub(crate) struct Store {
    pub address: Address,
    pub bytes: u64,
    pub parts: Vec<Reg>,
    pub strength: Strength,
}

/// Replaces what is in memory by `f` of it, and gives what was there before.
pub(crate) struct Atomic {
    pub address: Address,
    pub bytes: u64,
    pub f: Update,
    pub b: Reg,
    pub c: Reg,
    pub d: Option<Reg>,
    /// `add.f32`, which in global memory takes subnormal numbers for zero and makes none (PTX ISA, atom).
    pub flushes: bool,
    pub strength: Strength,
}

/// cp.async: `size` bytes from global to shared memory, of which `source_bytes` are read and the rest is zero.
pub(crate) struct CopyAsync {
    pub to: Address,
    pub from: Address,
    pub size: u64,
    pub source_bytes: Option<Reg>,
    pub ignore: Option<Guard>,
}

/// What an instruction does.
pub(crate) enum Op {
    Value {
        f: Value,
        d: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
    },
    Carry {
        f: Carry,
        d: Reg,
        a: Reg,
        b: Reg,
        c: Reg,
        writes: bool,
    },
    /// `setp`: d = test & combine, q = !test & combine (with other connectives likewise).
    SetPred {
        f: Test,
        a: Reg,
        b: Reg,
        combine: Option<(BoolOp, Guard)>,
        d: Option<Pred>,
        q: Option<Pred>,
    },
    /// `set`: the value of true where the test holds, else 0.
    Set {
        f: Test,
        a: Reg,
        b: Reg,
        combine: Option<(BoolOp, Guard)>,
        d: Reg,
        truth: u64,
    },
    Select {
        p: Guard,
        d: Reg,
        a: Reg,
        b: Reg,
    },
    /// Logic on predicates.
    PredLogic {
        f: fn(u32, u32, u32) -> u32,
        d: Pred,
        a: Guard,
        b: Guard,
        c: Guard,
    },
    /// Splits a register into parts of `bits` bits, lowest first.
    Unpack {
        parts: Parts,
        a: Reg,
        bits: u32,
    },
    /// Joins parts of `bits` bits, lowest first.
    Pack {
        parts: Vec<Reg>,
        d: Reg,
        bits: u32,
    },
    /// `%clock` and its like: warp instructions issued by the block so far.
    Clock {
        d: Reg,
    },
    ActiveMask {
        d: Reg,
    },
    Load(Load),
    Store(Store),
    Atomic(Atomic),
    CopyAsync(CopyAsync),
    CopyCommit,
    /// Waits until at most this many of the thread's newest groups are pending; `None`: for all copies.
    CopyWait {
        newest: Option<u64>,
    },
    /// `parts` 8x8 matrices of 16-bit elements.
    LoadMatrix {
        address: Address,
        parts: Vec<Reg>,
        transposed: bool,
    },
    StoreMatrix {
        address: Address,
        parts: Vec<Reg>,
        transposed: bool,
    },
    MoveMatrix {
        d: Reg,
        a: Reg,
    },
    Mma {
        kind: MmaKind,
        d: Vec<Reg>,
        a: Vec<Reg>,
        b: Vec<Reg>,
        c: Vec<Reg>,
    },
    Collective {
        what: Collective,
        mask: Reg,
    },
    Barrier {
        kind: BarrierKind,
        id: Reg,
        threads: Option<Reg>,
        aligned: bool,
    },
    /// Orders memory: `wide` beyond the block.
    Fence {
        wide: bool,
    },
    Branch {
        target: usize,
        rejoin: usize,
    },
    BranchTable {
        index: Reg,
        targets: Vec<usize>,
        rejoin: usize,
    },
    Exit,
    Trap,
    /// Prefetches, hints, naps: no effect on values.
    Nothing,
}

impl Op {
    /// `.aligned`: all lanes that have not exited execute it together.
    pub(crate) fn needs_whole_warp(&self) -> bool {
        match self {
            Op::Barrier { aligned, .. } => *aligned,
            Op::LoadMatrix { .. } | Op::StoreMatrix { .. } | Op::MoveMatrix { .. } | Op::Mma { .. } => true,
            _ => false,
        }
    }

    /// Whether what came before can be handed over by a flag after this, or by this.
    pub(crate) fn hands_over(&self) -> bool {
        match self {
            Op::Fence { .. } => true,
            Op::Store(store) => store.strength.release,
            Op::Atomic(atomic) => atomic.strength.release,
            _ => false,
        }
    }

    /// Whether it may read what another thread has written without a barrier between: what a loop must do that waits for another.
    pub(crate) fn polls(&self) -> bool {
        match self {
            Op::Load(Load { strength, .. }) => strength.strong || strength.volatile,
            Op::Atomic(_) => true,
            _ => false,
        }
    }
}

/// Connectives of `setp` and `set`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BoolOp {
    And,
    Or,
    Xor,
}

impl BoolOp {
    pub(crate) fn apply(self, a: u32, b: u32) -> u32 {
        match self {
            BoolOp::And => a & b,
            BoolOp::Or => a | b,
            BoolOp::Xor => a ^ b,
        }
    }
}

/// What a register holds when a warp starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Preset {
    Constant(u64),
    /// Address of a module variable, by its number in [`Program::variables`], plus an offset.
    Variable(usize, i64),
    /// Address of dynamic shared memory plus an offset.
    DynamicBase(i64),
    Tid(usize),
    Ntid(usize),
    Ctaid(usize),
    Nctaid(usize),
    LaneId,
    WarpId,
    NumWarps,
    /// %lanemask_*: eq, lt, le, gt, ge.
    LaneMask(u8),
    DynamicShared,
    TotalShared,
}

/// A variable of the module in global or constant memory.
#[derive(Clone, Debug)]
pub(crate) struct ModuleVariable {
    pub bytes: u64,
    pub init: Vec<u8>,
}

/// A kernel parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Byte offset in the parameter block.
    pub offset: u64,
    /// Size in bytes.
    pub bytes: u64,
    /// Alignment.
    pub align: u64,
}

/// A decoded kernel.
pub(crate) struct Program {
    pub name: String,
    pub target: String,
    pub insts: Vec<Inst>,
    pub sites: Vec<Site>,
    /// Where the instructions come from.
    pub spots: Vec<Spot>,
    pub parameters: Vec<Parameter>,
    pub presets: Vec<(Reg, Preset)>,
    pub registers: usize,
    pub preds: usize,
    /// Valid ranges of static shared memory: offset and bytes. Between them lie guard zones.
    pub shared: Vec<(u64, u64)>,
    /// Offset of dynamic shared memory, which a guard zone separates from the static variables.
    pub dynamic_shared: u64,
    /// Static shared bytes as declared, without guard zones.
    pub static_shared_bytes: u64,
    /// Bytes of local memory of one thread.
    pub local_bytes: u64,
    pub variables: Vec<ModuleVariable>,
    pub max_threads: Option<u64>,
    /// Whether threads of different blocks can be ordered.
    pub hands_over: bool,
    /// The extents that a block must have.
    pub required_block: Option<[u64; 3]>,
}

impl Program {
    /// Bytes of the parameter block.
    pub(crate) fn parameter_bytes(&self) -> u64 {
        self.parameters.last().map_or(0, |p| p.offset + p.bytes)
    }
}
