//! Global memory: allocations far apart from each other, so that no overrun of one lands in another.

use super::page::{Page, SECTOR};
use crate::error::{Error, Result};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// Bytes of a page.
pub(crate) const PAGE: usize = 4096;
/// Allocations stand this far apart: the high bits of an address are the number of its allocation.
const SPACING: u32 = 36;

/// One allocation. Its pages come to be when first touched.
#[derive(Debug)]
pub(crate) struct Allocation {
    pub bytes: u64,
    /// What pages that come to be hold, over and over; none if nobody wrote it.
    fill: Option<Box<[u8]>>,
    pages: Vec<Mutex<Option<Box<Page>>>>,
}

impl Allocation {
    fn new(bytes: u64, fill: Option<Box<[u8]>>) -> Allocation {
        Allocation { bytes, fill, pages: (0..bytes.div_ceil(PAGE as u64)).map(|_| Mutex::new(None)).collect() }
    }

    /// The page that holds the byte at `offset`.
    pub(crate) fn page(&self, offset: u64) -> PageGuard<'_> {
        let page = &self.pages[(offset / PAGE as u64) as usize];
        let mut guard = page.lock().unwrap_or_else(PoisonError::into_inner);
        guard.get_or_insert_with(|| {
            let mut page = Page::new(PAGE);
            if let Some(fill) = &self.fill {
                page.data.chunks_exact_mut(fill.len()).for_each(|part| part.copy_from_slice(fill));
                page.mark(0, PAGE, true);
            }
            Box::new(page)
        });
        PageGuard(guard)
    }

    /// Bytes of distinct sectors read and written in the present launch.
    fn sectors(&self, launch: u64) -> (u64, u64) {
        let count = |bits: u128| u64::from(bits.count_ones()) * SECTOR as u64;
        self.pages.iter().fold((0, 0), |(read, written), page| {
            let mut page = page.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(page) = page.as_mut() else { return (read, written) };
            page.enter(launch, true);
            (read + count(page.read_sectors), written + count(page.written_sectors))
        })
    }
}

/// A locked page.
pub(crate) struct PageGuard<'a>(MutexGuard<'a, Option<Box<Page>>>);

impl std::ops::Deref for PageGuard<'_> {
    type Target = Page;
    fn deref(&self) -> &Page {
        match self.0.as_deref() {
            Some(page) => page,
            None => unreachable!("`Allocation::page` made it"),
        }
    }
}

impl std::ops::DerefMut for PageGuard<'_> {
    fn deref_mut(&mut self) -> &mut Page {
        match self.0.as_deref_mut() {
            Some(page) => page,
            None => unreachable!("`Allocation::page` made it"),
        }
    }
}

/// Global memory of a simulated device, for any number of launches. Shared among threads by reference.
#[derive(Debug, Default)]
pub struct Memory {
    allocations: RwLock<Vec<Option<Arc<Allocation>>>>,
    launches: AtomicU64,
}

impl Memory {
    /// No memory yet.
    pub fn new() -> Memory {
        Memory::default()
    }

    /// Allocates `bytes` bytes with undefined content: reading them before a write is a fault. Returns the address, aligned to 256.
    ///
    /// # Panics
    /// If `bytes` is 64 GiB or more: the next allocation stands there.
    pub fn alloc(&self, bytes: u64) -> u64 {
        self.place(bytes, None)
    }

    /// Allocates `bytes` bytes that count as written and hold `pattern` over and over. They take this machine's memory only where they are
    /// touched, so that blocks of kernels can be run on tensors that do not fit it.
    ///
    /// # Panics
    /// As [`Memory::alloc`]; if the length of the pattern is not a power of two up to 4,096.
    pub fn alloc_filled(&self, bytes: u64, pattern: &[u8]) -> u64 {
        assert!(pattern.len().is_power_of_two() && pattern.len() <= PAGE, "a pattern of {} bytes", pattern.len());
        self.place(bytes, Some(pattern.into()))
    }

    fn place(&self, bytes: u64, fill: Option<Box<[u8]>>) -> u64 {
        assert!(bytes < 1 << SPACING, "an allocation of {bytes} bytes: less than 64 GiB is possible");
        let mut allocations = self.allocations.write().unwrap_or_else(PoisonError::into_inner);
        let free = allocations.iter().position(Option::is_none).unwrap_or(allocations.len());
        if free == allocations.len() {
            allocations.push(None);
        }
        allocations[free] = Some(Arc::new(Allocation::new(bytes, fill)));
        (free as u64 + 1) << SPACING
    }

    /// Frees an allocation; later accesses to it are out of bounds. Unknown addresses are ignored.
    pub fn free(&self, address: u64) {
        let mut allocations = self.allocations.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = index(address).and_then(|i| allocations.get_mut(i)) {
            *slot = None;
        }
    }

    /// Writes bytes from the host.
    ///
    /// # Errors
    /// If the range is not inside one allocation.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<()> {
        self.each(address, bytes.len(), |page, offset, done, n| {
            page.data[offset..offset + n].copy_from_slice(&bytes[done..done + n]);
            page.mark(offset, n, true);
        })
    }

    /// Reads bytes to the host; those never written are zero.
    ///
    /// # Errors
    /// If the range is not inside one allocation.
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<()> {
        self.each(address, out.len(), |page, offset, done, n| {
            out[done..done + n].copy_from_slice(&page.data[offset..offset + n]);
        })
    }

    /// Makes a range undefined, as if just allocated: to reuse memory without hiding reads of what its last owner left.
    ///
    /// # Errors
    /// If the range is not inside one allocation.
    pub fn undefine(&self, address: u64, bytes: u64) -> Result<()> {
        self.each(address, bytes as usize, |page, offset, _, n| page.mark(offset, n, false))
    }

    /// Whether every byte of a range was written.
    ///
    /// # Errors
    /// If the range is not inside one allocation.
    pub fn is_defined(&self, address: u64, bytes: u64) -> Result<bool> {
        let mut all = true;
        self.each(address, bytes as usize, |page, offset, _, n| all &= (offset..offset + n).all(|i| page.is_written(i, 1)))?;
        Ok(all)
    }

    /// Bytes of distinct 32-byte sectors of the allocation at `address` that the last launch read, and that it wrote, if it counted.
    ///
    /// # Errors
    /// If there is no allocation.
    pub fn touched(&self, address: u64) -> Result<(u64, u64)> {
        let view = self.view();
        let Some((allocation, _)) = view.find(address, 0) else {
            return Err(Error::Memory { message: format!("{address:#x} is not inside an allocation") });
        };
        Ok(allocation.sectors(self.launches.load(Ordering::Relaxed)))
    }

    fn each(&self, address: u64, bytes: usize, mut visit: impl FnMut(&mut Page, usize, usize, usize)) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let view = self.view();
        let Some((allocation, start)) = view.find(address, bytes as u64) else {
            return Err(Error::Memory { message: format!("{bytes} bytes at {address:#x} are not inside one allocation") });
        };
        let mut done = 0;
        while done < bytes {
            let at = start + done as u64;
            let offset = (at % PAGE as u64) as usize;
            let n = (PAGE - offset).min(bytes - done);
            visit(&mut allocation.page(at), offset, done, n);
            done += n;
        }
        Ok(())
    }

    /// The allocations as they are now.
    pub(crate) fn view(&self) -> View {
        View(self.allocations.read().unwrap_or_else(PoisonError::into_inner).clone())
    }

    /// A number for the next launch, never 0.
    pub(crate) fn next_launch(&self) -> u64 {
        self.launches.fetch_add(1, Ordering::Relaxed) + 1
    }
}

fn index(address: u64) -> Option<usize> {
    ((address >> SPACING) as usize).checked_sub(1)
}

/// The allocations of a moment, found without a lock.
#[derive(Clone, Debug)]
pub(crate) struct View(Vec<Option<Arc<Allocation>>>);

impl View {
    /// The allocation that holds a whole range, and the range's offset in it.
    pub(crate) fn find(&self, address: u64, bytes: u64) -> Option<(&Allocation, u64)> {
        let allocation = self.0.get(index(address)?)?.as_deref()?;
        let offset = address & ((1 << SPACING) - 1);
        (offset.checked_add(bytes)? <= allocation.bytes).then_some((allocation, offset))
    }

    /// The size of the allocation an address belongs to by its high bits, and its offset there: to say how far outside it is.
    pub(crate) fn nearest(&self, address: u64) -> Option<(u64, u64)> {
        let allocation = self.0.get(index(address)?)?.as_deref()?;
        Some((allocation.bytes, address & ((1 << SPACING) - 1)))
    }

    /// Bytes of distinct sectors read and written in a launch.
    pub(crate) fn sectors(&self, launch: u64) -> (u64, u64) {
        self.0.iter().flatten().map(|a| a.sectors(launch)).fold((0, 0), |(r, w), (read, written)| (r + read, w + written))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_come_back_across_pages_and_know_whether_they_were_written() {
        let memory = Memory::new();
        let address = memory.alloc(3 * PAGE as u64 + 5);
        let bytes: Vec<u8> = (0..2 * PAGE + 7).map(|i| i as u8).collect();
        memory.write(address + 100, &bytes).unwrap();
        let mut back = vec![0; bytes.len()];
        memory.read(address + 100, &mut back).unwrap();
        assert_eq!(back, bytes);
        assert!(memory.is_defined(address + 100, bytes.len() as u64).unwrap());
        assert!(!memory.is_defined(address + 99, 2).unwrap());
        memory.undefine(address + 200, 1).unwrap();
        assert!(!memory.is_defined(address + 100, bytes.len() as u64).unwrap());
    }

    #[test]
    fn ranges_outside_an_allocation_are_refused() {
        let memory = Memory::new();
        let (a, b) = (memory.alloc(16), memory.alloc(16));
        assert!(b > a + (1 << 32));
        for (address, bytes) in [(a, 17), (a + 16, 1), (a - 1, 1), (0, 1), (u64::MAX, 1), (b + (1 << SPACING), 1)] {
            assert!(memory.write(address, &vec![0; bytes]).is_err(), "{address:#x}");
        }
        memory.free(a);
        assert!(memory.read(a, &mut [0]).is_err());
        assert_eq!(memory.alloc(4), a, "addresses are used again");
    }
}
