//! From the counts of a launch to its bound.
//!
//! **Traffic of memory.** A tensor that blocks touch is written once, and read once or more. Its compulsory bytes are those that its blocks
//! touch, each block's distinct sectors summed, but never more than the tensor. Blocks may ask for more than that, because several of them
//! read the same bytes; then it depends on L2. The model: blocks that a chip holds at once (a wave) share what they read. In the kernels'
//! tile order one tensor, the largest of those that are read again, streams past and is read once. Each other one is read once if
//! all of them together fit half of L2, whose other half is left to what streams through. If they do not, a product whose bands of x fit there
//! reads its weights once for each band; any other launch reads them once for each wave, at most as often as blocks ask for them. What an earlier kernel left in L2 counts as read from memory.
//!
//! **Traffic of L2** is what all accesses of all blocks ask for, in sectors of 32 bytes, as if L1 were empty.

use crate::device::predict::sample::{Sampled, Touched};
use crate::device::predict::{Launch, LaunchShape};
use crate::ops::conv::gpu::Conv2dParams;
use crate::ops::gemm::gpu::GemmNtParams;
use crate::ops::gemm::tiling::Tiling;
use ptxsim::count::chip::Chip;
use ptxsim::count::occupancy::occupancy;
use ptxsim::count::roofline::{Resource, bound};
use ptxsim::count::{Class, Site};
use serde::Serialize;

/// Bytes of a launch, or of several.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Traffic {
    /// Read from memory, by the model of this module.
    pub read: f64,
    /// Written to memory.
    pub written: f64,
    /// Each byte that is touched once, read and written.
    pub compulsory: f64,
    /// Asked of L2.
    pub l2: f64,
}

impl Traffic {
    /// Exchanged with memory.
    pub fn memory(&self) -> f64 {
        self.read + self.written
    }

    pub(super) fn add(&mut self, other: &Traffic, times: f64) {
        self.read += times * other.read;
        self.written += times * other.written;
        self.compulsory += times * other.compulsory;
        self.l2 += times * other.l2;
    }
}

/// Microseconds that a launch needs of each resource alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)] // named as `ptxsim`'s resources
pub struct Parts {
    pub tensor: f64,
    pub memory: f64,
    pub shared: f64,
    pub special: f64,
    pub float: f64,
    /// As if L1 were empty: does not bind.
    pub l2: f64,
    /// Counted in PTX: does not bind.
    pub issue: f64,
}

/// What a launch does and needs.
#[derive(Clone, Debug)]
pub(super) struct Estimate {
    /// FLOP of the tensor cores, padding included.
    pub tensor_flops: f64,
    pub traffic: Traffic,
    /// Passes through shared memory, and how many there would be without bank conflicts: of all accesses, and of the main loops' copies and
    /// `ldmatrix` alone.
    pub wavefronts: [f64; 2],
    pub main_loop: [f64; 2],
    pub blocks: u64,
    /// Blocks that were run.
    pub sampled: usize,
    /// Blocks of a multiprocessor, and what limits them.
    pub occupancy: (u32, &'static str),
    /// Rounds of blocks that the chip takes, whole ones.
    pub waves: f64,
    pub bound_us: f64,
    pub binding: &'static str,
    pub parts: Parts,
}

/// The bound of a launch on `chip`.
pub(super) fn estimate(chip: &Chip, launch: &Launch, sampled: &Sampled) -> Estimate {
    let (counts, resources) = (&sampled.counts, launch.resources);
    let held = occupancy(chip, counts.block_threads, resources.registers, counts.shared_bytes);
    let (held, limit) = held.map_or((0, "does not fit"), |(blocks, limit)| (blocks, limit.name()));
    let together = u64::from(held.max(1)) * u64::from(chip.multiprocessors);
    let waves = counts.blocks as f64 / together as f64;
    let sectors: u64 = counts.sites.iter().map(|site| site.sectors).sum();
    let traffic = Traffic {
        l2: 32.0 * sectors as f64,
        ..memory_traffic(chip, &launch.shape.tensors, &sampled.touched, waves.ceil(), bands(&launch.shape))
    };

    let mut counts = counts.clone();
    (counts.unique_read, counts.unique_written) = (traffic.read.round() as u64, traffic.written.round() as u64);
    let bound = bound(sampled.kernel.sites(), &counts, chip);
    let part = |resource| 1e6 * bound.part(resource);
    let sum = |keep: fn(&Site) -> bool| {
        let kept = sampled.sites().filter(|(site, _)| keep(site));
        kept.fold([0.0; 2], |[taken, ideal], (_, counts)| {
            [taken + counts.wavefronts as f64, ideal + counts.ideal_wavefronts as f64]
        })
    };
    let tensor = sampled.sites().filter(|(site, _)| site.class == Class::Tensor);
    Estimate {
        tensor_flops: tensor.map(|(site, counts)| site.flops as f64 * counts.warps as f64).sum(),
        traffic,
        wavefronts: sum(|_| true),
        main_loop: sum(|site| site.text.contains("ldmatrix") || site.text.contains("cp.async")),
        blocks: counts.blocks,
        sampled: sampled.blocks,
        occupancy: (held, limit),
        waves,
        bound_us: 1e6 * bound.seconds,
        binding: bound.binding.name(),
        parts: Parts {
            tensor: part(Resource::Tensor),
            memory: part(Resource::Memory),
            shared: part(Resource::Shared),
            special: part(Resource::Special),
            float: part(Resource::Float),
            l2: part(Resource::L2),
            issue: part(Resource::Issue),
        },
    }
}

/// The order of blocks of a product: its weights pass by once for each band.
#[derive(Clone, Copy, Debug)]
struct Bands {
    /// Number of the tensor of weights.
    weights: usize,
    count: f64,
}

fn bands(shape: &LaunchShape) -> Option<Bands> {
    let tiling = Tiling::of(shape.entry)?;
    let order = match shape.params::<GemmNtParams>() {
        Some(params) if shape.entry.starts_with("gemm_nt") => params.order(),
        _ => shape.params::<Conv2dParams>()?.order(),
    };
    Some(Bands { weights: shape.tensor_of(order.weights)?, count: order.bands(tiling) as f64 })
}

/// The traffic of memory of a launch of so many waves; see the module. `tensors` are their bytes.
fn memory_traffic(chip: &Chip, tensors: &[u64], touched: &[Touched], waves: f64, bands: Option<Bands>) -> Traffic {
    let mut traffic = Traffic::default();
    // Of tensors that are read again: their number, compulsory bytes, and those that blocks ask for.
    let mut again: Vec<(usize, f64, f64)> = Vec::new();
    for (number, (&bytes, touched)) in tensors.iter().zip(touched).enumerate() {
        // Sectors are whole, tensors need not end with one.
        let whole = bytes.next_multiple_of(32) as f64;
        let read = touched.read.min(whole);
        traffic.written += touched.written.min(whole);
        traffic.compulsory += read + touched.written.min(whole);
        traffic.read += read;
        if touched.read > 1.001 * read {
            again.push((number, read, touched.read));
        }
    }
    again.sort_by(|a, b| b.1.total_cmp(&a.1));
    let room = chip.l2_bytes as f64 / 2.0;
    let bytes = |of: &[(usize, f64, f64)]| of.iter().map(|tensor| tensor.1).sum::<f64>();
    let kept = again.get(1..).unwrap_or_default();
    if bytes(kept) <= room {
        return traffic;
    }
    let (weights, others): (Vec<_>, Vec<_>) =
        again.iter().partition(|tensor| bands.is_some_and(|bands| bands.weights == tensor.0));
    let (read_again, times) = match bands {
        Some(bands) if bytes(&others) / bands.count <= room => (&weights[..], bands.count),
        _ => (kept, waves),
    };
    traffic.read += read_again.iter().map(|&(_, once, asked)| (once * times).min(asked) - once).sum::<f64>();
    traffic
}

#[cfg(test)]
mod tests {
    use super::*;
    use ptxsim::count::chip::H100;

    #[test]
    fn what_does_not_fit_l2_is_read_in_every_wave() {
        let read = |bytes: u64, times: f64| (bytes, Touched { read: bytes as f64 * times, written: 0.0 });
        let traffic = |tensors: &[(u64, Touched)], waves: f64| {
            let (bytes, touched): (Vec<u64>, Vec<Touched>) = tensors.iter().copied().unzip();
            memory_traffic(&H100, &bytes, &touched, waves, None)
        };
        let mib = 1 << 20;
        // The larger streams, the smaller fits.
        let small = traffic(&[read(80 * mib, 8.0), read(20 * mib, 64.0)], 3.0);
        assert_eq!((small.read, small.compulsory), (100.0 * mib as f64, 100.0 * mib as f64));
        let large = traffic(&[read(80 * mib, 8.0), read(40 * mib, 64.0)], 3.0);
        assert_eq!((large.read, large.compulsory), (200.0 * mib as f64, 120.0 * mib as f64));
        // Never more often than blocks ask.
        assert_eq!(traffic(&[read(80 * mib, 8.0), read(40 * mib, 2.0)], 3.0).read, 160.0 * mib as f64);
        // A table of which little is read, a tensor that is written.
        let part = [(1000 * mib, Touched { read: 640.0, written: 0.0 }), (33, Touched { read: 0.0, written: 64.0 })];
        assert_eq!((traffic(&part, 1.0).read, traffic(&part, 1.0).written), (640.0, 64.0));
    }

    #[test]
    fn weights_that_do_not_fit_are_read_for_every_band() {
        let mib = 1 << 20;
        let (x, weights) = (80 * mib, 40 * mib);
        let touched = [(x, 8), (weights, 64)].map(|(bytes, times)| Touched { read: (bytes * times) as f64, written: 0.0 });
        let read = |count| memory_traffic(&H100, &[x, weights], &touched, 30.0, Some(Bands { weights: 1, count })).read;
        assert_eq!(read(4.0), (80 + 4 * 40) as f64 * mib as f64);
        // Bands of 40 MiB do not stay: what does not fit is read in every wave.
        assert_eq!(read(2.0), (80 + 30 * 40) as f64 * mib as f64);
    }
}
