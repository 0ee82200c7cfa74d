//! Tokens to a [`Module`]: declarations, scopes, labels. What an opcode means is decided in [`crate::ir`].

use super::lexer::{Kind, Token, tokens};
use super::{Function, Module, Operand, Source, Space, Statement, Type, Variable};
use crate::error::{Complaint, Parsed};
use std::collections::HashMap;

/// More registers than any kernel has: a limit, so that a broken file cannot take all memory.
const MAX_REGISTERS: usize = 1 << 20;
/// More bytes than any declared variable can have.
const MAX_BYTES: u64 = 1 << 32;
/// Nesting of braces and lists.
const MAX_DEPTH: usize = 64;

/// Parses PTX text.
pub(crate) fn parse(source: &str) -> Parsed<Module> {
    let tokens = tokens(source)?;
    let mut parser = Parser { tokens: &tokens, at: 0 };
    parser.module()
}

/// What a name stands for.
#[derive(Clone, Copy, Debug)]
enum Symbol {
    Register(usize),
    Variable(usize),
    Table(usize),
}

/// Names declared between one pair of braces.
#[derive(Default)]
struct Scope<'s> {
    symbols: HashMap<&'s str, Symbol>,
    /// `%r<10>`: prefix, count, number of the first.
    ranges: Vec<(&'s str, usize, usize)>,
    /// Labels defined here: statement they stand before.
    labels: HashMap<&'s str, usize>,
    /// References to labels not yet defined: name, label number, line.
    pending: Vec<(&'s str, usize, u32)>,
}

impl<'s> Scope<'s> {
    fn find(&self, name: &str) -> Option<Symbol> {
        if let Some(&symbol) = self.symbols.get(name) {
            return Some(symbol);
        }
        let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let digits = &name[prefix.len()..];
        if digits.is_empty() || (digits.len() > 1 && digits.starts_with('0')) {
            return None;
        }
        let index: usize = digits.parse().ok()?;
        let (_, _, first) = self.ranges.iter().find(|(p, count, _)| *p == prefix && index < *count)?;
        Some(Symbol::Register(first + index))
    }
}

struct Parser<'t, 's> {
    tokens: &'t [Token<'s>],
    at: usize,
}

/// State of the function being parsed.
struct Body<'s> {
    function: Function,
    statements: Vec<Statement>,
    scopes: Vec<Scope<'s>>,
    source: Option<Source>,
}

impl<'s> Parser<'_, 's> {
    fn peek(&self) -> Option<Kind<'s>> {
        self.tokens.get(self.at).map(|t| t.kind)
    }

    fn peek_second(&self) -> Option<Kind<'s>> {
        self.tokens.get(self.at + 1).map(|t| t.kind)
    }

    fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |t| t.line)
    }

    fn fail<T>(&self, message: impl Into<String>) -> Parsed<T> {
        Err(Complaint::new(self.line(), message))
    }

    fn next(&mut self) -> Parsed<Kind<'s>> {
        match self.peek() {
            Some(kind) => {
                self.at += 1;
                Ok(kind)
            }
            None => self.fail("the file ends in the middle of a statement"),
        }
    }

    fn accept(&mut self, punct: u8) -> bool {
        let found = self.peek() == Some(Kind::Punct(punct));
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, punct: u8) -> Parsed<()> {
        if self.accept(punct) { Ok(()) } else { self.fail(format!("expected `{}` {}", punct as char, self.found())) }
    }

    fn found(&self) -> String {
        match self.peek() {
            Some(Kind::Word(word)) => format!("and found `{word}`"),
            Some(Kind::Punct(punct)) => format!("and found `{}`", punct as char),
            Some(kind) => format!("and found {kind:?}"),
            None => "and the file ends".into(),
        }
    }

    fn word(&mut self, what: &str) -> Parsed<&'s str> {
        match self.peek() {
            Some(Kind::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            _ => self.fail(format!("expected {what} {}", self.found())),
        }
    }

    fn int(&mut self, what: &str) -> Parsed<u64> {
        match self.peek() {
            Some(Kind::Int(value)) => {
                self.at += 1;
                Ok(value)
            }
            _ => self.fail(format!("expected {what} {}", self.found())),
        }
    }

    fn module(&mut self) -> Parsed<Module> {
        let mut module = Module::default();
        while self.peek().is_some() {
            self.top_level(&mut module)?;
        }
        if module.target.is_empty() {
            return self.fail("no `.target` directive: this is not a PTX file");
        }
        Ok(module)
    }

    fn top_level(&mut self, module: &mut Module) -> Parsed<()> {
        let line = self.line();
        match self.word("a directive")? {
            ".version" => self.next().map(drop),
            ".target" => {
                module.target = self.word("an architecture")?.into();
                while self.accept(b',') {
                    self.word("a target option")?;
                }
                Ok(())
            }
            ".address_size" => match self.int("an address size")? {
                64 => Ok(()),
                other => self.fail(format!("only 64-bit addresses are supported, not {other}")),
            },
            ".file" => self.file(module),
            ".section" => self.section(),
            ".visible" | ".extern" | ".weak" | ".common" => Ok(()), // linkage means nothing to one module
            ".entry" => self.function(module, true, line),
            ".func" => self.function(module, false, line),
            space @ (".global" | ".const" | ".shared") => {
                for variable in self.variables(space)? {
                    let Variable { name, .. } = &variable;
                    if module.variables.iter().any(|v| v.name == *name && !v.dynamic) {
                        return self.fail(format!("`{name}` is declared twice"));
                    }
                    module.variables.push(variable);
                }
                Ok(())
            }
            ".pragma" => self.skip_statement(),
            other => self.fail(format!("unknown directive `{other}`")),
        }
    }

    fn skip_statement(&mut self) -> Parsed<()> {
        while self.next()? != Kind::Punct(b';') {}
        Ok(())
    }

    fn file(&mut self, module: &mut Module) -> Parsed<()> {
        let index = self.int("a file number")?;
        let Kind::Text(path) = self.next()? else { return self.fail("expected a quoted path") };
        module.files.push((index as u32, path.into()));
        if self.accept(b',') {
            self.int("a time")?;
            self.expect(b',')?;
            self.int("a size")?;
        }
        Ok(())
    }

    fn section(&mut self) -> Parsed<()> {
        while self.next()? != Kind::Punct(b'{') {}
        let mut depth = 1;
        while depth > 0 {
            match self.next()? {
                Kind::Punct(b'{') => depth += 1,
                Kind::Punct(b'}') => depth -= 1,
                _ => {}
            }
        }
        Ok(())
    }

    /// The rest of a variable declaration after its state space, with its semicolon.
    fn variables(&mut self, space: &str) -> Parsed<Vec<Variable>> {
        let mut out = vec![self.variable(space)?];
        let (element, align) = (out[0].align, out[0].align);
        while self.accept(b',') {
            let mut next = self.declarator(space, element, align)?;
            next.align = align;
            out.push(next);
        }
        self.expect(b';')?;
        Ok(out)
    }

    /// `[.align N] [.v2|.v4] .type [.ptr ...] name [dims] [= init]`, without what ends it.
    fn variable(&mut self, space: &str) -> Parsed<Variable> {
        let (mut align, mut lanes, mut element) = (None, 1, None);
        while let Some(Kind::Word(word)) = self.peek() {
            let Some(name) = word.strip_prefix('.') else { break };
            self.at += 1;
            match name {
                "align" => align = Some(self.int("an alignment")?),
                "v2" => lanes = 2,
                "v4" => lanes = 4,
                "ptr" | "global" | "const" | "shared" | "local" | "attribute" => {}
                _ => match Type::parse(name) {
                    Some(ty) => element = Some(ty.bytes() * lanes),
                    None => return self.fail(format!("unknown type or attribute `.{name}` of a variable")),
                },
            }
        }
        let Some(element) = element else { return self.fail("a variable without a type") };
        let align = align.unwrap_or(element).max(1);
        if !align.is_power_of_two() || align > 1 << 16 {
            return self.fail(format!("alignment {align} is not a sensible power of two"));
        }
        self.declarator(space, element, align)
    }

    fn declarator(&mut self, space: &str, element: u64, align: u64) -> Parsed<Variable> {
        let line = self.line();
        let name = self.word("a variable's name")?;
        let (mut bytes, mut dynamic) = (element, false);
        while self.accept(b'[') {
            if self.accept(b']') {
                dynamic = true;
                continue;
            }
            let extent = self.int("an array extent")?;
            self.expect(b']')?;
            bytes = bytes.checked_mul(extent).filter(|&b| b <= MAX_BYTES).map_or_else(|| self.fail("array too large"), Ok)?;
        }
        let mut init = Vec::new();
        if self.accept(b'=') {
            self.initialiser(element, &mut init, 0)?;
        }
        if dynamic {
            bytes = init.len() as u64;
        }
        if init.len() as u64 > bytes {
            return self.fail(format!("`{name}` has more initial values than elements"));
        }
        let space = match space {
            ".global" => Space::Global,
            ".const" => Space::Const,
            ".shared" => Space::Shared,
            ".local" => Space::Local,
            _ => Space::Param,
        };
        Ok(Variable { name: name.into(), space, align, bytes, dynamic: dynamic && bytes == 0, init, line })
    }

    fn initialiser(&mut self, element: u64, out: &mut Vec<u8>, depth: usize) -> Parsed<()> {
        if depth > MAX_DEPTH {
            return self.fail("initialisers nested too deeply");
        }
        if self.accept(b'{') {
            if self.accept(b'}') {
                return Ok(());
            }
            loop {
                self.initialiser(element, out, depth + 1)?;
                if !self.accept(b',') {
                    return self.expect(b'}');
                }
            }
        }
        let negative = self.accept(b'-');
        let bits = match self.next()? {
            Kind::Int(value) if negative => value.wrapping_neg(),
            Kind::Int(value) | Kind::F64(value) => value,
            Kind::F32(value) => u64::from(value),
            _ => {
                self.at -= 1;
                return self.fail("only numbers are supported as initial values");
            }
        };
        out.extend_from_slice(&bits.to_le_bytes()[..element.min(8) as usize]);
        Ok(())
    }

    fn function(&mut self, module: &mut Module, entry: bool, line: u32) -> Parsed<()> {
        let mut function = Function {
            name: String::new(),
            entry,
            parameters: Vec::new(),
            results: Vec::new(),
            variables: Vec::new(),
            registers: Vec::new(),
            body: None,
            labels: Vec::new(),
            tables: Vec::new(),
            max_threads: None,
            line,
        };
        let mut scope = Scope::default();
        if !entry && self.accept(b'(') {
            function.results = self.parameters(&mut function.variables, &mut scope)?;
        }
        function.name = self.word("a function's name")?.into();
        if self.accept(b'(') {
            function.parameters = self.parameters(&mut function.variables, &mut scope)?;
        }
        self.tuning(&mut function)?;
        if !self.accept(b';') {
            self.expect(b'{')?;
            let mut body = Body { function, statements: Vec::new(), scopes: vec![scope], source: None };
            self.block(module, &mut body)?;
            let Body { function: done, statements, .. } = body;
            function = done;
            function.body = Some(statements);
        }
        if function.body.is_some() && module.functions.iter().any(|f| f.name == function.name && f.body.is_some()) {
            return Err(Complaint::new(line, format!("`{}` is defined twice", function.name)));
        }
        module.functions.push(function);
        Ok(())
    }

    /// `.maxntid`, `.reqntid` and other directives between a function's head and its body.
    fn tuning(&mut self, function: &mut Function) -> Parsed<()> {
        while let Some(Kind::Word(word)) = self.peek() {
            self.at += 1;
            match word {
                ".maxntid" | ".reqntid" => {
                    let mut threads = self.int("a number of threads")?;
                    while self.accept(b',') {
                        threads = threads.saturating_mul(self.int("a number of threads")?);
                    }
                    function.max_threads = Some(threads);
                }
                ".minnctapersm" | ".maxnctapersm" | ".maxnreg" | ".abi_preserve" => self.int("a number").map(drop)?,
                ".noreturn" => {}
                other => return self.fail(format!("unknown directive `{other}` of a function")),
            }
        }
        Ok(())
    }

    fn parameters(&mut self, variables: &mut Vec<Variable>, scope: &mut Scope<'s>) -> Parsed<Vec<usize>> {
        let mut out = Vec::new();
        if self.accept(b')') {
            return Ok(out);
        }
        loop {
            match self.word("a parameter")? {
                ".param" => {}
                other => return self.fail(format!("parameters in `{other}` are not supported, only in `.param`")),
            }
            let start = self.at;
            let variable = self.variable(".param")?;
            let name = self.name_after(start, &variable.name);
            scope.symbols.insert(name, Symbol::Variable(variables.len()));
            out.push(variables.len());
            variables.push(variable);
            if !self.accept(b',') {
                self.expect(b')')?;
                return Ok(out);
            }
        }
    }

    /// The token that spells `name`, which lives as long as the source.
    fn name_after(&self, start: usize, name: &str) -> &'s str {
        let spelled = |t: &Token<'s>| if let Kind::Word(word) = t.kind { Some(word) } else { None };
        self.tokens[start..self.at].iter().filter_map(spelled).find(|&word| word == name).unwrap_or("")
    }

    fn block(&mut self, module: &Module, body: &mut Body<'s>) -> Parsed<()> {
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
                        return self.fail("braces nested too deeply");
                    }
                    body.scopes.push(Scope::default());
                }
                Kind::Punct(b';') => {}
                Kind::Punct(b'@') => {
                    let negated = self.accept(b'!');
                    let name = self.word("a predicate")?;
                    let Some(Symbol::Register(register)) = find(body, name) else {
                        return self.fail(format!("`{name}` is not a declared predicate"));
                    };
                    let opcode = self.word("an instruction")?;
                    self.statement(module, body, Some((register, negated)), opcode, line)?;
                }
                Kind::Word(word) if self.accept(b':') => self.label(body, word, line)?,
                Kind::Word(word) if word.starts_with('.') => self.directive(body, word)?,
                Kind::Word(word) => self.statement(module, body, None, word, line)?,
                _ => {
                    self.at -= 1;
                    return self.fail(format!("expected an instruction {}", self.found()));
                }
            }
        }
    }

    fn close_scope(&self, body: &mut Body<'s>) -> Parsed<()> {
        let Some(scope) = body.scopes.pop() else { return self.fail("unbalanced braces") };
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
        let Some(index) = body.scopes.len().checked_sub(1) else { return self.fail("label outside a function") };
        if self.peek() == Some(Kind::Word(".branchtargets")) {
            self.at += 1;
            let mut targets = vec![self.reference(body)?];
            while self.accept(b',') {
                targets.push(self.reference(body)?);
            }
            self.expect(b';')?;
            body.scopes[index].symbols.insert(name, Symbol::Table(body.function.tables.len()));
            body.function.tables.push(targets);
            return Ok(());
        }
        if body.scopes[index].labels.insert(name, body.statements.len()).is_some() {
            return Err(Complaint::new(line, format!("label `{name}` is defined twice")));
        }
        Ok(())
    }

    fn reference(&mut self, body: &mut Body<'s>) -> Parsed<usize> {
        let line = self.line();
        let name = self.word("a label")?;
        Ok(label_number(body, name, line))
    }

    fn directive(&mut self, body: &mut Body<'s>, word: &str) -> Parsed<()> {
        match word {
            ".reg" => self.registers(body),
            ".shared" | ".local" | ".param" | ".global" | ".const" => {
                let start = self.at;
                for variable in self.variables(word)? {
                    let name = self.name_after(start, &variable.name);
                    let symbol = Symbol::Variable(body.function.variables.len());
                    body.function.variables.push(variable);
                    if let Some(scope) = body.scopes.last_mut() {
                        scope.symbols.insert(name, symbol);
                    }
                }
                Ok(())
            }
            ".loc" => self.location(body),
            ".pragma" => self.skip_statement(),
            other => self.fail(format!("unknown directive `{other}`")),
        }
    }

    fn registers(&mut self, body: &mut Body<'s>) -> Parsed<()> {
        let name = self.word("a register type")?;
        let Some(ty) = name.strip_prefix('.').and_then(Type::parse) else {
            return self.fail(format!("registers of type `{name}` are not supported"));
        };
        loop {
            let name = self.word("a register's name")?;
            let first = body.function.registers.len();
            let count = if self.accept(b'<') {
                let count = self.int("a number of registers")?;
                self.expect(b'>')?;
                count.min(MAX_REGISTERS as u64 + 1) as usize
            } else {
                1
            };
            if first + count > MAX_REGISTERS {
                return self.fail(format!("more than {MAX_REGISTERS} registers"));
            }
            body.function.registers.resize(first + count, ty);
            if let Some(scope) = body.scopes.last_mut() {
                if self.tokens[self.at - 1].kind == Kind::Punct(b'>') {
                    scope.ranges.push((name, count, first));
                } else {
                    scope.symbols.insert(name, Symbol::Register(first));
                }
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

    fn statement(
        &mut self,
        module: &Module,
        body: &mut Body<'s>,
        guard: Option<(usize, bool)>,
        opcode: &str,
        line: u32,
    ) -> Parsed<()> {
        let mut operands = Vec::new();
        let call = opcode == "call" || opcode.starts_with("call.");
        while !self.accept(b';') {
            operands.push(self.operand(module, body, call, 0)?);
            if !self.accept(b',') {
                self.expect(b';')?;
                break;
            }
        }
        let source = body.source.clone().filter(|s| s.line > 0);
        body.statements.push(Statement { guard, opcode: opcode.into(), operands, line, source });
        Ok(())
    }

    fn operand(&mut self, module: &Module, body: &mut Body<'s>, call: bool, depth: usize) -> Parsed<Operand> {
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
                _ => self.fail("expected a number after `-`"),
            },
            Kind::Punct(b'!') => match self.operand(module, body, call, depth + 1)? {
                Operand::Register(register) => Ok(Operand::NotRegister(register)),
                _ => self.fail("`!` must stand before a predicate"),
            },
            Kind::Punct(b'[') => {
                let base = self.operand(module, body, call, depth + 1)?;
                self.expect(b']')?;
                Ok(match base {
                    Operand::Offset(base, offset) => Operand::Address(base, offset),
                    base => Operand::Address(Box::new(base), 0),
                })
            }
            Kind::Punct(b'{') => self.list(module, body, call, depth, b'}').map(Operand::Vector),
            Kind::Punct(b'(') => self.list(module, body, call, depth, b')').map(Operand::List),
            Kind::Word(word) => {
                let base = self.name(module, body, call, word, line);
                if self.accept(b'|') {
                    let second = self.operand(module, body, call, depth + 1)?;
                    return Ok(Operand::Pair(Box::new(base), Box::new(second)));
                }
                if self.accept(b'+') {
                    let negative = self.accept(b'-');
                    let offset = self.int("an offset")? as i64;
                    return Ok(Operand::Offset(Box::new(base), if negative { offset.wrapping_neg() } else { offset }));
                }
                if self.peek() == Some(Kind::Punct(b'-')) && matches!(self.peek_second(), Some(Kind::Int(_))) {
                    self.at += 1;
                    let offset = self.int("an offset")? as i64;
                    return Ok(Operand::Offset(Box::new(base), offset.wrapping_neg()));
                }
                Ok(base)
            }
            _ => {
                self.at -= 1;
                self.fail(format!("expected an operand {}", self.found()))
            }
        }
    }

    fn list(&mut self, module: &Module, body: &mut Body<'s>, call: bool, depth: usize, end: u8) -> Parsed<Vec<Operand>> {
        let mut out = Vec::new();
        if self.accept(end) {
            return Ok(out);
        }
        loop {
            out.push(self.operand(module, body, call, depth + 1)?);
            if !self.accept(b',') {
                self.expect(end)?;
                return Ok(out);
            }
        }
    }

    fn name(&mut self, module: &Module, body: &mut Body<'s>, call: bool, word: &'s str, line: u32) -> Operand {
        if word == "_" {
            return Operand::Sink;
        }
        if word == "WARP_SZ" {
            return Operand::Int(32);
        }
        match find(body, word) {
            Some(Symbol::Register(register)) => return Operand::Register(register),
            Some(Symbol::Variable(variable)) => return Operand::Local(variable),
            Some(Symbol::Table(table)) => return Operand::Table(table),
            None => {}
        }
        if let Some(index) = module.variables.iter().position(|v| v.name == word) {
            return Operand::Global(index);
        }
        if word.starts_with('%') {
            return Operand::Special(word.into());
        }
        if call || module.functions.iter().any(|f| f.name == word) {
            return Operand::Function(word.into());
        }
        Operand::Label(label_number(body, word, line))
    }
}

fn find(body: &Body<'_>, name: &str) -> Option<Symbol> {
    body.scopes.iter().rev().find_map(|scope| scope.find(name))
}

/// A number for one reference to a label, resolved when its scope closes.
fn label_number<'s>(body: &mut Body<'s>, name: &'s str, line: u32) -> usize {
    let number = body.function.labels.len();
    body.function.labels.push(None);
    if let Some(scope) = body.scopes.last_mut() {
        scope.pending.push((name, number, line));
    }
    number
}
