//! How many blocks a multiprocessor holds at once.

use super::chip::Chip;

/// Registers are given to warps in units of this many (CUDA occupancy calculator, compute capability 8.0 to 9.0).
const REGISTER_UNIT: u32 = 256;

/// Shared memory is given to blocks in units of this many bytes (the same).
const SHARED_UNIT: u32 = 128;

/// Bytes of shared memory of each block that the system keeps for itself (CUDA programming guide, compute capability 8.x and 9.0).
const SHARED_RESERVED: u32 = 1024;

/// What keeps a multiprocessor from holding another block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Its registers.
    Registers,
    /// Its shared memory.
    Shared,
    /// The threads it holds.
    Threads,
    /// The blocks it holds.
    Blocks,
}

impl Limit {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Limit::Registers => "registers",
            Limit::Shared => "shared memory",
            Limit::Threads => "threads",
            Limit::Blocks => "blocks",
        }
    }
}

/// Blocks of `threads` threads that a multiprocessor of `chip` holds at once, and what keeps it from one more. `registers` are those of a
/// thread, `shared` the bytes of a block, static and dynamic. None if it holds no block at all.
pub fn occupancy(chip: &Chip, threads: u32, registers: u32, shared: u32) -> Option<(u32, Limit)> {
    let warps = threads.div_ceil(32).max(1);
    let warp_registers = (registers * 32).next_multiple_of(REGISTER_UNIT).max(REGISTER_UNIT);
    // Warps find their registers in one of four parts.
    let by_registers = chip.registers / 4 / warp_registers * 4 / warps;
    let by_shared = chip.shared_per_multiprocessor / (shared + SHARED_RESERVED).next_multiple_of(SHARED_UNIT);
    let limits = [
        (by_registers, Limit::Registers),
        (by_shared, Limit::Shared),
        (chip.threads_per_multiprocessor / (32 * warps), Limit::Threads),
        (chip.blocks_per_multiprocessor, Limit::Blocks),
    ];
    limits.into_iter().min_by_key(|limit| limit.0).filter(|limit| limit.0 > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::count::chip::{A100, H100, RTX4090};

    #[test]
    fn the_scarcest_resource_decides() {
        // 65,536 registers hold 16 warps of 128 registers a thread: 4 blocks of 4 warps.
        assert_eq!(occupancy(&A100, 128, 128, 0), Some((4, Limit::Registers)));
        // 129 registers take 136: 15 warps, of which a quarter of the registers holds 3, so 12 in all.
        assert_eq!(occupancy(&A100, 128, 129, 0), Some((3, Limit::Registers)));
        // 164 KiB hold two blocks of 72 + 1 KiB, 228 KiB three.
        assert_eq!(occupancy(&A100, 128, 128, 72 << 10), Some((2, Limit::Shared)));
        assert_eq!(occupancy(&H100, 128, 128, 72 << 10), Some((3, Limit::Shared)));
        assert_eq!(occupancy(&A100, 256, 16, 0), Some((8, Limit::Threads)));
        assert_eq!(occupancy(&RTX4090, 256, 16, 0), Some((6, Limit::Threads)));
        assert_eq!(occupancy(&A100, 32, 16, 0), Some((32, Limit::Blocks)));
        assert_eq!(occupancy(&RTX4090, 128, 128, 100 << 10), None);
    }
}
