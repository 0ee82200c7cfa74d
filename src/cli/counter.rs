//! Progress of work that is only counted: a bar on a terminal, a line now and then elsewhere.

use super::note;
use super::progress::LINE_INTERVAL;
use indicatif::{ProgressBar, ProgressStyle};
use std::cell::Cell;
use std::io::IsTerminal;
use std::time::Instant;

/// Shows how many of a known number are done.
pub struct Counter {
    total: u64,
    what: &'static str,
    bar: Option<ProgressBar>,
    /// When something was shown last; nothing before the first sign of what earlier runs left.
    last: Cell<Option<Instant>>,
}

impl Counter {
    /// `total` things called `what`.
    pub fn new(total: u64, what: &'static str) -> Counter {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new(total);
            let template = format!("{{bar:32}} {{pos}}/{{len}} {what}  {{per_sec}}  {{eta}} left");
            if let Ok(style) = ProgressStyle::with_template(&template) {
                bar.set_style(style);
            }
            bar
        });
        Counter { total, what, bar, last: Cell::new(None) }
    }

    /// `done` of them are done.
    pub fn show(&self, done: u64) {
        let last = self.last.get();
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            if last.is_none() {
                bar.reset_eta(); // what was there before took no time
            }
        } else if last.is_some_and(|last| last.elapsed() >= LINE_INTERVAL) {
            note(format_args!("{done}/{} {}", self.total, self.what));
        } else if last.is_some() {
            return;
        }
        self.last.set(Some(Instant::now()));
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
