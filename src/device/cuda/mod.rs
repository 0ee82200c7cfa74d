//! An NVIDIA card, through the driver's own interface.
use super::survey::Card;
use crate::{Error, Result};

pub(super) fn cards() -> Result<Vec<Card>> {
    Err(Error::usage("none", ""))
}
use super::backend::*;
use super::kernels::KernelFile;
use super::signature::Signature;
use std::time::Duration;
pub(super) struct Cuda;
impl Cuda {
    pub fn open(_: usize) -> Result<Cuda> {
        Err(Error::usage("none", ""))
    }
}
#[allow(unused_variables)]
impl Backend for Cuda {
    fn name(&self) -> String {
        todo()
    }
    fn capability(&self) -> Capability {
        todo()
    }
    fn memory(&self) -> Result<MemoryInfo> {
        todo()
    }
    fn separate_tensors(&self) -> bool {
        false
    }
    fn alloc(&self, bytes: usize) -> Result<u64> {
        todo()
    }
    fn free(&self, address: u64) {
        todo()
    }
    fn upload(&self, to: u64, bytes: usize, fill: &mut dyn FnMut(usize, &mut [u8])) -> Result<()> {
        todo()
    }
    fn download(&self, from: u64, bytes: usize, take: &mut dyn FnMut(usize, &[u8])) -> Result<()> {
        todo()
    }
    fn copy(&self, to: u64, from: u64, bytes: usize) -> Result<()> {
        todo()
    }
    fn fill(&self, to: u64, byte: u8, bytes: usize) -> Result<()> {
        todo()
    }
    fn load(&self, file: &'static KernelFile, entry: &'static str, signature: &Signature) -> Result<KernelHandle> {
        todo()
    }
    fn launch(&self, kernel: KernelHandle, geometry: Geometry, arguments: &[u8]) -> Result<()> {
        todo()
    }
    fn synchronize(&self) -> Result<()> {
        todo()
    }
    fn record(&self) -> Result<EventHandle> {
        todo()
    }
    fn elapsed(&self, from: EventHandle, to: EventHandle) -> Result<Duration> {
        todo()
    }
    fn drop_event(&self, event: EventHandle) {
        todo()
    }
    fn begin_capture(&self) -> Result<()> {
        todo()
    }
    fn end_capture(&self) -> Result<GraphHandle> {
        todo()
    }
    fn replay(&self, graph: GraphHandle) -> Result<()> {
        todo()
    }
    fn drop_graph(&self, graph: GraphHandle) {
        todo()
    }
}
fn todo<T>() -> T {
    unreachable!()
}
