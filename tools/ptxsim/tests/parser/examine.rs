//! What must hold of any text that is taken for PTX.

use crate::memory::most_held;
use ptxsim::{Error, Kernel, Module};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

/// Name of every module here.
pub const NAME: &str = "broken.ptx";
/// Reading a file of up to [`LONGEST`] bytes takes no longer, even without optimisation and beside other programs.
pub const PATIENCE: Duration = Duration::from_secs(1);
pub const LONGEST: usize = 256 << 10;
/// Bytes that reading may take for each byte of the file, and besides.
const MEMORY: (usize, usize) = (500, 64 << 20);

/// The entries of a file, decoded, or why they are not.
pub type Entries = Vec<Result<Kernel, Error>>;

/// Reads a file and decodes its entries.
///
/// # Errors
/// If that panics, takes too long or too much memory, or an error does not name a line and its text.
pub fn examine(source: &str) -> Result<Result<Entries, Error>, String> {
    let (mut outcome, mut took) = timed(source)?;
    for _ in 0..2 {
        if took > PATIENCE {
            // The machine may have been busy with something else.
            (outcome, took) = timed(source)?;
        }
    }
    if took > PATIENCE && source.len() <= LONGEST {
        return Err(format!("took {took:?}"));
    }
    let errors = match &outcome {
        Err(error) => vec![error],
        Ok(entries) => entries.iter().filter_map(|entry| entry.as_ref().err()).collect(),
    };
    errors.into_iter().try_for_each(|error| names_a_line(source, error))?;
    Ok(outcome)
}

fn timed(source: &str) -> Result<(Result<Entries, Error>, Duration), String> {
    let start = Instant::now();
    let read = || {
        let module = Module::parse(source, NAME)?;
        Ok(module.entries().map(|entry| module.kernel(entry)).collect())
    };
    let (outcome, held) = most_held(|| catch_unwind(AssertUnwindSafe(read)));
    let took = start.elapsed();
    let (per_byte, base) = MEMORY;
    if held > base + per_byte * source.len() {
        return Err(format!("{} bytes took {} MiB to read", source.len(), held >> 20));
    }
    let outcome = outcome.map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned().or(panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        format!("panicked: {}", text.unwrap_or_default())
    })?;
    Ok((outcome, took))
}

/// Whether an error says where in the file it is and what stands there.
fn names_a_line(source: &str, error: &Error) -> Result<(), String> {
    let Error::Ptx { module, line, text, message } = error else { return Err(format!("not an error in the text: {error}")) };
    let lines = source.lines().count().max(1);
    if *line < 1 || *line as usize > lines {
        return Err(format!("line {line} of {lines}: {message}"));
    }
    let there = source.lines().nth(*line as usize - 1).unwrap_or("").trim();
    let same = match text.strip_suffix("...") {
        Some(head) if text != there => head.chars().count() == 200 && there.starts_with(head),
        _ => text == there,
    };
    if module != NAME || !same || message.is_empty() {
        return Err(format!("{module}:{line}: `{message}` shows `{text}` where there is `{there}`"));
    }
    Ok(())
}
