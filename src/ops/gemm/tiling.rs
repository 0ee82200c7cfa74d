//! How the result of a product is cut into tiles: the choice among kernels that differ in nothing else.

use crate::device::{Entries, Launch, Statistics, entries};
use crate::tensor::DType;
use crate::{Error, Result};

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

/// Bytes of x, or of weights, that stay in L2 while the other passes by: a fifth of an A100's.
const KEPT_BYTES: usize = 8 << 20;

/// Least tiles of a band: with the columns of as many blocks as run at once they are about square.
const LEAST_BAND: usize = 8;

/// Threads of a block of every product.
const THREADS: u32 = 128;

const fn tiling(entries: Entries, tile: [usize; 2], shared: u32, blocks: usize, speed: f64) -> Tiling {
    Tiling { entries, tile, shared, blocks, speed, vectors: true }
}

const fn any(entries: Entries, shared: u32) -> Tiling {
    Tiling { vectors: false, ..tiling(entries, [64, 64], shared, 4, 0.1) }
}

/// Of linear layers: those with vectors first.
pub(crate) static LINEAR: [Tiling; 4] = [
    tiling(entries!("gemm_nt_128x160"), [128, 160], 74_752, 2, 1.0),
    tiling(entries!("gemm_nt_128x128"), [128, 128], 66_560, 2, 0.95),
    tiling(entries!("gemm_nt_64x64"), [64, 64], 33_280, 4, 0.6),
    any(entries!("gemm_nt_any"), 33_280),
];

/// Of linear layers with gates; columns are those of both.
pub(crate) static GEGLU: [Tiling; 4] = [
    tiling(entries!("gemm_nt_geglu_128x160"), [128, 160], 74_752, 2, 1.0),
    tiling(entries!("gemm_nt_geglu_128x128"), [128, 128], 66_560, 2, 0.95),
    tiling(entries!("gemm_nt_geglu_64x64"), [64, 64], 33_280, 4, 0.6),
    any(entries!("gemm_nt_geglu_any"), 33_280),
];

/// Of convolutions.
pub(crate) static CONV2D: [Tiling; 5] = [
    tiling(entries!("conv2d_128x160"), [128, 160], 74_752, 2, 1.0),
    tiling(entries!("conv2d_128x128"), [128, 128], 66_560, 2, 0.95),
    tiling(entries!("conv2d_64x64"), [64, 64], 33_280, 4, 0.6),
    tiling(entries!("conv2d_128x32"), [128, 32], 41_984, 3, 0.45),
    any(entries!("conv2d_any"), 33_280),
];

/// The order of a product's blocks, as its launch says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    /// Rows of the result.
    pub rows: usize,
    /// Tiles along M of a band.
    pub band: usize,
    /// Which of the kernel's tensors holds the weights.
    pub weights: usize,
}

impl Order {
    /// How often a launch of this kernel passes over its weights.
    pub fn bands(&self, tiling: &Tiling) -> usize {
        self.rows.div_ceil(tiling.tile[0]).div_ceil(self.band)
    }
}

impl Tiling {
    /// That of a kernel of a product.
    pub fn of(entry: &str) -> Option<&'static Tiling> {
        let all = LINEAR.iter().chain(&GEGLU).chain(&CONV2D);
        all.into_iter().find(|tiling| [tiling.entries.f16, tiling.entries.bf16].contains(&entry))
    }

    /// Tiles of a result of `rows` x `columns`.
    pub fn tiles(&self, [rows, columns]: [usize; 2]) -> usize {
        rows.div_ceil(self.tile[0]) * columns.div_ceil(self.tile[1])
    }

    /// Tiles along M of a band (`raster` in `kernels/gemm/tile.cuh`), for `x_bytes` in `rows` rows of the result: more where weights do not
    /// stay in L2 from one band to the next.
    pub fn band(&self, x_bytes: usize, rows: usize, weight_bytes: u64) -> u32 {
        let tiles = rows.div_ceil(self.tile[0]).max(1);
        let tall = match weight_bytes as usize <= KEPT_BYTES {
            true => LEAST_BAND,
            false => (KEPT_BYTES / (x_bytes / tiles).max(1)).max(LEAST_BAND),
        };
        tall.min(tiles) as u32
    }

    /// Relative time on `multiprocessors`: rounds of blocks, each as long as its tiles take together.
    fn time(&self, result: [usize; 2], multiprocessors: usize) -> f64 {
        let tiles = self.tiles(result);
        let together = tiles.div_ceil(multiprocessors).min(self.blocks);
        let rounds = tiles.div_ceil(multiprocessors * together);
        (rounds * together * self.tile[0] * self.tile[1]) as f64 / self.speed
    }

    /// The fastest of a family for a result, of those that fit.
    ///
    /// # Errors
    /// An internal error if none does.
    pub fn choose(family: &[Tiling], result: [usize; 2], multiprocessors: u32, fit: impl Fn(&Tiling) -> bool) -> Result<Tiling> {
        let time = |tiling: &Tiling| tiling.time(result, multiprocessors as usize);
        let fastest = family.iter().copied().filter(fit).min_by(|a, b| time(a).total_cmp(&time(b)));
        fastest.ok_or_else(|| Error::Internal { op: "tiling", message: format!("no kernel takes a result of {result:?}") })
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
        let tile = |family: &[Tiling], result| Tiling::choose(family, result, H100, |tiling| tiling.vectors).unwrap().tile;
        assert_eq!(tile(&LINEAR, [8192, 320]), [128, 160]);
        assert_eq!(tile(&GEGLU, [32768, 2560]), [128, 160]);
        assert_eq!(tile(&CONV2D, [32768, 640]), [128, 160]);
        assert_eq!(tile(&LINEAR, [32768, 1024]), [128, 128]);
        assert_eq!(tile(&LINEAR, [154, 640]), [64, 64]);
        assert_eq!(tile(&CONV2D, [1 << 18, 3]), [128, 32]);
        let rows = Tiling::choose(&LINEAR, [154, 640], H100, |tiling| tiling.takes_rows());
        assert_eq!(rows.unwrap().tile, [128, 160]);
        assert!(Tiling::choose(&LINEAR, [8192, 322], H100, |_| false).is_err());
        assert_eq!(LINEAR[0].band(8192 * 640, 8192, 1 << 20), 8);
        assert_eq!(LINEAR[0].band(8192 * 2560, 8192, 1 << 24), 25);
        assert_eq!(LINEAR[0].band(512 * 2560, 512, 1 << 24), 4);
        for family in [&LINEAR[..], &GEGLU, &CONV2D] {
            assert!(family.iter().all(|tiling| tiling.time([1, 1], 1).is_finite()));
        }
    }
}
