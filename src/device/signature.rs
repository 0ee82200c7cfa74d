//! The parameters of a kernel, as its PTX declares them.

use crate::{Error, Result};

/// One parameter: where it lies in the parameter block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Param {
    pub offset: usize,
    pub size: usize,
    pub align: usize,
    /// A struct, which PTX knows as an array of bytes; else a number or an address.
    pub is_struct: bool,
}

/// The parameters of an entry, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Signature {
    pub params: Vec<Param>,
}

impl Signature {
    /// Reads the parameter list of `.visible .entry entry(...)` (PTX ISA 9.0, 5.1.6 and 7.1).
    ///
    /// # Errors
    /// [`Error::Launch`] if there is no such entry or its list is not what nvcc writes.
    pub fn parse(ptx: &str, entry: &'static str) -> Result<Signature> {
        let fail = |message: String| Error::launch(entry, message);
        let list = parameter_list(ptx, entry).ok_or_else(|| fail("its PTX has no such entry".into()))?;
        let mut params = Vec::new();
        let mut end = 0usize;
        for declaration in list.split(',').map(str::trim).filter(|declaration| !declaration.is_empty()) {
            let mut param = extent(declaration).ok_or_else(|| fail(format!("unknown parameter `{declaration}`")))?;
            param.offset = end.next_multiple_of(param.align);
            end = param.offset + param.size;
            params.push(param);
        }
        Ok(Signature { params })
    }

    /// Bytes of the parameter block.
    pub fn bytes(&self) -> usize {
        self.params.last().map_or(0, |last| last.offset + last.size)
    }
}

/// What stands between the parentheses after the name.
fn parameter_list<'p>(ptx: &'p str, entry: &str) -> Option<&'p str> {
    ptx.match_indices(".entry").find_map(|(at, keyword)| {
        let rest = ptx[at + keyword.len()..].trim_start().strip_prefix(entry)?.trim_start();
        rest.strip_prefix('(')?.split_once(')').map(|(list, _)| list)
    })
}

/// A parameter at no offset yet, from `.param .u64 .ptr .global .align 1 name` or `.param .align 8 .b8 name[24]`.
fn extent(declaration: &str) -> Option<Param> {
    let mut words = declaration.split_whitespace();
    if words.next()? != ".param" {
        return None;
    }
    let mut word = words.next()?;
    let mut align = None;
    if word == ".align" {
        align = Some(words.next()?.parse::<usize>().ok().filter(|align| align.is_power_of_two())?);
        word = words.next()?;
    }
    let bits: usize = word.strip_prefix('.')?.strip_prefix(['b', 'u', 's', 'f'])?.parse().ok()?;
    let element = (bits.is_power_of_two() && (8..=64).contains(&bits)).then_some(bits / 8)?;
    let name = words.next_back()?;
    let count = match name.split_once('[') {
        Some((_, count)) => count.strip_suffix(']')?.parse().ok()?,
        None => 1,
    };
    Some(Param { offset: 0, size: element * count, align: align.unwrap_or(element), is_struct: name.contains('[') })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn extents(ptx: &str, entry: &'static str) -> Vec<(usize, usize, usize)> {
        Signature::parse(ptx, entry).unwrap().params.iter().map(|p| (p.offset, p.size, p.align)).collect()
    }

    #[test]
    fn reads_what_nvcc_writes() {
        let ptx = "//\n.version 9.0\n.target sm_80\n.address_size 64\n\n\t// .globl\tadd_f16\n\
            .visible .entry add_f16_wide(\n)\n{\n}\n\
            .visible .entry add_f16(\n\t.param .u64 add_f16_param_0,\n\t.param .u64 .ptr .global .align 1 add_f16_param_1,\n\
            \t.param .u32 add_f16_param_2,\n\t.param .align 8 .b8 add_f16_param_3[20]\n)\n.maxntid 256, 1, 1\n{\n\tret;\n}\n\
            .visible .entry scalars(.param .f32 a, .param .u8 b, .param .align 64 .b8 c[128])\n{\n}\n";
        assert_eq!(extents(ptx, "add_f16"), [(0, 8, 8), (8, 8, 8), (16, 4, 4), (24, 20, 8)]);
        assert_eq!(Signature::parse(ptx, "add_f16").unwrap().bytes(), 44);
        assert_eq!(extents(ptx, "add_f16_wide"), []);
        assert_eq!(extents(ptx, "scalars"), [(0, 4, 4), (4, 1, 1), (64, 128, 64)]);
    }

    #[test]
    fn says_what_it_does_not_know() {
        let error = Signature::parse(".visible .entry add(\n)\n{}", "mul").unwrap_err().to_string();
        assert!(error.contains("mul") && error.contains("no such entry"), "{error}");
        for list in [".param .texref t", ".reg .u64 x", ".param .align 3 .b8 x[4]", ".param .b8 x[", ".param", ".param .b128 x"] {
            let error = Signature::parse(&format!(".entry k({list})"), "k").unwrap_err().to_string();
            assert!(error.contains(list), "{list}: {error}");
        }
    }
}
