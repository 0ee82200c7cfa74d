//! How a run shows itself: a bar on a terminal, plain lines elsewhere, or one JSON object a line.

use super::{note, print};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use syntic::generate::{Event, Events};

/// Elsewhere than on a terminal, a line of progress at most this often.
pub const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Prints the events of a run.
pub enum Report {
    /// JSON objects on standard output, one a line.
    Json,
    /// A progress bar on a terminal.
    Bar(ProgressBar),
    /// Lines on standard error.
    Lines(Mutex<Lines>),
}

/// Progress that is not on a terminal.
#[derive(Default)]
pub struct Lines {
    started: Option<Instant>,
    last: Option<Instant>,
    total: u64,
    before: u64,
    done: u64,
}

impl Report {
    /// The form that fits: `json` as asked, else by what standard error is.
    pub fn new(json: bool) -> Report {
        if json {
            Report::Json
        } else if std::io::stderr().is_terminal() {
            Report::Bar(ProgressBar::hidden())
        } else {
            Report::Lines(Mutex::default())
        }
    }
}

impl Events for Report {
    fn event(&self, event: &Event<'_>) {
        match self {
            Report::Json => print(to_json(event)),
            Report::Bar(bar) => show_bar(bar, event),
            Report::Lines(lines) => {
                if let Ok(mut lines) = lines.lock() {
                    lines.show(event);
                }
            }
        }
    }
}

fn show_bar(bar: &ProgressBar, event: &Event<'_>) {
    match event {
        Event::Planned { samples, done, .. } => {
            let template = "{bar:32} {pos}/{len} images  {per_sec}  {eta} left  {msg}";
            if let Ok(style) = ProgressStyle::with_template(template) {
                bar.set_style(style);
            }
            bar.set_length(*samples);
            bar.set_position(*done);
            bar.reset_eta();
            bar.set_draw_target(indicatif::ProgressDrawTarget::stderr());
            bar.enable_steady_tick(Duration::from_millis(500));
        }
        Event::Step { step, steps } => bar.set_message(format!("step {step}/{steps}")),
        Event::Sample { fault, key, .. } => {
            bar.inc(1);
            if let Some(fault) = fault {
                bar.println(format!("warning: {key} failed: {fault}"));
            }
        }
        Event::Warning(text) => bar.suspend(|| note(format_args!("warning: {text}"))),
        Event::Resumed { samples, .. } => {
            bar.inc(*samples);
            bar.reset_eta();
        }
        Event::Loaded { .. } | Event::Shard { .. } => {}
        Event::Finished(_) => bar.finish_and_clear(),
    }
    if let Some(line) = sentence(event) {
        bar.suspend(|| note(line));
    }
}

impl Lines {
    fn show(&mut self, event: &Event<'_>) {
        match event {
            Event::Planned { samples, done, .. } => (self.total, self.before, self.done) = (*samples, *done, *done),
            Event::Loaded { .. } => self.started = Some(Instant::now()),
            Event::Resumed { samples, .. } => {
                self.done += samples;
                self.before += samples;
            }
            Event::Warning(text) => note(format_args!("warning: {text}")),
            Event::Sample { key, fault, .. } => {
                self.done += 1;
                if let Some(fault) = fault {
                    note(format_args!("warning: {key} failed: {fault}"));
                }
                self.rate();
            }
            Event::Step { .. } | Event::Shard { .. } | Event::Finished(_) => {}
        }
        if let Some(line) = sentence(event) {
            note(line);
        }
    }

    /// Images a second and time left, not more often than the interval.
    fn rate(&mut self) {
        let now = Instant::now();
        let due = self.last.is_none_or(|last| now - last >= LINE_INTERVAL);
        let (Some(started), true) = (self.started, due) else { return };
        self.last = Some(now);
        let rate = (self.done - self.before) as f64 / (now - started).as_secs_f64();
        let left = Duration::from_secs_f64(self.total.saturating_sub(self.done) as f64 / rate.max(1e-9));
        note(format_args!("{}/{} images, {rate:.2} images/s, {} left", self.done, self.total, indicatif::HumanDuration(left)));
    }
}

/// What is said in words, on a terminal and elsewhere.
fn sentence(event: &Event<'_>) -> Option<String> {
    match event {
        Event::Planned { samples, done, shards, device } => {
            Some(format!("{samples} images in {shards} shards, {done} of them done before; {device}"))
        }
        Event::Loaded { seconds } => Some(format!("model loaded in {seconds:.1} s")),
        Event::Resumed { shard, samples } => Some(format!("shard {shard:05}: {samples} pairs are there already")),
        Event::Shard { id, samples, failed, seconds } => {
            Some(format!("shard {id:05}: {samples} pairs, {failed} failed, {seconds:.1} s"))
        }
        Event::Finished(summary) => Some(format!(
            "done: {} images, {} made now, {} failed, {:.1} s",
            summary.samples, summary.made, summary.failed, summary.seconds
        )),
        Event::Step { .. } | Event::Sample { .. } | Event::Warning(_) => None,
    }
}

fn to_json(event: &Event<'_>) -> serde_json::Value {
    match event {
        Event::Planned { samples, done, shards, device } => {
            json!({"event": "planned", "samples": samples, "done": done, "shards": shards, "device": device})
        }
        Event::Loaded { seconds } => json!({"event": "loaded", "seconds": seconds}),
        Event::Warning(text) => json!({"event": "warning", "message": text}),
        Event::Resumed { shard, samples } => json!({"event": "resumed", "shard": shard, "samples": samples}),
        Event::Step { step, steps } => json!({"event": "step", "step": step, "steps": steps}),
        Event::Sample { key, index, seed, fault } => {
            json!({"event": "sample", "key": key, "index": index, "seed": seed, "ok": fault.is_none(), "error": fault})
        }
        Event::Shard { id, samples, failed, seconds } => {
            json!({"event": "shard", "shard": id, "samples": samples, "failed": failed, "seconds": seconds})
        }
        Event::Finished(s) => {
            json!({"event": "finished", "samples": s.samples, "made": s.made, "failed": s.failed, "cut": s.cut, "seconds": s.seconds})
        }
    }
}
