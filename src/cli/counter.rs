//! Progress of work that is only counted: a bar on a terminal, a line now and then elsewhere.

use super::note;
use indicatif::{ProgressBar, ProgressStyle};
use std::cell::Cell;
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Elsewhere than on a terminal, a line at most this often.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Shows how many of a known number are done.
pub struct Counter {
    total: u64,
    what: &'static str,
    bar: Option<ProgressBar>,
    last: Cell<Instant>,
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
        Counter { total, what, bar, last: Cell::new(Instant::now()) }
    }

    /// `done` of them are done.
    pub fn show(&self, done: u64) {
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None if self.last.get().elapsed() >= LINE_INTERVAL => {
                self.last.set(Instant::now());
                note(format_args!("{done}/{} {}", self.total, self.what));
            }
            None => {}
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
