//! Random normals for latents: every draw of a sample comes from that sample's own seed.
//!
//! | kind | generator | use |
//! |---|---|---|
//! | [`RngKind::Philox`] | [`Philox`]: counter-based, any element of any draw in any order | the default |
//! | [`RngKind::TorchCpu`] | [`TorchCpu`]: torch's CPU generator, one stream in the order of the draws | seeds of diffusers users |
//!
//! Elements are numbered in the order of a `[C, H, W]` latent, whatever the layout the caller computes in.
//! What is not noise (scenes, values of random models) is drawn with [`SplitMix64`].

mod philox;
mod splitmix;
mod torch_cpu;

use std::fmt;
use std::str::FromStr;

pub use philox::Philox;
pub use splitmix::SplitMix64;
pub use torch_cpu::TorchCpu;

use crate::{Error, Result};

/// Which generator makes the noise of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RngKind {
    /// Philox4x32-10, keyed by the sample's seed.
    #[default]
    Philox,
    /// MT19937 and the normals of `torch.randn` on a CPU.
    TorchCpu,
}

impl RngKind {
    /// All kinds, in the order they are listed to users.
    pub const ALL: [RngKind; 2] = [RngKind::Philox, RngKind::TorchCpu];

    /// Name on the command line and in records.
    pub fn name(self) -> &'static str {
        match self {
            RngKind::Philox => "philox",
            RngKind::TorchCpu => "torch-cpu",
        }
    }
}

impl fmt::Display for RngKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for RngKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<RngKind> {
        RngKind::ALL
            .into_iter()
            .find(|kind| kind.name() == text)
            .ok_or_else(|| Error::usage(format!("unknown random generator `{text}`"), "choose philox or torch-cpu"))
    }
}

/// The source of all noise of one sample.
#[derive(Clone, Debug)]
pub enum SampleNoise {
    /// Draws are independent of each other and of their order.
    Philox(Philox),
    /// Draws follow each other: fill stream 0 first, then the noise of each stochastic step in order.
    TorchCpu(Box<TorchCpu>),
}

impl SampleNoise {
    /// The noise of the sample with this seed.
    pub fn new(kind: RngKind, seed: u64) -> SampleNoise {
        match kind {
            RngKind::Philox => SampleNoise::Philox(Philox::new(seed)),
            RngKind::TorchCpu => SampleNoise::TorchCpu(Box::new(TorchCpu::new(seed))),
        }
    }

    /// Fills `out` with unit normals: `stream` 0 is the initial latent, `1 + i` the noise of step i.
    pub fn fill_normal(&mut self, stream: u32, out: &mut [f32]) {
        match self {
            SampleNoise::Philox(philox) => philox.fill_normal(stream, out),
            SampleNoise::TorchCpu(torch) => torch.fill_normal(out),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_named_as_on_the_command_line() {
        for kind in RngKind::ALL {
            assert_eq!(kind.to_string().parse::<RngKind>().unwrap(), kind);
        }
        let error = "cuda".parse::<RngKind>().unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.hint().unwrap().contains("torch-cpu"));
    }

    #[test]
    fn a_sample_draws_from_the_chosen_generator() {
        let (mut a, mut b) = ([0.0f32; 32], [0.0f32; 32]);
        SampleNoise::new(RngKind::Philox, 3).fill_normal(5, &mut a);
        Philox::new(3).fill_normal(5, &mut b);
        assert_eq!(a, b);
        SampleNoise::new(RngKind::TorchCpu, 3).fill_normal(5, &mut a);
        TorchCpu::new(3).fill_normal(&mut b);
        assert_eq!(a, b);
    }
}
