//! A split as files: WebDataset shards of pictures with their captions, and captions as COCO writes them.

use super::{CAPTIONS, REVISION, SIDE, Scene, Split, go_on};
use crate::shards::{
    Column, ColumnKind, ImageFormat, Outcome, RunManifest, Sample, Shard, ShardSettings, ShardWriter, Worker, encode_image,
    sample_key,
};
use crate::{Error, Result, files};
use rayon::prelude::*;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Scenes drawn at once, and at most lost by an interruption.
const BATCH: u64 = 256;

/// Most scenes of a data set: keys and ids stay well inside what readers can hold.
const MAX_SCENES: u64 = 100_000_000;

/// Part of a split, to be written.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Which part of the world.
    pub split: Split,
    /// Scenes `0..count`.
    pub count: u64,
    /// Seed of the scenes.
    pub seed: u64,
    /// Whether to draw pictures; without, there are captions only and no shards.
    pub pictures: bool,
    /// Format of the pictures.
    pub format: ImageFormat,
    /// Pictures in a shard.
    pub shard_size: usize,
}

/// What [`Dataset::write`] left in a folder.
#[derive(Clone, Debug)]
pub struct Written {
    /// The COCO file.
    pub captions: PathBuf,
    /// Shards of the data set, those of earlier runs included.
    pub shards: u32,
}

/// Called with the number of scenes that are done.
pub type Progress<'p> = &'p dyn Fn(u64);

impl Dataset {
    /// Writes the data set to `folder`, or goes on with it: `annotations/captions_SPLIT.json`, in COCO's format, with [`CAPTIONS`] captions for
    /// each picture, and, with pictures, shards whose samples have the first caption as their text and in their json the others
    /// (`caption_2` ...), `image_id`, `split`, `seed` and `scene`, all that the picture was drawn from as JSON text.
    ///
    /// # Errors
    /// [`Error::Usage`] for a count or a shard size that cannot be, or a folder of other content; [`Error::Interrupted`] once `stop`
    /// is raised; [`Error::Io`].
    pub fn write(&self, folder: &Path, progress: Progress<'_>, stop: &AtomicBool) -> Result<Written> {
        self.check()?;
        let config = json!({
            "tinyworld": {"split": self.split.name(), "count": self.count, "seed": self.seed, "pictures": self.pictures, "world": REVISION},
            "format": self.format.extension(), "shard_size": self.shard_size, "syntic_version": crate::VERSION,
        });
        let manifest = RunManifest::open(folder, &config, &json!({}), Worker::default())?;
        let mut shards = 0;
        if self.pictures {
            let settings = ShardSettings {
                shard_size: self.shard_size,
                format: self.format,
                columns: columns(),
                config_sha256: manifest.config_sha256().to_string(),
            };
            for first in (0..self.count).step_by(self.shard_size) {
                self.write_shard(folder, shards, first, &settings, progress, stop)?;
                shards += 1;
            }
        }
        // In a folder of its own, as COCO has it: readers of shards take every json beside them for the statistics of a shard.
        let annotations = folder.join("annotations");
        std::fs::create_dir_all(&annotations).map_err(Error::io("create folder", &annotations))?;
        let captions = annotations.join(format!("captions_{}.json", self.split.name()));
        if !captions.exists() {
            self.write_captions(&captions, progress, stop)?;
        }
        Ok(Written { captions, shards })
    }

    fn check(&self) -> Result<()> {
        if !(1..=MAX_SCENES).contains(&self.count) {
            return Err(Error::usage(format!("{} scenes cannot be written", self.count), format!("ask for 1 to {MAX_SCENES}")));
        }
        if self.shard_size == 0 {
            return Err(Error::usage("a shard of no pictures", "1000 pictures a shard are usual"));
        }
        Ok(())
    }

    fn write_shard(
        &self,
        folder: &Path,
        id: u32,
        first: u64,
        settings: &ShardSettings,
        progress: Progress<'_>,
        stop: &AtomicBool,
    ) -> Result<()> {
        let Shard::Open(mut writer) = ShardWriter::open(folder, id, settings)? else { return Ok(()) };
        let end = self.count.min(first + self.shard_size as u64);
        let mut next = first + writer.completed() as u64;
        while next < end {
            go_on(stop)?;
            let batch = next..end.min(next + BATCH);
            let samples: Vec<Sample> =
                batch.clone().into_par_iter().map(|index| self.sample(index, (index - first) as usize)).collect::<Result<_>>()?;
            samples.iter().try_for_each(|sample| writer.push(sample))?;
            next = batch.end;
            progress(next);
        }
        writer.finish().map(drop)
    }

    /// Scene `index` as sample `place` of its shard.
    fn sample(&self, index: u64, place: usize) -> Result<Sample> {
        let scene = Scene::draw(self.split, self.seed, index);
        let mut captions = scene.captions().into_iter();
        let caption = captions.next().unwrap_or_default();
        let text = serde_json::to_string(&scene).map_err(|e| Error::Internal { op: "tinyworld", message: e.to_string() })?;
        let mut meta = Map::new();
        meta.extend((2..).zip(captions).map(|(k, caption)| (format!("caption_{k}"), Value::from(caption))));
        for (name, value) in [
            ("image_id", json!(index)),
            ("split", json!(self.split.name())),
            ("seed", json!(self.seed)),
            ("width", json!(SIDE)),
            ("height", json!(SIDE)),
            ("scene", json!(text)),
        ] {
            meta.insert(name.into(), value);
        }
        let image = encode_image(self.format, 95, SIDE as u32, SIDE as u32, &scene.picture())?;
        Ok(Sample { index: place, caption, outcome: Outcome::Image(image), meta })
    }

    /// COCO's `images` and `annotations`. Image ids are indices of scenes; file names are those of the members of the shards.
    fn write_captions(&self, path: &Path, progress: Progress<'_>, stop: &AtomicBool) -> Result<()> {
        let extension = self.format.extension();
        let description = format!("syntic tinyworld, {} split, seed {}", self.split.name(), self.seed);
        let image = |index: u64| {
            let (shard, place) = (index / self.shard_size as u64, (index % self.shard_size as u64) as usize);
            let key = sample_key(shard as u32, place, self.shard_size);
            json!({"id": index, "file_name": format!("{key}.{extension}"), "width": SIDE, "height": SIDE})
        };
        let annotations = |index: u64| {
            let captions = Scene::draw(self.split, self.seed, index).captions();
            let annotation =
                |(k, text)| json!({"id": index * CAPTIONS as u64 + k, "image_id": index, "caption": text}).to_string();
            (0..).zip(captions).map(annotation).collect::<Vec<String>>().join(",\n")
        };
        let info = json!({"description": description, "version": crate::VERSION, "world": REVISION});
        files::write_atomic_with(path, |file| {
            let mut write = |text: String| file.write_all(text.as_bytes()).map_err(Error::io("write", path));
            write(format!("{{\"info\": {info}, \"licenses\": [], \"images\": [\n"))?;
            for index in 0..self.count {
                go_on(stop)?;
                write(format!("{}{}", separator(index), image(index)))?;
            }
            write("\n], \"annotations\": [\n".into())?;
            for first in (0..self.count).step_by(BATCH as usize) {
                go_on(stop)?;
                let batch = first..self.count.min(first + BATCH);
                let lines: Vec<String> = batch.clone().into_par_iter().map(annotations).collect();
                batch.clone().zip(lines).try_for_each(|(index, lines)| write(format!("{}{lines}", separator(index))))?;
                if !self.pictures {
                    progress(batch.end);
                }
            }
            write("\n]}\n".into())
        })
    }
}

/// What stands before entry `index` of a list.
fn separator(index: u64) -> &'static str {
    if index == 0 { "" } else { ",\n" }
}

/// Fields of a sample beside those of every shard.
fn columns() -> Vec<Column> {
    let texts = (2..=CAPTIONS).map(|k| Column::new(format!("caption_{k}"), ColumnKind::Text));
    let others = [
        ("image_id", ColumnKind::UInt),
        ("split", ColumnKind::Text),
        ("seed", ColumnKind::UInt),
        ("width", ColumnKind::UInt),
        ("height", ColumnKind::UInt),
        ("scene", ColumnKind::Text),
    ];
    texts.chain(others.into_iter().map(|(name, kind)| Column::new(name, kind))).collect()
}
