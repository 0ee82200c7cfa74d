//! Loads, stores and atomics, each checked and counted.

use super::block::Core;
use super::conflicts;
use super::grid::Grid;
use super::warp::Warp;
use crate::fault::FaultKind;
use crate::ir::{Address, Atomic, LANES, LOCAL_WINDOW, Lanes, Load, PARAM_WINDOW, SHARED_WINDOW, Store, Strength, lanes, signed};
use crate::memory::{Conflict, Order, PAGE, Page, PageGuard, SECTOR, Tag, View};
use crate::number::arithmetic::flush;
use crate::syntax::Space;

/// Where an address leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Location {
    Global(u64),
    Shared(u64),
    Local(u64),
    Param(u64),
}

pub(super) fn locate(space: Space, address: u64) -> Location {
    match space {
        Space::Global | Space::Const => Location::Global(address),
        Space::Shared => Location::Shared(address),
        Space::Local => Location::Local(address),
        Space::Param => Location::Param(address),
        Space::Generic => match address >> 60 << 60 {
            SHARED_WINDOW => Location::Shared(address - SHARED_WINDOW),
            LOCAL_WINDOW => Location::Local(address - LOCAL_WINDOW),
            PARAM_WINDOW => Location::Param(address - PARAM_WINDOW),
            _ => Location::Global(address),
        },
    }
}

/// Pages of global memory, locked one at a time.
pub(super) struct Cursor<'v> {
    view: &'v View,
    launch: u64,
    /// Address of the page, end of its allocation, the page.
    held: Option<(u64, u64, PageGuard<'v>)>,
}

impl<'v> Cursor<'v> {
    pub(super) fn new(grid: &'v Grid<'_>) -> Cursor<'v> {
        Cursor { view: &grid.view, launch: grid.launch, held: None }
    }

    /// The page of an aligned range of at most 64 bytes, and the range's offset in it.
    fn at(&mut self, address: u64, bytes: u64) -> Option<(&mut Page, usize)> {
        let base = address & !(PAGE as u64 - 1);
        if self.held.as_ref().is_none_or(|held| held.0 != base) {
            self.held = None; // unlock before locking the next: no two locks at a time, so no deadlock
            let (allocation, offset) = self.view.find(address, bytes)?;
            let mut page = allocation.page(offset);
            page.enter(self.launch);
            self.held = Some((base, address - offset + allocation.bytes, page));
        }
        let (_, end, page) = self.held.as_mut()?;
        (address.checked_add(bytes)? <= *end).then_some((&mut **page, (address - base) as usize))
    }
}

/// Everything about one access but its addresses.
#[derive(Clone, Copy)]
pub(super) struct Access {
    pub site: u32,
    pub bytes: usize,
    pub strength: Strength,
    /// By an asynchronous copy.
    pub copies: bool,
}

impl Access {
    pub(super) fn plain(site: u32, bytes: usize) -> Access {
        Access { site, bytes, strength: Strength::default(), copies: false }
    }
}

impl Core<'_> {
    pub(super) fn addresses(&self, warp: &Warp, address: Address) -> Lanes {
        let base = warp.get(address.base);
        let narrow = if address.space == Space::Shared { u64::from(u32::MAX) } else { u64::MAX };
        std::array::from_fn(|lane| base[lane].wrapping_add_signed(address.offset) & narrow)
    }

    /// The active lanes whose address is a multiple of `bytes`; reports the others.
    pub(super) fn aligned(&mut self, warp: &Warp, active: u32, addresses: &Lanes, bytes: u64, site: u32) -> u32 {
        let off = lanes(active).filter(|&lane| !addresses[lane].is_multiple_of(bytes)).fold(0u32, |mask, lane| mask | 1 << lane);
        if off != 0 {
            let lane = off.trailing_zeros();
            let address = addresses[lane as usize];
            let message = format!("a {bytes}-byte access at {address:#x}, which is not a multiple of {bytes}");
            self.fault(FaultKind::Misaligned, warp, lane, site, address, None, message);
        }
        active & !off
    }

    pub(super) fn out_of_bounds(&mut self, warp: &Warp, lane: usize, site: u32, location: Location, bytes: u64) {
        let (address, message) = match location {
            Location::Global(address) => match self.grid.view.nearest(address) {
                Some((size, offset)) => (address, format!("{bytes} bytes at offset {offset} of an allocation of {size} bytes")),
                None => (address, format!("{bytes} bytes at {address:#x}, near no allocation")),
            },
            Location::Shared(offset) => {
                (offset, format!("{bytes} bytes at offset {offset} of shared memory, outside {}", self.shared.describe()))
            }
            Location::Local(offset) => (offset, format!("{bytes} bytes at offset {offset} of local memory")),
            Location::Param(offset) => (offset, format!("{bytes} bytes at offset {offset} of the kernel's parameters")),
        };
        self.fault(FaultKind::OutOfBounds, warp, lane as u32, site, address, None, message);
    }

    fn unwritten(&mut self, warp: &Warp, lane: usize, site: u32, address: u64, bytes: usize) {
        let message = format!("reads {bytes} bytes at {address:#x} that nobody wrote");
        self.fault(FaultKind::Uninitialised, warp, lane as u32, site, address, None, message);
    }

    fn conflict(&mut self, warp: &Warp, now: Tag, found: Conflict, writes: bool, shared: bool, address: u64) {
        let Conflict { with, wrote } = found;
        let lane = now.lanes.trailing_zeros();
        let (kind, message) = if with.is_pending() && self.comes_before(warp, with, now) {
            let verb = if writes { "writes" } else { "reads" };
            (
                FaultKind::UnwaitedCopy,
                format!("{verb} bytes at {address:#x} that an asynchronous copy may still write: wait for it first"),
            )
        } else {
            let kind = if shared { FaultKind::SharedRace } else { FaultKind::GlobalRace };
            let (verb, past) = (if writes { "writes" } else { "reads" }, if wrote { "wrote" } else { "read" });
            (kind, format!("{verb} bytes at {address:#x} that another thread {past}, with nothing that orders the two"))
        };
        // Of several lanes that read the bytes, another than this one.
        let others = if with.warp() == warp.id && with.block == self.index { with.lanes & !now.lanes } else { with.lanes };
        let other_lane = if others == 0 { lane } else { others.trailing_zeros() };
        let other = self.grid.place(with.site(), with.block, with.warp(), other_lane);
        self.fault(kind, warp, lane, now.site(), address, Some(other), message);
    }

    /// Whether an access of this block comes before the present one: the same thread's, or one that is ordered before it.
    fn comes_before(&self, warp: &Warp, earlier: Tag, now: Tag) -> bool {
        let own = earlier.warp() == warp.id && earlier.lanes == now.lanes && earlier.block == self.index;
        own || warp.clock.is_before(earlier, now)
    }

    pub(super) fn tag(&self, warp: &Warp, lane: usize, access: Access, shared: bool) -> Tag {
        let tag = Tag::new(self.index, warp.id, lane as u32, access.site, warp.clock.stamp);
        let Strength { strong, volatile, narrow, .. } = access.strength;
        if strong || volatile { tag.strong(narrow, volatile && shared) } else { tag }
    }

    /// Loads `parts` elements of `bytes` bytes for each active lane.
    pub(crate) fn load(&mut self, warp: &mut Warp, active: u32, site: u32, op: &Load) {
        let addresses = self.addresses(warp, op.address);
        let total = op.bytes as usize * op.parts.len();
        let active = self.aligned(warp, active, &addresses, total as u64, site);
        self.count(site, active, &addresses, op.address.space, total);
        let access = Access { strength: op.strength, ..Access::plain(site, total) };
        let mut out = [[0u64; LANES]; 8];
        let grid = self.grid;
        let mut cursor = Cursor::new(grid);
        for lane in lanes(active) {
            let location = locate(op.address.space, addresses[lane]);
            let mut bytes = [0u8; 64];
            if self.read(&mut cursor, warp, lane, access, location, &mut bytes[..total]).is_none() {
                self.out_of_bounds(warp, lane, site, location, total as u64);
                continue;
            }
            for (part, out) in bytes[..total].chunks_exact(op.bytes as usize).zip(&mut out) {
                let mut value = [0; 8];
                value[..part.len()].copy_from_slice(part);
                out[lane] = u64::from_le_bytes(value);
            }
        }
        for (i, (&part, out)) in op.parts.iter().zip(&mut out).enumerate() {
            let Some(register) = part else { continue };
            if let Some(bits) = op.signed_bits {
                let keep = u64::MAX >> (64 - op.widths[i]);
                out.iter_mut().for_each(|x| *x = signed(*x, bits) as u64 & keep);
            }
            warp.set(register, active, out);
        }
    }

    /// One lane's read; `None` if it is out of bounds.
    pub(super) fn read(
        &mut self,
        cursor: &mut Cursor<'_>,
        warp: &mut Warp,
        lane: usize,
        access: Access,
        location: Location,
        out: &mut [u8],
    ) -> Option<()> {
        let n = out.len();
        match location {
            Location::Global(address) => {
                let tag = self.tag(warp, lane, access, false);
                let (page, offset) = cursor.at(address, n as u64)?;
                out.copy_from_slice(&page.data[offset..offset + n]);
                if access.strength.strong || access.strength.volatile {
                    // After the value: what came with it is there by then.
                    self.grid.flags.read(address, &mut warp.clock, access.strength.acquire);
                }
                page.read_sectors |= 1 << (offset / SECTOR);
                let written = page.is_written(offset, n);
                let found = page.shadow.read(offset, n, tag, &warp.clock);
                if !written {
                    self.unwritten(warp, lane, access.site, address, n);
                }
                if let Some(found) = found {
                    self.conflict(warp, tag, found, false, false, address);
                }
            }
            Location::Shared(address) => {
                if access.strength.strong || access.strength.volatile {
                    self.grid.flags.read(self.flag(address), &mut warp.clock, access.strength.acquire);
                }
                let tag = self.tag(warp, lane, access, true);
                let (page, offset) = self.shared.at(address, n as u64)?;
                out.copy_from_slice(&page.data[offset..offset + n]);
                let written = page.is_written(offset, n);
                let found = page.shadow.read(offset, n, tag, &warp.clock);
                if !written && found.is_none() {
                    self.unwritten(warp, lane, access.site, address, n);
                }
                if let Some(found) = found {
                    self.conflict(warp, tag, found, false, true, address);
                }
            }
            Location::Local(offset) => {
                let base = lane * self.grid.program.local_bytes as usize;
                let end = offset.checked_add(n as u64).filter(|&end| end <= self.grid.program.local_bytes)? as usize;
                out.copy_from_slice(&warp.local[base + offset as usize..base + end]);
            }
            Location::Param(offset) => {
                let end = offset.checked_add(n as u64)?;
                out.copy_from_slice(self.grid.parameters.get(offset as usize..end as usize)?);
            }
        }
        Some(())
    }

    /// Stores the elements of `parts`, `bytes` bytes each, for each active lane.
    pub(crate) fn store(&mut self, warp: &mut Warp, active: u32, site: u32, op: &Store) {
        let addresses = self.addresses(warp, op.address);
        let bytes = op.bytes as usize;
        let total = bytes * op.parts.len();
        let active = self.aligned(warp, active, &addresses, total as u64, site);
        self.count(site, active, &addresses, op.address.space, total);
        let access = Access { strength: op.strength, ..Access::plain(site, total) };
        let active = self.check_stores(warp, active, &addresses, op.address.space, access);
        let grid = self.grid;
        let mut cursor = Cursor::new(grid);
        for lane in lanes(active) {
            let mut value = [0u8; 64];
            for (part, out) in op.parts.iter().zip(value.chunks_exact_mut(bytes)) {
                out.copy_from_slice(&warp.get(*part)[lane].to_le_bytes()[..bytes]);
            }
            self.write(&mut cursor, warp, lane, access, locate(op.address.space, addresses[lane]), &value[..total]);
        }
    }

    /// Checks the stores of an instruction against everything before it. Returns the lanes that are inside memory.
    pub(super) fn check_stores(&mut self, warp: &mut Warp, active: u32, addresses: &Lanes, space: Space, access: Access) -> u32 {
        let grid = self.grid;
        let mut cursor = Cursor::new(grid);
        let mut inside = active;
        for lane in lanes(active) {
            let location = locate(space, addresses[lane]);
            let n = access.bytes;
            let found = match location {
                Location::Global(address) => {
                    let tag = self.tag(warp, lane, access, false);
                    cursor
                        .at(address, n as u64)
                        .map(|(page, at)| (tag, page.shadow.check_write(at, n, tag, &warp.clock), address))
                }
                Location::Shared(address) => {
                    let tag = self.tag(warp, lane, access, true);
                    self.shared
                        .at(address, n as u64)
                        .map(|(page, at)| (tag, page.shadow.check_write(at, n, tag, &warp.clock), address))
                }
                Location::Local(offset) if offset.checked_add(n as u64).is_some_and(|end| end <= grid.program.local_bytes) => {
                    continue;
                }
                Location::Local(_) | Location::Param(_) => None,
            };
            match found {
                None => {
                    self.out_of_bounds(warp, lane, access.site, location, n as u64);
                    inside &= !(1 << lane);
                }
                // The next copy into a stage: what is wrong, if anything, is that it was read before the copy was waited for.
                Some((tag, Some(conflict), _))
                    if access.copies && conflict.with.is_pending() && self.comes_before(warp, conflict.with, tag) => {}
                Some((tag, Some(conflict), address)) => {
                    self.conflict(warp, tag, conflict, true, matches!(location, Location::Shared(_)), address);
                }
                Some(_) => {}
            }
        }
        inside
    }

    /// One lane's write, inside memory and checked.
    pub(super) fn write(
        &mut self,
        cursor: &mut Cursor<'_>,
        warp: &mut Warp,
        lane: usize,
        access: Access,
        location: Location,
        value: &[u8],
    ) {
        let n = value.len();
        let (page, offset, tag, address, shared) = match location {
            Location::Global(address) => {
                if access.strength.strong || access.strength.volatile {
                    self.grid.flags.write(address, &mut warp.clock, access.strength.release, &mut self.time);
                }
                let tag = self.tag(warp, lane, access, false);
                let Some((page, offset)) = cursor.at(address, n as u64) else { return };
                page.written_sectors |= 1 << (offset / SECTOR);
                (page, offset, tag, address, false)
            }
            Location::Shared(address) => {
                if access.strength.strong || access.strength.volatile {
                    let flag = self.flag(address);
                    self.grid.flags.write(flag, &mut warp.clock, access.strength.release, &mut self.time);
                }
                let tag = self.tag(warp, lane, access, true);
                let Some((page, offset)) = self.shared.at(address, n as u64) else { return };
                (page, offset, tag, address, true)
            }
            Location::Local(offset) => {
                let base = lane * self.grid.program.local_bytes as usize + offset as usize;
                warp.local[base..base + n].copy_from_slice(value);
                return;
            }
            Location::Param(_) => return,
        };
        let changed = page.data[offset..offset + n] != *value;
        let clash = if changed { page.shadow.clash(offset, n, tag) } else { None };
        page.data[offset..offset + n].copy_from_slice(value);
        page.mark_written(offset, n);
        page.shadow.write(offset, n, tag, &warp.clock);
        if changed {
            self.progressed(shared);
        }
        if let Some(with) = clash {
            self.conflict(warp, tag, Conflict { with, wrote: true }, true, shared, address);
        }
    }

    /// Atomics, lane after lane.
    pub(crate) fn atomic(&mut self, warp: &mut Warp, active: u32, site: u32, op: &Atomic) {
        let addresses = self.addresses(warp, op.address);
        let active = self.aligned(warp, active, &addresses, op.bytes, site);
        self.count(site, active, &addresses, op.address.space, op.bytes as usize);
        let n = op.bytes as usize;
        let access = Access { strength: Strength { strong: true, acquire: true, ..op.strength }, ..Access::plain(site, n) };
        let active = self.check_stores(warp, active, &addresses, op.address.space, access);
        let mut out = [0u64; LANES];
        let grid = self.grid;
        let mut cursor = Cursor::new(grid);
        for lane in lanes(active) {
            let location = locate(op.address.space, addresses[lane]);
            let (flag, shared) = match location {
                Location::Global(address) => (address, false),
                Location::Shared(address) => (self.flag(address), true),
                _ => {
                    self.out_of_bounds(warp, lane, site, location, op.bytes);
                    continue;
                }
            };
            self.grid.flags.write(flag, &mut warp.clock, op.strength.release, &mut self.time);
            let tag = self.tag(warp, lane, access, shared);
            let page = match location {
                Location::Shared(address) => self.shared.at(address, n as u64),
                _ => cursor.at(flag, n as u64),
            };
            let Some((page, offset)) = page else { continue };
            let written = page.is_written(offset, n);
            let before = page.load(offset, n);
            self.grid.flags.read(flag, &mut warp.clock, true);
            let flush = |bits: u64| match op.flushes && !shared {
                true => flush(f32::from_bits(bits as u32)).to_bits().into(),
                false => bits,
            };
            let after = flush((op.f)(flush(before), flush(warp.get(op.b)[lane]), warp.get(op.c)[lane]));
            let changed = page.store(offset, n, after);
            page.mark_written(offset, n);
            page.shadow.write(offset, n, tag, &warp.clock);
            if !shared {
                page.read_sectors |= 1 << (offset / SECTOR);
                page.written_sectors |= 1 << (offset / SECTOR);
            }
            out[lane] = before;
            if changed {
                self.progressed(shared);
            }
            if !written {
                self.unwritten(warp, lane, site, flag, n);
            }
        }
        if let Some(d) = op.d {
            warp.set(d, active, &out);
        }
    }

    /// The name of a flag in shared memory: unique among blocks, unlike its offset.
    fn flag(&self, offset: u64) -> u64 {
        SHARED_WINDOW | u64::from(self.index) << 24 | offset
    }

    pub(super) fn count(&mut self, site: u32, active: u32, addresses: &Lanes, space: Space, bytes: usize) {
        if !self.grid.options.counters || active == 0 {
            return;
        }
        let generic = addresses[active.trailing_zeros() as usize];
        match locate(space, generic) {
            Location::Shared(_) => self.count_shared(site, active, addresses, bytes),
            Location::Global(_) | Location::Local(_) => {
                let counts = &mut self.counts[site as usize];
                counts.bytes += u64::from(active.count_ones()) * bytes as u64;
                if matches!(locate(space, generic), Location::Global(_)) {
                    counts.sectors += conflicts::sectors(active, addresses, bytes);
                }
            }
            Location::Param(_) => {}
        }
    }

    pub(super) fn count_shared(&mut self, site: u32, active: u32, addresses: &Lanes, bytes: usize) {
        self.counts[site as usize].bytes += u64::from(active.count_ones()) * bytes as u64;
        self.count_wavefronts(site, active, addresses, bytes);
    }

    /// The passes through shared memory alone: of a copy, whose bytes are counted where they come from.
    pub(super) fn count_wavefronts(&mut self, site: u32, active: u32, addresses: &Lanes, bytes: usize) {
        if self.grid.options.counters && active != 0 {
            let (taken, ideal) = conflicts::wavefronts(active, addresses, bytes);
            let counts = &mut self.counts[site as usize];
            counts.wavefronts += taken;
            counts.ideal_wavefronts += ideal;
        }
    }
}
