//! Which shards and captions a run has to make.

use super::Selection;
use crate::corpus::Corpus;
use crate::tokenizer::ClipTokenizer;
use crate::{Error, Result};
use rayon::prelude::*;
use std::ops::Range;

/// One shard to make.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Job {
    /// Number of the shard.
    pub shard: u32,
    /// Its captions, as positions in the corpus.
    pub captions: Range<u64>,
}

/// The captions selected from a corpus, cut into shards.
#[derive(Debug)]
pub(super) struct Work {
    /// Selected captions, as positions in the corpus.
    pub selected: Range<u64>,
    /// This worker's shards.
    pub jobs: Vec<Job>,
}

impl Work {
    /// Cuts the selection of `corpus_len` captions into shards and keeps this worker's.
    pub fn new(selection: &Selection, shard_size: usize, corpus_len: u64) -> Result<Work> {
        if selection.offset >= corpus_len {
            let message = format!("--offset {} leaves nothing of {corpus_len} captions", selection.offset);
            return Err(Error::usage(message, "use a smaller offset"));
        }
        let end = selection.limit.map_or(corpus_len, |limit| corpus_len.min(selection.offset.saturating_add(limit)));
        if end == selection.offset {
            return Err(Error::usage("--limit 0 selects no captions", "use a limit of at least 1"));
        }
        let selected = selection.offset..end;
        let size = shard_size as u64;
        let shards = (end - selection.offset).div_ceil(size);
        if shards > 100_000 {
            return Err(Error::usage(
                format!("{shards} shards of {size}: shard numbers have five digits"),
                "use a larger --shard-size, or several output folders with --offset and --limit",
            ));
        }
        let mine = (selection.worker_index as u64..shards).step_by(selection.worker_count as usize);
        let job = |shard: u64| {
            let start = selection.offset + shard * size;
            Job { shard: shard as u32, captions: start..end.min(start.saturating_add(size)) }
        };
        Ok(Work { selected, jobs: mine.map(job).collect() })
    }

    /// Captions of this worker.
    pub fn samples(&self) -> u64 {
        self.jobs.iter().map(|job| job.captions.end - job.captions.start).sum()
    }

    /// Captions in the largest of this worker's shards.
    pub fn largest_shard(&self) -> usize {
        self.jobs.iter().map(|job| (job.captions.end - job.captions.start) as usize).max().unwrap_or(0)
    }

    /// This worker's captions that the text encoder cannot read to the end: position and length in tokens.
    pub fn too_long(&self, corpus: &Corpus, tokenizer: &ClipTokenizer) -> Result<Vec<(u64, usize)>> {
        let captions: Vec<u64> = self.jobs.iter().flat_map(|job| job.captions.clone()).collect();
        let found = captions.par_iter().map(|&index| {
            let Some(caption) = corpus.get(index as usize) else { return Ok(None) };
            // A token stands for at least a byte, normalisation triples a text at most, and two are added: short ones need no look.
            if caption.text.len() * 3 + 2 <= tokenizer.max_length() {
                return Ok(None);
            }
            let encoding = tokenizer.encode(caption.text)?;
            Ok(encoding.truncated.then_some((index, encoding.tokens)))
        });
        Ok(found.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn work(offset: u64, limit: Option<u64>, worker: (u32, u32)) -> Result<Work> {
        Work::new(&Selection { offset, limit, worker_index: worker.0, worker_count: worker.1 }, 4, 10)
    }

    #[test]
    fn shards_cover_the_selection_once() {
        let all = work(0, None, (0, 1)).unwrap();
        assert_eq!(all.jobs.iter().map(|job| job.captions.clone()).collect::<Vec<_>>(), [0..4, 4..8, 8..10]);
        let mut split: Vec<Job> = (0..2).flat_map(|i| work(0, None, (i, 2)).unwrap().jobs).collect();
        split.sort_by_key(|job| job.shard);
        assert_eq!(split, all.jobs);
        assert_eq!(work(0, None, (1, 2)).unwrap().samples(), 4);
    }

    #[test]
    fn shards_are_counted_from_the_offset() {
        let part = work(3, Some(5), (0, 1)).unwrap();
        assert_eq!(part.selected, 3..8);
        assert_eq!(part.jobs[1], Job { shard: 1, captions: 7..8 });
        let selection = Selection { offset: 3, limit: None, worker_index: 0, worker_count: 1 };
        let whole = Work::new(&selection, usize::MAX, 10).unwrap();
        assert_eq!(whole.jobs, [Job { shard: 0, captions: 3..10 }]);
    }

    #[test]
    fn an_empty_selection_is_refused() {
        assert!(work(10, None, (0, 1)).unwrap_err().to_string().contains("--offset 10"));
        assert!(work(0, Some(0), (0, 1)).unwrap_err().to_string().contains("--limit 0"));
    }

    #[test]
    fn a_worker_may_have_nothing_to_do() {
        assert_eq!(work(0, None, (5, 6)).unwrap().samples(), 0);
    }
}
