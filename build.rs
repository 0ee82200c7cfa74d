//! Compiles `kernels/` and embeds the result, which `src/device/kernels.rs` includes. Without nvcc the table is empty and says why.

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use cuda_build::{Error, Folder, Kernel, Nvcc, compile_folder, refuse_spills, resource_table};

const ARCHS: [&str; 3] = ["sm_80", "sm_89", "sm_90a"];

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Says what to watch for only after it has succeeded: cargo repeats a failed script in any case, and would show these lines.
fn build() -> Result<()> {
    let root = PathBuf::from(env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let watched = write_table(Nvcc::find(&root), &root, &out)?;
    println!("{}", watched.join("\n"));
    Ok(())
}

/// Writes `kernels.rs` to `out`, with kernels if an nvcc was found and else with the reason. Returns what cargo is to watch for.
pub fn write_table(found: std::result::Result<Nvcc, Error>, root: &Path, out: &Path) -> Result<Vec<String>> {
    let mut watched = ["build.rs", "kernels"].map(|path| format!("cargo:rerun-if-changed={path}")).to_vec();
    watched.push("cargo:rerun-if-env-changed=CUDA_HOME".to_owned());
    let (table, missing) = match found {
        Ok(nvcc) => {
            watched.push(format!("cargo:rerun-if-changed={}", nvcc.path().display()));
            if nvcc.found_by() != "CUDA_HOME" {
                watched.push("cargo:rerun-if-env-changed=PATH".to_owned());
            }
            (compile(&nvcc, root, out)?, None)
        }
        Err(error @ Error::NoNvcc { .. }) => {
            watched.push("cargo:rerun-if-env-changed=PATH".to_owned());
            (String::new(), Some(format!("this syntic was built without its GPU kernels, because {error}")))
        }
        Err(error) => return Err(error.into()),
    };
    let code = format!("static FILES: &[KernelFile] = &[{table}];\nstatic MISSING: Option<&str> = {missing:?};\n");
    fs::write(out.join("kernels.rs"), code)?;
    Ok(watched)
}

/// Compiles what changed, copies everything to `out`, and returns the rows of the table.
fn compile(nvcc: &Nvcc, root: &Path, out: &Path) -> Result<String> {
    let cache = target_folder(out).join("kernels");
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok());
    let jobs = jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from));
    let folder = Folder { kernels: Path::new("kernels"), archs: &ARCHS, cache: &cache, jobs };
    let (kernels, _lock) = compile_folder(nvcc, &folder)?;
    fs::write(cache.join("resources.txt"), resource_table(&kernels))?;
    refuse_spills(root, &kernels)?;

    // Mostly the same for all architectures.
    let warnings: BTreeSet<&str> = kernels.iter().map(|kernel| kernel.warnings.as_str()).collect();
    for line in warnings.into_iter().flat_map(str::lines).filter(|line| !line.trim().is_empty()) {
        println!("cargo:warning={line}");
    }
    kernels.iter().map(|kernel| row(kernel, out)).collect()
}

/// The `KernelFile` of a kernel, whose PTX and cubin are copied to `out`: another profile may replace those in the cache.
fn row(kernel: &Kernel, out: &Path) -> Result<String> {
    let (name, arch) = (&kernel.name, &kernel.arch);
    let ptx = out.join(format!("kernels/{name}.{arch}.ptx"));
    let cubin = ptx.with_extension("cubin");
    fs::create_dir_all(ptx.parent().unwrap_or(out))?;
    fs::copy(&kernel.ptx, &ptx)?;
    fs::copy(&kernel.cubin, &cubin)?;
    let mut row = format!(
        "\n    KernelFile {{ name: {name:?}, arch: {arch:?}, ptx: include_str!({ptx:?}), cubin: include_bytes!({cubin:?}), "
    );
    row.push_str("entries: &[");
    for e in &kernel.entries {
        // Prints as the struct of the same name and fields in src/device/kernels.rs, but for the String.
        let entry = format!("{e:?}");
        write!(row, "\n        {entry},")?;
    }
    row.push_str("\n    ] },");
    Ok(row)
}

/// The folder that all profiles share: `target`, of which OUT_DIR is `target/PROFILE/build/CRATE-HASH/out`.
fn target_folder(out: &Path) -> &Path {
    let build = out.ancestors().find(|folder| folder.file_name() == Some("build".as_ref()));
    build.and_then(Path::parent).and_then(Path::parent).unwrap_or(out)
}
