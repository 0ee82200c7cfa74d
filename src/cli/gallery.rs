//! `syntic gallery`: pairs to look at.

use super::note;
use std::path::PathBuf;
use syntic::shards::{self, GalleryOptions, SheetOptions};
use syntic::{Error, Result};

/// Flags of `syntic gallery`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder of the shards.
    #[arg(value_name = "DIR")]
    folder: PathBuf,
    /// HTML page to write: images, captions, seeds and settings, with nothing loaded from elsewhere.
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// PNG contact sheet to write.
    #[arg(long, value_name = "FILE")]
    sheet: Option<PathBuf>,
    /// Pairs to show at most [default: 200 on a page, 36 on a sheet]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Pictures in a row of the contact sheet [default: 6]
    #[arg(long, value_name = "N")]
    columns: Option<usize>,
}

/// Runs the command.
pub fn run(args: Args) -> Result<()> {
    if args.out.is_none() && args.sheet.is_none() {
        return Err(Error::usage("nothing to write", "name a page with --out, a contact sheet with --sheet, or both"));
    }
    if let Some(out) = &args.out {
        let default = GalleryOptions::default();
        let options = GalleryOptions { limit: args.limit.unwrap_or(default.limit) };
        let pairs = shards::gallery(&args.folder, out, options)?;
        note(format_args!("{pairs} pairs on {}", out.display()));
    }
    if let Some(sheet) = &args.sheet {
        let default = SheetOptions::default();
        let options =
            SheetOptions { limit: args.limit.unwrap_or(default.limit), columns: args.columns.unwrap_or(default.columns) };
        let pairs = shards::write_contact_sheet(&args.folder, sheet, options)?;
        note(format_args!("{pairs} pairs on {}", sheet.display()));
    }
    Ok(())
}
