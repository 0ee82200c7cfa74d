//! How the result of a product is cut into tiles: the choice among kernels that differ in nothing else.

use crate::Result;
use crate::device::{Entries, Launch, Statistics, entries};
use crate::tensor::DType;

/// One kernel of a family: the tile of a block. The choice changes no bit of the result.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tiling {
    pub entries: Entries,
    /// Rows and columns of a tile.
    pub tile: [usize; 2],
    /// Bytes of dynamic shared memory.
    shared: u32,
    /// Blocks of an A100's multiprocessor.
    blocks: usize,
    /// Share of the tensor cores' speed that a block reaches, from the bytes that it brings in for each product.
    speed: f64,
    /// Reads vectors of 8.
    pub vectors: bool,
}

/// Threads of a block of every product.
const THREADS: u32 = 128;

const fn tiling(entries: Entries, tile: [usize; 2], shared: u32, blocks: usize, speed: f64) -> Tiling {
    Tiling { entries, tile, shared, blocks, speed, vectors: true }
}

const fn any(entries: Entries, shared: u32) -> Tiling {
    Tiling { vectors: false, ..tiling(entries, [64, 64], shared, 4, 0.1) }
}

/// Of linear layers: those with vectors first.
pub(crate) const LINEAR: [Tiling; 4] = [
    tiling(entries!("gemm_nt_128x160"), [128, 160], 74_752, 2, 1.0),
    tiling(entries!("gemm_nt_128x128"), [128, 128], 66_560, 2, 0.95),
    tiling(entries!("gemm_nt_64x64"), [64, 64], 33_280, 4, 0.6),
    any(entries!("gemm_nt_any"), 33_280),
];

/// Of linear layers with gates; columns are those of both.
pub(crate) const GEGLU: [Tiling; 4] = [
    tiling(entries!("gemm_nt_geglu_128x160"), [128, 160], 74_752, 2, 1.0),
    tiling(entries!("gemm_nt_geglu_128x128"), [128, 128], 66_560, 2, 0.95),
    tiling(entries!("gemm_nt_geglu_64x64"), [64, 64], 33_280, 4, 0.6),
    any(entries!("gemm_nt_geglu_any"), 33_280),
];

/// Of convolutions.
pub(crate) const CONV2D: [Tiling; 5] = [
    tiling(entries!("conv2d_128x160"), [128, 160], 74_752, 2, 1.0),
    tiling(entries!("conv2d_128x128"), [128, 128], 66_560, 2, 0.95),
    tiling(entries!("conv2d_64x64"), [64, 64], 33_280, 4, 0.6),
    tiling(entries!("conv2d_128x32"), [128, 32], 41_984, 3, 0.45),
    any(entries!("conv2d_any"), 33_280),
];

impl Tiling {
    /// Tiles of a result of `rows` x `columns`.
    pub fn tiles(&self, [rows, columns]: [usize; 2]) -> usize {
        rows.div_ceil(self.tile[0]) * columns.div_ceil(self.tile[1])
    }

    /// Relative time on `multiprocessors`: rounds of blocks, each as long as its tiles take together.
    fn time(&self, result: [usize; 2], multiprocessors: usize) -> f64 {
        let tiles = self.tiles(result);
        let together = tiles.div_ceil(multiprocessors).min(self.blocks);
        let rounds = tiles.div_ceil(multiprocessors * together);
        (rounds * together * self.tile[0] * self.tile[1]) as f64 / self.speed
    }

    /// The fastest of a family for a result, of those that fit.
    pub fn choose(family: &[Tiling], result: [usize; 2], multiprocessors: u32, fit: impl Fn(&Tiling) -> bool) -> Option<Tiling> {
        let time = |tiling: &Tiling| tiling.time(result, multiprocessors as usize);
        family.iter().copied().filter(fit).min_by(|a, b| time(a).total_cmp(&time(b)))
    }

    /// Can take statistics of rows: its warps have as many columns as their parts.
    pub fn takes_rows(&self) -> bool {
        self.tile[1] == 2 * Statistics::PART_COLUMNS
    }

    /// A launch over a result of `rows` x `columns`, without arguments.
    ///
    /// # Errors
    /// [`crate::Error::Launch`] if the tiles are too many.
    pub fn launch<'a>(&self, dtype: DType, result: [usize; 2]) -> Result<Launch<'a>> {
        let tiles = self.entries.size("tiles", self.tiles(result), crate::device::MOST)?;
        Ok(Launch::new(&self.entries, dtype, [tiles, 1, 1], [THREADS, 1, 1])?.shared(self.shared))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_results_get_large_tiles_and_small_ones_many() {
        const H100: u32 = 132;
        let tile =
            |family: &[Tiling], result| Tiling::choose(family, result, H100, |tiling| tiling.vectors).map(|tiling| tiling.tile);
        assert_eq!(tile(&LINEAR, [8192, 320]), Some([128, 160]));
        assert_eq!(tile(&GEGLU, [32768, 2560]), Some([128, 160]));
        assert_eq!(tile(&CONV2D, [32768, 640]), Some([128, 160]));
        assert_eq!(tile(&LINEAR, [32768, 1024]), Some([128, 128]));
        assert_eq!(tile(&LINEAR, [154, 640]), Some([64, 64]));
        assert_eq!(tile(&CONV2D, [1 << 18, 3]), Some([128, 32]));
        let rows = Tiling::choose(&LINEAR, [154, 640], H100, |tiling| tiling.takes_rows());
        assert_eq!(rows.map(|tiling| tiling.tile), Some([128, 160]));
        assert!(Tiling::choose(&LINEAR, [8192, 322], H100, |_| false).is_none());
        for family in [&LINEAR[..], &GEGLU, &CONV2D] {
            assert!(family.iter().all(|tiling| tiling.time([1, 1], 1).is_finite()));
        }
    }
}
