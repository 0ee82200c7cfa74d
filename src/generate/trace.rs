//! What each stage of a run did when: NVTX ranges for a profiler, and a file for `chrome://tracing` or Perfetto (`--trace`).
//!
//! The file is in Chrome's trace event format: one track for each stage, one span for each thing that it did, with the captions' positions.
//! It holds the first [`MOST`] spans, so that a run of days needs no more memory for it than one of minutes.

use crate::device::nvtx;
use crate::{Error, Result, files};
use serde_json::json;
use std::fmt::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Spans that are kept.
pub(super) const MOST: usize = 10_000;

/// Checks, before any work is done for it, that the file can be written.
pub(super) fn check(path: &Path) -> Result<()> {
    let refuse =
        |problem: &str| Err(Error::usage(format!("--trace {} {problem}", path.display()), "name a file in a folder that exists"));
    let folder = path.parent().map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    match (folder, path.file_name()) {
        (Some(folder), Some(_)) if !folder.is_dir() => refuse("is in a folder that does not exist"),
        (Some(_), Some(_)) if path.symlink_metadata().is_ok_and(|found| !found.is_file()) => {
            refuse("is not a regular file: it is not replaced")
        }
        (Some(_), Some(_)) => Ok(()),
        _ => refuse("is not the name of a file"),
    }
}

/// Who did it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Track {
    Tokenise,
    Device,
    Write,
    /// One of the encoders, counted from 0.
    Encode(usize),
}

impl Track {
    /// Number and name of the track in the file.
    fn thread(self) -> (usize, String) {
        match self {
            Track::Tokenise => (1, "tokenise".into()),
            Track::Device => (2, "device".into()),
            Track::Write => (3, "write".into()),
            Track::Encode(worker) => (4 + worker, format!("encode {worker}")),
        }
    }
}

/// The spans of a run; none are kept if no file is asked for.
#[derive(Debug)]
pub(super) struct Trace {
    file: Option<PathBuf>,
    start: Instant,
    spans: Mutex<Spans>,
}

#[derive(Debug, Default)]
struct Spans {
    done: Vec<Done>,
    /// There were more than are kept.
    full: bool,
    /// The file is written.
    saved: bool,
}

#[derive(Debug)]
struct Done {
    track: Track,
    name: &'static str,
    number: Option<usize>,
    /// Positions of captions in the corpus.
    samples: Range<u64>,
    begin: Duration,
    end: Duration,
}

/// Something that a stage does, from the making of this to its drop, on one thread.
#[derive(Debug)]
pub(super) struct Span<'t> {
    trace: &'t Trace,
    track: Track,
    name: &'static str,
    number: Option<usize>,
    samples: Range<u64>,
    /// None if no file is written.
    begin: Option<Duration>,
    _range: nvtx::Range,
}

impl Trace {
    /// A trace that begins now.
    pub fn new(file: Option<&Path>) -> Trace {
        let done = Vec::with_capacity(if file.is_some() { MOST } else { 0 });
        Trace { file: file.map(Path::to_path_buf), start: Instant::now(), spans: Mutex::new(Spans { done, ..Spans::default() }) }
    }

    /// Begins a span for captions `samples`.
    pub fn span(&self, track: Track, name: &'static str, number: Option<usize>, samples: Range<u64>) -> Span<'_> {
        let range = nvtx::range(format_args!("{}", Label(name, number)));
        let begin = self.file.is_some().then(|| self.start.elapsed());
        Span { trace: self, track, name, number, samples, begin, _range: range }
    }

    /// Writes the file once it holds all that it may. True if this call did.
    pub fn save_if_full(&self) -> Result<bool> {
        let full = self.file.is_some() && self.spans().full;
        if full { self.save() } else { Ok(false) }
    }

    /// Writes the file, if one is asked for and it is not there yet. True if this call did.
    pub fn save(&self) -> Result<bool> {
        let mut spans = self.spans();
        let Some(path) = self.file.as_ref().filter(|_| !spans.saved) else { return Ok(false) };
        spans.saved = true;
        let json = to_json(&spans.done, !spans.full);
        spans.done = Vec::new();
        drop(spans);
        files::write_atomic(path, json.as_bytes())?;
        Ok(true)
    }

    fn spans(&self) -> MutexGuard<'_, Spans> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Span<'_> {
    fn drop(&mut self) {
        let Some(begin) = self.begin else { return };
        let end = self.trace.start.elapsed();
        let mut spans = self.trace.spans();
        if spans.done.len() == MOST || spans.saved {
            spans.full = true;
            return;
        }
        let Span { track, name, number, ref samples, .. } = *self;
        spans.done.push(Done { track, name, number, samples: samples.clone(), begin, end });
    }
}

/// "step 3", "text".
struct Label(&'static str, Option<usize>);

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Label(name, None) => f.write_str(name),
            Label(name, Some(number)) => write!(f, "{name} {number}"),
        }
    }
}

/// The content of the file, an event a line: names of the tracks, then the spans in order of their ends.
fn to_json(spans: &[Done], complete: bool) -> String {
    let mut threads: Vec<(usize, String)> = spans.iter().map(|span| span.track.thread()).collect();
    threads.sort();
    threads.dedup();
    let names = threads
        .into_iter()
        .map(|(id, name)| json!({"ph": "M", "name": "thread_name", "pid": 1, "tid": id, "args": {"name": name}}));
    let microseconds = |time: Duration| time.as_nanos() as f64 / 1e3;
    let spans = spans.iter().map(|span| {
        json!({
            "ph": "X",
            "name": Label(span.name, span.number).to_string(),
            "pid": 1,
            "tid": span.track.thread().0,
            "ts": microseconds(span.begin),
            "dur": microseconds(span.end - span.begin),
            "args": {"first": span.samples.start, "last": span.samples.end.saturating_sub(1)},
        })
    });
    let other = json!({"program": "syntic", "version": crate::VERSION, "complete": complete});
    let mut text = format!("{{\"displayTimeUnit\":\"ms\",\"otherData\":{other},\"traceEvents\":[");
    for (i, event) in names.chain(spans).enumerate() {
        let separator = if i == 0 { "" } else { "," };
        _ = write!(text, "{separator}\n{event}"); // a String takes everything
    }
    text.push_str("\n]}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn read(path: &Path) -> Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn spans_are_written_with_their_tracks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.json");
        let trace = Trace::new(Some(&path));
        let outer = trace.span(Track::Device, "step", Some(3), 4..6);
        drop(trace.span(Track::Encode(1), "encode", None, 2..3));
        drop(outer);
        assert!(trace.save().unwrap() && !trace.save().unwrap());
        let json = read(&path);
        let events = json["traceEvents"].as_array().unwrap();
        assert_eq!(events[0]["args"]["name"], "device");
        assert_eq!(events[1], json!({"ph": "M", "name": "thread_name", "pid": 1, "tid": 5, "args": {"name": "encode 1"}}));
        let [inner, outer] = &events[2..] else { panic!("{events:?}") };
        assert_eq!((&inner["name"], &inner["tid"]), (&json!("encode"), &json!(5)));
        assert_eq!((&outer["name"], &outer["args"]), (&json!("step 3"), &json!({"first": 4, "last": 5})));
        let [ts, dur] = ["ts", "dur"].map(|key| [inner, outer].map(|span| span[key].as_f64().unwrap()));
        assert!(ts[1] <= ts[0] && ts[0] + dur[0] <= ts[1] + dur[1], "one inside the other: {events:?}");
        assert_eq!(json["otherData"]["complete"], true);
    }

    #[test]
    fn a_full_trace_is_written_and_takes_no_more() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("trace.json");
        let trace = Trace::new(Some(&path));
        let one = |i: usize| drop(trace.span(Track::Write, "write", None, i as u64..i as u64 + 1));
        (0..MOST).for_each(one);
        assert!(!trace.save_if_full().unwrap(), "full, but nothing is left out yet");
        one(MOST);
        assert!(trace.save_if_full().unwrap());
        one(MOST + 1);
        assert!(!trace.save_if_full().unwrap() && !trace.save().unwrap(), "written once");
        let json = read(&path);
        assert_eq!(json["traceEvents"].as_array().unwrap().len(), 1 + MOST);
        assert_eq!(json["otherData"]["complete"], false);
    }

    #[test]
    fn nothing_is_kept_without_a_file() {
        let trace = Trace::new(None);
        drop(trace.span(Track::Device, "text", None, 0..1));
        assert!(trace.spans().done.is_empty() && !trace.save().unwrap());
    }
}
