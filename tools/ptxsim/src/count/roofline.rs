//! The time below which a kernel cannot run on a chip, from what its launch did.
//!
//! Each resource alone needs its work divided by its rate; the largest of these is the bound. A multiprocessor's resources count as many times
//! as blocks can occupy, at most the chip's number. Nothing is added for partly filled last waves, latency, or resources that wait
//! for each other: all of that only makes a kernel slower.

use super::chip::{Chip, L2_BYTES_PER_CLOCK};
use super::{Class, Counts, Site, SiteCounts};

/// What can limit a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Resource {
    /// Tensor units, through mma.sync.
    Tensor,
    /// f32 lanes.
    Float,
    /// f16 and bf16 lanes.
    Half,
    /// f64 lanes.
    Double,
    /// Special-function lanes.
    Special,
    /// Passes through shared memory.
    Shared,
    /// Distinct bytes of global memory, as if none were in L2 when the kernel starts.
    Memory,
    /// Sectors exchanged with L2, as if none were in L1.
    L2,
    /// Integer lanes.
    Integer,
    /// Lanes that convert types.
    Convert,
    /// Issue slots.
    Issue,
}

impl Resource {
    /// All of them.
    pub const ALL: [Resource; 11] = [
        Resource::Tensor,
        Resource::Float,
        Resource::Half,
        Resource::Double,
        Resource::Special,
        Resource::Shared,
        Resource::Memory,
        Resource::L2,
        Resource::Integer,
        Resource::Convert,
        Resource::Issue,
    ];

    /// Whether the work counted in PTX is work that the hardware must do.
    ///
    /// It is not for integer operations, conversions and issue slots, because ptxas drops moves, folds address arithmetic and shares
    /// common results; nor for L2, because L1 may hold a sector that is asked for again. These parts are told, but do not bind.
    pub const fn binds(self) -> bool {
        !matches!(self, Resource::L2 | Resource::Integer | Resource::Convert | Resource::Issue)
    }

    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Resource::Tensor => "tensor",
            Resource::Float => "float",
            Resource::Half => "half",
            Resource::Double => "double",
            Resource::Special => "special",
            Resource::Shared => "shared",
            Resource::Memory => "memory",
            Resource::L2 => "L2",
            Resource::Integer => "integer",
            Resource::Convert => "convert",
            Resource::Issue => "issue",
        }
    }
}

/// A lower bound on the time of a launch.
#[derive(Clone, Debug, PartialEq)]
pub struct Bound {
    /// The largest part that binds. Infinite if the chip lacks an operand type that the kernel multiplies.
    pub seconds: f64,
    /// Whose part that is.
    pub binding: Resource,
    /// Seconds that each resource needs, in the order of [`Resource::ALL`].
    pub parts: Vec<(Resource, f64)>,
}

impl Bound {
    /// Seconds that one resource needs.
    pub fn part(&self, resource: Resource) -> f64 {
        self.parts.iter().find(|part| part.0 == resource).map_or(0.0, |part| part.1)
    }
}

/// Multiprocessors that a launch can keep busy.
fn busy(counts: &Counts, chip: &Chip) -> f64 {
    counts.blocks.clamp(1, chip.multiprocessors as u64) as f64
}

/// Whether a tensor product accumulates in f16: D's type is the first of the four that end its name.
fn accumulates_in_f16(site: &Site) -> bool {
    let opcode = site.text.split_whitespace().find(|word| word.contains("mma.")).unwrap_or("");
    let types: Vec<&str> = opcode.rsplit('.').take(4).collect();
    types.len() == 4 && types[3] == "f16"
}

fn tensor_seconds(site: &Site, counts: &SiteCounts, chip: &Chip, busy: f64) -> f64 {
    let work = (site.flops * counts.warps) as f64;
    if work == 0.0 {
        return 0.0;
    }
    let Some(peak) = chip.mma_sync.of(site.tensor_type) else { return f64::INFINITY };
    let faster = if accumulates_in_f16(site) { chip.half_accumulation } else { 1.0 };
    work / (peak * faster * busy / chip.multiprocessors as f64)
}

/// Seconds that one instruction's issues need of a resource; `total` are those of the whole launch.
///
/// For [`Resource::Memory`], whose distinct bytes belong to no single instruction, each takes the share of the launch's sectors that it touched.
pub fn site_seconds(site: &Site, counts: &SiteCounts, total: &Counts, chip: &Chip, resource: Resource) -> f64 {
    let busy = busy(total, chip);
    let clocks = busy * chip.clock;
    let lanes =
        |class: Class, rate: u32| if site.class == class { 32.0 * counts.warps as f64 / (rate as f64 * clocks) } else { 0.0 };
    match resource {
        Resource::Tensor if site.class == Class::Tensor => tensor_seconds(site, counts, chip, busy),
        Resource::Tensor => 0.0,
        Resource::Float => lanes(Class::Float, chip.float_lanes),
        Resource::Half => lanes(Class::Half, chip.half_lanes),
        Resource::Double => lanes(Class::Double, chip.double_lanes),
        Resource::Special => lanes(Class::Special, chip.special_lanes),
        Resource::Integer => lanes(Class::Integer, chip.integer_lanes),
        Resource::Convert => lanes(Class::Convert, chip.convert_lanes),
        Resource::Issue => counts.warps as f64 / (chip.issue_slots as f64 * clocks),
        Resource::Shared => counts.wavefronts as f64 / (chip.shared_wavefronts as f64 * clocks),
        Resource::L2 => 32.0 * counts.sectors as f64 / chip.l2_bandwidth.min(L2_BYTES_PER_CLOCK * clocks),
        Resource::Memory => {
            let sectors: u64 = total.sites.iter().map(|site| site.sectors).sum();
            let share = if sectors == 0 { 0.0 } else { counts.sectors as f64 / sectors as f64 };
            share * memory_seconds(total, chip)
        }
    }
}

fn memory_seconds(counts: &Counts, chip: &Chip) -> f64 {
    (counts.unique_read + counts.unique_written) as f64 / chip.memory_bandwidth
}

/// The time below which a launch cannot run on `chip`.
///
/// `sites` and `counts.sites` are in the same order.
pub fn bound(sites: &[Site], counts: &Counts, chip: &Chip) -> Bound {
    let parts: Vec<(Resource, f64)> = Resource::ALL
        .into_iter()
        .map(|resource| {
            let seconds = match resource {
                Resource::Memory => memory_seconds(counts, chip),
                _ => sites.iter().zip(&counts.sites).map(|(site, own)| site_seconds(site, own, counts, chip, resource)).sum(),
            };
            (resource, seconds)
        })
        .collect();
    let (mut binding, mut seconds) = (Resource::Memory, 0.0);
    for &(resource, part) in parts.iter().filter(|part| part.0.binds()) {
        if part > seconds {
            (binding, seconds) = (resource, part);
        }
    }
    Bound { seconds, binding, parts }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::count::chip::{A100, H100, RTX4090};

    fn site(class: Class, flops: u64, tensor_type: &'static str, text: &str) -> Site {
        Site { class, flops, tensor_type, ptx_line: 1, source: None, text: text.into() }
    }

    fn mma(types: &str, tensor_type: &'static str) -> Site {
        site(
            Class::Tensor,
            4096,
            tensor_type,
            &format!("mma.sync.aligned.m16n8k16.row.col.{types} {{%f1}}, {{%r1}}, {{%r2}}, {{%f1}};"),
        )
    }

    fn launch(blocks: u64, sites: &[SiteCounts]) -> Counts {
        Counts { sites: sites.to_vec(), blocks, block_threads: 128, ..Counts::default() }
    }

    fn near(got: f64, want: f64) {
        assert!((got / want - 1.0).abs() < 1e-9, "{got:e} is not {want:e}");
    }

    #[test]
    fn a_tensor_bound_product() {
        // 4096 x 4096 x 4096 in f16: 2 * 4096^3 FLOP = 137,438,953,472, on 312 TFLOP/s: 440.51 us.
        let sites = [mma("f32.f16.f16.f32", "f16")];
        let mut counts =
            launch(1024, &[SiteCounts { warps: 4096 * 4096 * 4096 / 2048, lanes: 1 << 30, ..SiteCounts::default() }]);
        // Three matrices of 32 MiB.
        (counts.unique_read, counts.unique_written) = (64 << 20, 32 << 20);
        let bound = super::bound(&sites, &counts, &A100);
        assert_eq!(bound.binding, Resource::Tensor);
        near(bound.seconds, 137_438_953_472.0 / 312e12);
        near(bound.part(Resource::Memory), 100_663_296.0 / 2.039e12);
        near(bound.part(Resource::Issue), 33_554_432.0 / (4.0 * 108.0 * 1.41e9));
        // On Hopper mma.sync has 62.9 % of 989.4 TFLOP/s.
        near(super::bound(&sites, &counts, &H100).seconds, 137_438_953_472.0 / (0.629 * 989.4e12));
        // A quarter of the multiprocessors has a quarter of the units.
        counts.blocks = 27;
        near(super::bound(&sites, &counts, &A100).seconds, 4.0 * 137_438_953_472.0 / 312e12);
    }

    #[test]
    fn a_memory_bound_copy() {
        // 64 MiB read and written by 16-byte accesses: 134,217,728 bytes on 2.039 TB/s: 65.8 us.
        let warps = (64 << 20) / (32 * 16);
        let access = SiteCounts { warps, lanes: 32 * warps, bytes: 64 << 20, sectors: 2 << 20, ..SiteCounts::default() };
        let sites = [site(Class::Global, 0, "", "ld.global.v4.u32"), site(Class::Global, 0, "", "st.global.v4.u32")];
        let counts = Counts { unique_read: 64 << 20, unique_written: 64 << 20, ..launch(4096, &[access, access]) };
        let bound = super::bound(&sites, &counts, &A100);
        assert_eq!(bound.binding, Resource::Memory);
        near(bound.seconds, 134_217_728.0 / 2.039e12);
        near(bound.part(Resource::L2), 134_217_728.0 / (5120.0 * 1.41e9));
        near(site_seconds(&sites[0], &access, &counts, &A100, Resource::Memory), 67_108_864.0 / 2.039e12);
    }

    #[test]
    fn lanes_and_wavefronts() {
        let sites = [
            site(Class::Float, 64, "", "fma.rn.f32"),
            site(Class::Special, 32, "", "ex2.approx.f32"),
            site(Class::Shared, 0, "", "ld.shared.f32"),
            site(Class::Double, 64, "", "fma.rn.f64"),
            site(Class::Half, 128, "", "fma.rn.f16x2"),
            site(Class::Integer, 0, "", "add.s32"),
            site(Class::Convert, 0, "", "cvt.rn.f16.f32"),
        ];
        let each = SiteCounts { warps: 1_000_000, lanes: 32_000_000, ..SiteCounts::default() };
        let mut own = [each; 7];
        own[2].wavefronts = 8_000_000;
        let counts = launch(1, &own);
        let bound = super::bound(&sites, &counts, &RTX4090);
        let at = |rate: f64| 32e6 / (rate * 2.52e9);
        near(bound.part(Resource::Float), at(128.0));
        near(bound.part(Resource::Special), at(16.0));
        near(bound.part(Resource::Double), at(2.0));
        near(bound.part(Resource::Half), at(64.0));
        near(bound.part(Resource::Integer), at(64.0));
        near(bound.part(Resource::Convert), at(64.0));
        near(bound.part(Resource::Shared), 8e6 / 2.52e9);
        near(bound.part(Resource::Issue), 7e6 / (4.0 * 2.52e9));
        assert_eq!((bound.binding, bound.seconds), (Resource::Double, bound.part(Resource::Double)));
    }

    #[test]
    fn what_ptxas_may_drop_does_not_bind() {
        let sites = [site(Class::Integer, 0, "", "mov.u32"), site(Class::Float, 64, "", "fma.rn.f32")];
        let many = SiteCounts { warps: 1_000_000, ..SiteCounts::default() };
        let few = SiteCounts { warps: 1_000, ..SiteCounts::default() };
        let bound = super::bound(&sites, &launch(108, &[many, few]), &A100);
        assert_eq!(bound.binding, Resource::Float);
        assert!(bound.part(Resource::Integer) > bound.seconds);
    }

    #[test]
    fn f16_accumulation_is_twice_as_fast_on_ada_only() {
        let counts = launch(128, &[SiteCounts { warps: 1 << 20, ..SiteCounts::default() }]);
        let seconds = |types: &str, operand, chip: &Chip| super::bound(&[mma(types, operand)], &counts, chip).seconds;
        near(seconds("f32.f16.f16.f32", "f16", &RTX4090), 4096.0 * 1_048_576.0 / 165.2e12);
        near(seconds("f16.f16.f16.f16", "f16", &RTX4090), 4096.0 * 1_048_576.0 / 330.4e12);
        near(seconds("f16.e4m3.e5m2.f16", "e4m3", &RTX4090), 4096.0 * 1_048_576.0 / 660.6e12);
        near(seconds("f16.f16.f16.f16", "f16", &A100), seconds("f32.f16.f16.f32", "f16", &A100));
        assert_eq!(seconds("f32.e4m3.e4m3.f32", "e4m3", &A100), f64::INFINITY);
    }

    #[test]
    fn an_empty_launch_takes_no_time() {
        let bound = super::bound(&[], &Counts::default(), &A100);
        assert_eq!(bound.seconds, 0.0);
    }
}
