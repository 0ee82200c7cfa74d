//! Loaded kernels.

use super::driver_error;
use crate::device::backend::KernelHandle;
use crate::device::cpu::parallel::Line;
use crate::device::kernels::{Choice, Image};
use crate::device::signature::Signature;
use crate::{Error, Result};
use cudarc::driver::{result, sys};
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::ptr::null_mut;
use std::sync::Arc;

/// Room for what the driver's compiler has to say.
const LOG: usize = 8 << 10;

/// A kernel.
pub(super) struct Function {
    pub entry: &'static str,
    pub raw: sys::CUfunction,
    /// Where its parameters lie in a parameter block.
    pub offsets: Vec<usize>,
}

// SAFETY: a handle of the driver, usable on any thread whose context is bound.
unsafe impl Send for Function {}
// SAFETY: see above.
unsafe impl Sync for Function {}

/// All that a card has loaded.
#[derive(Default)]
pub(super) struct Modules {
    /// By file and architecture.
    modules: HashMap<(&'static str, &'static str), sys::CUmodule>,
    functions: Vec<Arc<Function>>,
}

impl Modules {
    /// Loads the file of a kernel, if it is not loaded yet, and the kernel; the context is bound. Its blocks may have `shared_limit` bytes
    /// of shared memory: without being asked, the driver gives 48 KiB.
    pub fn load(&mut self, choice: &Choice, signature: &Signature, shared_limit: u32) -> Result<KernelHandle> {
        let (file, entry) = (choice.file, choice.entry);
        let fail = |e| Error::launch(entry.name, format!("{} cannot be loaded: {}", file.name, driver_error(e)));
        let module = match self.modules.get(&(file.name, file.arch)) {
            Some(module) => *module,
            None => {
                let module = match choice.image {
                    Image::Cubin(code) => load_cubin(code).map_err(fail)?,
                    Image::Ptx(text) => compile(text).map_err(|message| Error::launch(entry.name, message))?,
                };
                self.modules.insert((file.name, file.arch), module);
                module
            }
        };
        let name = CString::new(entry.name).map_err(|e| Error::launch(entry.name, e.to_string()))?;
        // SAFETY: the module is loaded for good.
        let raw = unsafe { result::module::get_function(module, name) }.map_err(fail)?;
        let dynamic = shared_limit.saturating_sub(entry.static_shared) as i32;
        let attribute = sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
        // SAFETY: the function is loaded for good.
        unsafe { result::function::set_function_attribute(raw, attribute, dynamic) }.map_err(fail)?;
        self.functions.push(Arc::new(Function {
            entry: entry.name,
            raw,
            offsets: signature.params.iter().map(|param| param.offset).collect(),
        }));
        Ok(KernelHandle(self.functions.len() as u64 - 1))
    }

    /// A loaded kernel.
    pub fn function(&self, kernel: KernelHandle) -> Option<Arc<Function>> {
        self.functions.get(kernel.0 as usize).cloned()
    }

    /// Unloads everything; the context is bound, and nothing that was queued uses it any more.
    pub fn unload(&mut self) {
        self.functions.clear();
        for (_, module) in self.modules.drain() {
            // SAFETY: loaded by `load`, unloaded once.
            _ = unsafe { result::module::unload(module) };
        }
    }
}

fn load_cubin(code: &[u8]) -> std::result::Result<sys::CUmodule, result::DriverError> {
    // An ELF file is read in words: it is copied to where they are aligned.
    let mut lines: Vec<Line> = bytemuck::zeroed_vec(code.len().div_ceil(size_of::<Line>()));
    bytemuck::cast_slice_mut(&mut lines)[..code.len()].copy_from_slice(code);
    // SAFETY: a whole cubin, which says itself how long it is; the driver copies it.
    unsafe { result::module::load_data(lines.as_ptr().cast()) }
}

/// Has the driver compile PTX.
fn compile(text: &str) -> std::result::Result<sys::CUmodule, String> {
    let text = CString::new(text).map_err(|e| e.to_string())?;
    let mut log = vec![0u8; LOG];
    let mut options = [sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER, sys::CUjit_option::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
    let mut values: [*mut c_void; 2] = [log.as_mut_ptr().cast(), std::ptr::without_provenance_mut(LOG)];
    let mut module = null_mut();
    // SAFETY: text ends with a zero byte; there are as many values as options, and they are of the types that these options take: the
    // log, and its length in place of a pointer.
    let result = unsafe {
        sys::cuModuleLoadDataEx(&mut module, text.as_ptr().cast(), 2, options.as_mut_ptr(), values.as_mut_ptr()).result()
    };
    result.map(|()| module).map_err(|e| {
        let end = log.iter().position(|&byte| byte == 0).unwrap_or(LOG);
        format!("the driver cannot compile it: {}: {}", driver_error(e), String::from_utf8_lossy(&log[..end]).trim())
    })
}
