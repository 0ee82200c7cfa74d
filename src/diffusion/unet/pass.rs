//! What the blocks of one evaluation share: time, text, how far the two halves of guidance are still one, skip connections.

use super::config::MAX_SKIPS;
use super::text::TextState;
use super::time::{TimeSlot, TimeState};
use crate::device::{Exec, Tensor};
use crate::ops::attention::KvRows;
use crate::ops::elementwise::repeat_batch;
use crate::{Error, Result};
use std::cell::Cell;

/// The conditions of one evaluation.
pub(super) struct Pass<'t> {
    pub time: &'t TimeState,
    pub step: usize,
    pub text: &'t TextState,
    /// For each sample of the (doubled) batch, its prompt in `text`.
    pub text_rows: &'t KvRows,
    /// Both halves of guidance are still the same values, computed once. The first text that is read ends that.
    pub halves_shared: Cell<bool>,
}

impl<'t> Pass<'t> {
    /// What a ResNet block adds at this step.
    pub fn bias<'e>(&'e self, exec: &'e Exec<'_>, slot: TimeSlot) -> Tensor<'e> {
        self.time.bias(exec, self.step, slot)
    }

    /// Called just before text is read: the batch to repeat to, if the halves were one until here.
    pub fn part_here(&self) -> Option<usize> {
        self.halves_shared.replace(false).then_some(self.text_rows.rows().len())
    }
}

/// `x` repeated to `batch` samples; nothing if it has that many.
pub(super) fn match_batch<'e>(exec: &'e Exec<'_>, x: &Tensor<'_>, batch: usize) -> Result<Option<Tensor<'e>>> {
    let have = x.dims()[0];
    if have == batch { Ok(None) } else { repeat_batch(exec, x, batch / have.max(1)).map(Some) }
}

/// The outputs of the way down, to be taken in reverse order on the way up. Fixed room: no memory is taken during a pass.
pub(super) struct Skips<'e> {
    slots: [Option<Tensor<'e>>; MAX_SKIPS],
    len: usize,
}

impl<'e> Skips<'e> {
    pub fn new() -> Skips<'e> {
        Skips { slots: std::array::from_fn(|_| None), len: 0 }
    }

    /// Adds a tensor. If its batch is the first that is doubled, all before it are doubled too.
    pub fn push(&mut self, exec: &'e Exec<'_>, tensor: Tensor<'e>) -> Result<()> {
        self.match_batch(exec, tensor.dims()[0])?;
        let slot = self.slots.get_mut(self.len).ok_or_else(broken)?;
        *slot = Some(tensor);
        self.len += 1;
        Ok(())
    }

    /// Repeats all tensors to `batch` samples.
    pub fn match_batch(&mut self, exec: &'e Exec<'_>, batch: usize) -> Result<()> {
        for slot in self.slots[..self.len].iter_mut().flatten() {
            if let Some(repeated) = match_batch(exec, slot, batch)? {
                *slot = repeated;
            }
        }
        Ok(())
    }

    /// The newest tensor.
    pub fn last(&self) -> Result<&Tensor<'e>> {
        self.slots[..self.len].last().and_then(Option::as_ref).ok_or_else(broken)
    }

    /// Takes the newest tensor.
    pub fn pop(&mut self) -> Result<Tensor<'e>> {
        self.len = self.len.checked_sub(1).ok_or_else(broken)?;
        self.slots[self.len].take().ok_or_else(broken)
    }
}

fn broken() -> Error {
    Error::Internal { op: "unet", message: "skip connections and blocks do not match".into() }
}
