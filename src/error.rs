//! The one error type of the crate: what failed, where (file, key, line, shape), and what to do next.

use std::path::{Path, PathBuf};

/// Result of every fallible function of the crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Everything that can go wrong. `Display` is one or more plain sentences; [`Error::hint`] says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done: "read", "write", "rename to", ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's own error.
        source: std::io::Error,
    },
    /// The content of a file is not what its format says. `place` is a line, a key, a byte offset or empty.
    #[error("{}{}: {message}", path.display(), place_suffix(place))]
    Format {
        /// The file.
        path: PathBuf,
        /// "line 3", "key `foo`", "byte 16", or empty.
        place: String,
        /// What was found and what was expected.
        message: String,
    },
    /// A configuration value that is missing, wrong or not supported.
    #[error("{}: `{key}`: {message}", path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The key inside it.
        key: String,
        /// What was found and what is supported.
        message: String,
    },
    /// The tensors of a checkpoint do not match the architecture: all the problems at once.
    #[error("{}: {} problem(s) with the tensors of this checkpoint:\n  {}", path.display(), problems.len(), problems.join("\n  "))]
    Weights {
        /// The model folder or file.
        path: PathBuf,
        /// One line for each missing, unexpected or wrongly shaped tensor.
        problems: Vec<String>,
    },
    /// Wrong flags, or settings that contradict each other or an existing output.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What to do about it; may be empty.
        hint: String,
    },
    /// Shapes that do not fit an operation.
    #[error("{op}: {message}")]
    Shape {
        /// The operation.
        op: &'static str,
        /// The shapes and what was expected.
        message: String,
    },
    /// A GPU kernel that cannot be launched, or that failed.
    #[error("kernel {entry}: {message}")]
    Launch {
        /// Its name.
        entry: &'static str,
        /// What does not fit or what it did.
        message: String,
    },
    /// A GPU that failed at something else.
    #[error("{device} cannot {action}: {message}")]
    Device {
        /// Which: "cuda:0".
        device: String,
        /// What was being done.
        action: String,
        /// What it said.
        message: String,
    },
    /// A result that is not a number, or infinite.
    #[error("{op}: {message}")]
    Numeric {
        /// The operation or stage.
        op: &'static str,
        /// Where, and what was found.
        message: String,
    },
    /// The user asked to stop; everything finished so far is on disk.
    #[error("interrupted: what is finished is on disk")]
    Interrupted,
    /// The run ended, but some samples failed.
    #[error("{failed} of {total} samples failed")]
    SamplesFailed {
        /// Samples that failed.
        failed: u64,
        /// Samples attempted.
        total: u64,
    },
    /// A check of shards found something wrong.
    #[error("{}: {problems} problem(s), listed above", path.display())]
    Damaged {
        /// The folder.
        path: PathBuf,
        /// How many.
        problems: usize,
    },
    /// The run ended and made every image, but the text encoder did not read some captions to their end.
    #[error("{cut} of {total} captions are longer than the text encoder reads; their end is cut")]
    CaptionsCut {
        /// Captions that were cut.
        cut: u64,
        /// Captions in all.
        total: u64,
    },
    /// A broken invariant of the program itself.
    #[error("internal error in {op}: {message}")]
    Internal {
        /// Where.
        op: &'static str,
        /// What was violated.
        message: String,
    },
}

fn place_suffix(place: &str) -> String {
    if place.is_empty() { String::new() } else { format!(": {place}") }
}

impl Error {
    /// Builds the error of a failed system call on `path`; use as `.map_err(Error::io("read", &path))`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.as_ref().to_path_buf();
        move |source| Error::Io { action, path, source }
    }

    /// A malformed file; `place` is "line 3", "key `foo`" or empty.
    pub fn format(path: impl AsRef<Path>, place: impl Into<String>, message: impl Into<String>) -> Error {
        Error::Format { path: path.as_ref().to_path_buf(), place: place.into(), message: message.into() }
    }

    /// A bad configuration value.
    pub fn config(path: impl AsRef<Path>, key: impl Into<String>, message: impl Into<String>) -> Error {
        Error::Config { path: path.as_ref().to_path_buf(), key: key.into(), message: message.into() }
    }

    /// Wrong settings, with what to do about it.
    pub fn usage(message: impl Into<String>, hint: impl Into<String>) -> Error {
        Error::Usage { message: message.into(), hint: hint.into() }
    }

    /// Shapes that do not fit `op`.
    pub fn shape(op: &'static str, message: impl Into<String>) -> Error {
        Error::Shape { op, message: message.into() }
    }

    /// A kernel that cannot be launched, or that failed.
    pub fn launch(entry: &'static str, message: impl Into<String>) -> Error {
        Error::Launch { entry, message: message.into() }
    }

    /// Exit code of the process: 1 internal, 2 usage or input, 3 failed samples, 75 interrupted and resumable.
    pub fn exit_code(&self) -> u8 {
        match self {
            Error::Internal { .. } | Error::Shape { .. } | Error::Launch { .. } | Error::Device { .. } => 1,
            Error::SamplesFailed { .. } | Error::CaptionsCut { .. } | Error::Damaged { .. } | Error::Numeric { .. } => 3,
            Error::Interrupted => 75,
            Error::Io { .. } | Error::Format { .. } | Error::Config { .. } | Error::Weights { .. } | Error::Usage { .. } => 2,
        }
    }

    /// What the user can do next, if there is something to say.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Usage { hint, .. } if !hint.is_empty() => Some(hint.clone()),
            Error::Io { source, .. } => match source.kind() {
                std::io::ErrorKind::NotFound => Some("check the path".into()),
                std::io::ErrorKind::PermissionDenied => Some("check the permissions of the file and its folder".into()),
                std::io::ErrorKind::StorageFull => Some("free some space and run the same command again: it resumes".into()),
                _ => None,
            },
            Error::Interrupted => Some("run the same command again to go on".into()),
            Error::SamplesFailed { .. } => Some("the reasons are in the parquet files, column `error_message`".into()),
            Error::CaptionsCut { .. } => Some("shorten them, or accept it with --truncate".into()),
            Error::Device { device, .. } if device.starts_with("cuda") => {
                Some("if other programs fail on this GPU too, it needs a reset; --device cpu does without it".into())
            }
            Error::Internal { .. } | Error::Shape { .. } | Error::Launch { .. } | Error::Device { .. } => {
                Some("this is a bug in syntic: please report it with the command".into())
            }
            _ => None,
        }
    }
}
