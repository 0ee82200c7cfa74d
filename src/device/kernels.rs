//! The kernels that are part of this program.

/// One entry of a kernel file.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// Its name.
    pub name: &'static str,
}

/// A `.cu` file compiled for one architecture.
#[derive(Clone, Copy, Debug)]
pub struct KernelFile {
    /// Path under `kernels/`, without extension.
    pub name: &'static str,
    /// "sm_80".
    pub arch: &'static str,
    /// PTX text.
    pub ptx: &'static str,
    /// Machine code.
    pub cubin: &'static [u8],
    /// What can be launched.
    pub entries: &'static [Entry],
}

/// All of them.
pub fn files() -> &'static [KernelFile] {
    &[]
}

/// Why there are none.
pub fn missing() -> Option<&'static str> {
    Some("nvcc was not found when this program was built")
}
