//! A parsed entry to a [`Program`]: registers numbered, variables placed, calls expanded in place.

use super::opcode::Opcode;
use super::operands::Context;
use super::{Inst, ModuleVariable, Op, Parameter, Pred, Preset, Program, Reg, postdominators};
use crate::count::{Class, Site};
use crate::error::{Complaint, Parsed, excerpt};
use crate::exec::Spot;
use crate::memory::MAX_SITES;
use crate::syntax::{Function, Module, Operand, Space, Statement, Type};
use std::collections::HashMap;
use std::sync::Arc;

/// Bytes between two shared variables that belong to neither, so that running past one is seen.
const GUARD_ZONE: u64 = 128;
/// Depth of calls: recursion cannot be expanded.
const MAX_CALLS: usize = 32;
/// Statements, registers and variables that calls may add to a kernel.
const MAX_EXPANDED: usize = 1 << 17;
/// Targets of all branches and branch tables of a kernel.
const MAX_TARGETS: usize = 1 << 20;
/// Bytes of a parameter block (CUDA programming guide, since CUDA 12.1).
const MAX_PARAMETERS: u64 = 32_764;

/// Where a PTX register is kept.
#[derive(Clone, Copy, Debug)]
pub(super) enum Slot {
    /// A value register and its width in bits.
    Value(Reg, u32),
    Pred(Pred),
    /// 128 bits.
    Unsupported,
}

/// Where a variable is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Placement {
    Shared(u64),
    DynamicShared,
    Local(u64),
    Parameter(u64),
    Module(usize),
}

/// The names of one function, or of one expansion of it.
pub(super) struct Frame {
    pub registers: Vec<Slot>,
    pub variables: Vec<Placement>,
}

/// A branch whose target is not yet known: instruction, which of its targets, statement it goes to.
struct Fixup {
    inst: usize,
    target: usize,
    statement: usize,
}

/// The program so far.
pub(super) struct Builder<'m> {
    module: &'m Module,
    lines: Vec<&'m str>,
    /// `.file` table.
    files: HashMap<u32, Arc<str>>,
    /// Functions that can be called, by name.
    functions: HashMap<&'m str, usize>,
    /// Statements and names that calls have added.
    expanded: usize,
    insts: Vec<Inst>,
    sites: Vec<Site>,
    spots: Vec<Spot>,
    presets: HashMap<Preset, Reg>,
    registers: usize,
    preds: usize,
    never: Option<Pred>,
    shared: Vec<(u64, u64)>,
    shared_end: u64,
    static_shared_bytes: u64,
    dynamic_align: u64,
    local_bytes: u64,
    variables: Vec<ModuleVariable>,
    /// Module variables already placed, and static variables of functions by function and number.
    placed: HashMap<(Option<usize>, usize), Placement>,
    fixups: Vec<Fixup>,
    /// Targets of branches so far.
    targets: usize,
}

/// Decodes the entry `function` of `module`, whose text is `source`.
pub(crate) fn decode(module: &Module, function: &Function, source: &str) -> Parsed<Program> {
    let functions = module.functions.iter().enumerate();
    let mut builder = Builder {
        module,
        lines: source.lines().collect(),
        files: module.files.iter().cloned().collect(),
        functions: functions.filter(|(_, f)| f.body.is_some() && !f.entry).map(|(i, f)| (&*f.name, i)).collect(),
        expanded: 0,
        insts: Vec::new(),
        sites: Vec::new(),
        spots: Vec::new(),
        presets: HashMap::new(),
        registers: 0,
        preds: 0,
        never: None,
        shared: Vec::new(),
        shared_end: 0,
        static_shared_bytes: 0,
        dynamic_align: GUARD_ZONE,
        local_bytes: 0,
        variables: Vec::new(),
        placed: HashMap::new(),
        fixups: Vec::new(),
        targets: 0,
    };
    let parameters = builder.parameters(function)?;
    let frame = builder.frame(None, function, None, &parameters)?;
    builder.expand(function, &frame, 0)?;
    builder.finish(function, parameters)
}

/// Fails if something of an opcode was not understood.
fn known(statement: &Statement, opcode: &Opcode) -> Parsed<()> {
    match opcode.leftover() {
        Some(left) => Err(Complaint::new(statement.line, format!("unknown modifier `.{left}` of `{}`", statement.opcode))),
        None => Ok(()),
    }
}

impl<'m> Builder<'m> {
    /// Offsets of the parameters: each aligned to its own alignment, one after the other.
    fn parameters(&self, function: &Function) -> Parsed<Vec<Parameter>> {
        let mut end = 0u64;
        let place = |&index: &usize| {
            let variable = &function.variables[index];
            let offset = end.next_multiple_of(variable.align);
            end = offset + variable.bytes;
            if end > MAX_PARAMETERS {
                return Err(Complaint::new(variable.line, format!("more than {MAX_PARAMETERS} bytes of parameters")));
            }
            Ok(Parameter { offset, bytes: variable.bytes, align: variable.align })
        };
        function.parameters.iter().map(place).collect()
    }

    /// Numbers a function's registers and places its variables. `number` is that of an expanded function, `arguments` are where its
    /// parameters are.
    fn frame(
        &mut self,
        number: Option<usize>,
        function: &'m Function,
        arguments: Option<&[Placement]>,
        parameters: &[Parameter],
    ) -> Parsed<Frame> {
        let slot = |ty: &Type| match ty {
            Type::Pred => {
                self.preds += 1;
                Slot::Pred(self.preds as Pred - 1)
            }
            Type::B128 => Slot::Unsupported,
            ty => {
                self.registers += 1;
                // 8-bit registers do not exist (PTX ISA): a `.b8` one is taken for 16 bits.
                Slot::Value(self.registers as Reg - 1, ty.bits().max(16))
            }
        };
        let registers = function.registers.iter().map(slot).collect();
        let mut variables = Vec::with_capacity(function.variables.len());
        for (index, variable) in function.variables.iter().enumerate() {
            let results = function.results.iter().position(|&v| v == index);
            let formal = function.parameters.iter().position(|&v| v == index);
            let argument = match (formal, results) {
                (Some(i), _) => Some((i, function.results.len() + i)),
                (None, Some(i)) => Some((i, i)),
                _ => None,
            };
            let key = (Some(number.unwrap_or(usize::MAX)), index);
            variables.push(match (argument, arguments) {
                (Some((_, i)), Some(arguments)) => match arguments.get(i) {
                    Some(&placement) => placement,
                    None => return Err(Complaint::new(function.line, "a call with too few arguments")),
                },
                (Some((i, _)), None) => Placement::Parameter(parameters[i].offset),
                (None, _) => match variable.space {
                    Space::Local | Space::Param | Space::Generic => {
                        self.local_bytes = self.local_bytes.next_multiple_of(variable.align.max(8));
                        let start = self.local_bytes;
                        self.local_bytes += variable.bytes;
                        if self.local_bytes > 1 << 19 {
                            return Err(Complaint::new(variable.line, "more than 512 KiB of local memory a thread"));
                        }
                        Placement::Local(start)
                    }
                    _ => self.place_static(key, variable),
                },
            });
        }
        Ok(Frame { registers, variables })
    }

    fn place_static(&mut self, key: (Option<usize>, usize), variable: &crate::syntax::Variable) -> Placement {
        if let Some(&placement) = self.placed.get(&key) {
            return placement;
        }
        let placement = match variable.space {
            Space::Shared if variable.dynamic => {
                self.dynamic_align = self.dynamic_align.max(variable.align);
                Placement::DynamicShared
            }
            Space::Shared => {
                let start = self.shared_end.next_multiple_of(variable.align.max(GUARD_ZONE));
                self.shared.push((start, variable.bytes));
                self.shared_end = start + variable.bytes + GUARD_ZONE;
                self.static_shared_bytes = self.static_shared_bytes.next_multiple_of(variable.align) + variable.bytes;
                Placement::Shared(start)
            }
            _ => {
                self.variables.push(ModuleVariable { bytes: variable.bytes, init: variable.init.clone() });
                Placement::Module(self.variables.len() - 1)
            }
        };
        self.placed.insert(key, placement);
        placement
    }

    /// Where a variable of the module is.
    pub(super) fn module_variable(&mut self, index: usize) -> Placement {
        let module = self.module;
        self.place_static((None, index), &module.variables[index])
    }

    /// A register with a given content at the start.
    pub(super) fn preset(&mut self, preset: Preset) -> Reg {
        if let Some(&register) = self.presets.get(&preset) {
            return register;
        }
        let register = self.fresh();
        self.presets.insert(preset, register);
        register
    }

    /// A register of its own.
    pub(super) fn fresh(&mut self) -> Reg {
        self.registers += 1;
        self.registers as Reg - 1
    }

    /// A predicate that holds nowhere.
    pub(super) fn never(&mut self) -> Pred {
        *self.never.get_or_insert_with(|| {
            self.preds += 1;
            self.preds as Pred - 1
        })
    }

    pub(super) fn push(&mut self, statement: &Statement, inst: Inst, class: Class) {
        let file = |index: u32| self.files.get(&index).cloned().unwrap_or_default();
        let mut spot = Spot { ptx_line: statement.line, ..Spot::default() };
        if let Some(source) = &statement.source {
            (spot.file, spot.line) = (file(source.file), source.line);
            spot.inlined_at = source.inlined_at.map(|(index, line)| (file(index), line));
        }
        let (flops, tensor_type) = super::tensor::work(&inst.op, class, &statement.opcode);
        let text = self.lines.get(statement.line as usize - 1).map_or(String::new(), |line| excerpt(line));
        // Counts go to the line that calls a wrapper of an instruction, not to the wrapper.
        let own = (!spot.file.is_empty()).then(|| (spot.file.clone(), spot.line));
        let source = spot.inlined_at.clone().or(own);
        self.sites.push(Site { class, flops, tensor_type, ptx_line: statement.line, source, text });
        self.spots.push(spot);
        self.insts.push(inst);
    }

    /// Notes that target number `target` of the instruction added last is a statement of the function being expanded.
    pub(super) fn branch_to(&mut self, target: usize, statement: usize) {
        self.targets += 1;
        self.fixups.push(Fixup { inst: self.insts.len() - 1, target, statement });
    }

    /// Adds the statements of a function. A `ret` in it goes behind them.
    fn expand(&mut self, function: &'m Function, frame: &Frame, depth: usize) -> Parsed<()> {
        let Some(body) = &function.body else {
            return Err(Complaint::new(function.line, format!("`{}` has no body", function.name)));
        };
        let first_fixup = self.fixups.len();
        let mut starts = Vec::with_capacity(body.len() + 1);
        for statement in body {
            starts.push(self.insts.len());
            if self.insts.len() >= MAX_SITES || self.targets > MAX_TARGETS {
                return Err(Complaint::new(statement.line, "too many instructions, or targets of branches"));
            }
            let mut opcode = Opcode::new(&statement.opcode);
            if opcode.name == "call" {
                opcode.flag("uni");
                known(statement, &opcode)?;
                self.call(frame, statement, depth)?;
                continue;
            }
            let mut context = Context::new(self, frame, function, statement, opcode);
            context.decode(depth > 0)?;
            context.check_operands()?;
            known(statement, &context.opcode)?;
        }
        starts.push(self.insts.len());
        for fixup in self.fixups.split_off(first_fixup) {
            let to = starts[fixup.statement.min(body.len())];
            match &mut self.insts[fixup.inst].op {
                Op::Branch { target, .. } => *target = to,
                Op::BranchTable { targets, .. } => targets[fixup.target] = to,
                _ => {}
            }
        }
        Ok(())
    }

    /// Expands a call in place: its argument slots become the parameters of the function.
    fn call(&mut self, frame: &Frame, statement: &'m Statement, depth: usize) -> Parsed<()> {
        let fail = |message: String| Err(Complaint::new(statement.line, message));
        let callee = statement.operands.iter().find_map(|operand| match operand {
            Operand::Function(name) => Some(name),
            _ => None,
        });
        let Some(name) = callee else { return fail("only calls of a named function are supported".into()) };
        let Some(&number) = self.functions.get(&**name) else {
            return fail(format!("call of `{name}`, which this file does not define"));
        };
        let module = self.module;
        let callee = &module.functions[number];
        if depth >= MAX_CALLS {
            return fail(format!("calls nested {MAX_CALLS} deep: recursion is not supported"));
        }
        self.expanded += 1 + callee.body.as_ref().map_or(0, Vec::len) + callee.registers.len() + callee.variables.len();
        if self.expanded > MAX_EXPANDED {
            return fail(format!("calls, which are expanded in place, add more than {MAX_EXPANDED} statements and names"));
        }
        let mut arguments = Vec::new();
        for operand in
            statement.operands.iter().filter_map(|o| if let Operand::List(all) = o { Some(all) } else { None }).flatten()
        {
            match operand {
                Operand::Local(index) => arguments.push(frame.variables[*index]),
                _ => return fail("arguments of a call must be `.param` variables".into()),
            }
        }
        if arguments.len() != callee.results.len() + callee.parameters.len() {
            return fail(format!("`{name}` takes {} arguments", callee.parameters.len()));
        }
        // A guarded call is jumped over where the guard does not hold.
        let skip = match statement.guard {
            None => None,
            Some((register, negated)) => match frame.registers[register] {
                Slot::Pred(pred) => {
                    let guard = Some(super::Guard { pred, negated: !negated });
                    let op = Op::Branch { target: 0, rejoin: usize::MAX };
                    self.push(statement, Inst { guard, op }, Class::Control);
                    Some(self.insts.len() - 1)
                }
                _ => return fail("a guard must be a predicate".into()),
            },
        };
        let inner = self.frame(Some(number), callee, Some(&arguments), &[])?;
        self.expand(callee, &inner, depth + 1)?;
        if let Some(skip) = skip {
            let end = self.insts.len();
            if let Op::Branch { target, .. } = &mut self.insts[skip].op {
                *target = end;
            }
        }
        Ok(())
    }

    fn finish(mut self, function: &Function, parameters: Vec<Parameter>) -> Parsed<Program> {
        let rejoins = postdominators::rejoins(&self.insts);
        for (inst, found) in self.insts.iter_mut().zip(rejoins) {
            if let Op::Branch { rejoin, .. } | Op::BranchTable { rejoin, .. } = &mut inst.op {
                *rejoin = found;
            }
        }
        let dynamic_shared = self.shared_end.next_multiple_of(self.dynamic_align);
        let mut presets: Vec<(Reg, Preset)> = self.presets.into_iter().map(|(preset, register)| (register, preset)).collect();
        presets.sort_unstable_by_key(|&(register, _)| register);
        let hands_over = self.insts.iter().any(|inst| inst.op.hands_over());
        Ok(Program {
            name: function.name.clone(),
            target: self.module.target.clone(),
            insts: self.insts,
            sites: self.sites,
            spots: self.spots,
            parameters,
            presets,
            registers: self.registers.max(1),
            preds: self.preds,
            shared: self.shared,
            dynamic_shared,
            static_shared_bytes: self.static_shared_bytes,
            local_bytes: self.local_bytes,
            variables: self.variables,
            max_threads: function.max_threads,
            hands_over,
        })
    }
}
