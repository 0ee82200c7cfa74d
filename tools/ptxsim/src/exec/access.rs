//! Loads, stores and atomics, each checked and counted.

use super::block::Core;
use super::conflicts;
use super::grid::Grid;
use super::shared::SharedMemory;
use super::warp::Warp;
use crate::fault::FaultKind;
use crate::ir::{
    Address, Atomic, LANES, LOCAL_WINDOW, Lanes, Load, PARAM_WINDOW, SHARED_WINDOW, Store, Strength, lanes, mask_of, signed,
};
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

impl Location {
    fn is_shared(self) -> bool {
        matches!(self, Location::Shared(_))
    }

    /// The address or offset.
    fn number(self) -> u64 {
        match self {
            Location::Global(at) | Location::Shared(at) | Location::Local(at) | Location::Param(at) => at,
        }
    }
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
    races: bool,
    /// Address of the page, end of its allocation, the page.
    held: Option<(u64, u64, PageGuard<'v>)>,
}

impl<'v> Cursor<'v> {
    pub(super) fn new(grid: &'v Grid<'_>) -> Cursor<'v> {
        Cursor { view: &grid.view, launch: grid.launch, races: grid.options.races, held: None }
    }

    /// The page of an aligned range of at most 64 bytes, and the range's offset in it.
    pub(super) fn at(&mut self, address: u64, bytes: u64) -> Option<(&mut Page, usize)> {
        let base = address & !(PAGE as u64 - 1);
        if self.held.as_ref().is_none_or(|held| held.0 != base) {
            self.held = None; // unlock before locking the next: no two locks at a time, so no deadlock
            let (allocation, offset) = self.view.find(address, bytes)?;
            let mut page = allocation.page(offset);
            page.enter(self.launch, self.races);
            self.held = Some((base, address - offset + allocation.bytes, page));
        }
        let (_, end, page) = self.held.as_mut()?;
        (address.checked_add(bytes)? <= *end).then_some((&mut **page, (address - base) as usize))
    }
}

/// The page behind a location in global or shared memory, and the offset in it; `None` outside them.
fn page<'p>(
    shared: &'p mut SharedMemory,
    cursor: &'p mut Cursor<'_>,
    location: Location,
    bytes: usize,
) -> Option<(&'p mut Page, usize)> {
    match location {
        Location::Global(address) => cursor.at(address, bytes as u64),
        Location::Shared(offset) => shared.at(offset, bytes as u64),
        Location::Local(_) | Location::Param(_) => None,
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

    fn is_strong(self) -> bool {
        self.strength.strong || self.strength.volatile
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
        let off = mask_of(lanes(active).filter(|&lane| !addresses[lane].is_multiple_of(bytes)));
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

    fn conflict(&mut self, warp: &Warp, now: Tag, found: Conflict, writes: bool, location: Location) {
        let Conflict { with, wrote } = found;
        let address = location.number();
        let lane = now.lanes.trailing_zeros();
        let (kind, message) = if with.is_pending() && self.comes_before(warp, with, now) {
            let verb = if writes { "writes" } else { "reads" };
            (
                FaultKind::UnwaitedCopy,
                format!("{verb} bytes at {address:#x} that an asynchronous copy may still write: wait for it first"),
            )
        } else {
            let kind = if location.is_shared() { FaultKind::SharedRace } else { FaultKind::GlobalRace };
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
    pub(super) fn comes_before(&self, warp: &Warp, earlier: Tag, now: Tag) -> bool {
        let own = earlier.warp() == warp.id && earlier.lanes == now.lanes && earlier.block == self.index;
        own || warp.clock.is_before(earlier, now)
    }

    pub(super) fn tag(&self, warp: &Warp, lane: usize, access: Access, location: Location) -> Tag {
        let tag = Tag::new(self.index, warp.id, lane as u32, access.site, warp.clock.stamp);
        if !access.is_strong() {
            return tag;
        }
        tag.strong(access.strength.narrow, access.strength.volatile && location.is_shared())
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
            Location::Local(offset) => {
                let base = lane * self.grid.program.local_bytes as usize;
                let end = offset.checked_add(n as u64).filter(|&end| end <= self.grid.program.local_bytes)? as usize;
                out.copy_from_slice(&warp.local[base + offset as usize..base + end]);
                return Some(());
            }
            Location::Param(offset) => {
                let end = offset.checked_add(n as u64)?;
                out.copy_from_slice(self.grid.parameters.get(offset as usize..end as usize)?);
                return Some(());
            }
            Location::Global(_) | Location::Shared(_) => {}
        }
        let tag = self.tag(warp, lane, access, location);
        let (page, offset) = page(&mut self.shared, cursor, location, n)?;
        out.copy_from_slice(&page.data[offset..offset + n]);
        if access.is_strong() {
            self.idle_polls += 1;
            if let Some(release) = page.flags.get(offset) {
                warp.clock.hear(lane, release, access.strength.acquire);
            }
        }
        page.read_sectors |= 1 << (offset / SECTOR);
        let written = page.is_written(offset, n);
        let order = warp.clock.behind(lane, page.flags.get(offset));
        let found = page.shadow.read(offset, n, tag, &order);
        if !written {
            self.unwritten(warp, lane, access.site, location.number(), n);
        }
        if let Some(found) = found {
            self.conflict(warp, tag, found, false, location);
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
            if let Location::Local(offset) = location
                && offset.checked_add(access.bytes as u64).is_some_and(|end| end <= grid.program.local_bytes)
            {
                continue;
            }
            let tag = self.tag(warp, lane, access, location);
            let Some((page, offset)) = page(&mut self.shared, &mut cursor, location, access.bytes) else {
                self.out_of_bounds(warp, lane, access.site, location, access.bytes as u64);
                inside &= !(1 << lane);
                continue;
            };
            let order = warp.clock.behind(lane, page.flags.get(offset));
            let Some(conflict) = page.shadow.check_write(offset, access.bytes, tag, &order) else { continue };
            // The next copy into a stage: what is wrong, if anything, is that it was read before the copy was waited for.
            if !(access.copies && conflict.with.is_pending() && self.comes_before(warp, conflict.with, tag)) {
                self.conflict(warp, tag, conflict, true, location);
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
        if let Location::Local(offset) = location {
            let base = lane * self.grid.program.local_bytes as usize + offset as usize;
            warp.local[base..base + n].copy_from_slice(value);
            return;
        }
        let release = if access.is_strong() { warp.clock.release(lane, access.strength, &mut self.time) } else { None };
        let tag = self.tag(warp, lane, access, location).released(release.is_some());
        let Some((page, offset)) = page(&mut self.shared, cursor, location, n) else { return };
        let changed = page.data[offset..offset + n] != *value;
        let clash = if changed { page.shadow.clash(offset, n, tag) } else { None };
        let found = clash.map(|with| Conflict { with, wrote: true }).or_else(|| since_checked(page, offset, n, tag, warp));
        page.data[offset..offset + n].copy_from_slice(value);
        page.mark_written(offset, n);
        page.written_sectors |= 1 << (offset / SECTOR);
        page.shadow.write(offset, n, tag, &warp.clock);
        page.flags.set(offset, release, false);
        if changed {
            self.progressed(location.is_shared());
        }
        if let Some(found) = found {
            self.conflict(warp, tag, found, true, location);
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
            let release = warp.clock.release(lane, access.strength, &mut self.time);
            let tag = self.tag(warp, lane, access, location).released(release.is_some());
            let Some((page, offset)) = page(&mut self.shared, &mut cursor, location, n) else { continue };
            let written = page.is_written(offset, n);
            let before = page.load(offset, n);
            let flush = |bits: u64| match op.flushes && !location.is_shared() {
                true => flush(f32::from_bits(bits as u32)).to_bits().into(),
                false => bits,
            };
            let after = flush((op.f)(flush(before), flush(warp.get(op.b)[lane]), warp.get(op.c)[lane]));
            let found = since_checked(page, offset, n, tag, warp);
            let changed = page.store(offset, n, after);
            page.mark_written(offset, n);
            page.shadow.write(offset, n, tag, &warp.clock);
            page.flags.set(offset, release, true);
            if let Some(heard) = page.flags.get(offset) {
                warp.clock.hear(lane, heard, true);
            }
            page.read_sectors |= 1 << (offset / SECTOR);
            page.written_sectors |= 1 << (offset / SECTOR);
            out[lane] = before;
            match changed {
                true => self.progressed(location.is_shared()),
                false => self.idle_polls += 1,
            }
            if !written {
                self.unwritten(warp, lane, site, location.number(), n);
            }
            if let Some(found) = found {
                self.conflict(warp, tag, found, true, location);
            }
        }
        if let Some(d) = op.d {
            warp.set(d, active, &out);
        }
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

/// What a write conflicts with that another block, on another core, did since [`Core::check_stores`] looked.
fn since_checked(page: &mut Page, offset: usize, bytes: usize, tag: Tag, warp: &Warp) -> Option<Conflict> {
    let order = warp.clock.behind(tag.lanes.trailing_zeros() as usize, page.flags.get(offset));
    let found = page.shadow.check_write(offset, bytes, tag, &order);
    found.filter(|found| found.with.block != tag.block)
}
