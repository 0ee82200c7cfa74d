//! The arguments of a launch, and what its buffers must hold afterwards.

use half::f16;
use ptxsim::{Kernel, Memory};
use std::collections::BTreeSet;

/// One argument: a buffer, or a number.
#[derive(Clone, Debug)]
pub struct Argument {
    /// Type of its elements: `f32`.
    element: String,
    buffer: bool,
    bytes: Vec<u8>,
    /// Whether anybody has written each byte.
    written: Vec<bool>,
}

/// How a buffer is compared with what is expected.
#[derive(Clone, Copy, Debug)]
enum Agreement {
    ToTheBit,
    Within(f64),
    InAnyOrder,
    /// Nothing is expected.
    Anything,
}

fn size(element: &str) -> usize {
    element[1..].parse::<usize>().unwrap_or_else(|_| panic!("no type `{element}`")) / 8
}

/// An element as a number; every value of the types that are used here is one.
fn decode(element: &str, bytes: &[u8]) -> f64 {
    let mut wide = [0; 8];
    wide[..bytes.len()].copy_from_slice(bytes);
    let bits = u64::from_le_bytes(wide);
    match element {
        "f16" => f16::from_bits(bits as u16).into(),
        "f32" => f32::from_bits(bits as u32).into(),
        "f64" => f64::from_bits(bits),
        "u8" | "u32" | "u64" => bits as f64,
        _ => panic!("no type `{element}`"),
    }
}

/// The element nearest to a number; an integer must be one.
fn encode(element: &str, value: f64) -> Vec<u8> {
    let bits = match element {
        "f16" => f16::from_f64(value).to_bits().into(),
        "f32" => (value as f32).to_bits().into(),
        "f64" => value.to_bits(),
        _ => value as u64,
    };
    let bytes = bits.to_le_bytes()[..size(element)].to_vec();
    assert!(element.starts_with('f') || decode(element, &bytes) == value, "{value} is no {element}");
    bytes
}

/// Random content, the same in each run. Floats are multiples of 1/1024 from -1 to 1, so that the sums and products of the
/// suite are exact, in whatever order they are made.
fn random(element: &str, argument: usize, index: usize) -> f64 {
    let seed = (argument as u64) << 32 | index as u64;
    let mixed = (seed ^ 0x5851_F42D).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 32;
    if element.starts_with('f') { (mixed % 2049) as f64 / 1024.0 - 1.0 } else { (mixed % 256) as f64 }
}

impl Argument {
    /// Argument `number` of an entry, as `ptxsim run --arg` takes it.
    fn parse(number: usize, spec: &str) -> Option<Argument> {
        let parts: Vec<&str> = spec.split(':').collect();
        let (element, count, content, buffer) = match parts[..] {
            ["buf", element, count, content] => (element, count.parse().ok()?, content, true),
            [element, value] => (element, 1, value, false),
            _ => return None,
        };
        let value = |i: usize| match content {
            "rand" if buffer => Some(random(element, number, i)),
            "iota" if buffer => Some(i as f64),
            "zero" | "undef" if buffer => Some(0.0),
            _ => content.parse().ok().filter(|_| !buffer),
        };
        let values = (0..count).map(value).collect::<Option<Vec<f64>>>()?;
        let bytes: Vec<u8> = values.into_iter().flat_map(|value| encode(element, value)).collect();
        Some(Argument { element: element.to_owned(), buffer, written: vec![content != "undef"; bytes.len()], bytes })
    }

    fn values(&self) -> Vec<f64> {
        self.bytes.chunks_exact(size(&self.element)).map(|bytes| decode(&self.element, bytes)).collect()
    }

    fn put(&mut self, index: usize, value: f64) {
        let bytes = encode(&self.element, value);
        let place = index * bytes.len()..(index + 1) * bytes.len();
        self.bytes[place.clone()].copy_from_slice(&bytes);
        self.written[place].fill(true);
    }
}

/// The arguments of a launch, as they are before it or after it.
#[derive(Clone, Debug)]
pub struct Arguments(Vec<Argument>);

impl Arguments {
    /// Those that a description names.
    pub fn parse(specs: &[String]) -> Arguments {
        let parse = |(i, spec): (usize, &String)| Argument::parse(i, spec).unwrap_or_else(|| panic!("cannot read `{spec}`"));
        Arguments(specs.iter().enumerate().map(parse).collect())
    }

    /// Puts the buffers into memory. Returns the addresses of all arguments, 0 for numbers, and the parameter block.
    pub fn place(&self, kernel: &Kernel, memory: &Memory) -> ptxsim::Result<(Vec<u64>, Vec<u8>)> {
        let parameters = kernel.parameters();
        assert_eq!(parameters.len(), self.0.len(), "arguments of {}", kernel.name());
        let mut block = vec![0; parameters.last().map_or(0, |last| last.offset + last.bytes) as usize];
        let mut addresses = Vec::new();
        for (argument, parameter) in self.0.iter().zip(parameters) {
            let address = if argument.buffer { memory.alloc(argument.bytes.len() as u64) } else { 0 };
            if argument.buffer && argument.written.iter().all(|&written| written) {
                memory.write(address, &argument.bytes)?;
            }
            let bytes = if argument.buffer { &address.to_le_bytes()[..] } else { &argument.bytes };
            assert_eq!(parameter.bytes as usize, bytes.len(), "parameter {} of {}", addresses.len(), kernel.name());
            block[parameter.offset as usize..][..bytes.len()].copy_from_slice(bytes);
            addresses.push(address);
        }
        Ok((addresses, block))
    }

    /// The same buffers with what is in memory now.
    pub fn read(&self, addresses: &[u64], memory: &Memory) -> ptxsim::Result<Arguments> {
        let mut after = self.clone();
        for (argument, &address) in after.0.iter_mut().zip(addresses).filter(|(argument, _)| argument.buffer) {
            memory.read(address, &mut argument.bytes)?;
            let all = memory.is_defined(address, argument.bytes.len() as u64)?;
            for (at, written) in (address..).zip(&mut argument.written) {
                *written = all || memory.is_defined(at, 1)?;
            }
        }
        Ok(after)
    }

    /// # Errors
    /// The first difference in what is written, to the bit.
    pub fn same(&self, other: &Arguments) -> Result<(), String> {
        let all = vec![Agreement::ToTheBit; self.0.len()];
        agree(other, self, &all)
    }

    /// The same with one element of one buffer wrong: the last, or one of some others.
    fn one_wrong(&self) -> impl Iterator<Item = (usize, Arguments)> {
        let places = self.0.iter().enumerate().filter(|(_, argument)| argument.buffer).flat_map(|(number, argument)| {
            let count = argument.values().len();
            (0..count).step_by(61).chain([count - 1]).map(move |index| (number, index))
        });
        places.map(|(number, index)| {
            let mut wrong = self.clone();
            let value = wrong.0[number].values()[index];
            wrong.0[number].put(index, if value == 77.0 { 78.0 } else { 77.0 });
            (number, wrong)
        })
    }
}

/// What a launch must leave in its buffers: what it found there, but for what is said otherwise.
#[derive(Debug)]
pub struct Outcome {
    /// The arguments before the launch, as numbers; none for what is undefined.
    before: Vec<Vec<f64>>,
    after: Arguments,
    agreements: Vec<Agreement>,
}

impl Outcome {
    /// Nothing is changed.
    pub fn of(before: &Arguments) -> Outcome {
        let defined = |argument: &Argument| if argument.written.contains(&false) { Vec::new() } else { argument.values() };
        Outcome {
            before: before.0.iter().map(defined).collect(),
            after: before.clone(),
            agreements: vec![Agreement::ToTheBit; before.0.len()],
        }
    }

    /// Each element of a buffer becomes `value` of the arguments before the launch and its index.
    pub fn each(&mut self, buffer: usize, value: impl Fn(&[Vec<f64>], usize) -> f64) -> &mut Outcome {
        let count = self.after.0[buffer].values().len();
        self.some(buffer, 0..count, value)
    }

    /// The elements of a range do.
    pub fn some(
        &mut self,
        buffer: usize,
        range: impl IntoIterator<Item = usize>,
        value: impl Fn(&[Vec<f64>], usize) -> f64,
    ) -> &mut Outcome {
        let argument = &mut self.after.0[buffer];
        for index in range {
            argument.put(index, value(&self.before, index));
        }
        self
    }

    /// A buffer may differ from what is expected by so much, where results are rounded on the way.
    pub fn within(&mut self, buffer: usize, difference: f64) -> &mut Outcome {
        self.agreements[buffer] = Agreement::Within(difference);
        self
    }

    /// The elements of a buffer may come in any order.
    pub fn in_any_order(&mut self, buffer: usize) -> &mut Outcome {
        self.agreements[buffer] = Agreement::InAnyOrder;
        self
    }

    /// Any content of a buffer will do.
    pub fn anything(&mut self, buffer: usize) -> &mut Outcome {
        self.agreements[buffer] = Agreement::Anything;
        self
    }

    /// Whether the same is expected of every run.
    pub fn depends_on_order(&self) -> bool {
        self.agreements.iter().any(|agreement| matches!(agreement, Agreement::InAnyOrder | Agreement::Anything))
    }

    /// How many buffers could be wrong without being seen.
    pub fn overlooked(&self) -> usize {
        assert_eq!(self.agrees(&self.after), Ok(()));
        let overlooked = self.after.one_wrong().filter(|(_, wrong)| self.agrees(wrong).is_ok());
        overlooked.map(|(number, _)| number).collect::<BTreeSet<_>>().len()
    }

    /// # Errors
    /// The first difference.
    pub fn agrees(&self, after: &Arguments) -> Result<(), String> {
        agree(after, &self.after, &self.agreements)
    }
}

fn agree(is: &Arguments, expected: &Arguments, agreements: &[Agreement]) -> Result<(), String> {
    for (number, ((is, expected), &agreement)) in is.0.iter().zip(&expected.0).zip(agreements).enumerate() {
        if is.written != expected.written {
            let at = is.written.iter().zip(&expected.written).position(|(is, expected)| is != expected).unwrap_or_default();
            let word = if is.written[at] { "written, and should not be" } else { "not written" };
            return Err(format!("byte {at} of argument {number} is {word}"));
        }
        let (mut is, mut should) = (is.values(), expected.values());
        if let Agreement::InAnyOrder = agreement {
            is.sort_by(f64::total_cmp);
            should.sort_by(f64::total_cmp);
        }
        let agree = |is: f64, should: f64| match agreement {
            Agreement::ToTheBit | Agreement::InAnyOrder => is.to_bits() == should.to_bits(),
            Agreement::Within(difference) => (is - should).abs() <= difference,
            Agreement::Anything => true,
        };
        if let Some(at) = is.iter().zip(&should).position(|(&is, &should)| !agree(is, should)) {
            let which = if let Agreement::InAnyOrder = agreement { "by size, element" } else { "element" };
            return Err(format!("{which} {at} of argument {number} is {}, not {}", is[at], should[at]));
        }
    }
    Ok(())
}
