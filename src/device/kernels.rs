//! The GPU kernels that are part of this program, as `build.rs` compiled them from `kernels/`.

/// A `.cu` file, compiled for one architecture.
#[derive(Debug, PartialEq, Eq)]
pub struct KernelFile {
    /// Its path in `kernels/`, without `.cu`: "gemm/gemm_nt".
    pub name: &'static str,
    /// "sm_80", "sm_89" or "sm_90a".
    pub arch: &'static str,
    /// The PTX that the cubin is made from, with lines of the source (`.loc`).
    pub ptx: &'static str,
    /// Machine code, an ELF file.
    pub cubin: &'static [u8],
    /// Its kernels.
    pub entries: &'static [Entry],
}

/// A kernel and what a thread or block of it takes. Sizes in bytes.
#[derive(Debug, PartialEq, Eq)]
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

/// The best image with this kernel for a device of compute capability `major`.`minor`; `None` if it cannot run there.
pub fn image(entry: &str, capability: (u32, u32)) -> Option<(Image, &'static Entry)> {
    let (arch, assembled) = target(capability)?;
    let (file, entry) = find(entry, arch)?;
    Some((if assembled { Image::Cubin(file.cubin) } else { Image::Ptx(file.ptx) }, entry))
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
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::fs;
    use std::path::{Path, PathBuf};

    const ARCHS: [&str; 3] = ["sm_80", "sm_89", "sm_90a"];

    fn sources(folder: &Path) -> Vec<PathBuf> {
        let Ok(items) = fs::read_dir(folder) else { return Vec::new() };
        let paths = items.map(|item| item.unwrap().path());
        let files = paths.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
        files.filter(|path| path.extension() == Some("cu".as_ref())).collect()
    }

    /// Names of entries as the source declares them.
    fn declared(text: &str) -> Vec<&str> {
        let declarations = text.split("extern \"C\" __global__").skip(1);
        declarations.map(|rest| rest.split_once('{').unwrap().0).map(name_of).collect()
    }

    /// The last word before the list of parameters: attributes such as `__launch_bounds__(128, 2)` have brackets too.
    fn name_of(declaration: &str) -> &str {
        let word = |at: usize| declaration[..at].trim_end().rsplit(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap();
        let names = declaration.match_indices('(').map(|(at, _)| word(at));
        names.into_iter().find(|name| !name.is_empty() && !name.starts_with("__")).unwrap()
    }

    #[test]
    fn every_entry_of_every_source_is_here_for_every_architecture() {
        assert_eq!(missing(), None);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let mut expected: Vec<(String, String, &str)> = Vec::new();
        for source in sources(&folder) {
            let name = source.strip_prefix(&folder).unwrap().with_extension("").to_str().unwrap().to_owned();
            let text = fs::read_to_string(&source).unwrap();
            let entries = declared(&text);
            assert!(!entries.is_empty(), "{name} has no entry");
            for arch in ARCHS.into_iter().filter(|&arch| arch == "sm_90a" || !name.ends_with("_sm90")) {
                expected.extend(entries.iter().map(|entry| (name.clone(), (*entry).to_owned(), arch)));
            }
        }
        let rows = files()
            .iter()
            .flat_map(|file| file.entries.iter().map(move |e| (file.name.to_owned(), e.name.to_owned(), file.arch)));
        let mut present: Vec<_> = rows.collect();
        expected.sort();
        present.sort();
        assert_eq!(present, expected);
    }

    #[test]
    fn names_are_unique_and_images_are_what_they_say() {
        let mut files_of: HashMap<(&str, &str), &str> = HashMap::new();
        for file in files() {
            assert!(file.ptx.contains(&format!(".target {}", file.arch)), "{} {}", file.name, file.arch);
            assert!(!file.ptx.contains(env!("CARGO_MANIFEST_DIR")), "{} has the path of this folder", file.name);
            assert_eq!(&file.cubin[..4], b"\x7fELF", "{} {}", file.name, file.arch);
            for entry in file.entries {
                assert!(file.ptx.contains(&format!(".entry {}(", entry.name)));
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
        assert!(image("no_such_kernel", (8, 0)).is_none());
    }

    #[test]
    fn declarations() {
        let text = "extern \"C\" __global__ void __launch_bounds__(128, 2)\n    scale_f16(__half* y) {\n}\nextern \"C\" __global__ void\nfill(int n) {}";
        assert_eq!(declared(text), ["scale_f16", "fill"]);
    }
}
