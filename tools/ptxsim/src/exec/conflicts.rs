//! What an access costs: sectors of global memory, wavefronts through the banks of shared memory.

use crate::ir::{LANES, Lanes, lanes};
use crate::memory::SECTOR;

/// Banks of shared memory, four bytes wide each.
const BANKS: usize = 32;

/// Distinct sectors that the active lanes touch, each `bytes` bytes at its address.
pub(crate) fn sectors(active: u32, addresses: &Lanes, bytes: usize) -> u64 {
    let mut all = [0u64; 2 * LANES];
    let mut count = 0;
    for lane in lanes(active) {
        let first = addresses[lane] / SECTOR as u64;
        let last = addresses[lane].saturating_add(bytes as u64 - 1) / SECTOR as u64;
        for sector in first..=last.min(first + 1) {
            if count == 0 || all[count - 1] != sector {
                all[count] = sector;
                count += 1;
            }
        }
    }
    let all = &mut all[..count];
    if !all.is_sorted() {
        all.sort_unstable();
    }
    if all.is_empty() { 0 } else { 1 + all.windows(2).filter(|pair| pair[0] != pair[1]).count() as u64 }
}

/// Passes through shared memory that an access of `bytes` bytes a lane takes, and the least for those lanes. Accesses of eight bytes
/// go by half warps, of sixteen by quarters (CUDA programming guide, shared memory); lanes that read the same word share it.
pub(crate) fn wavefronts(active: u32, addresses: &Lanes, bytes: usize) -> (u64, u64) {
    let together = match bytes {
        0..=4 => 32,
        5..=8 => 16,
        _ => 8,
    };
    let (mut taken, mut ideal) = (0, 0);
    for phase in (0..LANES).step_by(together) {
        let mask = (u32::MAX >> (LANES - together)) << phase & active;
        if mask != 0 {
            taken += passes(mask, addresses, bytes);
            ideal += 1;
        }
    }
    (taken, ideal)
}

/// The largest number of distinct words in one bank.
fn passes(mask: u32, addresses: &Lanes, bytes: usize) -> u64 {
    let words = |lane: usize| addresses[lane] / 4..addresses[lane] / 4 + bytes.div_ceil(4) as u64;
    // Mostly there is no conflict: then one word a bank is enough to see it.
    let mut first = [u64::MAX; BANKS];
    let mut alone = |word: u64| {
        let kept = &mut first[word as usize % BANKS];
        if *kept == u64::MAX {
            *kept = word;
        }
        *kept == word
    };
    if lanes(mask).all(|lane| words(lane).all(&mut alone)) {
        return 1;
    }
    let mut banks: [Vec<u64>; BANKS] = Default::default();
    for word in lanes(mask).flat_map(words) {
        let bank = &mut banks[word as usize % BANKS];
        if !bank.contains(&word) {
            bank.push(word);
        }
    }
    banks.iter().map(Vec::len).max().unwrap_or(1) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stride(step: u64) -> Lanes {
        std::array::from_fn(|lane| lane as u64 * step)
    }

    #[test]
    fn sectors_of_known_patterns() {
        assert_eq!(sectors(u32::MAX, &stride(4), 4), 4);
        assert_eq!(sectors(u32::MAX, &stride(4).map(|a| a + 4), 4), 5);
        assert_eq!(sectors(u32::MAX, &stride(32), 4), 32);
        assert_eq!(sectors(u32::MAX, &stride(16), 16), 16);
        assert_eq!(sectors(u32::MAX, &stride(0), 4), 1);
        assert_eq!(sectors(0b101, &stride(32), 4), 2);
        assert_eq!(sectors(u32::MAX, &std::array::from_fn(|i| (i as u64 % 2) * 64), 4), 2);
    }

    #[test]
    fn bank_conflicts_of_known_patterns() {
        assert_eq!(wavefronts(u32::MAX, &stride(4), 4), (1, 1));
        assert_eq!(wavefronts(u32::MAX, &stride(8), 4), (2, 1));
        assert_eq!(wavefronts(u32::MAX, &stride(128), 4), (32, 1));
        assert_eq!(wavefronts(u32::MAX, &stride(132), 4), (1, 1));
        assert_eq!(wavefronts(u32::MAX, &stride(0), 4), (1, 1));
        assert_eq!(wavefronts(u32::MAX, &stride(2), 2), (1, 1));
        assert_eq!(wavefronts(u32::MAX, &stride(8), 8), (2, 2));
        assert_eq!(wavefronts(u32::MAX, &stride(16), 16), (4, 4));
        assert_eq!(wavefronts(0xFF, &stride(128), 16), (8, 1));
    }
}
