//! Every family of instructions, run from hand-written PTX and compared with what the PTX ISA says, computed here independently.
//!
//! [`harness`] wraps a line or more of PTX in a kernel; [`exact`] rounds numbers by the definition of a format.

mod atomics;
mod compare;
mod control;
mod convert;
mod copies;
mod exact;
mod float;
mod half_floats;
mod harness;
mod integer;
mod logic;
mod matrix;
mod memory;
mod moves;
mod warp;
