use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why there is no PTX or no cubin.
#[derive(Debug)]
pub enum Error {
    /// No nvcc that is recent enough; `looked` has a phrase for each place.
    NoNvcc {
        /// "CUDA_HOME is not set", ...
        looked: Vec<String>,
    },
    /// nvcc or ptxas refused a file.
    Compile {
        /// What was compiled.
        source: PathBuf,
        /// For which architecture.
        arch: String,
        /// What the tool printed: it names file and line.
        output: String,
    },
    /// Output of ptxas that this crate cannot read.
    Resources {
        /// The line, or what is missing.
        message: String,
    },
    /// Kernels that use local memory, a phrase for each.
    Spills(Vec<String>),
    /// A file or program that cannot be read, written or run.
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

impl Error {
    pub(crate) fn io(path: &Path) -> impl FnOnce(io::Error) -> Error {
        move |error| Error::Io { path: path.to_owned(), error }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::NoNvcc { looked } => {
                write!(
                    f,
                    "no nvcc of CUDA 13.0 or later was found: {}; run tools/setup-cuda, then build again",
                    looked.join(", ")
                )
            }
            Error::Compile { source, arch, output } => {
                write!(f, "{} does not compile for {arch}:\n{}", source.display(), output.trim_end())
            }
            Error::Resources { message } => write!(f, "cannot read the output of ptxas: {message}"),
            Error::Spills(kernels) => {
                writeln!(f, "kernels that use local memory:")?;
                for kernel in kernels {
                    writeln!(f, "  {kernel}")?;
                }
                writeln!(
                    f,
                    "use fewer registers or indices known at compile time; to accept it, write this line into the .cu file:"
                )?;
                write!(f, "  // accepts spills: REASON")
            }
            Error::Io { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Error::Io { error, .. } => Some(error),
            _ => None,
        }
    }
}
