//! `--arg`: buffers and scalars, and how they fill a kernel's parameters.

use ptxsim::number::format::{f32_to_bf16, f32_to_f16};
use ptxsim::{Kernel, Memory};

/// Element types of arguments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    F16,
    Bf16,
    F32,
    F64,
    I8,
    U8,
    I32,
    U32,
    I64,
    U64,
}

impl Type {
    fn parse(name: &str) -> Option<Type> {
        Some(match name {
            "f16" => Type::F16,
            "bf16" => Type::Bf16,
            "f32" => Type::F32,
            "f64" => Type::F64,
            "i8" => Type::I8,
            "u8" => Type::U8,
            "i32" => Type::I32,
            "u32" => Type::U32,
            "i64" => Type::I64,
            "u64" => Type::U64,
            _ => return None,
        })
    }

    fn bytes(self) -> usize {
        match self {
            Type::I8 | Type::U8 => 1,
            Type::F16 | Type::Bf16 => 2,
            Type::F32 | Type::I32 | Type::U32 => 4,
            Type::F64 | Type::I64 | Type::U64 => 8,
        }
    }

    /// A number of this type, as little-endian bytes; floats are rounded.
    fn encode(self, value: f64) -> u64 {
        match self {
            Type::F16 => f32_to_f16(value as f32).into(),
            Type::Bf16 => f32_to_bf16(value as f32).into(),
            Type::F32 => (value as f32).to_bits().into(),
            Type::F64 => value.to_bits(),
            Type::I8 | Type::I32 | Type::I64 => value as i64 as u64,
            Type::U8 | Type::U32 | Type::U64 => value as u64,
        }
    }

    /// Floats are uniform in [-1, 1); integers below 256 in magnitude, as far as the type goes.
    fn random(self, bits: u64) -> u64 {
        let unit = (bits >> 11) as f64 / (1u64 << 53) as f64;
        match self {
            Type::F16 | Type::Bf16 | Type::F32 | Type::F64 => self.encode(2.0 * unit - 1.0),
            Type::I8 => bits & 0xFF,
            Type::I32 | Type::I64 => self.encode((512.0 * unit - 256.0).floor()),
            Type::U8 | Type::U32 | Type::U64 => self.encode((256.0 * unit).floor()),
        }
    }

    fn scalar(self, text: &str) -> Option<u64> {
        let integer = |low: i128, high: i128| {
            let value = match text.strip_prefix("0x") {
                Some(hex) => i128::from_str_radix(hex, 16).ok(),
                None => text.parse::<i128>().ok(),
            };
            value.filter(|value| (low..=high).contains(value)).map(|value| value as u64)
        };
        match self {
            Type::I8 => integer(i8::MIN.into(), i8::MAX.into()),
            Type::U8 => integer(0, u8::MAX.into()),
            Type::I32 => integer(i32::MIN.into(), i32::MAX.into()),
            Type::U32 => integer(0, u32::MAX.into()),
            Type::I64 => integer(i64::MIN.into(), i64::MAX.into()),
            Type::U64 => integer(0, u64::MAX.into()),
            _ => text.parse().ok().map(|value| self.encode(value)),
        }
    }
}

/// What a buffer holds at the start.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Content {
    Random,
    Zero,
    Iota,
    Undefined,
    File(String),
}

/// One `--arg`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    spec: String,
    kind: Kind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    Buffer { ty: Type, count: u64, content: Content },
    Scalar { bytes: Vec<u8> },
}

impl Argument {
    /// Parses a SPEC.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(spec: &str) -> Result<Argument, String> {
        let bad = |what: &str| format!("--arg {spec}: {what}; it takes buf:TYPE:COUNT:rand|zero|iota|undef|FILE or TYPE:VALUE");
        let parts: Vec<&str> = spec.splitn(4, ':').collect();
        let known = |name: &str| Type::parse(name).ok_or_else(|| bad(&format!("unknown type `{name}`")));
        let kind = match parts[..] {
            ["buf", ty, count, content] => {
                let ty = known(ty)?;
                let count: u64 = count.parse().map_err(|_| bad(&format!("`{count}` is not a number")))?;
                if count.checked_mul(ty.bytes() as u64).is_none_or(|bytes| bytes > 1 << 35) {
                    return Err(bad("more than 32 GiB"));
                }
                let content = match content {
                    "rand" => Content::Random,
                    "zero" => Content::Zero,
                    "iota" => Content::Iota,
                    "undef" => Content::Undefined,
                    "" => return Err(bad("no content")),
                    file => Content::File(file.into()),
                };
                Kind::Buffer { ty, count, content }
            }
            [ty, value] if ty != "buf" => {
                let ty = known(ty)?;
                let bits = ty.scalar(value).ok_or_else(|| bad(&format!("`{value}` is not a value of that type")))?;
                Kind::Scalar { bytes: bits.to_le_bytes()[..ty.bytes()].to_vec() }
            }
            _ => return Err(bad("not of a known form")),
        };
        Ok(Argument { spec: spec.into(), kind })
    }

    /// Whether it is a buffer, and not a number.
    pub fn is_buffer(&self) -> bool {
        matches!(self.kind, Kind::Buffer { .. })
    }

    /// Allocates and fills a buffer. Returns its address and size.
    fn place(&self, memory: &Memory, seed: u64) -> Result<Option<(u64, u64)>, String> {
        let Kind::Buffer { ty, count, content } = &self.kind else { return Ok(None) };
        let bytes = count * ty.bytes() as u64;
        let address = memory.alloc(bytes);
        let fill = |value: &mut dyn FnMut(u64) -> u64| -> Vec<u8> {
            (0..*count).flat_map(|i| value(i).to_le_bytes().into_iter().take(ty.bytes())).collect()
        };
        let mut state = seed ^ 0x5851_F42D_4C95_7F2D;
        let mut random = || {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            let mixed = (state ^ state >> 29).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed ^ mixed >> 32
        };
        let data = match content {
            Content::Undefined => return Ok(Some((address, bytes))),
            Content::Zero => vec![0; bytes as usize],
            Content::Iota => fill(&mut |i| ty.encode(i as f64)),
            Content::Random => fill(&mut |_| ty.random(random())),
            Content::File(file) => {
                let data = std::fs::read(file).map_err(|error| format!("--arg {}: {file}: {error}", self.spec))?;
                if data.len() as u64 != bytes {
                    return Err(format!("--arg {}: {file} has {} bytes, not {bytes}", self.spec, data.len()));
                }
                data
            }
        };
        memory.write(address, &data).map_err(|error| error.to_string())?;
        Ok(Some((address, bytes)))
    }
}

/// Whether an argument can still be a member of the struct whose bytes `at..end` are not filled.
fn fits(argument: &Argument, at: usize, end: usize) -> bool {
    let bytes = match &argument.kind {
        Kind::Scalar { bytes } => bytes.len(),
        Kind::Buffer { .. } => 8,
    };
    at.next_multiple_of(bytes) + bytes <= end
}

/// A parameter block and the buffers it points to.
pub struct Parameters {
    /// The bytes that the kernel's `.param` space holds.
    pub block: Vec<u8>,
    /// Address and size of each argument that is a buffer.
    pub buffers: Vec<Option<(u64, u64)>>,
}

impl Parameters {
    /// Places buffers in `memory` and fills the kernel's parameters. Random buffers differ from each other.
    ///
    /// # Errors
    /// If the arguments do not fit the parameters, or a file cannot be read.
    pub fn place(kernel: &Kernel, arguments: &[Argument], memory: &Memory, seed: u64) -> Result<Parameters, String> {
        let mut buffers = Vec::new();
        for (index, argument) in arguments.iter().enumerate() {
            buffers.push(argument.place(memory, seed.wrapping_add(index as u64 * 0x9E37_79B9))?);
        }
        let all = kernel.parameters();
        let mut block = vec![0; all.last().map_or(0, |p| p.offset + p.bytes) as usize];
        let mut given = arguments.iter().zip(&buffers);
        for (number, parameter) in all.iter().enumerate() {
            let end = (parameter.offset + parameter.bytes) as usize;
            let mut at = parameter.offset as usize;
            while at < end {
                // What is left of a full struct is padding, less than its alignment, and filled by no argument. A number has none.
                let begun = at > parameter.offset as usize && parameter.bytes > parameter.align;
                let padding = begun && ((end - at) as u64) < parameter.align;
                if padding && given.clone().next().is_none_or(|next| !fits(next.0, at, end)) {
                    break;
                }
                let Some((argument, buffer)) = given.next() else {
                    let (left, bytes) = (end - at, parameter.bytes);
                    let what = format!("{left} of the {bytes} bytes of parameter {number}, from 0, have no --arg");
                    return Err(format!("{} takes {} parameters; {what}", kernel.name(), all.len()));
                };
                let bytes = match (&argument.kind, buffer) {
                    (Kind::Scalar { bytes }, _) => bytes.clone(),
                    (_, Some((address, _))) => address.to_le_bytes().to_vec(),
                    _ => Vec::new(),
                };
                at = at.next_multiple_of(bytes.len().max(1));
                if at + bytes.len() > end {
                    return Err(format!("--arg {}: parameter {number} has {} bytes only", argument.spec, parameter.bytes));
                }
                block[at..at + bytes.len()].copy_from_slice(&bytes);
                at += bytes.len();
            }
        }
        match given.next() {
            Some((extra, _)) => Err(format!("--arg {}: {} takes {} parameters only", extra.spec, kernel.name(), all.len())),
            None => Ok(Parameters { block, buffers }),
        }
    }
}
