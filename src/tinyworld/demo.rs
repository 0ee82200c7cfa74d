//! The pipeline on the built-in world: captions of scenes that nobody has trained on become pictures, which are judged.

use super::quality::{self, Judged, Quality};
use super::{SIDE, Scene, Split, go_on};
use crate::clip::Clip;
use crate::corpus::CorpusOptions;
use crate::device::{Device, Precision};
use crate::diffusion::schedulers::SchedulerName;
use crate::generate::{self, Batch, Events, Output, Run, Sampling, Selection, Summary};
use crate::rng::RngKind;
use crate::shards::{self, GalleryOptions, ImageFormat, SheetOptions, decode_image, read_shard, shard_name};
use crate::{Error, Result, files};
use serde::Serialize;
use serde_json::json;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// What to make, and with what.
#[derive(Clone, Debug, Serialize)]
pub struct Demo {
    /// Folder for everything; the same settings again go on where a run was interrupted.
    #[serde(skip)]
    pub folder: PathBuf,
    /// Model that makes the pictures, of the size of the world's: as in [`generate::Settings`].
    pub model: String,
    /// Captions to turn into pictures, and real pictures to compare with.
    pub count: u64,
    /// Seed of the scenes and of the pictures.
    pub seed: u64,
    /// Denoising steps.
    pub steps: usize,
    /// Strength of classifier-free guidance.
    pub guidance: f32,
}

/// What a demo found.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// What was judged; digests of the model's files are in the manifest of the pairs.
    pub demo: Demo,
    /// The CLIP that judged, as it was asked for.
    pub clip: String,
    /// Version of the program.
    pub syntic_version: String,
    /// Pictures made from captions of the `text` split.
    pub generated: Quality,
    /// Pictures of the `test` split, drawn by the renderer: what the measures say of pictures that are right.
    pub real: Quality,
}

/// Pictures made at once: the layers of a small model share two cores badly one picture at a time.
const BATCH: usize = 16;

/// Captions in a shard: small, so that a few hundred make more than one.
const SHARD_SIZE: usize = 100;

impl Demo {
    /// Makes the pairs: `captions.jsonl` from the `text` split, and from it the shards in `pairs/`.
    ///
    /// # Errors
    /// Those of [`Run`]; [`Error::Interrupted`] once `stop` is raised.
    pub fn make(&self, device: &Device, precision: Precision, events: &dyn Events, stop: &AtomicBool) -> Result<Summary> {
        std::fs::create_dir_all(&self.folder).map_err(Error::io("create folder", &self.folder))?;
        let captions = self.write_captions()?;
        Run::prepare(self.generation(captions), device, precision)?.execute(events, stop)
    }

    /// Lays the pairs out on `page.html` and `sheet.png`.
    ///
    /// # Errors
    /// [`Error::Usage`] if there are none; [`Error::Io`].
    pub fn show(&self) -> Result<()> {
        let pairs = self.pairs();
        shards::gallery(&pairs, &self.folder.join("page.html"), GalleryOptions { limit: self.count as usize })?;
        shards::write_contact_sheet(&pairs, &self.folder.join("sheet.png"), SheetOptions::default())?;
        Ok(())
    }

    /// Judges the pairs by `clip`, which was asked for as `name`, and as many pictures of the `test` split that the renderer has drawn.
    /// Leaves `report.json`.
    ///
    /// # Errors
    /// [`Error::Interrupted`] once `stop` is raised; those of [`Clip`], of reading the shards, and of writing.
    pub fn judge(&self, clip: &Clip, name: &str, stop: &AtomicBool) -> Result<Report> {
        let without_pictures = |split| -> Vec<Judged> {
            let scenes = (0..self.count).map(|index| self.scene(split, index));
            scenes.map(|(scene, caption)| Judged { scene, caption, picture: None }).collect()
        };
        let mut generated = without_pictures(Split::Text);
        for shard in 0..self.count.div_ceil(SHARD_SIZE as u64) {
            let tar = self.pairs().join(format!("{}.tar", shard_name(shard as u32)));
            read_pictures(&tar, &mut generated)?;
        }
        let mut real = without_pictures(Split::Test);
        for judged in &mut real {
            go_on(stop)?;
            judged.picture = Some(judged.scene.picture());
        }
        let report = Report {
            demo: self.clone(),
            clip: name.to_string(),
            syntic_version: crate::VERSION.to_string(),
            generated: quality::measure(&generated, clip, stop)?,
            real: quality::measure(&real, clip, stop)?,
        };
        let json = serde_json::to_vec_pretty(&report).map_err(|e| Error::Internal { op: "demo", message: e.to_string() })?;
        files::write_atomic(&self.folder.join("report.json"), &json)?;
        Ok(report)
    }

    /// Scene `index` and the caption that stands for it.
    fn scene(&self, split: Split, index: u64) -> (Scene, String) {
        let scene = Scene::draw(split, self.seed, index);
        let [caption, ..] = scene.captions();
        (scene, caption)
    }

    fn write_captions(&self) -> Result<PathBuf> {
        let path = self.folder.join("captions.jsonl");
        let mut lines = String::new();
        for index in 0..self.count {
            let (_, caption) = self.scene(Split::Text, index);
            _ = writeln!(lines, "{}", json!({"id": index, "caption": caption})); // a String takes everything
        }
        // Captions without pairs are of a demo that was refused for another reason, and made nothing.
        let pairs = self.pairs().exists();
        if pairs && path.exists() && std::fs::read(&path).map_err(Error::io("read", &path))? != lines.as_bytes() {
            let message = format!("{} is of a demo with another count or seed", path.display());
            return Err(Error::usage(message, "repeat its settings, or choose another folder"));
        }
        files::write_atomic(&path, lines.as_bytes())?;
        Ok(path)
    }

    fn generation(&self, captions: PathBuf) -> generate::Settings {
        generate::Settings {
            model: self.model.clone(),
            captions,
            corpus: CorpusOptions::default(),
            selection: Selection { offset: 0, limit: None, worker_index: 0, worker_count: 1 },
            sampling: Sampling {
                steps: self.steps,
                guidance: self.guidance,
                negative: String::new(),
                scheduler: SchedulerName::Auto,
                height: Some(SIDE),
                width: Some(SIDE),
                seed: self.seed,
                rng: RngKind::default(),
            },
            output: Output {
                folder: self.pairs(),
                shard_size: SHARD_SIZE,
                format: ImageFormat::Png,
                quality: 95,
                save_latents: None,
            },
            init_latents: None,
            batch: Batch::Images(BATCH),
            trace: None,
        }
    }

    fn pairs(&self) -> PathBuf {
        self.folder.join("pairs")
    }
}

/// Puts the pictures of a shard to the captions they were made from.
fn read_pictures(tar: &Path, judged: &mut [Judged]) -> Result<()> {
    for sample in read_shard(tar)? {
        let sample = sample?;
        let (Some((_, image)), Some(fields)) = (sample.image(), sample.fields()) else { continue };
        let index = fields.get("index").and_then(serde_json::Value::as_u64);
        let place = index.and_then(|index| judged.get_mut(index as usize));
        let place = place.ok_or_else(|| Error::format(tar, &sample.key, "its json has no `index` of a caption"))?;
        place.picture = Some(decode_image(tar, &sample.key, image)?);
    }
    Ok(())
}
