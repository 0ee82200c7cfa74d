//! The first stage: captions -> images -> shards of image-text pairs.
//!
//! Every image is a pure function of (model, caption, seed, [`Sampling`]): batch size, worker split, order and restarts change
//! nothing. A run can be stopped at any moment and goes on where it was.

mod config;
mod events;
mod fault;
mod latents;
mod memory;
mod plan;
mod progress;
mod settings;
mod stages;
#[cfg(test)]
mod tests;
mod trace;

pub use events::{Event, Events, Summary};
pub use settings::{Batch, Output, Sampling, Selection, Settings};

use crate::corpus::Corpus;
use crate::device::{Device, Precision};
use crate::diffusion::sampler::{self, Savings};
use crate::diffusion::{ModelSpec, schedulers};
use crate::shards::{RunManifest, ShardSettings, Worker, finished_shard, shard_stats};
use crate::tokenizer::ClipTokenizer;
use crate::weights::ModelDir;
use crate::{Error, Result};
use fault::Fault;
use latents::{InitLatents, SavedLatents};
use memory::MemoryPlan;
use plan::{Job, Work};
use progress::Progress;
use serde_json::Value;
use stages::Stages;
use std::sync::atomic::AtomicBool;
use std::time::Instant;
use trace::Trace;

/// Captions that are too long are named up to this many.
const LONG_CAPTIONS_SHOWN: usize = 5;

/// Images that a run makes at once on `device`, and why: as `asked`, if no shard is too small for it.
///
/// # Errors
/// [`Error::Usage`] for a batch that does not fit.
pub(crate) fn images_at_once(
    asked: Batch,
    spec: &ModelSpec,
    device: &Device,
    precision: Precision,
    size: (usize, usize),
    guided: bool,
    evaluations: usize,
) -> Result<(usize, String)> {
    if let Batch::Images(batch) = asked {
        spec.check_batch(batch)?;
    }
    let count = |batch| MemoryPlan::count(spec, device, precision, size, batch, guided, evaluations);
    let choice = memory::choose(asked, device, usize::MAX, device.free_memory()?, count)?;
    Ok((choice.batch, choice.because))
}

/// A run that has been checked: everything it reads is there and fits, and nothing has been written.
#[derive(Debug)]
pub struct Run<'d> {
    settings: Settings,
    device: &'d Device,
    precision: Precision,
    model: ModelDir,
    spec: ModelSpec,
    tokenizer: ClipTokenizer,
    corpus: Corpus,
    work: Work,
    /// Captions that the text encoder does not read to the end: position, tokens.
    too_long: Vec<(u64, usize)>,
    init: Option<InitLatents>,
    /// Evaluations of the network for an image.
    evaluations: usize,
    /// Height and width of the images, in pixels.
    size: (usize, usize),
    /// Shape of one sample's latents, [C, h, w].
    latents: [usize; 3],
    /// Images made at once, and the memory that takes.
    memory: memory::Choice,
    /// Every setting that has an influence on the bytes of a shard.
    config: Value,
}

impl<'d> Run<'d> {
    /// Reads and checks everything a run depends on, except the weights' values.
    ///
    /// # Errors
    /// [`Error::Usage`] for settings that cannot work or that differ from those of the folder; the errors of the caption file,
    /// the model's configuration and tokenizer, and the initial latents.
    pub fn prepare(settings: Settings, device: &'d Device, precision: Precision) -> Result<Run<'d>> {
        settings.check()?;
        if let Some(path) = &settings.output.save_latents {
            SavedLatents::check(path, settings.init_latents.as_deref())?;
        }
        if let Some(path) = &settings.trace {
            trace::check(path)?;
        }
        let corpus = Corpus::open(&settings.captions, &settings.corpus)?;
        let work = Work::new(&settings.selection, settings.output.shard_size, corpus.len() as u64)?;
        let model = ModelDir::open(&settings.model)?;
        let spec = ModelSpec::read(&model)?;
        let (height, width) = settings.size(spec.default_size())?;
        spec.check_size(height, width)?;
        if let Batch::Images(batch) = settings.batch {
            spec.check_batch(batch)?;
        }
        let scheduler = settings.sampling.scheduler.resolve(&spec.scheduler)?;
        let evaluations = schedulers::create(scheduler, &spec.scheduler, settings.sampling.steps)?.timesteps().len();
        let tokenizer = ClipTokenizer::open(&model.component("tokenizer")?)?;
        spec.text.check_tokenizer(&tokenizer)?;
        spec.check_weights(&model, device)?;
        let latents = spec.latent_shape(height, width);
        let samples = (work.selected.end - work.selected.start) as usize;
        let shape = [samples, latents[0], latents[1], latents[2]];
        let init = settings.init_latents.as_ref().map(|path| InitLatents::open(path, shape)).transpose()?;
        let too_long = work.too_long(&corpus, &tokenizer)?;
        let config =
            config::of_run(&settings, (height, width), device.operands(precision), scheduler.name(), &model, &corpus, samples)?;
        RunManifest::check(&settings.output.folder, &config)?;
        let guided = settings.sampling.guidance > 1.0;
        let fits = |batch| MemoryPlan::count(&spec, device, precision, (height, width), batch, guided, evaluations);
        let memory = memory::choose(settings.batch, device, work.largest_shard(), device.free_memory()?, fits)?;
        Ok(Run {
            settings,
            device,
            precision,
            model,
            spec,
            tokenizer,
            corpus,
            work,
            too_long,
            init,
            evaluations,
            size: (height, width),
            latents,
            memory,
            config,
        })
    }

    /// The plan as a JSON object: the resolved configuration, what is there, and what the rest takes. Writes nothing.
    ///
    /// # Errors
    /// If the folder's statistics cannot be read.
    pub fn describe(&self) -> Result<Value> {
        let folder = &self.settings.output.folder;
        let done = self.work.jobs.iter().filter_map(|job| shard_stats(folder, job.shard).transpose());
        let done: Vec<_> = done.collect::<Result<_>>()?;
        let guidance = self.settings.sampling.guidance;
        let batch = self.batch();
        let cost = self.spec.cost(self.device, self.size, batch, guidance > 1.0)?;
        let flops = cost.text_flops + cost.vae_flops + self.evaluations as u64 * cost.unet_flops / batch as u64;
        let memory = &self.memory.plan;
        let mut plan = serde_json::json!({
            "work": format!("{} images in {} shards", self.work.samples(), self.work.jobs.len()),
            "done": format!("{} images in {} shards", done.iter().map(|stats| stats.count).sum::<u64>(), done.len()),
            "captions_cut": self.too_long.len(),
            "device": self.device.describe(),
            "batch": batch,
            "batch_because": self.memory.because,
            "compute": format!("{:.0} GFLOP an image", flops as f64 / 1e9),
            "weights": memory::amount(memory.weights),
            "activations": memory.describe_activations(),
            "buffers": memory::amount(memory.buffers),
            "memory": memory::amount(memory.total()),
        });
        if let (Some(plan), Some(config)) = (plan.as_object_mut(), self.config.as_object()) {
            plan.extend(config.clone());
        }
        Ok(plan)
    }

    /// Makes the pairs that are not there yet.
    ///
    /// # Errors
    /// [`Error::Interrupted`] once `stop` is raised; the errors of reading the weights and writing the shards. Images that
    /// fail are no error: see [`Summary::failed`].
    pub fn execute(&self, events: &dyn Events, stop: &AtomicBool) -> Result<Summary> {
        let started = Instant::now();
        let folder = &self.settings.output.folder;
        let selection = &self.settings.selection;
        let worker = Worker { index: selection.worker_index, count: selection.worker_count };
        let manifest =
            RunManifest::open(folder, &self.config, &config::of_process(&self.settings, self.batch(), self.device), worker)?;
        let shards = ShardSettings {
            shard_size: self.settings.output.shard_size,
            format: self.settings.output.format,
            columns: config::columns(),
            config_sha256: manifest.config_sha256().to_string(),
        };
        let mut progress = Progress { events, stop, summary: Summary { cut: self.too_long.len() as u64, ..Summary::default() } };
        let open = self.survey(&shards, &mut progress)?;
        if !open.is_empty() {
            self.make(&shards, &open, &mut progress)?;
        } else if self.settings.output.save_latents.as_ref().is_some_and(|path| !path.exists()) {
            // A run that ended between its last shard and the last rename.
            self.open_saved_latents(self.work.samples())?.map_or(Ok(()), SavedLatents::finish)?;
        }
        progress.summary.seconds = started.elapsed().as_secs_f64();
        events.event(&Event::Finished(&progress.summary));
        Ok(progress.summary)
    }

    /// Looks at what is there, and says what is to be done. Returns the shards that are not finished.
    fn survey(&self, shards: &ShardSettings, progress: &mut Progress<'_>) -> Result<Vec<&Job>> {
        let (mut open, mut done) = (Vec::new(), 0);
        for job in &self.work.jobs {
            match finished_shard(&self.settings.output.folder, job.shard, shards)? {
                Some(stats) => {
                    done += stats.count;
                    progress.summary.failed += stats.failed_to_generate;
                }
                None => open.push(job),
            }
        }
        progress.summary.samples = self.work.samples();
        let device = format!("{}, {}", self.device.describe(), self.device.operands(self.precision));
        let shards = self.work.jobs.len() as u64;
        progress.events.event(&Event::Planned { samples: self.work.samples(), done, shards, device: &device });
        for (index, tokens) in self.too_long.iter().take(LONG_CAPTIONS_SHOWN) {
            let limit = self.tokenizer.max_length();
            progress.warn(&format!(
                "caption {index} has {tokens} tokens; the text encoder reads {limit}, so its end is cut (--truncate accepts that)"
            ));
        }
        if let Some(more) = self.too_long.len().checked_sub(LONG_CAPTIONS_SHOWN).filter(|&more| more > 0) {
            progress.warn(&format!("{more} more captions are too long"));
        }
        Ok(open)
    }

    /// Makes the images of `jobs`, and leaves a trace of it if one is asked for, also of a run that fails.
    fn make(&self, shards: &ShardSettings, jobs: &[&Job], progress: &mut Progress<'_>) -> Result<()> {
        let trace = Trace::new(self.settings.trace.as_deref());
        let (events, stop) = (progress.events, progress.stop);
        let stages = Stages { run: self, shards, events, stop, trace: &trace, fault: Fault::default() };
        let made = stages.work(jobs, progress);
        let saved = trace.save();
        made.and(saved.map(drop))
    }

    fn sampler_settings(&self) -> Result<sampler::Settings> {
        let sampling = &self.settings.sampling;
        Ok(sampler::Settings {
            height: self.size.0,
            width: self.size.1,
            guidance: sampling.guidance,
            negative: self.tokenizer.encode(&sampling.negative)?.ids,
            rng: sampling.rng,
            savings: Savings::default(),
        })
    }

    /// The file of final latents, if one is asked for; `before` samples were made by earlier runs.
    fn open_saved_latents(&self, before: u64) -> Result<Option<SavedLatents>> {
        let samples = (self.work.selected.end - self.work.selected.start) as usize;
        let [channels, height, width] = self.latents;
        let open = |path| SavedLatents::open(path, [samples, channels, height, width], before);
        self.settings.output.save_latents.as_deref().map(open).transpose()
    }

    /// Images made at once.
    fn batch(&self) -> usize {
        self.memory.batch
    }

    fn caption(&self, index: u64) -> Result<&str> {
        self.corpus.get(index as usize).map(|caption| caption.text).ok_or_else(|| lost(index))
    }

    fn seed(&self, index: u64) -> u64 {
        self.settings.sampling.seed.wrapping_add(index)
    }
}

fn lost(index: u64) -> Error {
    Error::Internal { op: "generate", message: format!("caption {index} is not in the corpus") }
}
