//! The kernels in `tests/kernels`.

use crate::nvcc::nvcc;
use ptxsim::Module;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// The module of `tests/kernels/NAME.cu`, compiled once in a run of the test program.
pub fn module(name: &str) -> Module {
    static DONE: Mutex<BTreeMap<String, Module>> = Mutex::new(BTreeMap::new());
    let mut done = DONE.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    done.entry(name.to_owned()).or_insert_with(|| compile(name)).clone()
}

/// Where `tests/kernels/NAME.cu` is.
pub fn source(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/kernels").join(format!("{name}.cu"))
}

fn compile(name: &str) -> Module {
    // One folder a test program: several of them may compile the same file at the same time.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(env!("CARGO_CRATE_NAME"));
    std::fs::create_dir_all(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let out = folder.join(format!("{name}.ptx"));
    let made = nvcc().ptx(&source(name), "sm_80", &out).unwrap_or_else(|error| panic!("{name}.cu: {error}"));
    assert_eq!(made.warnings, "", "{name}.cu");
    let text = std::fs::read_to_string(&out).unwrap_or_else(|error| panic!("{}: {error}", out.display()));
    Module::parse(&text, &format!("{name}.ptx")).unwrap_or_else(|error| panic!("{error}"))
}
