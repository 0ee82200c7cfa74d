//! A run of bytes with its history.

use super::history::Flags;
use super::shadow::Shadow;

/// Bytes of a sector, the unit of global-memory traffic.
pub(crate) const SECTOR: usize = 32;

/// Bytes, which of them were written, and who touched them.
#[derive(Debug)]
pub(crate) struct Page {
    pub data: Box<[u8]>,
    /// One bit a byte: written by the host, a kernel or a copy.
    written: Box<[u64]>,
    pub shadow: Shadow,
    pub flags: Flags,
    /// Launch to which the shadow, the flags and the sectors belong.
    launch: u64,
    /// Sectors read and written in that launch, one bit each.
    pub read_sectors: u128,
    pub written_sectors: u128,
}

impl Page {
    /// A page of `bytes` that nobody wrote; a multiple of 64.
    pub(crate) fn new(bytes: usize) -> Page {
        Page {
            data: vec![0; bytes].into(),
            written: vec![0; bytes / 64].into(),
            shadow: Shadow::new(bytes),
            flags: Flags::default(),
            launch: 0,
            read_sectors: 0,
            written_sectors: 0,
        }
    }

    /// Begins the page's part in a launch, if it has none yet: what happened in earlier launches is ordered before all of it. `races` says
    /// whether that launch looks for races.
    pub(crate) fn enter(&mut self, launch: u64, races: bool) {
        if self.launch != launch {
            self.shadow.clear();
            self.shadow.watch(races);
            self.flags.clear();
            (self.read_sectors, self.written_sectors) = (0, 0);
            self.launch = launch;
        }
    }

    /// A number that is another one once the range was written in this launch.
    pub(crate) fn version(&mut self, offset: usize, bytes: usize) -> u64 {
        // Mostly what is copied from is only read.
        if self.written_sectors == 0 { 0 } else { self.shadow.version(offset, bytes) }
    }

    /// Whether all bytes of a range were written. Ranges are at most 64 bytes long and do not cross a multiple of 64.
    pub(crate) fn is_written(&self, offset: usize, bytes: usize) -> bool {
        let mask = mask(offset, bytes);
        self.written[offset / 64] & mask == mask
    }

    /// Marks a range (as in [`Page::is_written`]) as written.
    pub(crate) fn mark_written(&mut self, offset: usize, bytes: usize) {
        self.written[offset / 64] |= mask(offset, bytes);
    }

    /// Marks a range of any length as written or as never written.
    pub(crate) fn mark(&mut self, offset: usize, bytes: usize, written: bool) {
        let mut at = offset;
        while at < offset + bytes {
            let part = (64 - at % 64).min(offset + bytes - at);
            let mask = mask(at, part);
            self.written[at / 64] = if written { self.written[at / 64] | mask } else { self.written[at / 64] & !mask };
            at += part;
        }
    }

    /// Up to eight bytes as a number.
    pub(crate) fn load(&self, offset: usize, bytes: usize) -> u64 {
        let mut value = [0; 8];
        value[..bytes].copy_from_slice(&self.data[offset..offset + bytes]);
        u64::from_le_bytes(value)
    }

    /// Stores the low bytes of `value`; whether that changed anything.
    pub(crate) fn store(&mut self, offset: usize, bytes: usize, value: u64) -> bool {
        let changed = self.load(offset, bytes) != value & (u64::MAX >> (64 - 8 * bytes));
        self.data[offset..offset + bytes].copy_from_slice(&value.to_le_bytes()[..bytes]);
        changed
    }
}

fn mask(offset: usize, bytes: usize) -> u64 {
    (u64::MAX >> (64 - bytes)) << (offset % 64)
}
