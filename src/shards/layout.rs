//! Names of the files of a shard and of the samples in it.

use std::path::{Path, PathBuf};

/// The name shared by the files of a shard: its id, padded to 5 digits.
pub fn shard_name(shard_id: u32) -> String {
    format!("{shard_id:05}")
}

/// Key of a sample: [`shard_name`] followed by `index`, padded to ceil(log10(`shard_size`)) digits (img2dataset's rule).
///
/// ```
/// assert_eq!(syntic::shards::sample_key(12, 7, 1000), "00012007");
/// ```
pub fn sample_key(shard_id: u32, index: usize, shard_size: usize) -> String {
    let digits = index_digits(shard_size);
    if digits == 0 { shard_name(shard_id) } else { format!("{}{index:0digits$}", shard_name(shard_id)) }
}

/// Digits that number `shard_size` samples from 0: ceil(log10(`shard_size`)), and 0 for a single sample.
fn index_digits(shard_size: usize) -> usize {
    match shard_size {
        0 | 1 => 0,
        n => (n - 1).ilog10() as usize + 1,
    }
}

/// Paths of one shard: the three that remain and the hidden ones of a shard in progress.
#[derive(Clone, Debug)]
pub(super) struct ShardPaths {
    pub tar: PathBuf,
    pub parquet: PathBuf,
    pub stats: PathBuf,
    /// The tar so far; renamed to `tar` when the shard is complete.
    pub partial_tar: PathBuf,
    /// One line per sample pushed so far; removed when the shard is done.
    pub journal: PathBuf,
}

impl ShardPaths {
    pub fn new(dir: &Path, shard_id: u32) -> ShardPaths {
        let name = shard_name(shard_id);
        ShardPaths {
            tar: dir.join(format!("{name}.tar")),
            parquet: dir.join(format!("{name}.parquet")),
            stats: dir.join(format!("{name}_stats.json")),
            partial_tar: dir.join(format!(".{name}.tar.part")),
            journal: dir.join(format!(".{name}.journal")),
        }
    }
}

/// The shard id in `NNNNN<suffix>`, if `file_name` is exactly that.
pub(super) fn shard_id_of(file_name: &str, suffix: &str) -> Option<u32> {
    let stem = file_name.strip_suffix(suffix)?;
    let id: u32 = stem.parse().ok()?;
    (shard_name(id) == stem).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_follow_img2dataset() {
        assert_eq!(sample_key(0, 0, 10_000), "000000000");
        assert_eq!(sample_key(3, 999, 1000), "00003999");
        assert_eq!(sample_key(3, 1000, 1001), "000031000");
        assert_eq!(sample_key(7, 9, 10), "000079");
        assert_eq!(sample_key(7, 0, 1), "00007");
        assert_eq!(sample_key(123_456, 5, 100), "12345605");
    }

    #[test]
    fn shard_ids_come_back_from_names() {
        assert_eq!(shard_id_of("00012.tar", ".tar"), Some(12));
        assert_eq!(shard_id_of("123456_stats.json", "_stats.json"), Some(123_456));
        for odd in ["12.tar", "000012.tar", "0001a.tar", "+0012.tar", ".tar", "00012.tar.gz"] {
            assert_eq!(shard_id_of(odd, ".tar"), None, "{odd}");
        }
    }
}
