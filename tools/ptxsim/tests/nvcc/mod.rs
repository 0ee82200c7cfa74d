//! The CUDA compiler of these tests.

use std::path::Path;

/// The project's nvcc. Without it the test fails.
pub fn nvcc() -> cuda_build::Nvcc {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    match cuda_build::Nvcc::find(&root) {
        Ok(nvcc) => nvcc,
        Err(error) => panic!("these tests compile for CUDA and there is no nvcc: run tools/setup-cuda once. {error}"),
    }
}
