//! How stages that run at the same time end together: the first error of any of them is the run's.

use crate::{Error, Result};
use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// The first error of a group of stages.
#[derive(Debug, Default)]
pub(super) struct Fault {
    first: Mutex<Option<Error>>,
    raised: AtomicBool,
}

impl Fault {
    /// Runs a stage and keeps its error, or its panic, if it is the first. What the stage borrows, its ends of queues above all, should
    /// be dropped after this: then a stage that finds a queue closed finds the error too.
    pub fn watch(&self, stage: &'static str, work: impl FnOnce() -> Result<()>) {
        // Whatever a panic leaves half done belongs to a run that is over.
        let result = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| Err(panicked(stage, &*panic)));
        if let Err(error) = result {
            self.first.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
            self.raised.store(true, Ordering::Release);
        }
    }

    /// Whether a stage has failed, so that the others need not go on.
    pub fn is_raised(&self) -> bool {
        self.raised.load(Ordering::Acquire)
    }

    /// The first error.
    pub fn into_result(self) -> Result<()> {
        self.first.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

fn panicked(stage: &'static str, panic: &(dyn Any + Send)) -> Error {
    let said = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    Error::Internal { op: stage, message: format!("panicked: {}", said.unwrap_or("without a message")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_kept() {
        let fault = Fault::default();
        fault.watch("one", || Ok(()));
        assert!(!fault.is_raised());
        fault.watch("two", || Err(Error::Interrupted));
        fault.watch("three", || panic!("late"));
        assert!(fault.is_raised());
        assert!(matches!(fault.into_result(), Err(Error::Interrupted)));
    }

    #[test]
    fn a_panic_is_an_error() {
        let fault = Fault::default();
        fault.watch("encode", || panic!("number {}", 7));
        let error = fault.into_result().unwrap_err().to_string();
        assert_eq!(error, "internal error in encode: panicked: number 7");
    }
}
