//! A folder of pairs as one HTML page that needs nothing else: no network, no script, no other file.

use std::io::Write;
use std::path::Path;

use serde_json::{Map, Value};

use super::layout::{ShardPaths, shard_id_of};
use super::reader::{StoredSample, read_shard};
use super::run::RunManifest;
use super::stats::{ShardStats, read_stats};
use crate::{Error, Result, files};

/// What [`gallery`] shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GalleryOptions {
    /// Most pairs: each image is in the page, so it grows with them.
    pub limit: usize,
}

impl Default for GalleryOptions {
    /// 200 pairs.
    fn default() -> GalleryOptions {
        GalleryOptions { limit: 200 }
    }
}

const STYLE: &str = include_str!("gallery.css");

/// Writes a page with the first pairs of folder `dir` to `out`: image, caption, seed and settings. Tells how many it shows.
///
/// # Errors
/// If the folder has no finished shard with an image, a file cannot be read or written, or `out` is there and not a regular file.
pub fn gallery(dir: &Path, out: &Path, options: GalleryOptions) -> Result<usize> {
    files::refuse_special(out)?;
    let mut shown = 0;
    files::write_atomic_with(out, |page| {
        let mut write = |html: &str| page.write_all(html.as_bytes()).map_err(Error::io("write", out));
        write(&head(dir, &finished_shards(dir)?, options.limit))?;
        shown = first_pairs(dir, options.limit, |tar, pair| write(&figure(tar, &pair)?))?;
        write("</ul>\n</main>\n</body>\n</html>\n")
    })?;
    Ok(shown)
}

/// Calls `show` with the first `limit` pairs of the finished shards of `dir`, and the tar each is in. Returns their number.
pub(super) fn first_pairs(dir: &Path, limit: usize, mut show: impl FnMut(&Path, StoredSample) -> Result<()>) -> Result<usize> {
    let mut shown = 0;
    for (id, _) in finished_shards(dir)? {
        let tar = ShardPaths::new(dir, id).tar;
        for sample in read_shard(&tar)? {
            if shown == limit {
                return Ok(shown);
            }
            show(&tar, sample?)?;
            shown += 1;
        }
    }
    if shown == 0 {
        let hint = "give a folder that `syntic generate --out` wrote, with at least one finished shard";
        return Err(Error::usage(format!("{} has no finished shard with an image", dir.display()), hint));
    }
    Ok(shown)
}

/// Ids and stats of the finished shards of `dir`, in order.
fn finished_shards(dir: &Path) -> Result<Vec<(u32, ShardStats)>> {
    let mut shards = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let name = entry.map_err(Error::io("list", dir))?.file_name();
        if let Some(id) = shard_id_of(&name.to_string_lossy(), "_stats.json") {
            shards.extend(read_stats(&ShardPaths::new(dir, id).stats)?.map(|stats| (id, stats)));
        }
    }
    shards.sort_by_key(|(id, _)| *id);
    Ok(shards)
}

/// The page up to the first pair.
fn head(dir: &Path, shards: &[(u32, ShardStats)], limit: usize) -> String {
    let name = dir.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let title = escape(&name.unwrap_or_else(|| dir.display().to_string()));
    let sum = |field: fn(&ShardStats) -> u64| shards.iter().map(|(_, stats)| field(stats)).sum::<u64>();
    let (successes, failures) = (sum(|stats| stats.successes), sum(|stats| stats.failed_to_generate));
    let shown = successes.min(limit as u64);
    let settings = match RunManifest::read(dir) {
        Ok(Some(config)) => {
            let json = serde_json::to_string_pretty(&config).unwrap_or_default();
            format!("<details><summary>Settings of the run</summary><pre>{}</pre></details>\n", escape(&json))
        }
        _ => String::new(),
    };
    format!(
        r#"<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="generator" content="syntic {version}">
<title>{title}: image-text pairs</title>
<style>
{STYLE}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p>{shown} of {successes} image-text pairs in {count} shards; {failures} samples failed.</p>
{settings}</header>
<main>
<ul class="pairs" role="list">
"#,
        version = crate::VERSION,
        count = shards.len(),
    )
}

/// One pair: the image, its caption, key and seed, and all its other fields folded away.
fn figure(tar: &Path, pair: &StoredSample) -> Result<String> {
    let (_, image) = pair.image().ok_or_else(|| Error::format(tar, &pair.key, "no image"))?;
    let mime = match image {
        [0xff, 0xd8, 0xff, ..] => "image/jpeg",
        [0x89, b'P', b'N', b'G', ..] => "image/png",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "image/webp",
        _ => return Err(Error::format(tar, &pair.key, "the image is not a JPEG, PNG or WebP")),
    };
    let fields = pair.fields().unwrap_or_default();
    let extent = |name: &str| fields.get(name).and_then(Value::as_u64).map_or(String::new(), |n| format!(" {name}=\"{n}\""));
    let seed = fields.get("seed").map_or(String::new(), |seed| format!(", seed {}", escape(&plain(seed))));
    Ok(format!(
        r#"<li><figure>
<img src="data:{mime};base64,{data}" alt="Image {key}"{width}{height} loading="lazy" decoding="async">
<figcaption>
<p class="caption" lang="" dir="auto">{caption}</p>
<p class="key">{key}{seed}</p>
{settings}</figcaption>
</figure></li>
"#,
        data = base64(image),
        key = escape(&pair.key),
        width = extent("width"),
        height = extent("height"),
        caption = escape(pair.caption().unwrap_or_default()),
        settings = settings(&fields),
    ))
}

/// The fields that the card does not show already.
fn settings(fields: &Map<String, Value>) -> String {
    let shown = |name: &str| matches!(name, "key" | "caption" | "seed" | "status" | "error_message" | "sha256");
    let rows: String = fields
        .iter()
        .filter(|(name, value)| !shown(name) && !value.is_null())
        .map(|(name, value)| format!("<dt>{}</dt><dd dir=\"auto\">{}</dd>\n", escape(name), escape(&plain(value))))
        .collect();
    if rows.is_empty() { rows } else { format!("<details><summary>Settings</summary>\n<dl>\n{rows}</dl></details>\n") }
}

/// A value as people write it: text without quotes.
fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_string)
}

/// `text` as HTML text or attribute value. Control characters, which HTML does not allow, become U+FFFD.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(character),
            control if control.is_control() => escaped.push('\u{fffd}'),
            other => escaped.push(other),
        }
    }
    escaped
}

/// Base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = (0..3).fold(0u32, |group, i| group << 8 | u32::from(chunk.get(i).copied().unwrap_or(0)));
        for digit in 0..4 {
            let value = (group >> (18 - 6 * digit)) & 63;
            text.push(if digit <= chunk.len() { char::from(DIGITS[value as usize]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_of_rfc_4648() {
        let known = ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg==", "Zm9vYmE=", "Zm9vYmFy"];
        for (length, expected) in known.iter().enumerate() {
            assert_eq!(base64(&b"foobar"[..length]), *expected);
        }
        assert_eq!(base64(&[0xfb, 0xff, 0xfe]), "+//+");
    }

    #[test]
    fn html_is_escaped() {
        assert_eq!(
            escape("<img src=x onerror=\"a('&')\">\0\u{1b}"),
            "&lt;img src=x onerror=&quot;a(&#39;&amp;&#39;)&quot;&gt;\u{fffd}\u{fffd}"
        );
    }
}
