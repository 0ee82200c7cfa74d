//! Which of the compiled forms of a kernel a card can execute.

use super::backend::Capability;
use super::kernels::KernelFile;

/// A form of a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Machine code for this very architecture, or an older one of the same generation.
    Cubin,
    /// PTX, which the driver compiles.
    Ptx,
}

/// "sm_90a" in parts: the capability, and whether it runs there and nowhere else.
pub(super) fn parse(arch: &str) -> Option<(Capability, bool)> {
    let digits = arch.strip_prefix("sm_")?;
    let (digits, specific) = match digits.strip_suffix('a') {
        Some(digits) => (digits, true),
        None => (digits, false),
    };
    let number: u32 = digits.parse().ok()?;
    Some((Capability { major: number / 10, minor: number % 10 }, specific))
}

/// The best form of `file` on a card of `capability`, ranked: machine code before PTX, then the newest architecture, then one made for
/// it alone. `None` if it runs in no form (CUDA programming guide, "Binary compatibility" and "PTX compatibility").
fn rank(file: &KernelFile, capability: Capability) -> Option<(bool, Capability, bool)> {
    let (built_for, specific) = parse(file.arch)?;
    let Capability { major, minor } = built_for;
    let cubin = if specific { built_for == capability } else { major == capability.major && minor <= capability.minor };
    let ptx = built_for == capability || (!specific && built_for <= capability);
    (cubin || ptx).then_some((cubin && !file.cubin.is_empty(), built_for, specific))
}

/// The file, among `files`, whose `entry` runs best on a card of `capability`, and its form.
pub(super) fn choose<'f>(files: &'f [KernelFile], entry: &str, capability: Capability) -> Option<(&'f KernelFile, Form)> {
    let having = files.iter().filter(|file| file.entries.iter().any(|e| e.name == entry));
    let ranked = having.filter_map(|file| Some((rank(file, capability)?, file)));
    let (rank, file) = ranked.max_by_key(|(rank, _)| *rank)?;
    Some((file, if rank.0 { Form::Cubin } else { Form::Ptx }))
}

#[cfg(test)]
mod tests {
    use super::super::kernels::Entry;
    use super::*;

    const fn file(arch: &'static str, entries: &'static [Entry]) -> KernelFile {
        KernelFile { name: "k", arch, ptx: "", cubin: b"cubin", entries }
    }

    #[test]
    fn cards_get_the_nearest_machine_code_and_newer_ones_ptx() {
        const ALL: &[Entry] = &[Entry { name: "k" }];
        const HOPPER: &[Entry] = &[Entry { name: "k" }, Entry { name: "k_sm90" }];
        let files = [file("sm_80", ALL), file("sm_89", ALL), file("sm_90a", HOPPER)];
        let chosen =
            |entry, major, minor| choose(&files, entry, Capability { major, minor }).map(|(file, form)| (file.arch, form));
        assert_eq!(chosen("k", 8, 0), Some(("sm_80", Form::Cubin)));
        assert_eq!(chosen("k", 8, 6), Some(("sm_80", Form::Cubin)));
        assert_eq!(chosen("k", 8, 9), Some(("sm_89", Form::Cubin)));
        assert_eq!(chosen("k", 9, 0), Some(("sm_90a", Form::Cubin)));
        assert_eq!(chosen("k", 10, 0), Some(("sm_89", Form::Ptx)));
        assert_eq!(chosen("k", 7, 5), None);
        assert_eq!(chosen("k_sm90", 9, 0), Some(("sm_90a", Form::Cubin)));
        assert_eq!(chosen("k_sm90", 10, 0), None);
        assert_eq!(chosen("other", 8, 0), None);
        let text_only = [KernelFile { cubin: b"", ..file("sm_80", ALL) }];
        assert_eq!(choose(&text_only, "k", Capability { major: 8, minor: 0 }).map(|c| c.1), Some(Form::Ptx));
    }

    #[test]
    fn names_of_architectures() {
        assert_eq!(parse("sm_120"), Some((Capability { major: 12, minor: 0 }, false)));
        assert_eq!(parse("sm_90a"), Some((Capability { major: 9, minor: 0 }, true)));
        assert_eq!(parse("compute_80"), None);
    }
}
