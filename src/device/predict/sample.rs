//! What a launch would do, from a few of its blocks run in the simulator on tensors that have extents but no content.
//!
//! A grid's blocks are mostly alike: the first and the last run because they are at the edges, and stand for themselves; one in the middle, or
//! three where blocks are short, stand for all others. Grids of up to three blocks run whole. Races are not looked for: that is what tests
//! do, at sizes that can be run whole.

use super::Launch;
use crate::device::lock;
use crate::{Error, Result};
use ptxsim::count::{Counts, Site, SiteCounts};
use ptxsim::{Kernel, Memory, Module, Options};
use std::collections::HashMap;
use std::sync::Mutex;

/// Blocks of more warp instructions than this have one of their kind in the middle run, others three.
const LONG: u64 = 100_000;

/// What tensors hold that nobody wrote: 16-bit words, from 0.5 to 1 in magnitude as f16, from 3e-5 to 8e-3 as bf16 and, two by two, as f32.
/// 4,096 bytes in no order, so that maxima move and variances are not zero.
fn noise() -> Vec<u8> {
    let word = |i: u32| 0x3800u16 | (i.wrapping_mul(2_654_435_761) >> 16) as u16 & 0x83FF;
    (0..2048).flat_map(|i| word(i).to_le_bytes()).collect()
}

/// The bytes of a tensor that blocks touch: of each block the distinct sectors, summed over all blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Touched {
    pub read: f64,
    pub written: f64,
}

/// The estimated counts of a whole launch.
#[derive(Clone, Debug)]
pub(crate) struct Sampled {
    pub kernel: Kernel,
    /// Of all blocks; the distinct bytes are for the caller to say, who knows the tensors.
    pub counts: Counts,
    /// In the order of the launch's tensors.
    pub touched: Vec<Touched>,
    /// Blocks that were run.
    pub blocks: usize,
}

impl Sampled {
    /// The instructions with their counts.
    pub fn sites(&self) -> impl Iterator<Item = (&Site, &SiteCounts)> {
        self.kernel.sites().iter().zip(&self.counts.sites)
    }
}

/// Decodes each kernel once.
#[derive(Debug, Default)]
pub(crate) struct Kernels(Mutex<HashMap<&'static str, Kernel>>);

impl Kernels {
    fn get(&self, launch: &Launch) -> Result<Kernel> {
        let (entry, mut kernels) = (launch.shape.entry, lock(&self.0));
        if let Some(kernel) = kernels.get(entry) {
            return Ok(kernel.clone());
        }
        let fail = |e: ptxsim::Error| Error::launch(entry, e.to_string());
        let kernel = Module::parse(launch.file.ptx, launch.file.name).map_err(fail)?.kernel(entry).map_err(fail)?;
        kernels.insert(entry, kernel.clone());
        Ok(kernel)
    }
}

/// Sums of counts, each with a weight.
struct Sums {
    sites: Vec<[f64; 6]>,
    touched: Vec<Touched>,
}

impl Sums {
    fn add(&mut self, weight: f64, counts: &Counts, touched: &[Touched]) {
        for (sum, site) in self.sites.iter_mut().zip(&counts.sites) {
            let own = [site.warps, site.lanes, site.bytes, site.sectors, site.wavefronts, site.ideal_wavefronts];
            sum.iter_mut().zip(own).for_each(|(sum, own)| *sum += weight * own as f64);
        }
        for (sum, own) in self.touched.iter_mut().zip(touched) {
            sum.read += weight * own.read;
            sum.written += weight * own.written;
        }
    }

    fn sites(&self) -> Vec<SiteCounts> {
        let site = |sum: &[f64; 6]| {
            let [warps, lanes, bytes, sectors, wavefronts, ideal_wavefronts] = sum.map(|x| x.round() as u64);
            SiteCounts { warps, lanes, bytes, sectors, wavefronts, ideal_wavefronts }
        };
        self.sites.iter().map(site).collect()
    }
}

/// All blocks of a launch.
#[cfg(test)]
pub(crate) fn whole(kernels: &Kernels, launch: &Launch) -> Result<Sampled> {
    of_blocks(kernels, launch, u64::MAX)
}

/// Runs the representative blocks of a launch; see the module.
///
/// # Errors
/// [`Error::Launch`] if the simulator refuses the launch or finds a fault in a block.
pub(crate) fn sample(kernels: &Kernels, launch: &Launch) -> Result<Sampled> {
    of_blocks(kernels, launch, 3)
}

/// As [`sample`], with grids of up to `most` blocks run whole.
fn of_blocks(kernels: &Kernels, launch: &Launch, most: u64) -> Result<Sampled> {
    let kernel = kernels.get(launch)?;
    let blocks = launch.shape.grid.iter().fold(1u64, |all, &n| all * u64::from(n));
    let mut sums =
        Sums { sites: vec![[0.0; 6]; kernel.sites().len()], touched: vec![Touched::default(); launch.shape.tensors.len()] };
    let mut ran = 0;
    let mut add = |block: u64, weight: f64| -> Result<u64> {
        let (counts, touched) = run(&kernel, launch, block as u32)?;
        sums.add(weight, &counts, &touched);
        ran += 1;
        Ok(counts.sites.iter().map(|site| site.warps).sum())
    };
    if blocks <= most {
        (0..blocks).try_for_each(|block| add(block, 1.0).map(drop))?;
    } else {
        add(0, 1.0)?;
        let others = (blocks - 2) as f64;
        if add(blocks - 1, 1.0)? > LONG || blocks < 5 {
            add(blocks / 2, others)?;
        } else {
            [blocks / 4, blocks / 2, blocks * 3 / 4].into_iter().try_for_each(|block| add(block, others / 3.0).map(drop))?;
        }
    }
    let block_threads = launch.shape.block.iter().product();
    let shared_bytes = launch.resources.static_shared + launch.shape.shared;
    let counts = Counts { sites: sums.sites(), unique_read: 0, unique_written: 0, blocks, block_threads, shared_bytes };
    Ok(Sampled { kernel, counts, touched: sums.touched, blocks: ran })
}

/// Runs one block of a launch, in memory of its own.
fn run(kernel: &Kernel, launch: &Launch, block: u32) -> Result<(Counts, Vec<Touched>)> {
    let shape = &launch.shape;
    let fail = |e: ptxsim::Error| Error::launch(shape.entry, e.to_string());
    let (memory, noise) = (Memory::new(), noise());
    let mut addresses = Vec::new();
    for (&bytes, content) in shape.tensors.iter().zip(&launch.contents) {
        if bytes >= 1 << 36 {
            return Err(Error::launch(shape.entry, format!("a tensor of {bytes} bytes: less than 64 GiB can be simulated")));
        }
        let address = memory.alloc_filled(bytes, &noise);
        if let Some(content) = content {
            memory.write(address, content).map_err(fail)?;
        }
        addresses.push(address);
    }
    let mut arguments = shape.arguments.clone();
    for &(place, tensor, offset) in &shape.pointers {
        arguments[place..place + 8].copy_from_slice(&(addresses[tensor] + offset).to_le_bytes());
    }
    let geometry = ptxsim::Launch { grid: shape.grid, block: shape.block, shared: shape.shared };
    let options = Options { threads: 1, races: false, blocks: Some(vec![block]), ..Options::default() };
    #[allow(clippy::disallowed_methods)] // of launches that `Gpu::launch` checked
    let report = ptxsim::launch(kernel, &memory, &geometry, &arguments, &options).map_err(fail)?;
    if let Some(fault) = report.faults.first() {
        return Err(Error::launch(shape.entry, format!("block {block} of {:?}: {fault}", shape.grid)));
    }
    let touched = addresses.into_iter().map(|address| {
        let (read, written) = memory.touched(address).map_err(fail)?;
        Ok(Touched { read: read as f64, written: written as f64 })
    });
    Ok((report.counts, touched.collect::<Result<_>>()?))
}
