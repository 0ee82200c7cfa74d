//! Where the time of a pass goes, by kind of operation.

use crate::device::{Cost, Observer};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

/// Total of one kind of operation over the observed passes.
#[derive(Clone, Debug, serde::Serialize)]
pub struct OpTotal {
    /// Name of the operation and the shape of its output.
    pub op: String,
    /// How often it ran.
    pub calls: usize,
    /// Time in it, seconds.
    pub seconds: f64,
    /// Its operations, GFLOP.
    pub gflop: f64,
}

/// An observer that adds up times; operations run one after another, so each lasts until the next begins.
#[derive(Debug, Default)]
pub struct Profiler {
    starts: Mutex<Vec<(Cost, Instant)>>,
}

impl Profiler {
    /// Totals by operation and output shape, longest first. `end` is when the pass returned.
    pub fn totals(&self, end: Instant) -> Vec<OpTotal> {
        let starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        let mut totals: BTreeMap<String, OpTotal> = BTreeMap::new();
        for (i, (cost, at)) in starts.iter().enumerate() {
            let next = starts.get(i + 1).map_or(end, |(_, at)| *at);
            let op = format!("{} {:?}", cost.op, cost.shape);
            let total = totals.entry(op.clone()).or_insert(OpTotal { op, calls: 0, seconds: 0.0, gflop: 0.0 });
            total.calls += 1;
            total.seconds += (next - *at).as_secs_f64();
            total.gflop += cost.flops as f64 / 1e9;
        }
        let mut totals: Vec<OpTotal> = totals.into_values().collect();
        totals.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        totals
    }
}

impl Observer for Profiler {
    fn op(&self, cost: &Cost, at: Instant) {
        self.starts.lock().unwrap_or_else(PoisonError::into_inner).push((*cost, at));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Shape;
    use std::time::Duration;

    #[test]
    fn an_operation_lasts_until_the_next_begins() {
        let (profiler, start) = (Profiler::default(), Instant::now());
        let cost = |op| Cost { op, shape: Shape::from([2, 3]), flops: 1_000_000_000, bytes: 0 };
        profiler.op(&cost("a"), start);
        profiler.op(&cost("b"), start + Duration::from_secs(1));
        profiler.op(&cost("a"), start + Duration::from_secs(4));
        let totals = profiler.totals(start + Duration::from_secs(6));
        assert_eq!((totals[0].op.as_str(), totals[0].calls, totals[0].seconds, totals[0].gflop), ("a [2, 3]", 2, 3.0, 2.0));
        assert_eq!((totals[1].op.as_str(), totals[1].calls, totals[1].seconds), ("b [2, 3]", 1, 3.0));
    }
}
