//! The GPU kernels that are part of this program, as `build.rs` compiled them from `kernels/`.

/// A `.cu` file, compiled for one architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFile {
    /// Its path in `kernels/`, without `.cu`: "gemm/gemm_nt".
    pub name: &'static str,
    /// "sm_80", "sm_89" or "sm_90a".
    pub arch: &'static str,
    /// The PTX that the cubin is made from, with lines of the source (`.loc`).
    pub ptx: &'static str,
    /// Machine code, an ELF file.
    pub cubin: &'static [u8],
    /// Its kernels, by name.
    pub entries: &'static [Entry],
}

/// A kernel and what a thread or block of it takes. Sizes in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The `extern "C"` name, unique among all files.
    pub name: &'static str,
    /// 32-bit registers per thread.
    pub registers: u32,
    /// Local memory per thread; not 0 only in files that say why.
    pub stack: u32,
    /// Stores to local memory for want of registers, per thread.
    pub spill_stores: u32,
    /// Loads for the same reason.
    pub spill_loads: u32,
    /// Shared memory per block that is declared with a size.
    pub static_shared: u32,
    /// Constant memory, parameters included; 0 for sm_90a, where it is not told.
    pub constant: u32,
    /// Threads per block, at most, if the kernel says so.
    pub max_threads: Option<u32>,
}

/// What a driver is given to load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// Machine code for this very architecture.
    Cubin(&'static [u8]),
    /// PTX for the oldest architecture, which the driver compiles.
    Ptx(&'static str),
}

// FILES, by name, then architecture; MISSING.
include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// All files, each once for every architecture that it was compiled for.
pub fn files() -> &'static [KernelFile] {
    FILES
}

/// Why there are no kernels, and what to do; `None` if there are.
pub fn missing() -> Option<&'static str> {
    MISSING
}

/// The kernel of this name for "sm_80", "sm_89" or "sm_90a", and the file that it is in.
pub fn find(entry: &str, arch: &str) -> Option<(&'static KernelFile, &'static Entry)> {
    let files = FILES.iter().filter(|file| file.arch == arch);
    files.flat_map(|file| file.entries.iter().map(move |e| (file, e))).find(|(_, e)| e.name == entry)
}

/// A kernel as a device takes it.
#[derive(Clone, Copy, Debug)]
pub struct Choice {
    /// Where it is.
    pub file: &'static KernelFile,
    /// The kernel.
    pub entry: &'static Entry,
    /// What to load.
    pub image: Image,
}

/// The best image with this kernel for a device of compute capability `major`.`minor`; `None` if it cannot run there.
pub fn choose(entry: &str, capability: (u32, u32)) -> Option<Choice> {
    let (arch, assembled) = target(capability)?;
    let (file, entry) = find(entry, arch)?;
    Some(Choice { file, entry, image: if assembled { Image::Cubin(file.cubin) } else { Image::Ptx(file.ptx) } })
}

/// The architecture whose kernels a device of this compute capability takes, if any are embedded.
pub fn architecture(capability: (u32, u32)) -> Option<&'static str> {
    target(capability).map(|(arch, _)| arch).filter(|arch| FILES.iter().any(|file| file.arch == *arch))
}

/// The architecture whose code a device takes, and whether it takes the cubin. A cubin runs on its own and later minor versions of the
/// same major one, so an 8.6 cannot take that for 8.9, and one with "a" on that version alone (CUDA C++ Programming Guide, Binary
/// Compatibility; Architecture-Specific Feature Set). Embedded chips (8.7) are apart: the driver compiles for them.
fn target(capability: (u32, u32)) -> Option<(&'static str, bool)> {
    match capability {
        (8, 0 | 6) => Some(("sm_80", true)),
        (8, 9) => Some(("sm_89", true)),
        (9, 0) => Some(("sm_90a", true)),
        (8.., _) => Some(("sm_80", false)),
        _ => None,
    }
}

#[cfg(test)]
#[path = "../../build.rs"]
#[allow(dead_code, clippy::print_stdout, clippy::print_stderr)]
mod build_script;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::fs;
    use std::path::{Path, PathBuf};
    use std::process::Command;

    const ARCHS: [&str; 3] = ["sm_80", "sm_89", "sm_90a"];

    fn sources(folder: &Path) -> Vec<PathBuf> {
        let Ok(items) = fs::read_dir(folder) else { return Vec::new() };
        let paths = items.map(|item| item.unwrap().path());
        let files = paths.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
        files.filter(|path| path.extension() == Some("cu".as_ref())).collect()
    }

    /// Names as the PTX declares them.
    fn declared(ptx: &str) -> Vec<&str> {
        let mut names: Vec<&str> = ptx.split(".visible .entry ").skip(1).map(|rest| rest.split_once('(').unwrap().0).collect();
        names.sort();
        names
    }

    #[test]
    fn every_kernel_of_every_source_is_here_for_every_architecture() {
        assert_eq!(missing(), None);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let sources = sources(&folder);
        let mut expected: Vec<(String, &str)> = Vec::new();
        for source in &sources {
            let name = source.strip_prefix(&folder).unwrap().with_extension("").to_str().unwrap().to_owned();
            let archs = ARCHS.into_iter().filter(|&arch| arch == "sm_90a" || !name.ends_with("_sm90"));
            expected.extend(archs.map(|arch| (name.clone(), arch)));
        }
        let mut present: Vec<(String, &str)> = files().iter().map(|file| (file.name.to_owned(), file.arch)).collect();
        expected.sort();
        present.sort();
        assert_eq!(present, expected);

        for file in files() {
            let names: Vec<&str> = file.entries.iter().map(|e| e.name).collect();
            assert_eq!(names, declared(file.ptx), "{} {}", file.name, file.arch);
            assert!(!names.is_empty(), "{} has no kernel", file.name);
            let other = files().iter().find(|other| other.name == file.name).unwrap();
            assert_eq!(names, declared(other.ptx), "{} for {} and {}", file.name, file.arch, other.arch);
        }
    }

    /// The build script goes on, and with what it writes this file makes a program that has no kernels and says what to run.
    #[test]
    fn a_build_without_nvcc_says_what_to_run() {
        let out = tempfile::tempdir().unwrap();
        let missing = cuda_build::Error::NoNvcc { looked: vec!["PATH has \"no\" nvcc".into()] };
        let watched = build_script::write_table(Err(missing), out.path(), out.path()).unwrap();
        assert!(watched.contains(&"cargo:rerun-if-env-changed=PATH".to_owned()), "{watched:?}");

        let this = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/device/kernels.rs");
        let main = r#"fn main() {
            assert!(kernels::files().is_empty());
            assert!(kernels::choose("add_forward_f16", (8, 0)).is_none() && kernels::architecture((9, 0)).is_none());
            print!("{}", kernels::missing().unwrap());
        }"#;
        let (source, program) = (out.path().join("main.rs"), out.path().join("main"));
        fs::write(&source, format!("#[path = {this:?}]\nmod kernels;\n{main}")).unwrap();
        let mut rustc = Command::new(Path::new(env!("CARGO")).with_file_name("rustc"));
        rustc.args(["--edition", "2024", "--cap-lints", "allow", "-o"]).args([&program, &source]).env("OUT_DIR", out.path());
        let compiled = rustc.output().unwrap();
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        let said = Command::new(program).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let said = String::from_utf8(said.stdout).unwrap();

        let error = crate::device::gpu::check_kernels(Some(&said)).unwrap_err();
        let text = format!("{error}; {}", error.hint().unwrap());
        for part in
            ["built without its GPU kernels", "PATH has \"no\" nvcc", "run tools/setup-cuda, then build again", "--device cpu"]
        {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn names_are_unique_and_images_are_what_they_say() {
        let mut files_of: HashMap<(&str, &str), &str> = HashMap::new();
        for file in files() {
            assert!(file.ptx.contains(&format!(".target {}", file.arch)), "{} {}", file.name, file.arch);
            assert!(!file.ptx.contains(env!("CARGO_MANIFEST_DIR")), "{} has the path of this folder", file.name);
            assert_eq!(&file.cubin[..4], b"\x7fELF", "{} {}", file.name, file.arch);
            for entry in file.entries {
                assert!(!entry.name.starts_with("_Z"), "{} in {} is not extern \"C\"", entry.name, file.name);
                let other = files_of.insert((entry.name, file.arch), file.name);
                assert_eq!(other, None, "{} is also in {}", entry.name, file.name);
                let (found, _) = find(entry.name, file.arch).unwrap();
                assert_eq!(found.name, file.name);
            }
        }
    }

    #[test]
    fn devices_get_what_they_can_run() {
        let targets = [(7, 5), (8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (10, 0), (12, 1)].map(target);
        let jit = Some(("sm_80", false));
        assert_eq!(
            targets,
            [None, Some(("sm_80", true)), Some(("sm_80", true)), jit, Some(("sm_89", true)), Some(("sm_90a", true)), jit, jit]
        );
        assert!(choose("no_such_kernel", (8, 0)).is_none());
    }
}
