//! Memory with its history: bytes, which of them were ever written, and who touched them last.

mod global;
mod history;
mod page;
mod shadow;

pub use global::Memory;
pub(crate) use global::{PAGE, PageGuard, View};
pub(crate) use history::{Fenced, History, Release};
pub(crate) use page::{Page, SECTOR};
pub(crate) use shadow::{Conflict, MAX_SITES, Order, Tag};
