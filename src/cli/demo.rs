//! `syntic demo`: captions become pictures, with nothing but this program.

use super::progress::Report as Progress;
use super::{DeviceArgs, interrupt, note, print};
use clap::value_parser;
use std::path::PathBuf;
use syntic::clip::Clip;
use syntic::tinyworld::{CANDIDATES, Demo, Quality};
use syntic::weights::BUILTIN;
use syntic::{Error, Result};

/// Flags of `syntic demo`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder for everything. Run the same command again to resume.
    #[arg(long, value_name = "DIR", default_value = "syntic-demo")]
    out: PathBuf,
    /// Captions to turn into pictures; the right one is looked for among 100, so fewer are not judged by CLIP.
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = value_parser!(u64).range(1..=10_000))]
    count: u64,
    /// Seed of scenes and pictures.
    #[arg(long, default_value_t = 42)]
    seed: u64,
    /// Denoising steps.
    #[arg(long, default_value_t = 20)]
    steps: usize,
    /// Strength of classifier-free guidance; 1 or less turns it off.
    #[arg(long, default_value_t = 3.0)]
    guidance: f32,
    /// Model that makes the pictures, as for `syntic generate`; asked for 64 x 64 pixels.
    #[arg(long, value_name = "DIR|ID|builtin", default_value = BUILTIN)]
    model: String,
    /// CLIP that judges them.
    #[arg(long, value_name = "DIR|ID|builtin", default_value = BUILTIN)]
    clip: String,
    #[command(flatten)]
    device: DeviceArgs,
    /// Print events and the report as JSON objects, one a line.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    let (device, precision) = args.device.open()?;
    let Args { out: folder, model, count, seed, steps, guidance, json, .. } = args;
    let demo = Demo { folder, model, count, seed, steps, guidance };
    let clip = Clip::open(&args.clip, &device)?; // before the work that it is to judge
    let stop = interrupt()?;
    let made = demo.make(&device, precision, &Progress::new(json), stop)?;
    let some = made.failed < made.samples;
    if some {
        demo.show()?;
    }
    if !json {
        note("judging the pictures beside real ones ...");
    }
    let report = demo.judge(&clip, &args.clip, stop)?;
    if json {
        let line = serde_json::to_string(&report).map_err(|e| Error::Internal { op: "demo", message: e.to_string() })?;
        print(format_args!("{{\"event\":\"report\",\"report\":{line}}}"));
        return made.verdict(false);
    }
    let speed = made.made as f64 / made.seconds.max(1e-9);
    print(format_args!("\n{} of {} captions of the text split became pictures", made.samples - made.failed, made.samples));
    print(format_args!("  made       {} in {:.1} s, {speed:.1} a second, on {}", made.made, made.seconds, device.describe()));
    print(format_args!("  found      by CLIP among {CANDIDATES} pictures, from the caption: {}", found(&report.generated)));
    print(format_args!("             real pictures of other scenes, likewise: {}", found(&report.real)));
    print(format_args!("  seen       by a matched filter, in pictures of one object: {}", seen(&report.generated)));
    print(format_args!("             real pictures, likewise: {}", seen(&report.real)));
    let at = |name| demo.folder.join(name).display().to_string();
    if some {
        print(format_args!("  look at    {}  {}", at("sheet.png"), at("page.html")));
    }
    print(format_args!("  pairs in   {} (WebDataset); figures in {}", at("pairs"), at("report.json")));
    made.verdict(false)
}

fn found(quality: &Quality) -> String {
    let asked = quality.asked;
    quality
        .retrieval
        .map_or(format!("not measured (fewer than {CANDIDATES})"), |share| format!("{:.1}% of {asked}", 100.0 * share))
}

fn seen(quality: &Quality) -> String {
    let single = &quality.single;
    let [kind, colour, both, alone] = [single.kind, single.colour, single.both, single.alone].map(|share| 100.0 * share);
    format!("kind {kind:.1}%, colour {colour:.1}%, both {both:.1}%, nothing else {alone:.1}% of {}", single.pictures)
}
