//! The launches of a batch of images added up, and the text of it.

use super::Request;
use super::estimate::{Estimate, Parts, Traffic};
use super::record::{Operation, Pass};
use crate::device::predict::{Card, Launch, LaunchShape};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// Operations whose inputs and outputs must pass through memory even where everything that can be fused is.
const PRODUCTS: [&str; 3] = ["linear", "conv2d", "attention"];

/// Norms, which a chain of fused kernels does without.
const NORMS: [&str; 2] = ["group_norm", "layer_norm"];

/// Launches of one kernel for operations of one name and result, with the same grid.
#[derive(Clone, Debug, Serialize)]
pub struct KernelPrediction {
    /// Operation and the shape of its result.
    pub op: String,
    /// The kernel; `copy` and `fill` are the driver's, `none` is an operation that has no kernel yet and is counted only.
    pub entry: String,
    /// Launches in a pass.
    pub count: usize,
    /// Blocks of a launch, and how many of them were run.
    pub blocks: u64,
    /// Blocks that were run.
    pub sampled: usize,
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of shared memory of a block.
    pub shared: u32,
    /// Bytes of a thread's registers that are kept in memory.
    pub spills: u32,
    /// Blocks of a multiprocessor.
    pub blocks_per_multiprocessor: u32,
    /// What keeps it from one more.
    pub limit: &'static str,
    /// Rounds of blocks.
    pub waves: f64,
    /// Useful GFLOP of a launch: of the operation, by its shapes.
    pub gflop: f64,
    /// GFLOP that the tensor cores execute in a launch.
    pub tensor_gflop: f64,
    /// Bytes of a launch.
    pub traffic: Traffic,
    /// Passes through shared memory for each that is needed, in all and in the copies and `ldmatrix` of main loops; 1 is no conflict.
    pub conflicts: f64,
    /// The same of main loops alone.
    pub main_loop_conflicts: f64,
    /// Bound of a launch.
    pub bound_us: f64,
    /// The resource that the bound is of.
    pub binding: &'static str,
    /// What each resource alone needs for a launch.
    pub parts: Parts,
}

/// One pass.
#[derive(Clone, Debug, Serialize)]
pub struct PassPrediction {
    /// `text`, `step` or `decode`.
    pub name: &'static str,
    /// Times for a batch.
    pub times: usize,
    /// Launches, copies and fills.
    pub launches: usize,
    /// Sum of the bounds of one pass, in milliseconds.
    pub bound_ms: f64,
    /// The same where every launch takes whole rounds of blocks.
    pub whole_waves_ms: f64,
    /// Operations of products, by their shapes.
    pub useful_gflop: f64,
    /// Those of products that have kernels.
    pub covered_gflop: f64,
    /// Operations of the tensor cores.
    pub tensor_gflop: f64,
    /// Bytes.
    pub traffic: Traffic,
    /// Bytes of the products' inputs, results and residuals, each once for each product.
    pub fused_activations: f64,
    /// Bytes of the weights of products.
    pub weights: f64,
    /// Bytes that norms read and write as operations of their own.
    pub norm_bytes: f64,
    /// Operations that have no kernel.
    pub without_kernel: usize,
    /// Largest first.
    pub kernels: Vec<KernelPrediction>,
}

/// What it comes to.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Milliseconds of an image in each pass, and in all.
    pub image_ms: f64,
    /// Images a second, at the bounds.
    pub images_per_s: f64,
    /// The same where every launch takes whole rounds of blocks.
    pub images_per_s_whole_waves: f64,
    /// Of a step: bytes exchanged with memory for each that products must exchange.
    pub step_traffic_ratio: f64,
    /// The same where norms may exchange theirs too.
    pub step_traffic_ratio_with_norms: f64,
    /// Of all tensor operations of a batch.
    pub useful_tensor_share: f64,
    /// Most passes for one that is needed, in the main loop of any kernel.
    pub worst_main_loop_conflicts: f64,
    /// Bytes that all kernels together spill.
    pub spills: u32,
    /// Operations of a batch's passes that have no kernel yet, and are not in any time or traffic.
    pub without_kernel: usize,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Prediction {
    /// Version of syntic.
    pub version: &'static str,
    /// The chip.
    pub chip: String,
    /// The model.
    pub model: String,
    /// Height and width in pixels, images at once, evaluations for each, storage.
    pub height: usize,
    /// See `height`.
    pub width: usize,
    /// See `height`.
    pub batch: usize,
    /// See `height`.
    pub steps: usize,
    /// See `height`.
    pub dtype: String,
    /// Launches that differ, and blocks of them that were run.
    pub distinct_launches: usize,
    /// See `distinct_launches`.
    pub sampled_blocks: usize,
    /// In the order of the work.
    pub passes: Vec<PassPrediction>,
    /// What it comes to.
    pub summary: Summary,
}

/// Bytes of an element as GPUs store it.
const STORED: usize = 2;

type Estimates = HashMap<LaunchShape, Estimate>;

pub(super) fn add_up(request: &Request, card: Card, passes: &[Pass], estimates: &Estimates) -> Prediction {
    let passes: Vec<PassPrediction> = passes.iter().map(|pass| add_up_pass(card, pass, estimates)).collect();
    Prediction {
        version: crate::VERSION,
        chip: request.chip.clone(),
        model: request.model.clone(),
        height: request.size.0,
        width: request.size.1,
        batch: request.batch,
        steps: request.steps,
        dtype: request.storage.to_string(),
        distinct_launches: estimates.len(),
        sampled_blocks: estimates.values().map(|estimate| estimate.sampled).sum(),
        summary: summary(request, &passes),
        passes,
    }
}

fn summary(request: &Request, passes: &[PassPrediction]) -> Summary {
    let batch = |value: fn(&PassPrediction) -> f64| passes.iter().map(|pass| pass.times as f64 * value(pass)).sum::<f64>();
    let images = request.batch as f64;
    let step = passes.iter().find(|pass| pass.name == "step");
    let ratio = |with_norms: f64| {
        step.map_or(0.0, |step| step.traffic.memory() / (step.fused_activations + step.weights + with_norms * step.norm_bytes))
    };
    let kernels = || passes.iter().flat_map(|pass| &pass.kernels);
    let spills: BTreeMap<&str, u32> = kernels().map(|kernel| (kernel.entry.as_str(), kernel.spills)).collect();
    Summary {
        image_ms: batch(|pass| pass.bound_ms) / images,
        images_per_s: 1e3 * images / batch(|pass| pass.bound_ms),
        images_per_s_whole_waves: 1e3 * images / batch(|pass| pass.whole_waves_ms),
        step_traffic_ratio: ratio(0.0),
        step_traffic_ratio_with_norms: ratio(1.0),
        useful_tensor_share: batch(|pass| pass.covered_gflop) / batch(|pass| pass.tensor_gflop),
        worst_main_loop_conflicts: kernels().map(|kernel| kernel.main_loop_conflicts).fold(1.0, f64::max),
        spills: spills.values().sum(),
        without_kernel: passes.iter().map(|pass| pass.without_kernel).sum(),
    }
}

fn add_up_pass(card: Card, pass: &Pass, estimates: &Estimates) -> PassPrediction {
    let mut out = PassPrediction {
        name: pass.name,
        times: pass.times,
        launches: 0,
        bound_ms: 0.0,
        whole_waves_ms: 0.0,
        useful_gflop: 0.0,
        covered_gflop: 0.0,
        tensor_gflop: 0.0,
        traffic: Traffic::default(),
        fused_activations: 0.0,
        weights: 0.0,
        norm_bytes: 0.0,
        without_kernel: 0,
        kernels: Vec::new(),
    };
    let mut rows: BTreeMap<(String, String, u64), KernelPrediction> = BTreeMap::new();
    for operation in &pass.operations {
        let cost = &operation.cost;
        if PRODUCTS.contains(&cost.op) {
            out.useful_gflop += cost.flops as f64 / 1e9;
            let covered = if operation.launches.is_empty() { 0.0 } else { cost.flops as f64 / 1e9 };
            out.covered_gflop += covered;
            out.fused_activations += cost.bytes.saturating_sub(operation.weights) as f64;
            out.weights += operation.weights as f64;
        }
        if NORMS.contains(&cost.op) {
            out.norm_bytes += (2 * STORED * cost.shape.len()) as f64;
        }
        for row in rows_of(card, operation, estimates) {
            out.launches += usize::from(row.entry != "none");
            out.without_kernel += usize::from(row.entry == "none");
            out.bound_ms += row.bound_us / 1e3;
            let rounding = if row.waves > 0.0 { row.waves.ceil() / row.waves } else { 1.0 };
            // Less than one round keeps fewer multiprocessors busy, which the bound knows.
            let rounding = if row.waves < 1.0 || row.binding == "memory" { 1.0 } else { rounding };
            out.whole_waves_ms += row.bound_us * rounding / 1e3;
            out.tensor_gflop += row.tensor_gflop;
            out.traffic.add(&row.traffic, 1.0);
            rows.entry((row.op.clone(), row.entry.clone(), row.blocks)).and_modify(|known| merge(known, &row)).or_insert(row);
        }
    }
    out.kernels = rows.into_values().collect();
    out.kernels.sort_by(|a, b| (b.bound_us * b.count as f64).total_cmp(&(a.bound_us * a.count as f64)));
    out
}

/// Launches of the same name may differ (in their sums, say): figures become means.
fn merge(known: &mut KernelPrediction, row: &KernelPrediction) {
    let (n, mut traffic) = (known.count as f64, Traffic::default());
    let mean = |a: f64, b: f64| (a * n + b) / (n + 1.0);
    traffic.add(&known.traffic, n / (n + 1.0));
    traffic.add(&row.traffic, 1.0 / (n + 1.0));
    if row.bound_us > known.bound_us {
        known.binding = row.binding;
    }
    let (a, b) = (known.parts, row.parts);
    known.parts = Parts {
        tensor: mean(a.tensor, b.tensor),
        memory: mean(a.memory, b.memory),
        shared: mean(a.shared, b.shared),
        special: mean(a.special, b.special),
        float: mean(a.float, b.float),
        l2: mean(a.l2, b.l2),
        issue: mean(a.issue, b.issue),
    };
    known.gflop = mean(known.gflop, row.gflop);
    known.tensor_gflop = mean(known.tensor_gflop, row.tensor_gflop);
    known.bound_us = mean(known.bound_us, row.bound_us);
    known.conflicts = known.conflicts.max(row.conflicts);
    known.main_loop_conflicts = known.main_loop_conflicts.max(row.main_loop_conflicts);
    known.traffic = traffic;
    known.count += 1;
}

/// One row for each launch of an operation, and for what the driver copies and fills.
fn rows_of(card: Card, operation: &Operation, estimates: &Estimates) -> Vec<KernelPrediction> {
    let cost = &operation.cost;
    let op = format!("{} {:?}", cost.op, cost.shape);
    let mut rows: Vec<KernelPrediction> =
        operation.launches.iter().filter_map(|launch| Some(row(&op, launch, estimates.get(&launch.shape)?))).collect();
    for (entry, bytes, times) in [("copy", operation.copied, 2.0), ("fill", operation.filled, 1.0)] {
        if bytes > 0 {
            rows.push(driver(card, &op, entry, bytes as f64, times));
        }
    }
    if rows.is_empty() && cost.flops > 0 && (PRODUCTS.contains(&cost.op) || NORMS.contains(&cost.op)) {
        rows.push(driver(card, &op, "none", 0.0, 0.0));
    }
    if let Some(first) = rows.first_mut() {
        first.gflop = cost.flops as f64 / 1e9;
    }
    rows
}

fn row(op: &str, launch: &Launch, estimate: &Estimate) -> KernelPrediction {
    let resources = launch.resources;
    let ways = |[taken, ideal]: [f64; 2]| if ideal > 0.0 { taken / ideal } else { 1.0 };
    KernelPrediction {
        op: op.into(),
        entry: launch.shape.entry.into(),
        count: 1,
        blocks: estimate.blocks,
        sampled: estimate.sampled,
        registers: resources.registers,
        shared: resources.static_shared + launch.shape.shared,
        spills: resources.spill_stores + resources.spill_loads,
        blocks_per_multiprocessor: estimate.occupancy.0,
        limit: estimate.occupancy.1,
        waves: estimate.waves,
        gflop: 0.0,
        tensor_gflop: estimate.tensor_flops / 1e9,
        traffic: estimate.traffic,
        conflicts: ways(estimate.wavefronts),
        main_loop_conflicts: ways(estimate.main_loop),
        bound_us: estimate.bound_us,
        binding: estimate.binding,
        parts: estimate.parts,
    }
}

/// Work of the driver, bound by memory.
fn driver(card: Card, op: &str, entry: &str, bytes: f64, times: f64) -> KernelPrediction {
    let us = 1e6 * times * bytes / card.chip.memory_bandwidth;
    let read = if times > 1.0 { bytes } else { 0.0 };
    KernelPrediction {
        op: op.into(),
        entry: entry.into(),
        count: 1,
        blocks: 0,
        sampled: 0,
        registers: 0,
        shared: 0,
        spills: 0,
        blocks_per_multiprocessor: 0,
        limit: "",
        waves: 0.0,
        gflop: 0.0,
        tensor_gflop: 0.0,
        traffic: Traffic { read, written: bytes, compulsory: times * bytes, l2: times * bytes },
        conflicts: 1.0,
        main_loop_conflicts: 1.0,
        bound_us: us,
        binding: "memory",
        parts: Parts { memory: us, ..Parts::default() },
    }
}

impl Prediction {
    /// The tables and the summary as text.
    pub fn text(&self) -> String {
        let mut out = format!(
            "A prediction, not a measurement: syntic {} on {}, {}, {} images of {}x{} at once, {} steps, {}.\n\
             {} distinct launches, {} of their blocks simulated. Times are bounds of single launches, in microseconds: no launch can take\n\
             less. * does not bind: L2 as if L1 were empty, issue slots as counted in PTX. MB: exchanged with memory; the compulsory part\n\
             is every byte once.\n",
            self.version,
            self.chip,
            self.model,
            self.batch,
            self.height,
            self.width,
            self.steps,
            self.dtype,
            self.distinct_launches,
            self.sampled_blocks
        );
        self.passes.iter().for_each(|pass| pass.write(&mut out));
        self.summary.write(self, &mut out);
        out
    }
}

impl PassPrediction {
    fn write(&self, out: &mut String) {
        let _ = writeln!(out, "\n{}, {} a batch: {:.3} ms, {} launches", self.name, self.times, self.bound_ms, self.launches);
        let mut rows = vec![
            [
                "<kernel",
                "<operation",
                "count",
                "us",
                "<by",
                "tensor",
                "memory",
                "shared",
                "exp",
                "L2*",
                "issue*",
                "GFLOP",
                "useful",
                "MB",
                "compulsory",
                "conflicts",
                "loop",
                "regs",
                "KiB",
                "blocks/SM",
                "<limit",
                "waves",
            ]
            .map(String::from)
            .to_vec(),
        ];
        rows.extend(self.kernels.iter().map(KernelPrediction::cells));
        *out += &table(&rows);
    }
}

impl KernelPrediction {
    fn cells(&self) -> Vec<String> {
        let us = |x: f64| if x == 0.0 { "".into() } else { format!("{x:.1}") };
        let p = &self.parts;
        let useful = if self.tensor_gflop > 0.0 { format!("{:.0} %", 100.0 * self.gflop / self.tensor_gflop) } else { "".into() };
        let optional = |number: u32| if number == 0 { String::new() } else { number.to_string() };
        let ways = |ways: f64| if ways < 1.005 { "none".into() } else { format!("{ways:.2}") };
        let mut cells = vec![self.entry.clone(), self.op.clone(), self.count.to_string(), us(self.bound_us), self.binding.into()];
        cells.extend([p.tensor, p.memory, p.shared, p.special, p.l2, p.issue].map(us));
        cells.extend([us(self.gflop), useful]);
        cells.extend([self.traffic.memory(), self.traffic.compulsory].map(|bytes| format!("{:.1}", bytes / 1e6)));
        cells.extend([ways(self.conflicts), ways(self.main_loop_conflicts), optional(self.registers)]);
        cells.extend([us(f64::from(self.shared) / 1024.0), optional(self.blocks_per_multiprocessor), self.limit.into()]);
        cells.push(if self.waves > 0.0 { format!("{:.2}", self.waves) } else { String::new() });
        cells
    }
}

impl Summary {
    fn write(&self, all: &Prediction, out: &mut String) {
        let _ = writeln!(out, "\nsummary");
        let mut line = |name: &str, value: String| {
            let _ = writeln!(out, "  {name:<58} {value}");
        };
        for pass in &all.passes {
            let ms = pass.bound_ms * pass.times as f64 / all.batch as f64;
            line(&format!("{} of an image", pass.name), format!("{ms:.3} ms at least"));
        }
        line("an image", format!("{:.3} ms at least", self.image_ms));
        line(
            "images/s",
            format!("{:.2} at most; {:.2} in whole rounds of blocks", self.images_per_s, self.images_per_s_whole_waves),
        );
        if let Some(step) = all.passes.iter().find(|pass| pass.name == "step") {
            let gb = |bytes: f64| format!("{:.3} GB", bytes / 1e9);
            line("memory traffic of a step", gb(step.traffic.memory()));
            line("  every byte of every launch once", gb(step.traffic.compulsory));
            line("  asked of L2", gb(step.traffic.l2));
            line("fused minimum of a step: products' inputs and results", gb(step.fused_activations));
            line("  weights", gb(step.weights));
            line("  norms, where they are passes of their own", gb(step.norm_bytes));
        }
        let ratios = (self.step_traffic_ratio, self.step_traffic_ratio_with_norms);
        line("traffic / fused minimum", format!("{:.3}; {:.3} with norms in the minimum", ratios.0, ratios.1));
        line("useful share of tensor FLOP", format!("{:.1} %", 100.0 * self.useful_tensor_share));
        let conflicts = self.worst_main_loop_conflicts;
        line("bank conflicts in main loops", if conflicts < 1.005 { "none".into() } else { format!("up to {conflicts:.2}-way") });
        line("spilled bytes", self.spills.to_string());
        if self.without_kernel > 0 {
            line("NOT COUNTED: operations without a kernel", self.without_kernel.to_string());
        }
    }
}

/// Lines up columns, those whose header starts with `<` to the left.
fn table(rows: &[Vec<String>]) -> String {
    let Some(header) = rows.first() else { return String::new() };
    let cell = |text: &str| text.trim_start_matches('<').to_owned();
    let width = |column: usize| rows.iter().map(|row| cell(&row[column]).chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut out = String::new();
    for row in rows {
        let mut line = String::new();
        for (i, &width) in widths.iter().enumerate() {
            let text = cell(&row[i]);
            line += &if header[i].starts_with('<') { format!("  {text:<width$}") } else { format!("  {text:>width$}") };
        }
        out += line.trim_end();
        out.push('\n');
    }
    out
}
