//! `syntic tinyworld`: the built-in world as a data set.

use super::{Counter, interrupt, named, note};
use clap::value_parser;
use std::path::PathBuf;
use syntic::Result;
use syntic::shards::ImageFormat;
use syntic::tinyworld::{CAPTIONS, Dataset, Split};

/// Flags of `syntic tinyworld`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Part of the world: pretrain, text (captions only), val or test. No two share a scene.
    #[arg(long, value_parser = named(Split::ALL.map(|s| (s.name(), s))))]
    split: Split,
    /// Scenes to write.
    #[arg(long, value_name = "N")]
    count: u64,
    /// Seed of the scenes.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Folder for the shards and the COCO file `annotations/captions_SPLIT.json`.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Draw the pictures of the text split too, to learn from them as an upper bound.
    #[arg(long)]
    pictures: bool,
    /// Format of the pictures.
    #[arg(long, value_parser = named(ImageFormat::ALL.map(|f| (f.extension(), f))), default_value = "png")]
    format: ImageFormat,
    /// Pictures in a shard.
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = value_parser!(u32).range(1..))]
    shard_size: u32,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let pictures = args.pictures || args.split != Split::Text;
    let (split, count, seed, format) = (args.split, args.count, args.seed, args.format);
    let dataset = Dataset { split, count, seed, pictures, format, shard_size: args.shard_size as usize };
    let counter = Counter::new(count, "scenes");
    let written = dataset.write(&args.out, &|done| counter.show(done), interrupt()?)?;
    counter.finish();
    let shards = if pictures { format!("pictures in {} shards, ", written.shards) } else { String::new() };
    note(format_args!("{count} scenes: {shards}{CAPTIONS} captions each in {}", written.captions.display()));
    Ok(())
}
