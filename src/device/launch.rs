//! One launch of a kernel: what, how large, with which arguments; checked against the kernel's own parameter list.

use super::backend::Geometry;
use super::kernels::Entry;
use super::signature::{Param, Signature};
use super::tensor::Tensor;
use crate::tensor::DType;
use crate::{Error, Result};
use bytemuck::Pod;

/// The struct of plain numbers that a kernel takes as its last argument: `#[repr(C)]`, the twin of one in its `.cu` file.
///
/// `bytemuck` refuses structs with gaps, and a launch compares size and alignment with those in the PTX.
pub trait Params: Pod {
    /// Its name in the `.cu` file, for errors.
    const NAME: &'static str;
    /// Its fields in order, and where each begins.
    const FIELDS: &'static [(&'static str, usize)];
}

/// `params! { struct AddParams { count: u64 } }`: the struct, laid out as in C, and its [`Params`].
macro_rules! params {
    ($(#[$attribute:meta])* $visibility:vis struct $name:ident { $($(#[$note:meta])* $seen:vis $field:ident: $type:ty),* $(,)? }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, bytemuck::Pod, bytemuck::Zeroable)]
        #[repr(C)]
        $visibility struct $name {
            $($(#[$note])* $seen $field: $type),*
        }

        impl $crate::device::Params for $name {
            const NAME: &'static str = stringify!($name);
            const FIELDS: &'static [(&'static str, usize)] = &[$((stringify!($field), std::mem::offset_of!($name, $field))),*];
        }
    };
}
pub(crate) use params;

/// The entries of a kernel that exists for each storage type.
#[derive(Clone, Copy, Debug)]
pub struct Entries {
    /// For tensors of f16.
    pub f16: &'static str,
    /// For tensors of bf16.
    pub bf16: &'static str,
}

impl Entries {
    /// The entry for tensors of `dtype`.
    ///
    /// # Errors
    /// [`Error::Launch`] for a type that kernels do not store.
    pub fn of(&self, dtype: DType) -> Result<&'static str> {
        match dtype {
            DType::F16 => Ok(self.f16),
            DType::BF16 => Ok(self.bf16),
            DType::F32 | DType::U8 | DType::U32 => Err(Error::launch(self.f16, format!("there is no such kernel for {dtype}"))),
        }
    }

    /// A size as these kernels take it.
    ///
    /// # Errors
    /// [`Error::Launch`] naming it if it is above `most`.
    pub(crate) fn size(&self, name: &str, value: usize, most: u32) -> Result<u32> {
        let fit = u32::try_from(value).ok().filter(|&value| value <= most);
        fit.ok_or_else(|| Error::launch(self.f16, format!("{name}: {value}, and {most} is the most that it takes")))
    }
}

/// The largest size of kernels that name no limit of their own: sums of it and the size of a tile stay below 2^32.
pub(crate) const MOST: u32 = i32::MAX as u32;

/// `entries!("add")`: the entries `add_f16` and `add_bf16`.
macro_rules! entries {
    ($name:literal) => {
        $crate::device::Entries { f16: concat!($name, "_f16"), bf16: concat!($name, "_bf16") }
    };
}
pub(crate) use entries;

/// Most tensors that a kernel takes.
const MOST_TENSORS: usize = 12;

/// Largest parameter block.
pub(super) const MOST_BYTES: usize = 512;

/// A launch in the making: arguments in the order of the kernel, outputs, inputs, then one [`Params`].
///
/// It borrows them: memory of a tensor that died would be that of another one by the time of the launch.
#[must_use = "a launch does nothing until it is enqueued"]
#[derive(Debug)]
pub struct Launch<'a> {
    entry: &'static str,
    /// Element type of tensors for which no other is named.
    dtype: DType,
    geometry: Geometry,
    addresses: [u64; MOST_TENSORS],
    tensors: usize,
    /// The first tensor of another type than the kernel takes there: its place, the types of both.
    misfit: Option<(usize, DType, DType)>,
    params: Option<Struct<'a>>,
}

#[derive(Clone, Copy, Debug)]
struct Struct<'a> {
    name: &'static str,
    align: usize,
    bytes: &'a [u8],
}

impl<'a> Launch<'a> {
    /// A launch of the entry for tensors of `dtype`, over `grid` blocks of `block` threads.
    ///
    /// # Errors
    /// As [`Entries::of`].
    pub fn new(entries: &Entries, dtype: DType, grid: [u32; 3], block: [u32; 3]) -> Result<Launch<'a>> {
        let (entry, geometry) = (entries.of(dtype)?, Geometry { grid, block, shared: 0 });
        Ok(Launch { entry, dtype, geometry, addresses: [0; MOST_TENSORS], tensors: 0, misfit: None, params: None })
    }

    /// Bytes of dynamic shared memory of each block.
    pub fn shared(mut self, bytes: u32) -> Launch<'a> {
        self.geometry.shared = bytes;
        self
    }

    /// The next argument: a tensor that the kernel writes all of.
    ///
    /// # Panics
    /// If it is a view of a [`crate::device::Buffer`].
    pub fn output(self, tensor: &'a mut Tensor<'_>) -> Launch<'a> {
        let dtype = self.dtype;
        self.output_of(dtype, tensor)
    }

    /// As [`Launch::output`], where the kernel writes elements of another type.
    ///
    /// # Panics
    /// As [`Launch::output`].
    pub fn output_of(self, dtype: DType, tensor: &'a mut Tensor<'_>) -> Launch<'a> {
        tensor.assert_writable();
        self.input_of(dtype, tensor)
    }

    /// As [`Launch::output_of`], or a null pointer.
    ///
    /// # Panics
    /// As [`Launch::output`].
    pub fn optional_output_of(self, dtype: DType, tensor: Option<&'a mut Tensor<'_>>) -> Launch<'a> {
        match tensor {
            Some(tensor) => self.output_of(dtype, tensor),
            None => self.argument(0),
        }
    }

    /// The next two arguments, an output and an input: a tensor whose elements the kernel reads and replaces.
    ///
    /// # Panics
    /// As [`Launch::output`].
    pub fn in_place(self, tensor: &'a mut Tensor<'_>) -> Launch<'a> {
        tensor.assert_writable();
        self.input(tensor).input(tensor)
    }

    /// The next argument: a tensor that the kernel reads.
    pub fn input(self, tensor: &'a Tensor<'_>) -> Launch<'a> {
        let dtype = self.dtype;
        self.input_of(dtype, tensor)
    }

    /// As [`Launch::input`], where the kernel reads elements of another type.
    pub fn input_of(mut self, dtype: DType, tensor: &'a Tensor<'_>) -> Launch<'a> {
        if tensor.dtype() != dtype {
            self.misfit.get_or_insert((self.tensors, dtype, tensor.dtype()));
        }
        self.argument(tensor.address())
    }

    /// As [`Launch::input`], from element `start` of the tensor on.
    ///
    /// # Panics
    /// If it has no such element.
    pub fn input_from(self, tensor: &'a Tensor<'_>, start: usize) -> Launch<'a> {
        assert!(start < tensor.shape().len(), "element {start} of {tensor:?}");
        let place = self.tensors;
        let mut launch = self.input(tensor);
        if let Some(address) = launch.addresses.get_mut(place).filter(|address| **address != 0) {
            *address += (start * tensor.dtype().size()) as u64;
        }
        launch
    }

    /// The next argument: a tensor that the kernel reads, or a null pointer.
    pub fn optional(self, tensor: Option<&'a Tensor<'_>>) -> Launch<'a> {
        let dtype = self.dtype;
        self.optional_of(dtype, tensor)
    }

    /// As [`Launch::optional`], where the kernel reads elements of another type.
    pub fn optional_of(self, dtype: DType, tensor: Option<&'a Tensor<'_>>) -> Launch<'a> {
        match tensor {
            Some(tensor) => self.input_of(dtype, tensor),
            None => self.argument(0),
        }
    }

    /// The last argument.
    pub fn params<P: Params>(mut self, params: &'a P) -> Launch<'a> {
        self.params = Some(Struct { name: P::NAME, align: align_of::<P>(), bytes: bytemuck::bytes_of(params) });
        self
    }

    fn argument(mut self, address: u64) -> Launch<'a> {
        if let Some(slot) = self.addresses.get_mut(self.tensors) {
            *slot = address;
        }
        self.tensors += 1; // one too many is an error of `pack`
        self
    }

    pub(super) fn entry(&self) -> &'static str {
        self.entry
    }

    pub(super) fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Checks the launch against the parameters of its kernel, and packs them.
    ///
    /// # Errors
    /// [`Error::Launch`] naming the entry, what it takes and what it was given.
    pub(super) fn pack(&self, signature: &Signature) -> Result<Arguments> {
        let fail = |message: String| Err(Error::launch(self.entry, message));
        let params = &signature.params;
        let given = self.tensors + usize::from(self.params.is_some());
        if given != params.len() || self.tensors > MOST_TENSORS {
            let message = format!("it takes {} arguments, and {given} were given: {}", params.len(), self.describe());
            return fail(message);
        }
        if let Some((place, expected, found)) = self.misfit {
            return fail(format!("argument {place} is a tensor of {found}, but the kernel takes {expected} there"));
        }
        if signature.bytes() > MOST_BYTES {
            return fail(format!("its parameters take {} bytes; {MOST_BYTES} are the most", signature.bytes()));
        }
        let mut block = Arguments { bytes: [0; MOST_BYTES], len: signature.bytes() };
        for (i, (param, address)) in params.iter().zip(&self.addresses[..self.tensors]).enumerate() {
            if param.size != 8 || param.is_struct {
                let kind = if param.is_struct { "a struct" } else { "a number" };
                return fail(format!("argument {i} is a tensor, but the kernel takes {kind} of {} bytes there", param.size));
            }
            block.put(param, &address.to_le_bytes());
        }
        if let (Some(given), Some(param)) = (self.params, params.last()) {
            if (param.size, param.align, param.is_struct) != (given.bytes.len(), given.align, true) {
                let message = format!(
                    "{} has {} bytes aligned to {}, but the kernel takes {} aligned to {}",
                    given.name,
                    given.bytes.len(),
                    given.align,
                    param.size,
                    param.align
                );
                return fail(message);
            }
            block.put(param, given.bytes);
        }
        Ok(block)
    }

    /// Checks the geometry: the limits of every GPU (CUDA programming guide, "Compute Capabilities"), those of the kernel, and the
    /// `shared_limit` of this GPU.
    ///
    /// # Errors
    /// [`Error::Launch`] naming the entry, the geometry and the limit.
    pub(super) fn check_geometry(&self, kernel: &Entry, shared_limit: u32) -> Result<()> {
        let Geometry { grid, block, shared } = self.geometry;
        let fail = |reason: String| Err(Error::launch(self.entry, format!("{}: {reason}", self.geometry)));
        let empty = grid.contains(&0) || block.contains(&0);
        let blocks_fit = grid[0] <= i32::MAX as u32 && grid[1].max(grid[2]) <= u32::from(u16::MAX);
        let threads = block.iter().fold(1u64, |threads, &extent| threads.saturating_mul(extent.into()));
        if empty || !blocks_fit || threads > 1024 || block[2] > 64 {
            return fail("a GPU runs 1 to 2147483647 x 65535 x 65535 blocks of 1 to 1024 threads, 64 of them along z".into());
        }
        if let Some(most) = kernel.max_threads.filter(|&most| threads > u64::from(most)) {
            return fail(format!("the kernel is built for at most {most} threads"));
        }
        if u64::from(kernel.static_shared) + u64::from(shared) > u64::from(shared_limit) {
            return fail(format!(
                "with {} bytes of its own that is more than the {shared_limit} of this GPU",
                kernel.static_shared
            ));
        }
        Ok(())
    }

    fn describe(&self) -> String {
        let tensors = format!("{} tensors", self.tensors);
        match self.params {
            Some(params) => format!("{tensors} and {}", params.name),
            None => tensors,
        }
    }
}

/// A packed parameter block.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Arguments {
    bytes: [u8; MOST_BYTES],
    len: usize,
}

impl Arguments {
    fn put(&mut self, param: &Param, bytes: &[u8]) {
        self.bytes[param.offset..param.offset + param.size].copy_from_slice(bytes);
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    params! {
        struct AddParams {
            count: u64,
            scale: f32,
            flags: u32,
        }
    }

    const PARAMS: AddParams = AddParams { count: 0x0102_0304_0506_0708, scale: 1.0, flags: 0xA0B0_C0D0 };

    fn signature(list: &str) -> Signature {
        Signature::parse(&format!(".visible .entry add_f16({list})"), "add_f16").unwrap()
    }

    fn of<'a>(grid: [u32; 3], block: [u32; 3]) -> Launch<'a> {
        Launch::new(&entries!("add"), DType::F16, grid, block).unwrap()
    }

    fn launch<'a>() -> Launch<'a> {
        of([4, 1, 1], [256, 1, 1]).argument(0x1122_3344_5566_7788).argument(0)
    }

    #[test]
    fn arguments_lie_where_the_kernel_reads_them() {
        let signature = signature(".param .u64 o, .param .u64 x, .param .align 8 .b8 p[16]");
        let block = launch().params(&PARAMS).pack(&signature).unwrap();
        let expected =
            [0x1122_3344_5566_7788u64.to_le_bytes(), [0; 8], PARAMS.count.to_le_bytes(), [0, 0, 128, 63, 0xD0, 0xC0, 0xB0, 0xA0]];
        assert_eq!(block.bytes(), expected.concat());
    }

    #[test]
    fn what_does_not_fit_is_named() {
        let refuse = |launch: Launch<'_>, list: &str, parts: &[&str]| {
            let error = launch.pack(&signature(list)).unwrap_err();
            assert!(matches!(error, Error::Launch { .. }));
            let text = error.to_string();
            assert!(text.contains("add_f16") && parts.iter().all(|part| text.contains(part)), "{text}");
        };
        let (pointer, good) = (".param .u64 p,", ".param .u64 o, .param .u64 x, .param .align 8 .b8 p[16]");
        refuse(launch(), good, &["takes 3 arguments, and 2 were given: 2 tensors"]);
        refuse(launch().argument(0).params(&PARAMS), good, &["takes 3 arguments, and 4", "3 tensors and AddParams"]);
        refuse(launch().params(&PARAMS), &good.replace("16", "24"), &["AddParams has 16 bytes aligned to 8", "24 aligned to 8"]);
        refuse(launch().params(&PARAMS), &good.replace("align 8", "align 4"), &["16 aligned to 4"]);
        refuse(launch().params(&PARAMS), &good.replace(".u64 x", ".u32 x"), &["argument 1 is a tensor", "a number of 4 bytes"]);
        let many = (0..MOST_TENSORS).fold(of([1; 3], [1; 3]), |l, _| l.argument(1));
        assert!(many.pack(&signature(&pointer.repeat(MOST_TENSORS))).is_ok());
        refuse(many.argument(1), &pointer.repeat(MOST_TENSORS + 1), &["13"]);
        refuse(of([1; 3], [1; 3]), ".param .align 8 .b8 p[520]", &["1 arguments, and 0"]);
    }

    #[test]
    fn geometries_keep_to_the_limits() {
        let kernel = Entry {
            name: "add_f16",
            registers: 32,
            stack: 0,
            spill_stores: 0,
            spill_loads: 0,
            static_shared: 1000,
            constant: 0,
            max_threads: Some(256),
        };
        let check = |grid, block, shared| of(grid, block).shared(shared).check_geometry(&kernel, 64 << 10);
        check([i32::MAX as u32, 65535, 65535], [16, 16, 1], 64 * 1024 - 1000).unwrap();
        let refuse = |grid, block, shared, part: &str| {
            let error = check(grid, block, shared).unwrap_err().to_string();
            assert!(error.contains("add_f16") && error.contains("grid") && error.contains(part), "{error}");
        };
        for (grid, block) in [
            ([0, 1, 1], [1; 3]),
            ([1; 3], [1, 0, 1]),
            ([1; 3], [1025, 1, 1]),
            ([1; 3], [1, 1, 65]),
            ([1, 1 << 16, 1], [1; 3]),
            ([1 << 31, 1, 1], [1; 3]),
            ([1; 3], [u32::MAX; 3]),
        ] {
            refuse(grid, block, 0, "2147483647 x 65535 x 65535 blocks");
        }
        refuse([1; 3], [257, 1, 1], 0, "at most 256 threads");
        refuse([1; 3], [1; 3], 64 * 1024 - 999, "1000 bytes of its own");
        refuse([1; 3], [1; 3], u32::MAX, "65536 of this GPU");
    }

    #[test]
    fn sizes_above_the_limit_are_named() {
        const ADD: Entries = entries!("add");
        assert_eq!(ADD.size("rows", 1 << 23, 1 << 23).unwrap(), 1 << 23);
        for (value, most) in [((1 << 23) + 1, 1 << 23), ((1 << 32) + 1, MOST)] {
            let text = ADD.size("rows", value, most).unwrap_err().to_string();
            assert!(
                ["add_f16".into(), format!("rows: {value}"), format!("{most} is")].iter().all(|part| text.contains(part)),
                "{text}"
            );
        }
    }

    #[test]
    fn fields_lie_where_they_are_said_to() {
        assert_eq!((AddParams::NAME, AddParams::FIELDS), ("AddParams", &[("count", 0), ("scale", 8), ("flags", 12)][..]));
    }

    #[test]
    fn entries_follow_the_storage_type() {
        const ADD: Entries = entries!("add");
        assert_eq!((ADD.of(DType::F16).unwrap(), ADD.of(DType::BF16).unwrap()), ("add_f16", "add_bf16"));
        assert!(ADD.of(DType::F32).unwrap_err().to_string().contains("f32"));
    }
}
