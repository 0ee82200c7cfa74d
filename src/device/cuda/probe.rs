//! Is there a driver, is it new enough, and what cards does it show? Asked before anything else is asked of it: `cudarc` panics where
//! there is no driver library.

use super::driver_error;
use crate::device::backend::Capability;
use crate::device::kernels;
use crate::device::survey::Card;
use crate::{Error, Result};
use cudarc::driver::{result, sys};
use std::sync::OnceLock;

/// Names of the driver's library, as it installs itself.
const LIBRARIES: &[&str] = if cfg!(windows) { &["nvcuda.dll"] } else { &["libcuda.so.1", "libcuda.so"] };

/// The driver's own number of CUDA 13.0, the oldest that loads what nvcc 13.0 makes.
const OLDEST: i32 = 13000;

const HINT: &str = "install an NVIDIA driver of 580 or later (CUDA 13.0), or use --device cpu";

/// A driver that can be used.
#[derive(Clone, Debug)]
pub(in crate::device) struct Driver {
    /// Where its library lies, if the system tells.
    pub library: Option<String>,
    /// Latest CUDA that it supports: "13.0".
    pub cuda: String,
    /// Its own version, if the system tells: "580.65.06".
    pub version: Option<String>,
}

/// Loads and initialises the driver, once.
///
/// # Errors
/// [`Error::Usage`] with what to install.
pub(in crate::device) fn driver() -> Result<&'static Driver> {
    static DRIVER: OnceLock<std::result::Result<Driver, String>> = OnceLock::new();
    let found = DRIVER.get_or_init(|| start(LIBRARIES));
    found.as_ref().map_err(|message| Error::usage(message.clone(), HINT))
}

fn start(libraries: &[&str]) -> std::result::Result<Driver, String> {
    open(libraries)?;
    let mut version = 0;
    // SAFETY: the library is there, so the call is made and not panicked about; it writes one integer.
    unsafe { sys::cuDriverGetVersion(&mut version) }.result().map_err(|e| driver_error(e).to_string())?;
    let cuda = format!("{}.{}", version / 1000, version % 1000 / 10);
    if version < OLDEST {
        return Err(format!("the NVIDIA driver supports CUDA {cuda}; the kernels need 13.0"));
    }
    result::init().map_err(|e| match e.0 {
        sys::CUresult::CUDA_ERROR_NO_DEVICE => "the NVIDIA driver shows no card".to_string(),
        sys::CUresult::CUDA_ERROR_STUB_LIBRARY => {
            "the CUDA library that was found is the toolkit's stub, not the driver: take its folder out of LD_LIBRARY_PATH".into()
        }
        _ => format!("the NVIDIA driver does not start: {}", driver_error(e)),
    })?;
    Ok(Driver { library: loaded_library(), cuda, version: read_line("/sys/module/nvidia/version") })
}

/// Opens the first of `libraries` that is there, for good.
fn open(libraries: &[&str]) -> std::result::Result<(), String> {
    let mut reasons = Vec::new();
    for name in libraries {
        // SAFETY: runs the initialisers of the driver's library, which expect nothing of this process.
        match unsafe { libloading::Library::new(*name) } {
            Ok(library) => {
                std::mem::forget(library); // it is not made to be unloaded
                return Ok(());
            }
            Err(error) => reasons.push(std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string)),
        }
    }
    Err(format!("there is no NVIDIA driver: {}", reasons.first().map_or("no library is known", |reason| reason)))
}

/// Path of the driver's library in this process.
fn loaded_library() -> Option<String> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| &line[at..]));
    paths.filter(|path| path.contains("/libcuda.so")).map(str::to_string).next()
}

fn read_line(path: &str) -> Option<String> {
    Some(std::fs::read_to_string(path).ok()?.trim().to_string())
}

/// The cards that the driver shows, in its order.
///
/// # Errors
/// As [`driver`]; [`Error::Device`] if it does not tell.
pub(in crate::device) fn cards() -> Result<Vec<Card>> {
    driver()?;
    let count = result::device::get_count().map_err(|e| failed("cuda", "count cards", e))?;
    (0..count).map(|index| card(index as usize)).collect()
}

/// Card number `index`.
///
/// # Errors
/// As [`cards`]; [`Error::Usage`] if there is no such card.
pub(super) fn card(index: usize) -> Result<Card> {
    let count = result::device::get_count().map_err(|e| failed("cuda", "count cards", e))?;
    let ordinal = i32::try_from(index).ok().filter(|&ordinal| ordinal < count);
    let Some(ordinal) = ordinal else {
        let message = format!("there is no card {index}: the driver shows {count}");
        return Err(Error::usage(message, "use --device cuda:0, or look at what `syntic doctor` finds"));
    };
    let fail = |e| failed(&format!("cuda:{index}"), "describe itself", e);
    let device = result::device::get(ordinal).map_err(fail)?;
    let attribute = |attribute| {
        // SAFETY: `device` came from `device::get`.
        unsafe { result::device::get_attribute(device, attribute) }.map_err(fail)
    };
    use sys::CUdevice_attribute::{
        CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR as MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR as MINOR,
        CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT as MULTIPROCESSORS,
    };
    let capability = Capability { major: attribute(MAJOR)? as u32, minor: attribute(MINOR)? as u32 };
    Ok(Card {
        index,
        name: result::device::get_name(device).map_err(fail)?,
        capability,
        multiprocessors: attribute(MULTIPROCESSORS)? as u32,
        // SAFETY: as above.
        memory: unsafe { result::device::total_mem(device) }.map_err(fail)? as u64,
        kernels: kernels::architecture((capability.major, capability.minor)),
    })
}

pub(super) fn failed(device: &str, action: &str, error: result::DriverError) -> Error {
    Error::Device { device: device.into(), action: action.into(), message: driver_error(error).to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_said_and_not_panicked_about() {
        let error = start(&["libsyntic-no-such-driver.so.1", "libsyntic-nor-this.so"]).unwrap_err();
        assert!(error.starts_with("there is no NVIDIA driver: ") && error.contains("no-such-driver"), "{error}");
        // On a machine without a driver this is what the whole program says.
        if let Err(error) = driver() {
            assert!(matches!(&error, Error::Usage { .. }) && error.hint().unwrap().contains("--device cpu"), "{error}");
            assert!(cards().is_err());
        }
    }
}
