//! Tokens to a [`Module`]: its directives, variables and the heads of functions. What an opcode means is decided in [`crate::ir`].

use super::body::{Body, Scope, Symbol};
use super::lexer::{Kind, Token, tokens};
use super::{Function, Module, Space, Type, Variable};
use crate::error::{Complaint, Parsed};
use std::collections::HashMap;

/// More bytes than any declared variable can have.
const MAX_BYTES: u64 = 1 << 32;
/// Nesting of braces and lists.
pub(super) const MAX_DEPTH: usize = 64;

/// Parses PTX text.
pub(crate) fn parse(source: &str) -> Parsed<Module> {
    let tokens = tokens(source)?;
    let mut parser = Parser { tokens: &tokens, at: 0, variables: HashMap::new(), functions: HashMap::new() };
    parser.module()
}

pub(super) struct Parser<'t, 's> {
    tokens: &'t [Token<'s>],
    at: usize,
    /// Variables of the module so far: their indices.
    pub variables: HashMap<&'s str, usize>,
    /// Functions so far, and whether they have a body.
    pub functions: HashMap<&'s str, bool>,
}

/// A token in an error.
pub(super) fn spelled(kind: Kind<'_>) -> String {
    match kind {
        Kind::Word(word) => format!("`{word}`"),
        Kind::Punct(punct) => format!("`{}`", punct as char),
        Kind::Text(text) => format!("\"{text}\""),
        Kind::Int(_) | Kind::F32(_) | Kind::F64(_) => "a number".into(),
    }
}

/// What stands before the name of a variable.
struct Form {
    element: Type,
    /// Elements of a `.v2` or `.v4`.
    lanes: u64,
    align: u64,
}

impl<'s> Parser<'_, 's> {
    pub(super) fn peek(&self) -> Option<Kind<'s>> {
        self.tokens.get(self.at).map(|t| t.kind)
    }

    pub(super) fn peek_second(&self) -> Option<Kind<'s>> {
        self.tokens.get(self.at + 1).map(|t| t.kind)
    }

    pub(super) fn line(&self) -> u32 {
        self.tokens.get(self.at).or(self.tokens.last()).map_or(1, |t| t.line)
    }

    /// An error about the next token.
    pub(super) fn fail<T>(&self, message: impl Into<String>) -> Parsed<T> {
        Err(Complaint::new(self.line(), message))
    }

    /// An error about the token that was read last.
    pub(super) fn refuse<T>(&self, message: impl Into<String>) -> Parsed<T> {
        let token = self.at.checked_sub(1).and_then(|last| self.tokens.get(last));
        Err(Complaint::new(token.map_or(1, |token| token.line), message))
    }

    pub(super) fn next(&mut self) -> Parsed<Kind<'s>> {
        match self.peek() {
            Some(kind) => {
                self.at += 1;
                Ok(kind)
            }
            None => self.fail("the file ends in the middle of a statement"),
        }
    }

    pub(super) fn accept(&mut self, punct: u8) -> bool {
        let found = self.peek() == Some(Kind::Punct(punct));
        self.at += usize::from(found);
        found
    }

    pub(super) fn expect(&mut self, punct: u8) -> Parsed<()> {
        if self.accept(punct) { Ok(()) } else { self.fail(format!("expected `{}` {}", punct as char, self.found())) }
    }

    pub(super) fn found(&self) -> String {
        match self.peek() {
            Some(kind) => format!("and found {}", spelled(kind)),
            None => "and the file ends".into(),
        }
    }

    pub(super) fn word(&mut self, what: &str) -> Parsed<&'s str> {
        match self.peek() {
            Some(Kind::Word(word)) => {
                self.at += 1;
                Ok(word)
            }
            _ => self.fail(format!("expected {what} {}", self.found())),
        }
    }

    pub(super) fn int(&mut self, what: &str) -> Parsed<u64> {
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
                other => self.refuse(format!("only 64-bit addresses are supported, not {other}")),
            },
            ".file" => self.file(module),
            ".section" => self.section(),
            ".extern" => match self.peek() {
                Some(Kind::Word(".global" | ".const")) => self.refuse("a variable of another file: there is only this one"),
                _ => Ok(()),
            },
            ".visible" | ".weak" | ".common" => Ok(()), // linkage means nothing to one module
            ".entry" => self.function(module, true, line),
            ".func" => self.function(module, false, line),
            space @ (".global" | ".const" | ".shared") => {
                for (name, variable) in self.variables(space)? {
                    match self.variables.get(name) {
                        // Every function that uses dynamic shared memory may declare it.
                        Some(&other) if variable.dynamic && module.variables[other].dynamic => continue,
                        Some(_) => return Err(Complaint::new(variable.line, format!("`{name}` is declared twice"))),
                        None => drop(self.variables.insert(name, module.variables.len())),
                    }
                    module.variables.push(variable);
                }
                Ok(())
            }
            ".pragma" => self.skip_statement(),
            other => self.refuse(format!("unknown directive `{other}`")),
        }
    }

    pub(super) fn skip_statement(&mut self) -> Parsed<()> {
        while self.next()? != Kind::Punct(b';') {}
        Ok(())
    }

    fn file(&mut self, module: &mut Module) -> Parsed<()> {
        let index = self.int("a file number")?;
        let Kind::Text(path) = self.next()? else { return self.refuse("expected a quoted path") };
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
    pub(super) fn variables(&mut self, space: &str) -> Parsed<Vec<(&'s str, Variable)>> {
        let form = self.form()?;
        let mut out = vec![self.declarator(space, &form)?];
        while self.accept(b',') {
            out.push(self.declarator(space, &form)?);
        }
        self.expect(b';')?;
        Ok(out)
    }

    /// `[.align N] [.v2|.v4] .type [.ptr ...]`.
    fn form(&mut self) -> Parsed<Form> {
        let (mut align, mut lanes, mut element, mut pointer) = (None, 1, None, false);
        while let Some(Kind::Word(word)) = self.peek() {
            let Some(name) = word.strip_prefix('.') else { break };
            self.at += 1;
            match name {
                "align" => {
                    let bytes = self.int("an alignment")?;
                    if !bytes.is_power_of_two() || bytes > 1 << 16 {
                        return self.refuse(format!("alignment {bytes} is not a sensible power of two"));
                    }
                    // Behind `.ptr` it is that of what the parameter points to.
                    if !pointer {
                        align = Some(bytes);
                    }
                }
                "ptr" => pointer = true,
                "v2" => lanes = 2,
                "v4" => lanes = 4,
                "global" | "const" | "shared" | "local" | "attribute" => {}
                _ => match Type::parse(name) {
                    Some(ty) if ty != Type::Pred => element = Some(ty),
                    _ => return self.refuse(format!("unknown type or attribute `.{name}` of a variable")),
                },
            }
        }
        let Some(element) = element else { return self.fail("a variable without a type") };
        Ok(Form { element, lanes, align: align.unwrap_or(element.bytes() * lanes) })
    }

    /// `name [dims] [= init]`, without what ends it.
    fn declarator(&mut self, space: &str, form: &Form) -> Parsed<(&'s str, Variable)> {
        let line = self.line();
        let name = self.word("a variable's name")?;
        let (mut bytes, mut dynamic) = (form.element.bytes() * form.lanes, false);
        while self.accept(b'[') {
            if self.accept(b']') {
                dynamic = true;
                continue;
            }
            let extent = self.int("an array extent")?;
            bytes = match bytes.checked_mul(extent) {
                Some(bytes) if bytes <= MAX_BYTES => bytes,
                _ => return self.refuse(format!("`{name}` is larger than any memory")),
            };
            self.expect(b']')?;
        }
        let mut init = Vec::new();
        if self.accept(b'=') {
            self.initialiser(form.element, &mut init, 0)?;
        }
        if dynamic {
            bytes = init.len() as u64;
        }
        if init.len() as u64 > bytes {
            return self.refuse(format!("`{name}` has more initial values than elements"));
        }
        let space = match space {
            ".global" => Space::Global,
            ".const" => Space::Const,
            ".shared" => Space::Shared,
            ".local" => Space::Local,
            _ => Space::Param,
        };
        Ok((name, Variable { space, align: form.align, bytes, dynamic: dynamic && bytes == 0, init, line }))
    }

    fn initialiser(&mut self, element: Type, out: &mut Vec<u8>, depth: usize) -> Parsed<()> {
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
        let sign = |bit: u32| u64::from(negative) << bit;
        let bits = match (self.next()?, element) {
            (Kind::Int(0), _) => 0,
            (Kind::Int(value), _) if element.is_integer() => {
                if negative {
                    value.wrapping_neg()
                } else {
                    value
                }
            }
            (Kind::F32(bits), Type::F32 | Type::B32) => u64::from(bits) ^ sign(31),
            (Kind::F64(bits), Type::F32) => u64::from((f64::from_bits(bits) as f32).to_bits()) ^ sign(31),
            (Kind::F64(bits), Type::F64 | Type::B64) => bits ^ sign(63),
            _ => return self.refuse("an initial value must be a number of the variable's type"),
        };
        match element.bytes() <= 8 {
            true => out.extend_from_slice(&bits.to_le_bytes()[..element.bytes() as usize]),
            false => return self.refuse("initial values of 128 bits are not supported"),
        }
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
            required_block: None,
            line,
        };
        let mut scope = Scope::default();
        if !entry && self.accept(b'(') {
            function.results = self.parameters(&mut function.variables, &mut scope)?;
        }
        let name = self.word("a function's name")?;
        function.name = name.into();
        if self.accept(b'(') {
            function.parameters = self.parameters(&mut function.variables, &mut scope)?;
        }
        self.tuning(&mut function)?;
        if !self.accept(b';') {
            self.expect(b'{')?;
            let mut body = Body::new(function, scope);
            self.block(&mut body)?;
            function = body.into_function();
        }
        let defined = self.functions.entry(name).or_default();
        if *defined && function.body.is_some() {
            return Err(Complaint::new(line, format!("`{name}` is defined twice")));
        }
        *defined |= function.body.is_some();
        module.functions.push(function);
        Ok(())
    }

    /// `.maxntid`, `.reqntid` and other directives between a function's head and its body.
    fn tuning(&mut self, function: &mut Function) -> Parsed<()> {
        while let Some(Kind::Word(word)) = self.peek() {
            self.at += 1;
            match word {
                ".maxntid" => {
                    let threads = self.extents()?.iter().fold(1, |all: u64, &n| all.saturating_mul(n));
                    function.max_threads = Some(threads);
                }
                ".reqntid" => function.required_block = Some(self.extents()?),
                ".minnctapersm" | ".maxnctapersm" | ".maxnreg" | ".abi_preserve" => self.int("a number").map(drop)?,
                ".noreturn" => {}
                other => return self.refuse(format!("unknown directive `{other}` of a function")),
            }
        }
        Ok(())
    }

    /// Threads of a block along up to three axes.
    fn extents(&mut self) -> Parsed<[u64; 3]> {
        let mut out = [1; 3];
        for axis in 0.. {
            match out.get_mut(axis) {
                Some(extent) => *extent = self.int("a number of threads")?,
                None => return self.refuse("a block has three extents at most"),
            }
            if !self.accept(b',') {
                break;
            }
        }
        Ok(out)
    }

    fn parameters(&mut self, variables: &mut Vec<Variable>, scope: &mut Scope<'s>) -> Parsed<Vec<usize>> {
        let mut out = Vec::new();
        if self.accept(b')') {
            return Ok(out);
        }
        loop {
            match self.word("a parameter")? {
                ".param" => {}
                other => return self.refuse(format!("parameters in `{other}` are not supported, only in `.param`")),
            }
            let form = self.form()?;
            let (name, variable) = self.declarator(".param", &form)?;
            scope.declare(name, Symbol::Variable(variables.len()), variable.line)?;
            out.push(variables.len());
            variables.push(variable);
            if !self.accept(b',') {
                self.expect(b')')?;
                return Ok(out);
            }
        }
    }
}
