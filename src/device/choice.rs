//! `--device auto|cpu|cuda[:N]|sim`.

use super::{Device, Gpu, Precision, cuda, kernels};
use crate::tensor::DType;
use crate::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// The processor that was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best there is.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A card, by the driver's number.
    Cuda(usize),
    /// The simulator.
    Sim,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<DeviceChoice, String> {
        let unknown = || format!("`{text}` is not auto, cpu, cuda, cuda:N or sim");
        match text {
            "auto" => Ok(DeviceChoice::Auto),
            "cpu" => Ok(DeviceChoice::Cpu),
            "cuda" => Ok(DeviceChoice::Cuda(0)),
            "sim" => Ok(DeviceChoice::Sim),
            _ => {
                let number = text.strip_prefix("cuda:").filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
                number.and_then(|digits| digits.parse().ok()).map(DeviceChoice::Cuda).ok_or_else(unknown)
            }
        }
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DeviceChoice::Auto => f.write_str("auto"),
            DeviceChoice::Cpu => f.write_str("cpu"),
            DeviceChoice::Cuda(index) => write!(f, "cuda:{index}"),
            DeviceChoice::Sim => f.write_str("sim"),
        }
    }
}

impl DeviceChoice {
    /// What [`DeviceChoice::Auto`] takes, and why it is not a GPU if it is not: a card when there are a driver, a card and kernels for it.
    pub fn resolve(self) -> (DeviceChoice, Option<String>) {
        if self != DeviceChoice::Auto {
            return (self, None);
        }
        let cards = match kernels::missing() {
            Some(reason) => Err(reason.to_string()),
            None => cuda::cards().map_err(|error| error.to_string()),
        };
        match cards {
            Err(reason) => (DeviceChoice::Cpu, Some(reason)),
            Ok(cards) => match cards.iter().find(|card| card.kernels.is_some()) {
                Some(card) => (DeviceChoice::Cuda(card.index), None),
                None => (DeviceChoice::Cpu, Some("no card that the kernels are made for".into())),
            },
        }
    }

    /// Opens the device with `threads` workers on the host (0: one for each core), to compute with operands of type `dtype`: f32 on the
    /// CPU and f16 on a GPU, if it is not said. Returns with it the precision to ask of layers.
    ///
    /// # Errors
    /// [`Error::Usage`] with what to install or to choose instead.
    pub fn open(self, threads: usize, dtype: Option<DType>) -> Result<(Device, Precision)> {
        match self.resolve().0 {
            DeviceChoice::Auto | DeviceChoice::Cpu => {
                let precision = match dtype.unwrap_or(DType::F32) {
                    DType::F32 => Precision::F32,
                    DType::BF16 => Precision::Bf16,
                    other => return Err(Error::usage(format!("a CPU does not compute in {other}"), "use --dtype f32 or bf16")),
                };
                let device = Device::cpu(threads)?;
                device.check_precision(precision)?;
                Ok((device, precision))
            }
            DeviceChoice::Cuda(index) => {
                Ok((Device::Gpu(Gpu::cuda(index, DeviceChoice::gpu_storage(dtype)?, threads)?), Precision::F32))
            }
            DeviceChoice::Sim => Ok((Device::Gpu(Gpu::sim(DeviceChoice::gpu_storage(dtype)?, threads)?), Precision::F32)),
        }
    }

    /// The storage type of a GPU that was asked for: f16, if none was.
    ///
    /// # Errors
    /// [`Error::Usage`] for a type that no GPU stores activations in.
    pub fn gpu_storage(dtype: Option<DType>) -> Result<DType> {
        match dtype.unwrap_or(DType::F16) {
            dtype @ (DType::F16 | DType::BF16) => Ok(dtype),
            other => Err(Error::usage(format!("a GPU does not compute in {other}"), "use --dtype f16 or bf16, or --device cpu")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_and_written() {
        for (text, choice) in [
            ("auto", DeviceChoice::Auto),
            ("cpu", DeviceChoice::Cpu),
            ("cuda:0", DeviceChoice::Cuda(0)),
            ("cuda:17", DeviceChoice::Cuda(17)),
            ("sim", DeviceChoice::Sim),
        ] {
            assert_eq!(text.parse(), Ok(choice));
            assert_eq!(choice.to_string(), text);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        for bad in ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:+1", "cuda:1 ", "cuda1", "cuda:99999999999999999999", "sim:0"] {
            let error = bad.parse::<DeviceChoice>().unwrap_err();
            assert!(error.contains(bad) && error.contains("cuda:N"), "{error}");
        }
    }

    #[test]
    fn types_follow_the_device() {
        let (device, precision) = DeviceChoice::Cpu.open(1, None).unwrap();
        assert!(matches!(device, Device::Cpu(_)) && precision == Precision::F32);
        let refuse = |choice: DeviceChoice, dtype, part: &str| {
            let error = choice.open(1, Some(dtype)).unwrap_err();
            let text = format!("{error}; {}", error.hint().unwrap_or_default());
            assert!(matches!(error, Error::Usage { .. }) && text.contains(part), "{text}");
        };
        refuse(DeviceChoice::Cpu, DType::F16, "--dtype f32");
        refuse(DeviceChoice::Cuda(0), DType::F32, "--dtype f16");
        refuse(DeviceChoice::Sim, DType::F32, "--device cpu");
    }
}
