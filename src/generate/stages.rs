//! The stages of a run, each on its own threads, joined by bounded queues, so that the device never waits for another:
//!
//! ```text
//! tokenise --batches--> device --images--> encoders --samples--> write
//!     '----------------------- shards ----------------------------^
//! ```
//!
//! Whoever gets ahead waits at a full queue, so memory is bounded. The device hands each image to the encoders together with a place for
//! the result, and the place to the writer: whatever encoder is done first, samples are written in order. A stage that fails or stops
//! closes its ends of the queues; the stages behind it finish what they were given, those before it find nobody to give to.

use super::config;
use super::events::{Event, Events};
use super::fault::Fault;
use super::latents::SavedLatents;
use super::plan::Job;
use super::progress::Progress;
use super::trace::{MOST, Trace, Track};
use super::{Run, lost};
use crate::device::Device;
use crate::diffusion::sampler::{self, Generated, Sampler};
use crate::diffusion::{StableDiffusion, schedulers};
use crate::shards::{Outcome, Sample, Shard, ShardSettings, ShardWriter, encode_image, image_fault};
use crate::{Error, Result};
use std::ops::{ControlFlow, Range};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{Builder, Scope, scope};
use std::time::Instant;

/// Batches that are tokenised ahead of the device.
const BATCHES_AHEAD: usize = 2;

/// Shards that are opened ahead of the one being written.
const SHARDS_AHEAD: usize = 8;

/// Batches of images that the device may be ahead of the encoders and of the writer, which now and then waits for a disk.
const IMAGES_AHEAD: usize = 2;

/// A shard to be written.
struct Opened<'j> {
    writer: Box<ShardWriter>,
    job: &'j Job,
}

/// A batch to be made.
struct Prompts {
    /// Its captions, as positions in the corpus.
    samples: Range<u64>,
    /// Position of the first caption of its shard.
    shard_start: u64,
    /// Token ids of each.
    ids: Vec<Vec<u32>>,
    /// Starting point of each, where they are given.
    latents: Vec<Option<Vec<f32>>>,
}

/// An image to be encoded, and where the sample goes.
struct Image {
    index: u64,
    shard_start: u64,
    generated: Generated,
    place: SyncSender<Encoded>,
}

/// What is written of an image.
struct Encoded {
    sample: Sample,
    latents: Vec<f32>,
}

/// Queue ends of the device's stage.
struct DeviceEnds {
    batches: Receiver<Prompts>,
    images: SyncSender<Image>,
    places: SyncSender<Receiver<Encoded>>,
}

/// What all stages share.
pub(super) struct Stages<'r, 'd> {
    pub run: &'r Run<'d>,
    pub shards: &'r ShardSettings,
    pub events: &'r dyn Events,
    pub stop: &'r AtomicBool,
    pub trace: &'r Trace,
    pub fault: Fault,
}

impl Stages<'_, '_> {
    /// Makes the images of `jobs`.
    ///
    /// # Errors
    /// The first error of any stage; what was finished before is written.
    pub fn work(self, jobs: &[&Job], progress: &mut Progress<'_>) -> Result<()> {
        let images_ahead = IMAGES_AHEAD * self.run.batch();
        let (prompts, batches) = sync_channel(BATCHES_AHEAD);
        let (opened, shards) = sync_channel(SHARDS_AHEAD);
        let (images, raw) = sync_channel(images_ahead);
        let (places, results) = sync_channel(images_ahead);
        // Owned by the encoders alone: with the last of them the queue is closed.
        let raw = Arc::new(Mutex::new(raw));
        let (stages, fault) = (&self, &self.fault);
        let mut saved = None;
        scope(|scope| {
            let (saved, raw) = (&mut saved, raw);
            fault.watch("generate", || {
                spawn(scope, "tokenise".into(), move || fault.watch("tokenise", || stages.tokenise(jobs, &prompts, &opened)))?;
                for worker in 0..encoders(stages.run.device, stages.run.batch()) {
                    let raw = raw.clone();
                    spawn(scope, format!("encode {worker}"), move || {
                        fault.watch("encode", || stages.encode(worker, &raw));
                    })?;
                }
                drop(raw);
                spawn(scope, "write".into(), move || {
                    fault.watch("write", || stages.write(&shards, &results, saved, progress));
                })?;
                let ends = DeviceEnds { batches, images, places };
                fault.watch("device", || stages.make_images(&ends));
                Ok(())
            });
        });
        self.fault.into_result()?;
        saved.map_or(Ok(()), SavedLatents::finish)
    }

    /// Opens the shards, and tokenises what is missing of each, batch by batch.
    fn tokenise<'j>(&self, jobs: &[&'j Job], prompts: &SyncSender<Prompts>, opened: &SyncSender<Opened<'j>>) -> Result<()> {
        for &job in jobs {
            let Shard::Open(writer) = ShardWriter::open(&self.run.settings.output.folder, job.shard, self.shards)? else {
                continue;
            };
            let mut next = job.captions.start + writer.completed() as u64;
            if opened.send(Opened { writer, job }).is_err() {
                return Ok(());
            }
            while next < job.captions.end {
                if self.stop.load(Ordering::Relaxed) {
                    return Err(Error::Interrupted);
                }
                let samples = next..job.captions.end.min(next + self.run.batch() as u64);
                next = samples.end;
                let batch = self.prompts(samples, job)?;
                if prompts.send(batch).is_err() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn prompts(&self, samples: Range<u64>, job: &Job) -> Result<Prompts> {
        let _span = self.trace.span(Track::Tokenise, "tokenise", None, samples.clone());
        let run = self.run;
        let ids = samples.clone().map(|index| Ok(run.tokenizer.encode(run.caption(index)?)?.ids)).collect::<Result<_>>()?;
        let given = |index: u64| {
            run.init.as_ref().map(|init| {
                let mut latents = vec![0.0; run.latents.iter().product()];
                init.copy((index - run.work.selected.start) as usize, &mut latents);
                latents
            })
        };
        Ok(Prompts { ids, latents: samples.clone().map(given).collect(), samples, shard_start: job.captions.start })
    }

    /// Loads the model, and makes batch after batch.
    fn make_images(&self, ends: &DeviceEnds) -> Result<()> {
        let (started, run) = (Instant::now(), self.run);
        let model = StableDiffusion::load(&run.model, run.device, run.precision)?;
        if let Some(problem) = &model.unkept {
            self.events.event(&Event::Warning(problem));
        }
        let sampling = &run.settings.sampling;
        let scheduler = schedulers::create(sampling.scheduler, &run.spec.scheduler, sampling.steps)?;
        let mut sampler = Sampler::new(&model, scheduler, run.sampler_settings()?, run.batch())?;
        self.events.event(&Event::Loaded { seconds: started.elapsed().as_secs_f64() });
        while let Some(batch) = self.next_batch(&ends.batches) {
            // All on one thread, so that ranges for a profiler nest.
            let images = run.device.install(|| self.make_batch(&batch, &mut sampler))?;
            for (index, generated) in batch.samples.zip(images) {
                let (place, result) = sync_channel(1);
                let image = Image { index, shard_start: batch.shard_start, generated, place };
                if !(self.hand_over(&ends.places, result, index) && self.hand_over(&ends.images, image, index)) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// The next batch, or none if there are no more. Where the device has to wait for it, the trace shows that.
    fn next_batch(&self, batches: &Receiver<Prompts>) -> Option<Prompts> {
        match batches.try_recv() {
            Ok(batch) => Some(batch),
            Err(TryRecvError::Disconnected) => None,
            Err(TryRecvError::Empty) => {
                let _span = self.trace.span(Track::Device, "wait for prompts", None, 0..0);
                batches.recv().ok()
            }
        }
    }

    /// Puts something into a queue; false if nobody takes it any more. Where the device has to wait, the trace shows that.
    fn hand_over<T>(&self, queue: &SyncSender<T>, item: T, index: u64) -> bool {
        match queue.try_send(item) {
            Ok(()) => true,
            Err(TrySendError::Disconnected(_)) => false,
            Err(TrySendError::Full(item)) => {
                let _span = self.trace.span(Track::Device, "wait for encoders", None, index..index + 1);
                queue.send(item).is_ok()
            }
        }
    }

    /// Makes the images of a batch.
    fn make_batch(&self, batch: &Prompts, sampler: &mut Sampler<'_>) -> Result<Vec<Generated>> {
        let samples: Vec<sampler::Sample<'_>> = (batch.samples.clone().zip(&batch.ids).zip(&batch.latents))
            .map(|((index, ids), latents)| sampler::Sample { ids, seed: self.run.seed(index), latents: latents.as_deref() })
            .collect();
        let mut decoded = batch.samples.clone();
        let mut span = Some(self.trace.span(Track::Device, "text", None, batch.samples.clone()));
        sampler.generate(&samples, &mut |step, steps| {
            span = None;
            if self.stop.load(Ordering::Relaxed) || self.fault.is_raised() {
                return ControlFlow::Break(());
            }
            self.events.event(&Event::Step { step, steps });
            let image = if step == steps { decoded.next() } else { None };
            span = Some(match image {
                Some(index) => self.trace.span(Track::Device, "decode", None, index..index + 1),
                None => self.trace.span(Track::Device, "step", Some(step), batch.samples.clone()),
            });
            ControlFlow::Continue(())
        })
    }

    /// Encodes image after image.
    fn encode(&self, worker: usize, images: &Mutex<Receiver<Image>>) -> Result<()> {
        loop {
            // Waiting with the lock is waiting in line.
            let next = images.lock().unwrap_or_else(PoisonError::into_inner).recv();
            let Ok(Image { index, shard_start, generated, place }) = next else { return Ok(()) };
            let span = self.trace.span(Track::Encode(worker), "encode", None, index..index + 1);
            let sample = self.sample(index, shard_start, &generated)?;
            drop(span);
            // A writer that has stopped has said why.
            _ = place.send(Encoded { sample, latents: generated.latents });
        }
    }

    /// What goes into the shard for one image.
    fn sample(&self, index: u64, shard_start: u64, image: &Generated) -> Result<Sample> {
        let run = self.run;
        let (height, width) = run.size;
        let caption = run.corpus.get(index as usize).ok_or_else(|| lost(index))?;
        let outcome = match image_fault(&image.pixels, image.finite) {
            Some(fault) => Outcome::Failed(fault.to_string()),
            None => {
                let output = &run.settings.output;
                Outcome::Image(encode_image(output.format, output.quality, width as u32, height as u32, &image.pixels)?)
            }
        };
        let cut = run.too_long.binary_search_by_key(&index, |&(index, _)| index).is_ok();
        let meta = config::sample_fields(&run.config, &caption, run.seed(index), cut);
        Ok(Sample { index: (index - shard_start) as usize, caption: caption.text.to_string(), outcome, meta })
    }

    /// Writes shard after shard. `saved` is the file of final latents, once there is one.
    fn write(
        &self,
        shards: &Receiver<Opened<'_>>,
        results: &Receiver<Receiver<Encoded>>,
        saved: &mut Option<SavedLatents>,
        progress: &mut Progress<'_>,
    ) -> Result<()> {
        for Opened { mut writer, job } in shards {
            let completed = writer.completed() as u64;
            writer.restart_clock();
            if saved.is_none() {
                *saved = self.run.open_saved_latents(job.captions.start - self.run.work.selected.start + completed)?;
            }
            if completed > 0 {
                self.events.event(&Event::Resumed { shard: job.shard, samples: completed });
            }
            for index in job.captions.start + completed..job.captions.end {
                // Nothing comes if a stage before has stopped, which has said why.
                let Ok(encoded) = results.recv().and_then(|place| place.recv()) else { return Ok(()) };
                let span = self.trace.span(Track::Write, "write", None, index..index + 1);
                if let Some(saved) = saved {
                    saved.write((index - self.run.work.selected.start) as usize, &encoded.latents)?;
                    saved.sync()?;
                }
                writer.push(&encoded.sample)?;
                drop(span);
                let (key, seed) = (writer.key(encoded.sample.index), self.run.seed(index));
                progress.sample(&key, index, seed, &encoded.sample.outcome);
                if self.trace.save_if_full()? {
                    progress.warn(&format!("the trace holds the first {MOST} spans; the rest of the run is not in it"));
                }
            }
            let _span = self.trace.span(Track::Write, "finish", Some(job.shard as usize), job.captions.clone());
            let id = writer.shard_id();
            progress.shard(id, &writer.finish()?);
        }
        Ok(())
    }
}

/// Threads that encode images: one where the device needs the processor, else those that neither it nor the writer keeps busy.
fn encoders(device: &Device, batch: usize) -> usize {
    match device {
        Device::Gpu(gpu) if !gpu.is_simulated() => gpu.host().threads().saturating_sub(2).clamp(1, batch),
        Device::Gpu(_) | Device::Cpu(_) => 1,
    }
}

fn spawn<'s>(scope: &'s Scope<'s, '_>, name: String, work: impl FnOnce() + Send + 's) -> Result<()> {
    let message = format!("cannot start the thread `{name}`");
    Builder::new()
        .name(name)
        .spawn_scoped(scope, work)
        .map(drop)
        .map_err(|e| Error::Internal { op: "generate", message: format!("{message}: {e}") })
}
