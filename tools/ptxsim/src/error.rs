//! What goes wrong before a kernel runs. What it does wrong is a [`crate::Fault`].

use std::fmt;

/// An error in a PTX file or in how a kernel was asked to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The PTX text is broken, or holds something this simulator does not know.
    Ptx {
        /// Name of the module, usually its path.
        module: String,
        /// Line of the PTX text, from 1.
        line: u32,
        /// The line as written.
        text: String,
        /// What is wrong.
        message: String,
    },
    /// The kernel, its arguments or its geometry do not go together.
    Launch {
        /// Name of the entry.
        entry: String,
        /// What is wrong, and what to do.
        message: String,
    },
    /// An address that no allocation holds was given by the caller (not by the kernel).
    Memory {
        /// What is wrong.
        message: String,
    },
}

impl Error {
    pub(crate) fn launch(entry: &str, message: impl Into<String>) -> Error {
        Error::Launch { entry: entry.into(), message: message.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Ptx { module, line, text, message } => {
                write!(f, "{module}:{line}: {message}")?;
                if text.is_empty() { Ok(()) } else { write!(f, "\n    {text}") }
            }
            Error::Launch { entry, message } => write!(f, "kernel `{entry}`: {message}"),
            Error::Memory { message } => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

/// Result with this crate's error.
pub type Result<T> = std::result::Result<T, Error>;

/// A complaint about a line of PTX, before the module's name and the line's text are attached.
#[derive(Debug)]
pub(crate) struct Complaint {
    pub line: u32,
    pub message: String,
}

impl Complaint {
    pub(crate) fn new(line: u32, message: impl Into<String>) -> Complaint {
        Complaint { line, message: message.into() }
    }

    pub(crate) fn in_module(self, module: &str, source: &str) -> Error {
        let text = excerpt(source.lines().nth((self.line as usize).saturating_sub(1)).unwrap_or(""));
        Error::Ptx { module: module.into(), line: self.line, text, message: self.message }
    }
}

/// A line of PTX as reports show it: all of a file may stand on one line.
pub(crate) fn excerpt(line: &str) -> String {
    const LONGEST: usize = 200;
    let line = line.trim();
    match line.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line.into(),
    }
}

pub(crate) type Parsed<T> = std::result::Result<T, Complaint>;
