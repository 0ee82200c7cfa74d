//! Page-locked memory of the host, through which everything passes that goes to a card or comes from it: the card copies from and to it
//! while the host works on the other half.

use super::{Cuda, Failure};
use crate::Result;
use cudarc::driver::{result, sys};

/// Bytes of a half: enough to hide the time of a copy's start, little enough to stay out of the way.
const HALF: usize = 4 << 20;

/// Two halves, used in turn.
pub(super) struct Staging {
    halves: [Half; 2],
}

struct Half {
    /// `HALF` page-locked bytes.
    memory: *mut u8,
    /// Passed when the last copy from or to this half is done.
    done: sys::CUevent,
}

impl Half {
    fn new() -> std::result::Result<Half, result::DriverError> {
        let done = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
        // SAFETY: the context is bound; the memory is written before it is read, below.
        match unsafe { result::malloc_host(HALF, 0) } {
            Ok(memory) => {
                // SAFETY: HALF bytes that the driver just gave.
                unsafe { memory.cast::<u8>().write_bytes(0, HALF) };
                Ok(Half { memory: memory.cast(), done })
            }
            Err(error) => {
                // SAFETY: made above, not used.
                _ = unsafe { result::event::destroy(done) };
                Err(error)
            }
        }
    }

    /// Waits until the card has left this half.
    fn wait(&self) -> std::result::Result<(), result::DriverError> {
        // SAFETY: the event lives as long as the half; one that was never recorded counts as passed.
        unsafe { result::event::synchronize(self.done) }
    }

    /// The first `bytes`, which the caller keeps from the card.
    fn bytes(&mut self, bytes: usize) -> &mut [u8] {
        assert!(bytes <= HALF);
        // SAFETY: HALF initialised bytes that belong to this half, borrowed with it; the card has left them (`wait`).
        unsafe { std::slice::from_raw_parts_mut(self.memory, bytes) }
    }

    /// Marks that the card has this half until what was queued so far is done.
    fn queued(&self, stream: sys::CUstream) -> std::result::Result<(), result::DriverError> {
        // SAFETY: both live as long as the card is open.
        unsafe { result::event::record(self.done, stream) }
    }

    fn free(&self) {
        // SAFETY: both were made by `new`, are freed once (by `Staging::free`), and the card has left them.
        unsafe {
            _ = result::event::synchronize(self.done);
            _ = result::event::destroy(self.done);
            _ = result::free_host(self.memory.cast());
        }
    }
}

/// Offset and length of piece `i` of `bytes`.
fn piece(bytes: usize, i: usize) -> (usize, usize) {
    let offset = i * HALF;
    (offset, HALF.min(bytes - offset))
}

impl Staging {
    /// # Errors
    /// The driver's, if it has no memory.
    pub fn new() -> std::result::Result<Staging, result::DriverError> {
        let first = Half::new()?;
        match Half::new() {
            Ok(second) => Ok(Staging { halves: [first, second] }),
            Err(error) => {
                first.free();
                Err(error)
            }
        }
    }

    /// Gives the memory back; the context is bound.
    pub fn free(self) {
        self.halves.iter().for_each(Half::free);
    }

    /// Copies `bytes` that `fill` makes to `to`. Returns when all are queued.
    pub fn upload(&mut self, cuda: &Cuda, to: u64, bytes: usize, fill: &mut dyn FnMut(usize, &mut [u8])) -> Result<()> {
        const ACTION: &str = "take values from the host";
        for i in 0..bytes.div_ceil(HALF) {
            let ((offset, len), half) = (piece(bytes, i), &mut self.halves[i % 2]);
            half.wait().failed_late(cuda, ACTION)?;
            let values = half.bytes(len);
            fill(offset, values);
            // SAFETY: the caller owns `to` and what follows; the half is not touched before its event has passed.
            unsafe { result::memcpy_htod_async(to + offset as u64, values, cuda.stream) }.failed(cuda, ACTION)?;
            half.queued(cuda.stream).failed(cuda, ACTION)?;
        }
        Ok(())
    }

    /// Copies `bytes` at `from` out, and gives them to `take`: each piece while the next one is under way.
    pub fn download(&mut self, cuda: &Cuda, from: u64, bytes: usize, take: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        const ACTION: &str = "give values to the host";
        let pieces = bytes.div_ceil(HALF);
        for i in 0..=pieces {
            if i < pieces {
                let ((offset, len), half) = (piece(bytes, i), &mut self.halves[i % 2]);
                half.wait().failed_late(cuda, ACTION)?;
                // SAFETY: as in `upload`; the piece that lay here before was taken in the last turn.
                unsafe { result::memcpy_dtoh_async(half.bytes(len), from + offset as u64, cuda.stream) }.failed(cuda, ACTION)?;
                half.queued(cuda.stream).failed(cuda, ACTION)?;
            }
            if i > 0 {
                let ((offset, len), half) = (piece(bytes, i - 1), &mut self.halves[(i - 1) % 2]);
                half.wait().failed_late(cuda, ACTION)?;
                take(offset, half.bytes(len));
            }
        }
        Ok(())
    }
}
