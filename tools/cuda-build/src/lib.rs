//! Finds nvcc and compiles CUDA files to PTX and cubins, with the resources that each kernel takes. Needs nothing but the standard
//! library, and is used by build scripts and by tests.
//!
//! ```no_run
//! # fn main() -> Result<(), cuda_build::Error> {
//! # let (root, folder) = (std::path::Path::new("."), std::path::Path::new("/tmp"));
//! let nvcc = cuda_build::Nvcc::find(root)?;
//! let ptx = folder.join("copy.ptx");
//! nvcc.ptx("kernels/copy.cu".as_ref(), "sm_80", &ptx)?;
//! let cubin = nvcc.cubin(&ptx, "sm_80", &folder.join("copy.cubin"))?;
//! println!("{} registers", cubin.entries[0].registers);
//! # Ok(()) }
//! ```
//!
//! [`compile_folder`] does this for a folder of kernels: in parallel, and again only for what changed.

mod error;
mod folder;
mod nvcc;
mod ptx;
mod ptxas;
mod report;

pub use error::Error;
pub use folder::{Folder, Kernel, compile_folder};
pub use nvcc::{Cubin, Nvcc, Ptx};
pub use ptxas::Entry;
pub use report::{refuse_spills, resource_table};
