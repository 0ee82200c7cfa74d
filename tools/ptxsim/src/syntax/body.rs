//! The inside of a function: declarations, scopes, labels, instructions and their operands.

use super::lexer::Kind;
use super::parser::{MAX_DEPTH, Parser, spelled};
use super::{Function, Operand, Source, Statement, Type};
use crate::error::{Complaint, Parsed};
use std::collections::HashMap;

/// Digits of the number of a register.
const MAX_DIGITS: usize = 19;

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Symbol {
    Register(usize),
    Variable(usize),
    Table(usize),
}

/// Names declared between one pair of braces.
#[derive(Default)]
pub(super) struct Scope<'s> {
    symbols: HashMap<&'s str, Symbol>,
    /// `%r<10>`: how many there are, and their type. Those that are used become symbols.
    ranges: HashMap<&'s str, (u64, Type)>,
    /// Labels defined here: statement they stand before.
    labels: HashMap<&'s str, usize>,
    /// References to labels not yet defined: name, label number, line.
    pending: Vec<(&'s str, usize, u32)>,
}

impl<'s> Scope<'s> {
    pub(super) fn declare(&mut self, name: &'s str, symbol: Symbol, line: u32) -> Parsed<()> {
        match self.symbols.insert(name, symbol) {
            Some(_) => Err(Complaint::new(line, format!("`{name}` is declared twice"))),
            None => Ok(()),
        }
    }

    /// The type of a register that is one of a range: `%r7` of `%r<10>`.
    fn ranged(&self, name: &str) -> Option<Type> {
        let digits = name.bytes().rev().take(MAX_DIGITS).take_while(u8::is_ascii_digit).count();
        let splits = (name.len() - digits..name.len()).map(|at| name.split_at(at));
        // `%r01` is not `%r1`.
        let mut indices = splits.filter(|(_, index)| index.len() == 1 || !index.starts_with('0'));
        indices.find_map(|(prefix, index)| {
            let (count, ty) = self.ranges.get(prefix)?;
            (index.parse::<u64>().ok()? < *count).then_some(*ty)
        })
    }
}

/// State of the function being parsed.
pub(super) struct Body<'s> {
    function: Function,
    statements: Vec<Statement>,
    scopes: Vec<Scope<'s>>,
    source: Option<Source>,
}

impl<'s> Body<'s> {
    /// An empty body, with the function's parameters in scope.
    pub(super) fn new(function: Function, parameters: Scope<'s>) -> Body<'s> {
        Body { function, statements: Vec::new(), scopes: vec![parameters], source: None }
    }

    pub(super) fn into_function(self) -> Function {
        Function { body: Some(self.statements), ..self.function }
    }

    fn scope(&mut self) -> &mut Scope<'s> {
        if self.scopes.is_empty() {
            self.scopes.push(Scope::default());
        }
        let last = self.scopes.len() - 1;
        &mut self.scopes[last]
    }

    /// What `name` stands for in the innermost scope that has it.
    fn find(&mut self, name: &'s str) -> Option<Symbol> {
        for scope in self.scopes.iter_mut().rev() {
            if let Some(&symbol) = scope.symbols.get(name) {
                return Some(symbol);
            }
            if let Some(ty) = scope.ranged(name) {
                let symbol = Symbol::Register(self.function.registers.len());
                self.function.registers.push(ty);
                scope.symbols.insert(name, symbol);
                return Some(symbol);
            }
        }
        None
    }

    /// A number for one reference to a label, resolved when its scope closes.
    fn label_number(&mut self, name: &'s str, line: u32) -> usize {
        let number = self.function.labels.len();
        self.function.labels.push(None);
        self.scope().pending.push((name, number, line));
        number
    }
}

impl<'s> Parser<'_, 's> {
    /// The statements up to the closing brace.
    pub(super) fn block(&mut self, body: &mut Body<'s>) -> Parsed<()> {
        let mut depth = 1;
        loop {
            let line = self.line();
            match self.next()? {
                Kind::Punct(b'}') => {
                    self.close_scope(body)?;
                    depth -= 1;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                Kind::Punct(b'{') => {
                    depth += 1;
                    if depth > MAX_DEPTH {
                        return self.refuse("braces nested too deeply");
                    }
                    body.scopes.push(Scope::default());
                }
                Kind::Punct(b';') => {}
                Kind::Punct(b'@') => {
                    let negated = self.accept(b'!');
                    let name = self.word("a predicate")?;
                    let Some(Symbol::Register(register)) = body.find(name) else {
                        return self.refuse(format!("`{name}` is not a declared predicate"));
                    };
                    let opcode = self.word("an instruction")?;
                    self.statement(body, Some((register, negated)), opcode, line)?;
                }
                Kind::Word(word) if self.accept(b':') => self.label(body, word, line)?,
                Kind::Word(word) if word.starts_with('.') => self.directive(body, word)?,
                Kind::Word(word) => self.statement(body, None, word, line)?,
                other => return self.refuse(format!("expected an instruction and found {}", spelled(other))),
            }
        }
    }

    fn close_scope(&self, body: &mut Body<'s>) -> Parsed<()> {
        let Some(scope) = body.scopes.pop() else { return self.refuse("unbalanced braces") };
        for (name, number, line) in scope.pending {
            match scope.labels.get(name) {
                Some(&target) => body.function.labels[number] = Some(target),
                None => match body.scopes.last_mut() {
                    Some(outer) => outer.pending.push((name, number, line)),
                    None => return Err(Complaint::new(line, format!("`{name}` is not declared"))),
                },
            }
        }
        Ok(())
    }

    fn label(&mut self, body: &mut Body<'s>, name: &'s str, line: u32) -> Parsed<()> {
        if self.peek() == Some(Kind::Word(".branchtargets")) {
            self.next()?;
            let mut targets = vec![self.reference(body)?];
            while self.accept(b',') {
                targets.push(self.reference(body)?);
            }
            self.expect(b';')?;
            let table = Symbol::Table(body.function.tables.len());
            body.function.tables.push(targets);
            return body.scope().declare(name, table, line);
        }
        let here = body.statements.len();
        match body.scope().labels.insert(name, here) {
            Some(_) => Err(Complaint::new(line, format!("label `{name}` is defined twice"))),
            None => Ok(()),
        }
    }

    fn reference(&mut self, body: &mut Body<'s>) -> Parsed<usize> {
        let line = self.line();
        let name = self.word("a label")?;
        Ok(body.label_number(name, line))
    }

    fn directive(&mut self, body: &mut Body<'s>, word: &str) -> Parsed<()> {
        match word {
            ".reg" => self.registers(body),
            ".shared" | ".local" | ".param" | ".global" | ".const" => {
                for (name, variable) in self.variables(word)? {
                    let symbol = Symbol::Variable(body.function.variables.len());
                    body.scope().declare(name, symbol, variable.line)?;
                    body.function.variables.push(variable);
                }
                Ok(())
            }
            ".loc" => self.location(body),
            ".pragma" => self.skip_statement(),
            other => self.refuse(format!("unknown directive `{other}`")),
        }
    }

    fn registers(&mut self, body: &mut Body<'s>) -> Parsed<()> {
        let name = self.word("a register type")?;
        let Some(ty) = name.strip_prefix('.').and_then(Type::parse) else {
            return self.refuse(format!("registers of type `{name}` are not supported"));
        };
        loop {
            let line = self.line();
            let name = self.word("a register's name")?;
            if self.accept(b'<') {
                let count = self.int("a number of registers")?;
                self.expect(b'>')?;
                if body.scope().ranges.insert(name, (count, ty)).is_some() {
                    return Err(Complaint::new(line, format!("`{name}<...>` is declared twice")));
                }
            } else {
                let symbol = Symbol::Register(body.function.registers.len());
                body.scope().declare(name, symbol, line)?;
                body.function.registers.push(ty);
            }
            if !self.accept(b',') {
                return self.expect(b';');
            }
        }
    }

    /// `.loc file line column [, function_name label [+ offset], inlined_at file line column]`.
    fn location(&mut self, body: &mut Body<'s>) -> Parsed<()> {
        let (file, line) = (self.int("a file number")? as u32, self.int("a line")? as u32);
        self.int("a column")?;
        let mut inlined_at = None;
        if self.accept(b',') {
            self.word("`function_name`")?;
            self.word("a label")?;
            if self.accept(b'+') {
                self.int("an offset")?;
            }
            self.expect(b',')?;
            self.word("`inlined_at`")?;
            inlined_at = Some((self.int("a file number")? as u32, self.int("a line")? as u32));
            self.int("a column")?;
        }
        body.source = Some(Source { file, line, inlined_at });
        Ok(())
    }

    fn statement(&mut self, body: &mut Body<'s>, guard: Option<(usize, bool)>, opcode: &str, line: u32) -> Parsed<()> {
        let call = opcode == "call" || opcode.starts_with("call.");
        let operands = self.list(body, call, 0, b';')?;
        let source = body.source.clone().filter(|s| s.line > 0);
        body.statements.push(Statement { guard, opcode: opcode.into(), operands, line, source });
        Ok(())
    }

    fn operand(&mut self, body: &mut Body<'s>, call: bool, depth: usize) -> Parsed<Operand> {
        if depth > MAX_DEPTH {
            return self.fail("operands nested too deeply");
        }
        let line = self.line();
        match self.next()? {
            Kind::Int(value) => Ok(Operand::Int(value)),
            Kind::F32(bits) => Ok(Operand::F32(bits)),
            Kind::F64(bits) => Ok(Operand::F64(bits)),
            Kind::Punct(b'-') => match self.next()? {
                Kind::Int(value) => Ok(Operand::Int(value.wrapping_neg())),
                Kind::F32(bits) => Ok(Operand::F32(bits ^ 1 << 31)),
                Kind::F64(bits) => Ok(Operand::F64(bits ^ 1 << 63)),
                _ => self.refuse("expected a number after `-`"),
            },
            Kind::Punct(b'!') => match self.operand(body, call, depth + 1)? {
                Operand::Register(register) => Ok(Operand::NotRegister(register)),
                _ => self.refuse("`!` must stand before a predicate"),
            },
            Kind::Punct(b'[') => {
                let mut parts = self.list(body, call, depth, b']')?;
                Ok(match (parts.pop(), parts.is_empty()) {
                    (Some(Operand::Offset(base, offset)), true) => Operand::Address(base, offset),
                    (Some(base), true) => Operand::Address(Box::new(base), 0),
                    // Textures and tensors: `[name, {x, y}]`.
                    (last, _) => Operand::Address(Box::new(Operand::List(parts.into_iter().chain(last).collect())), 0),
                })
            }
            Kind::Punct(b'{') => self.list(body, call, depth, b'}').map(Operand::Vector),
            Kind::Punct(b'(') => self.list(body, call, depth, b')').map(Operand::List),
            Kind::Word(word) => {
                let base = self.name(body, call, word, line);
                if self.accept(b'|') {
                    let second = self.operand(body, call, depth + 1)?;
                    return Ok(Operand::Pair(Box::new(base), Box::new(second)));
                }
                if self.accept(b'+') {
                    let negative = self.accept(b'-');
                    let offset = self.int("an offset")? as i64;
                    return Ok(Operand::Offset(Box::new(base), if negative { offset.wrapping_neg() } else { offset }));
                }
                if self.peek() == Some(Kind::Punct(b'-')) && matches!(self.peek_second(), Some(Kind::Int(_))) {
                    self.next()?;
                    let offset = self.int("an offset")? as i64;
                    return Ok(Operand::Offset(Box::new(base), offset.wrapping_neg()));
                }
                Ok(base)
            }
            other => self.refuse(format!("expected an operand and found {}", spelled(other))),
        }
    }

    fn list(&mut self, body: &mut Body<'s>, call: bool, depth: usize, end: u8) -> Parsed<Vec<Operand>> {
        let mut out = Vec::new();
        if self.accept(end) {
            return Ok(out);
        }
        loop {
            out.push(self.operand(body, call, depth + 1)?);
            if !self.accept(b',') {
                self.expect(end)?;
                return Ok(out);
            }
        }
    }

    fn name(&mut self, body: &mut Body<'s>, call: bool, word: &'s str, line: u32) -> Operand {
        if word == "_" {
            return Operand::Sink;
        }
        if word == "WARP_SZ" {
            return Operand::Int(32);
        }
        match body.find(word) {
            Some(Symbol::Register(register)) => return Operand::Register(register),
            Some(Symbol::Variable(variable)) => return Operand::Local(variable),
            Some(Symbol::Table(table)) => return Operand::Table(table),
            None => {}
        }
        if let Some(&index) = self.variables.get(word) {
            return Operand::Global(index);
        }
        if word.starts_with('%') {
            return Operand::Special(word.into());
        }
        if call || self.functions.contains_key(word) {
            return Operand::Function(word.into());
        }
        Operand::Label(body.label_number(word, line))
    }
}
