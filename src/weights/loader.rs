//! How a model constructor asks for its tensors.

use super::{Checkpoint, HostTensor, NamedShapes};
use crate::tensor::{DType, PackedStore};
use crate::{Error, Result};
use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;

/// Mapped bytes handed out before the pages already read are given back to the system.
const RELEASE_EVERY: usize = 64 << 20;

/// Hands tensors to a model constructor by name and shape; cheap to clone and to [scope](Loader::scope).
///
/// Asking never fails: what is wrong is collected, and [`Loader::finish`] reports all of it.
#[derive(Clone)]
pub struct Loader<'a> {
    checkpoint: Option<&'a Checkpoint>,
    /// Who keeps what is made of the tensors.
    store: Option<&'a dyn PackedStore>,
    prefix: String,
    state: Rc<RefCell<State>>,
}

#[derive(Default)]
struct State {
    declared: NamedShapes,
    names: HashSet<String>,
    problems: Vec<String>,
    /// Bytes handed out since the last release.
    pending: usize,
}

impl<'a> Loader<'a> {
    /// A loader without a file: it records names and shapes, and its tensors have no data.
    pub fn declare() -> Loader<'static> {
        Loader { checkpoint: None, store: None, prefix: String::new(), state: Rc::default() }
    }

    /// A loader of a mapped checkpoint. Use [`Checkpoint::check`] first: it finds unexpected tensors too.
    pub fn read(checkpoint: &'a Checkpoint) -> Loader<'a> {
        Loader::read_packed(checkpoint, None)
    }

    /// As [`Loader::read`], of tensors whose packed forms `store` keeps.
    pub(super) fn read_packed(checkpoint: &'a Checkpoint, store: Option<&'a dyn PackedStore>) -> Loader<'a> {
        Loader { checkpoint: Some(checkpoint), store, prefix: String::new(), state: Rc::default() }
    }

    /// The same loader, with `part` and a dot appended to the prefix of every name.
    pub fn scope(&self, part: impl std::fmt::Display) -> Loader<'a> {
        Loader { prefix: format!("{}{part}.", self.prefix), ..self.clone() }
    }

    /// The tensor `name` under this scope, of the shape the architecture gives it.
    ///
    /// Its `bytes` are `None` on a declaring loader, and from the first problem on. A `[O, I, 1, 1]` convolution in the file
    /// serves a `[O, I]` matrix and the reverse; the returned shape is always the one asked for.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> HostTensor<'a> {
        let name = format!("{}{name}", self.prefix);
        let mut state = self.state.borrow_mut();
        if !state.names.insert(name.clone()) {
            state.problems.push(format!("the model asks twice for `{name}`"));
        }
        state.declared.push((name.clone(), shape.to_vec()));
        let mut tensor = HostTensor { name, shape: shape.to_vec(), dtype: DType::F32, bytes: None, store: None };
        let Some(checkpoint) = self.checkpoint else { return tensor };
        match checkpoint.find(&tensor.name, shape) {
            Ok((dtype, bytes)) if state.problems.is_empty() => {
                // A constructor packs what it asked for before it asks for much more, so what was handed out long ago is read.
                state.pending += bytes.len();
                if state.pending > RELEASE_EVERY {
                    checkpoint.release();
                    state.pending = bytes.len();
                }
                (tensor.dtype, tensor.bytes, tensor.store) = (dtype, Some(bytes), self.store);
            }
            Ok(_) => {}
            Err(problem) => state.problems.push(problem),
        }
        tensor
    }

    /// What was asked for so far: canonical names and shapes, in order.
    pub fn declared(&self) -> NamedShapes {
        self.state.borrow().declared.clone()
    }

    /// Fails with everything that went wrong so far.
    ///
    /// # Errors
    /// [`Error::Weights`] for tensors that are missing or of another shape; [`Error::Internal`] if a declaring constructor
    /// asks for a tensor twice.
    pub fn finish(&self) -> Result<()> {
        let problems = self.state.borrow().problems.clone();
        if problems.is_empty() {
            return Ok(());
        }
        Err(match self.checkpoint {
            Some(checkpoint) => Error::Weights { path: checkpoint.folder().to_path_buf(), problems },
            None => Error::Internal { op: "weights", message: problems.join("; ") },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn declares_in_order_with_scopes() {
        let root = Loader::declare();
        let block = root.scope("blocks").scope(3);
        assert!(block.tensor("conv.weight", &[8, 4, 3, 3]).is_declared());
        root.tensor("bias", &[8]);
        let expected = [("blocks.3.conv.weight".to_string(), vec![8, 4, 3, 3]), ("bias".to_string(), vec![8])];
        assert_eq!(root.declared(), expected);
        root.finish().unwrap();
    }

    #[test]
    fn asking_twice_is_a_bug_of_the_model() {
        let root = Loader::declare();
        root.tensor("bias", &[8]);
        root.tensor("bias", &[8]);
        assert!(root.finish().unwrap_err().to_string().contains("asks twice for `bias`"));
    }
}
