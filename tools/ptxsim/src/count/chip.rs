//! What chips can do, for lower bounds on time: every figure is the vendor's peak, or where none is published, no less than what is seen.
//!
//! Sources:
//! - A100: NVIDIA A100 Tensor Core GPU Architecture (white paper, 2020), tables 1 to 5; A100 80GB data sheet for memory.
//! - RTX 4090: NVIDIA Ada GPU Architecture (white paper, version 2), appendix A.
//! - H100, H200: NVIDIA H100 Tensor Core GPU Architecture (white paper, 2022), tables 1 to 4; H100 and H200 data sheets.
//! - Lanes per clock: CUDA C++ Programming Guide, "Throughput of Native Arithmetic Instructions".
//!
//! The clock is the published boost clock. Cards may briefly run above it (an RTX 4090 by some 8 %), and under load often run below.

use super::roofline::Resource;

/// Dense FLOP/s of the tensor units by type of operand, accumulating in f32 (s32 for integers).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TensorPeak {
    /// f16 and bf16.
    pub f16: f64,
    /// tf32.
    pub tf32: f64,
    /// e4m3 and e5m2; none on chips without them.
    pub fp8: Option<f64>,
    /// s8 and u8.
    pub int8: f64,
}

/// A GPU.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Chip {
    /// As the command line spells it.
    pub name: &'static str,
    /// Multiprocessors.
    pub multiprocessors: u32,
    /// Boost clock in Hz.
    pub clock: f64,
    /// Published peak of the tensor units; on Hopper only wgmma reaches it.
    pub tensor: TensorPeak,
    /// What mma.sync can reach.
    pub mma_sync: TensorPeak,
    /// How much faster f16 accumulation is than f32 accumulation, for f16 and 8-bit floating-point operands.
    pub half_accumulation: f64,
    /// f32 lanes of a multiprocessor: results per clock.
    pub float_lanes: u32,
    /// Lanes for f16x2 and bf16x2, each of two numbers.
    pub half_lanes: u32,
    /// f64 lanes.
    pub double_lanes: u32,
    /// 32-bit integer lanes.
    pub integer_lanes: u32,
    /// Lanes that convert types.
    pub convert_lanes: u32,
    /// Special-function lanes.
    pub special_lanes: u32,
    /// Warp instructions that a multiprocessor issues in a clock.
    pub issue_slots: u32,
    /// Passes through shared memory in a clock, of 128 bytes each.
    pub shared_wavefronts: u32,
    /// Bytes/s between L2 and all multiprocessors.
    pub l2_bandwidth: f64,
    /// Bytes/s of memory.
    pub memory_bandwidth: f64,
    /// Bytes of L2.
    pub l2_bytes: u64,
    /// Bytes of shared memory of a multiprocessor.
    pub shared_per_multiprocessor: u32,
    /// Bytes of shared memory that one block can have.
    pub shared_per_block: u32,
    /// 32-bit registers of a multiprocessor.
    pub registers: u32,
    /// Threads that a multiprocessor holds at once (CUDA programming guide, technical specifications).
    pub threads_per_multiprocessor: u32,
    /// Blocks that it holds at once.
    pub blocks_per_multiprocessor: u32,
    /// Resources whose rate is an estimate rather than the vendor's figure.
    pub estimates: &'static [Resource],
}

/// Bytes per clock that one multiprocessor can exchange with L2: 2 sectors. An estimate, the same for all chips here.
pub const L2_BYTES_PER_CLOCK: f64 = 64.0;

/// The share of the wgmma peak that mma.sync reaches on Hopper.
///
/// An estimate: the vendor publishes none, and it is an average of measurements (Luo et al., "Dissecting the NVIDIA Hopper
/// Architecture through Microbenchmarking and Multiple Level Analysis", arXiv 2501.12084), so a kernel may do a little better.
pub const HOPPER_MMA_SYNC_SHARE: f64 = 0.629;

const HOPPER_TENSOR: TensorPeak = TensorPeak { f16: 989.4e12, tf32: 494.7e12, fp8: Some(1978.9e12), int8: 1978.9e12 };

const A100_TENSOR: TensorPeak = TensorPeak { f16: 312e12, tf32: 156e12, fp8: None, int8: 624e12 };

const ADA_TENSOR: TensorPeak = TensorPeak { f16: 165.2e12, tf32: 82.6e12, fp8: Some(330.3e12), int8: 660.6e12 };

/// A100, SXM, 80 GB.
pub const A100: Chip = Chip {
    name: "a100",
    multiprocessors: 108,
    clock: 1.41e9,
    tensor: A100_TENSOR,
    mma_sync: A100_TENSOR,
    half_accumulation: 1.0,
    float_lanes: 64,
    // 78 TFLOP/s of f16 outside the tensor units.
    half_lanes: 128,
    double_lanes: 32,
    integer_lanes: 64,
    // The guide has 16 or 64, depending on the types.
    convert_lanes: 64,
    special_lanes: 16,
    issue_slots: 4,
    shared_wavefronts: 1,
    // 5,120 bytes a clock, as published.
    l2_bandwidth: 5120.0 * 1.41e9,
    memory_bandwidth: 2.039e12,
    l2_bytes: 40 << 20,
    shared_per_multiprocessor: 164 << 10,
    shared_per_block: 163 << 10,
    registers: 65_536,
    threads_per_multiprocessor: 2048,
    blocks_per_multiprocessor: 32,
    estimates: &[Resource::Convert],
};

/// GeForce RTX 4090.
pub const RTX4090: Chip = Chip {
    name: "rtx4090",
    multiprocessors: 128,
    clock: 2.52e9,
    tensor: ADA_TENSOR,
    mma_sync: ADA_TENSOR,
    half_accumulation: 2.0,
    float_lanes: 128,
    // As many f16 FLOP/s as f32, so half as many lanes of pairs.
    half_lanes: 64,
    double_lanes: 2,
    integer_lanes: 64,
    convert_lanes: 64,
    special_lanes: 16,
    issue_slots: 4,
    shared_wavefronts: 1,
    // No published figure; public microbenchmarks read about 5 TB/s.
    l2_bandwidth: 5.5e12,
    memory_bandwidth: 1.008e12,
    l2_bytes: 72 << 20,
    shared_per_multiprocessor: 100 << 10,
    shared_per_block: 99 << 10,
    registers: 65_536,
    threads_per_multiprocessor: 1536,
    blocks_per_multiprocessor: 24,
    estimates: &[Resource::Convert, Resource::L2],
};

/// H100, SXM.
pub const H100: Chip = Chip {
    name: "h100",
    multiprocessors: 132,
    // Of the f32 figure, 66.9 TFLOP/s; the tensor figures are at 1.83 GHz.
    clock: 1.98e9,
    tensor: HOPPER_TENSOR,
    mma_sync: TensorPeak {
        f16: HOPPER_TENSOR.f16 * HOPPER_MMA_SYNC_SHARE,
        tf32: HOPPER_TENSOR.tf32 * HOPPER_MMA_SYNC_SHARE,
        // ptxas 13.0 turns an 8-bit mma.sync into f16 products for sm_90a, after unpacking the operands.
        fp8: Some(HOPPER_TENSOR.f16 * HOPPER_MMA_SYNC_SHARE),
        int8: HOPPER_TENSOR.int8 * HOPPER_MMA_SYNC_SHARE,
    },
    half_accumulation: 1.0,
    float_lanes: 128,
    half_lanes: 128,
    double_lanes: 64,
    integer_lanes: 64,
    convert_lanes: 64,
    special_lanes: 16,
    issue_slots: 4,
    shared_wavefronts: 1,
    // No published figure: as many bytes a clock as the A100.
    l2_bandwidth: 5120.0 * 1.98e9,
    memory_bandwidth: 3.35e12,
    l2_bytes: 50 << 20,
    shared_per_multiprocessor: 228 << 10,
    shared_per_block: 227 << 10,
    registers: 65_536,
    threads_per_multiprocessor: 2048,
    blocks_per_multiprocessor: 32,
    estimates: &[Resource::Tensor, Resource::Convert, Resource::L2],
};

/// H200, SXM: an H100 with other memory.
pub const H200: Chip = Chip { name: "h200", memory_bandwidth: 4.8e12, ..H100 };

/// All chips.
pub const CHIPS: [Chip; 4] = [A100, RTX4090, H100, H200];

impl Chip {
    /// The chip of that name.
    pub fn by_name(name: &str) -> Option<&'static Chip> {
        CHIPS.iter().find(|chip| chip.name == name)
    }
}

impl TensorPeak {
    /// FLOP/s for an operand type as PTX spells it; none if the chip, or this table, does not have it.
    pub fn of(&self, operand: &str) -> Option<f64> {
        match operand {
            "f16" | "bf16" => Some(self.f16),
            "tf32" => Some(self.tf32),
            "e4m3" | "e5m2" => self.fp8,
            "s8" | "u8" => Some(self.int8),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_give_the_published_flops() {
        // f32 TFLOP/s of the white papers.
        for (chip, published) in [(A100, 19.5e12), (RTX4090, 82.6e12), (H100, 66.9e12)] {
            let flops = 2.0 * chip.float_lanes as f64 * chip.multiprocessors as f64 * chip.clock;
            assert!((flops / published - 1.0).abs() < 0.005, "{}: {flops:e}", chip.name);
        }
        for (chip, published) in [(A100, 9.7e12), (RTX4090, 1.29e12), (H100, 33.5e12)] {
            let flops = 2.0 * chip.double_lanes as f64 * chip.multiprocessors as f64 * chip.clock;
            assert!((flops / published - 1.0).abs() < 0.005, "{}: {flops:e}", chip.name);
        }
        for (chip, published) in [(A100, 78e12), (RTX4090, 82.6e12), (H100, 133.8e12)] {
            let flops = 4.0 * chip.half_lanes as f64 * chip.multiprocessors as f64 * chip.clock;
            assert!((flops / published - 1.0).abs() < 0.005, "{}: {flops:e}", chip.name);
        }
    }

    #[test]
    fn chips_have_names() {
        for chip in &CHIPS {
            assert_eq!(Chip::by_name(chip.name), Some(chip));
        }
        assert_eq!(Chip::by_name("b200"), None);
        assert_eq!(A100.tensor.of("e4m3"), None);
        assert_eq!(H100.mma_sync.of("e4m3"), H100.mma_sync.of("bf16"));
    }
}
