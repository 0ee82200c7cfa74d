//! Who may use the queue of a GPU while it captures.
//!
//! There is one queue, and all that is put into it during a capture becomes part of the graph, whoever puts it there. So a capture has the
//! queue to itself: it waits until nobody uses it, and other threads wait until the capture is over.

use super::backend::GraphHandle;
use super::lock;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

/// What waits for the queue when it is given back, which it must not during a capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Garbage {
    Memory(u64),
    Graph(GraphHandle),
}

#[derive(Default)]
pub(super) struct CaptureLock {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The thread that captures.
    owner: Option<ThreadId>,
    /// Operations under way outside a capture. One more may begin while a capture waits for them to end, so that none waits for itself.
    users: usize,
    /// What the owner has dropped.
    garbage: Vec<Garbage>,
}

impl CaptureLock {
    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn wait<'s>(&self, state: MutexGuard<'s, State>) -> MutexGuard<'s, State> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until no other thread captures; none begins before the turn is dropped.
    pub fn enter(&self) -> Turn<'_> {
        let (me, mut state) = (thread::current().id(), self.state());
        while state.owner.is_some_and(|owner| owner != me) {
            state = self.wait(state);
        }
        let captures = state.owner.is_some();
        state.users += usize::from(!captures);
        Turn { lock: self, captures }
    }

    /// Waits until nobody uses the queue. False if this thread captures already.
    pub fn begin(&self) -> bool {
        let (me, mut state) = (thread::current().id(), self.state());
        while state.owner != Some(me) && (state.owner.is_some() || state.users > 0) {
            state = self.wait(state);
        }
        state.owner.replace(me) != Some(me)
    }

    /// Keeps what the thread that captures has dropped.
    pub fn defer(&self, garbage: Garbage) {
        self.state().garbage.push(garbage);
    }

    /// What was deferred since the capture began.
    pub fn take_garbage(&self) -> Vec<Garbage> {
        std::mem::take(&mut self.state().garbage)
    }

    /// Ends what `begin` began.
    pub fn end(&self) {
        self.state().owner = None;
        self.changed.notify_all();
    }
}

/// The right to use the queue.
pub(super) struct Turn<'l> {
    lock: &'l CaptureLock,
    captures: bool,
}

impl Turn<'_> {
    /// True on the thread that captures.
    pub fn captures(&self) -> bool {
        self.captures
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.captures {
            self.lock.state().users -= 1;
            self.lock.changed.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    /// Long enough for a thread that does not wait to be seen.
    const PATIENCE: Duration = Duration::from_millis(100);

    #[test]
    fn captures_and_uses_wait_for_each_other() {
        let lock = CaptureLock::default();
        let (send, arrived) = mpsc::channel();
        thread::scope(|scope| {
            let turn = lock.enter();
            assert!(!turn.captures());
            scope.spawn(|| {
                assert!(lock.begin());
                assert!(!lock.begin() && lock.enter().captures());
                send.send("capture").unwrap();
                lock.defer(Garbage::Memory(7));
                thread::sleep(PATIENCE);
                assert_eq!(lock.take_garbage(), [Garbage::Memory(7)]);
                send.send("end").unwrap();
                lock.end();
            });
            assert!(arrived.recv_timeout(PATIENCE).is_err(), "a capture waits for what is under way");
            drop(lock.enter()); // and keeps nobody from ending it
            drop(turn);
            assert_eq!(arrived.recv().unwrap(), "capture");
            assert!(!lock.enter().captures());
            assert_eq!(arrived.try_recv().unwrap(), "end", "others wait for a capture");
        });
    }
}
