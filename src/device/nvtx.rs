//! Names for stretches of time, for profilers: NVTX ranges, without its headers.
//!
//! NVTX (version 3) has no library of its own. A profiler names its library in `NVTX_INJECTION64_PATH`; the program loads it and calls its
//! `InitializeInjectionNvtx2` with a function that gives tables of pointers, into which the profiler puts its own functions. Those of the
//! core module are used here: number 9 begins a range on the calling thread, number 11 ends its innermost one (NVTX 3, nvtxTypes.h). Without
//! a profiler a range costs one atomic load, and its name is never formatted.

use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::fmt;
use std::path::PathBuf;
use std::ptr::{null, null_mut};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A stretch of time, from its making to its drop. It is dropped on the thread that made it, and ranges of a thread nest.
#[derive(Debug)]
#[must_use = "a range ends when it is dropped"]
pub struct Range {
    begun: bool,
}

impl Range {
    /// Nothing.
    pub const fn none() -> Range {
        Range { begun: false }
    }
}

/// Begins a range on this thread, if a profiler listens.
pub fn range(name: fmt::Arguments<'_>) -> Range {
    let Some(tables) = profiler() else { return Range::none() };
    let push = tables.core(PUSH);
    if push.is_null() {
        return Range::none();
    }
    // A name ends at its first zero byte.
    let name = CString::new(name.to_string().replace('\0', " ")).unwrap_or_default();
    // SAFETY: the profiler put a function of this type there (nvtxRangePushA); the name lives as long as the call.
    unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn(*const c_char) -> c_int>(push)(name.as_ptr()) };
    Range { begun: true }
}

impl Drop for Range {
    fn drop(&mut self) {
        let pop = match profiler() {
            Some(tables) if self.begun => tables.core(POP),
            _ => return,
        };
        if !pop.is_null() {
            // SAFETY: the profiler put a function of this type there (nvtxRangePop).
            unsafe { std::mem::transmute::<*mut c_void, unsafe extern "C" fn() -> c_int>(pop)() };
        }
    }
}

/// Number of the core module, and of two functions in it.
const CORE: usize = 1;
const PUSH: usize = 9;
const POP: usize = 11;

/// Functions of each module, one more than there are: numbers start at 1. Profilers fill in all of them, used or not: core, CUDA, OpenCL,
/// CUDA runtime, domains, synchronisation, in this order from 1.
const MODULES: [usize; 7] = [0, 16, 9, 15, 7, 16, 7];

/// Version of the interface.
const VERSION: u32 = 3;

/// The functions of a profiler, and the pointers to them in the form that it wants.
struct Tables {
    functions: Vec<Vec<AtomicPtr<c_void>>>,
    /// For each module the addresses of its functions' places; none for number 0, and none at the end.
    places: Vec<Vec<*mut c_void>>,
}

// SAFETY: the raw pointers lead to the atomics beside them, which are never moved or freed: the tables live in a static.
unsafe impl Send for Tables {}
// SAFETY: see above; nothing but the atomics changes.
unsafe impl Sync for Tables {}

impl Tables {
    fn new() -> Tables {
        let functions: Vec<Vec<_>> =
            MODULES.iter().map(|&count| (0..count).map(|_| AtomicPtr::new(null_mut())).collect()).collect();
        let places = |module: &Vec<AtomicPtr<c_void>>| {
            let used = module.iter().skip(1).map(|function| function.as_ptr().cast());
            [null_mut()].into_iter().chain(used).chain([null_mut()]).collect()
        };
        Tables { places: functions.iter().map(places).collect(), functions }
    }

    fn core(&self, number: usize) -> *mut c_void {
        self.functions[CORE][number].load(Ordering::Acquire)
    }
}

static TABLES: OnceLock<Tables> = OnceLock::new();

/// The tables that a profiler has filled in, if there is one.
fn profiler() -> Option<&'static Tables> {
    static ATTACHED: OnceLock<Option<&'static Tables>> = OnceLock::new();
    *ATTACHED.get_or_init(|| {
        let path = PathBuf::from(std::env::var_os("NVTX_INJECTION64_PATH")?);
        let tables = TABLES.get_or_init(Tables::new);
        attach(&path).then_some(tables)
    })
}

/// Loads a profiler's library and lets it fill in the tables. One that cannot be loaded is no failure, as NVTX has it.
fn attach(path: &std::path::Path) -> bool {
    type Initialize = unsafe extern "C" fn(extern "C" fn(u32) -> *const c_void) -> c_int;
    // SAFETY: whoever set the variable wants the library's initialisers to be run; it stays loaded for good.
    let Ok(library) = (unsafe { libloading::Library::new(path) }) else { return false };
    // SAFETY: NVTX 3 gives the symbol this type.
    let attached = match unsafe { library.get::<Initialize>(b"InitializeInjectionNvtx2\0") } {
        // SAFETY: as NVTX asks for it: called once, with a function that gives tables that live for good.
        Ok(initialize) => unsafe { initialize(export_table) != 0 },
        Err(_) => return false,
    };
    std::mem::forget(library);
    attached
}

/// `NvtxExportTableCallbacks`
#[repr(C)]
struct Callbacks {
    size: usize,
    module_table: extern "C" fn(c_uint, *mut *const *mut c_void, *mut c_uint) -> c_int,
}

/// `NvtxExportTableVersionInfo`
#[repr(C)]
struct VersionInfo {
    size: usize,
    version: u32,
    reserved: u32,
    set_version: extern "C" fn(u32),
}

static CALLBACKS: Callbacks = Callbacks { size: size_of::<Callbacks>(), module_table };
static VERSION_INFO: VersionInfo =
    VersionInfo { size: size_of::<VersionInfo>(), version: VERSION, reserved: 0, set_version: ignore_version };

/// What a profiler asks for by number (`NvtxExportTableID`).
extern "C" fn export_table(id: u32) -> *const c_void {
    match id {
        1 => (&raw const CALLBACKS).cast(),
        3 => (&raw const VERSION_INFO).cast(),
        _ => null(),
    }
}

/// Gives the places of a module's functions and their number; returns 0 for a module that is not known.
extern "C" fn module_table(module: c_uint, table: *mut *const *mut c_void, size: *mut c_uint) -> c_int {
    let places = TABLES.get().and_then(|tables| tables.places.get(module as usize)).filter(|places| places.len() > 2);
    let Some(places) = places else { return 0 };
    // SAFETY: each is null, or a place of the profiler's for the answer.
    unsafe {
        if let Some(table) = table.as_mut() {
            *table = places.as_ptr();
        }
        if let Some(size) = size.as_mut() {
            *size = places.len() as c_uint - 1;
        }
    }
    1
}

/// Profilers may say their own version; nothing depends on it.
extern "C" fn ignore_version(_: u32) {}
