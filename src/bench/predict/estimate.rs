//! From the counts of a launch to its bound.
//!
//! **Traffic of memory.** A tensor that blocks touch is written once, and read once or more. Its compulsory bytes are those that its blocks
//! touch, each block's distinct sectors summed, but never more than the tensor. Blocks may ask for more than that, because several of them
//! read the same bytes; then it depends on L2. The model: blocks that a chip holds at once (a wave) share what they read. In the kernels'
//! tile order one tensor, the largest of those that are read again, streams past and is read once. Each other one is read once if
//! all of them together fit half of L2, whose other half is left to what streams through; else once for each wave, at most as often as blocks
//! ask for it. What an earlier kernel left in L2 counts as read from memory.
//!
//! **Traffic of L2** is what all accesses of all blocks ask for, in sectors of 32 bytes, as if L1 were empty.

use crate::device::predict::Launch;
use crate::device::predict::sample::{Sampled, Touched};
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
    let traffic =
        Traffic { l2: 32.0 * sectors as f64, ..memory_traffic(chip, &launch.shape.tensors, &sampled.touched, waves.ceil()) };

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

/// The traffic of memory of a launch of so many waves; see the module. `tensors` are their bytes.
fn memory_traffic(chip: &Chip, tensors: &[u64], touched: &[Touched], waves: f64) -> Traffic {
    let mut traffic = Traffic::default();
    // Compulsory bytes, and those that blocks ask for, of tensors that are read again.
    let mut again: Vec<(f64, f64)> = Vec::new();
    for (&bytes, touched) in tensors.iter().zip(touched) {
        // Sectors are whole, tensors need not end with one.
        let whole = bytes.next_multiple_of(32) as f64;
        let read = touched.read.min(whole);
        traffic.written += touched.written.min(whole);
        traffic.compulsory += read + touched.written.min(whole);
        traffic.read += read;
        if touched.read > 1.001 * read {
            again.push((read, touched.read));
        }
    }
    again.sort_by(|a, b| b.0.total_cmp(&a.0));
    let kept = again.get(1..).unwrap_or_default();
    if kept.iter().map(|tensor| tensor.0).sum::<f64>() > chip.l2_bytes as f64 / 2.0 {
        traffic.read += kept.iter().map(|&(once, asked)| (once * waves).min(asked) - once).sum::<f64>();
    }
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
            memory_traffic(&H100, &bytes, &touched, waves)
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
}
