//! Shared memory of a block: the static variables and the dynamic array, with guard zones between them.

use crate::memory::Page;

/// Bytes of a page.
const PAGE: usize = 1024;

/// The shared memory of a block.
pub(crate) struct SharedMemory {
    pages: Vec<Page>,
    /// Valid ranges: offset and length.
    ranges: Vec<(u64, u64)>,
}

impl SharedMemory {
    /// Memory for the static variables at `ranges` and `dynamic` bytes at `at`, watched for `races` or not.
    pub(crate) fn new(ranges: &[(u64, u64)], at: u64, dynamic: u64, races: bool) -> SharedMemory {
        let mut ranges = ranges.to_vec();
        if dynamic > 0 {
            ranges.push((at, dynamic));
        }
        let end = ranges.iter().map(|(start, bytes)| start + bytes).max().unwrap_or(0);
        let page = |_| {
            let mut page = Page::new(PAGE);
            page.shadow.watch(races);
            page
        };
        let pages = (0..end.div_ceil(PAGE as u64)).map(page).collect();
        SharedMemory { pages, ranges }
    }

    /// The page of an aligned range of at most 64 bytes, and the range's offset in it.
    pub(crate) fn at(&mut self, offset: u64, bytes: u64) -> Option<(&mut Page, usize)> {
        let end = offset.checked_add(bytes)?;
        if !self.ranges.iter().any(|&(start, length)| start <= offset && end <= start + length) {
            return None;
        }
        let page = self.pages.get_mut(offset as usize / PAGE)?;
        Some((page, offset as usize % PAGE))
    }

    /// The valid ranges in words.
    pub(crate) fn describe(&self) -> String {
        match &self.ranges[..] {
            [] => "a block that has none".into(),
            ranges => {
                let each: Vec<String> = ranges.iter().map(|(start, bytes)| format!("{start}..{}", start + bytes)).collect();
                each.join(" and ")
            }
        }
    }
}
