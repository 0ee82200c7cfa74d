//! Matrices of eight rows in shared memory and in registers: ldmatrix, stmatrix, movmatrix, mma.

use super::access::{Access, Cursor, Location, locate};
use super::block::Core;
use super::warp::Warp;
use crate::fault::FaultKind;
use crate::ir::{Address, LANES, Lanes, Op, Reg, lanes};
use crate::number::mma::{MmaKind, mma};
use crate::syntax::Space;

impl Core<'_> {
    /// Matrix instructions need all 32 lanes; says so if they are not there.
    pub(super) fn whole(&mut self, warp: &Warp, active: u32, site: u32) -> bool {
        if active != u32::MAX {
            let lane = (!active).trailing_zeros();
            let message = format!("a matrix instruction without lane {lane}: all lanes of the warp must execute it together");
            self.fault(FaultKind::DivergentBarrier, warp, lane, site, 0, None, message);
        }
        active == u32::MAX
    }

    pub(super) fn matrix(&mut self, warp: &mut Warp, site: u32, op: &Op) {
        match op {
            Op::LoadMatrix { address, parts, transposed } => self.load_matrix(warp, site, *address, parts, *transposed),
            Op::StoreMatrix { address, parts, transposed } => self.store_matrix(warp, site, *address, parts, *transposed),
            Op::MoveMatrix { d, a } => {
                let rows = *warp.get(*a);
                let element = |row: usize, column: usize| rows[row * 4 + column / 2] >> (16 * (column % 2)) & 0xFFFF;
                let out: Lanes = std::array::from_fn(|lane| {
                    let (row, column) = (lane / 4, lane % 4 * 2);
                    element(column, row) | element(column + 1, row) << 16
                });
                warp.set(*d, u32::MAX, &out);
            }
            Op::Mma { kind, d, a, b, c } => multiply(warp, *kind, d, [a, b, c]),
            _ => {}
        }
    }

    /// Eight-row matrices of 16-bit elements: lane i of the k-th group of eight gives the address of row i of matrix k.
    pub(crate) fn load_matrix(&mut self, warp: &mut Warp, site: u32, address: Address, parts: &[Reg], transposed: bool) {
        let (active, rows) = self.matrix_rows(warp, site, address, parts.len());
        let access = Access::plain(site, 16);
        let mut matrices = [[[0u16; 8]; 8]; 4];
        let grid = self.grid;
        let mut cursor = Cursor::new(grid);
        for lane in lanes(active) {
            let (mut bytes, location) = ([0; 16], Location::Shared(rows[lane]));
            if self.read(&mut cursor, warp, lane, access, location, &mut bytes).is_none() {
                self.out_of_bounds(warp, lane, site, location, 16);
                continue;
            }
            matrices[lane / 8][lane % 8] = std::array::from_fn(|i| u16::from_le_bytes([bytes[2 * i], bytes[2 * i + 1]]));
        }
        for (matrix, &register) in matrices.iter().zip(parts) {
            warp.set(register, u32::MAX, &fragment(matrix, transposed));
        }
    }

    /// The reverse of [`Core::load_matrix`].
    pub(crate) fn store_matrix(&mut self, warp: &mut Warp, site: u32, address: Address, parts: &[Reg], transposed: bool) {
        let (active, addresses) = self.matrix_rows(warp, site, address, parts.len());
        let access = Access::plain(site, 16);
        let active = self.check_stores(warp, active, &addresses, Space::Shared, access);
        let grid = self.grid;
        let mut cursor = Cursor::new(grid);
        for lane in lanes(active) {
            let registers = warp.get(parts[lane / 8]);
            let row: [u16; 8] = std::array::from_fn(|column| {
                let (r, c) = if transposed { (column, lane % 8) } else { (lane % 8, column) };
                (registers[r * 4 + c / 2] >> (16 * (c % 2))) as u16
            });
            let mut bytes = [0; 16];
            row.iter().zip(bytes.chunks_exact_mut(2)).for_each(|(x, out)| out.copy_from_slice(&x.to_le_bytes()));
            self.write(&mut cursor, warp, lane, access, Location::Shared(addresses[lane]), &bytes);
        }
    }

    /// The lanes whose row of a matrix is aligned, and the offsets of the rows in shared memory. Counts the accesses.
    fn matrix_rows(&mut self, warp: &Warp, site: u32, address: Address, matrices: usize) -> (u32, Lanes) {
        let mut addresses = self.addresses(warp, address);
        if address.space == Space::Generic {
            for a in &mut addresses {
                let Location::Shared(offset) = locate(Space::Generic, *a) else { continue };
                *a = offset;
            }
        }
        let named = u32::MAX >> (LANES - 8 * matrices);
        let aligned = self.aligned(warp, named, &addresses, 16, site);
        (0..matrices).for_each(|matrix| self.count_shared(site, 0xFF << (8 * matrix), &addresses, 16));
        (aligned, addresses)
    }
}

/// The registers of a matrix: lane i holds elements 2(i mod 4) and 2(i mod 4) + 1 of row i / 4 (PTX ISA, ldmatrix).
fn fragment(matrix: &[[u16; 8]; 8], transposed: bool) -> Lanes {
    let element = |row: usize, column: usize| if transposed { matrix[column][row] } else { matrix[row][column] };
    std::array::from_fn(|lane| {
        let (row, column) = (lane / 4, lane % 4 * 2);
        u64::from(element(row, column)) | u64::from(element(row, column + 1)) << 16
    })
}

fn multiply(warp: &mut Warp, kind: MmaKind, d: &[Reg], operands: [&[Reg]; 3]) {
    /// Registers of the largest fragment.
    const MOST: usize = 4;
    let fragment = |registers: &[Reg]| {
        let mut out = [[0u32; LANES]; MOST];
        for (register, out) in registers.iter().zip(&mut out) {
            let from = warp.get(*register);
            *out = std::array::from_fn(|lane| from[lane] as u32);
        }
        out
    };
    let [a, b, c] = operands.map(fragment);
    let [na, nb, nc] = operands.map(<[Reg]>::len);
    let mut out = [[0u32; LANES]; MOST];
    mma(kind, &a[..na], &b[..nb], &c[..nc], &mut out[..d.len()]);
    for (register, value) in d.iter().zip(&out) {
        warp.set(*register, u32::MAX, &value.map(u64::from));
    }
}
