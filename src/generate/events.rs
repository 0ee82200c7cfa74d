//! What a run tells while it runs.

use crate::{Error, Result};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event<'a> {
    /// The work is known.
    Planned {
        /// Images this worker is asked for.
        samples: u64,
        /// Of them, made by earlier runs.
        done: u64,
        /// Shards this worker is asked for.
        shards: u64,
        /// Device, threads, instruction set.
        device: &'a str,
    },
    /// Something to know that stops nothing.
    Warning(&'a str),
    /// The model is in memory.
    Loaded {
        /// Time it took.
        seconds: f64,
    },
    /// A shard that an earlier run began is gone on with.
    Resumed {
        /// Its number.
        shard: u32,
        /// Samples already in it.
        samples: u64,
    },
    /// A denoising step of the current batch is done.
    Step {
        /// UNet evaluations done.
        step: usize,
        /// UNet evaluations in all.
        steps: usize,
    },
    /// An image is on disk, or has failed.
    Sample {
        /// Key in the shard.
        key: &'a str,
        /// Position of the caption in the corpus.
        index: u64,
        /// Seed of the image.
        seed: u64,
        /// Why there is no image.
        fault: Option<&'a str>,
    },
    /// A shard is complete.
    Shard {
        /// Its number.
        id: u32,
        /// Pairs, failures included.
        samples: u64,
        /// Failures.
        failed: u64,
        /// Time spent on it, over all runs.
        seconds: f64,
    },
    /// The run is over.
    Finished(&'a Summary),
}

/// How a run ended.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Images this worker was asked for.
    pub samples: u64,
    /// Made in this run.
    pub made: u64,
    /// Failed, in all runs.
    pub failed: u64,
    /// Captions that were too long for the text encoder and lost their end.
    pub cut: u64,
    /// Time of this run.
    pub seconds: f64,
}

impl Summary {
    /// Whether all went well: the error that the run as a whole ends with, if not. `truncate` accepts captions that lost their end.
    ///
    /// # Errors
    /// [`Error::SamplesFailed`] and [`Error::CaptionsCut`].
    pub fn verdict(&self, truncate: bool) -> Result<()> {
        if self.failed > 0 {
            return Err(Error::SamplesFailed { failed: self.failed, total: self.samples });
        }
        if self.cut > 0 && !truncate {
            return Err(Error::CaptionsCut { cut: self.cut, total: self.samples });
        }
        Ok(())
    }
}

/// Receives the events of a run.
pub trait Events: Sync {
    /// Called for each event. [`Event::Loaded`] and [`Event::Step`] come in order from the thread of the device; meanwhile those of
    /// resumed shards, samples and finished shards come, in order too, from the one that writes.
    fn event(&self, event: &Event<'_>);
}
