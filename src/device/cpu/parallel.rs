//! A parallel loop that allocates nothing, and memory that each worker keeps for itself.

use bytemuck::{Pod, Zeroable};
use rayon::prelude::*;
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Calls `work(0)` .. `work(tasks - 1)` on the workers of the current pool. Each worker takes the next task when it is done
/// with its own, so tasks start in order and a worker that is slowed down does less.
pub(crate) fn for_each_task(tasks: usize, work: impl Fn(usize) + Sync) {
    let next = AtomicUsize::new(0);
    let take = |_| {
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= tasks {
                return;
            }
            work(task);
        }
    };
    match rayon::current_num_threads().min(tasks) {
        0 | 1 => take(0),
        workers => (0..workers).into_par_iter().with_max_len(1).for_each(take),
    }
}

/// A cache line, and the widest vector register.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub(crate) struct Line([u32; 16]);

// SAFETY: 64 bytes of plain data without padding; any bits are valid.
unsafe impl Pod for Line {}
// SAFETY: see above; all zeros are valid.
unsafe impl Zeroable for Line {}

impl Line {
    /// Four-byte elements of a line.
    pub(crate) const LEN: usize = 16;
}

thread_local! {
    static SCRATCH: RefCell<Vec<Line>> = const { RefCell::new(Vec::new()) };
}

/// Lends `elements` f32 of undefined content, aligned to 64 bytes, that belong to this thread. They are kept for its next call,
/// and all of `most` are taken at once, so that a loop over calls of different sizes allocates in its first turn only.
pub(crate) fn with_scratch<R>(elements: usize, most: usize, work: impl FnOnce(&mut [f32]) -> R) -> R {
    SCRATCH.with_borrow_mut(|lines| {
        let needed = elements.max(most).div_ceil(Line::LEN);
        if lines.len() < needed {
            *lines = bytemuck::zeroed_vec(needed);
        }
        work(&mut bytemuck::cast_slice_mut(lines)[..elements])
    })
}
