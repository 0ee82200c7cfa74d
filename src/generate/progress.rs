//! The course of a run: events out, the request to stop in, the summary.

use super::events::{Event, Events, Summary};
use crate::shards::{Outcome, ShardStats};
use std::sync::atomic::AtomicBool;

pub(super) struct Progress<'r> {
    pub events: &'r dyn Events,
    pub stop: &'r AtomicBool,
    pub summary: Summary,
}

impl Progress<'_> {
    pub fn warn(&self, text: &str) {
        self.events.event(&Event::Warning(text));
    }

    /// A sample is on disk.
    pub fn sample(&mut self, key: &str, index: u64, seed: u64, outcome: &Outcome) {
        self.summary.made += 1;
        let fault = match outcome {
            Outcome::Image(_) => None,
            Outcome::Failed(reason) => Some(reason.as_str()),
        };
        self.events.event(&Event::Sample { key, index, seed, fault });
    }

    /// A shard is complete.
    pub fn shard(&mut self, id: u32, stats: &ShardStats) {
        self.summary.failed += stats.failed_to_generate;
        let (samples, failed, seconds) = (stats.count, stats.failed_to_generate, stats.duration);
        self.events.event(&Event::Shard { id, samples, failed, seconds });
    }
}
