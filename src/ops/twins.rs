//! What Rust and CUDA both say: the structs of parameters, field by field, and the names of the entries.

use super::attention::gpu::AttentionParams;
use super::conv::gpu::Conv2dParams;
use super::elementwise::gpu::{AddParams, ScaleParams, SiluParams};
use super::embed::gpu::EmbedParams;
use super::gemm::gpu::GemmNtParams;
use super::norm::gpu::{GroupNormParams, LayerNormParams};
use super::sampler::gpu::{PixelsParams, StartParams, StepParams, StepWeights, UnscaleParams};
use super::softmax::gpu::SoftmaxParams;
use crate::device::Params;
use crate::device::kernels::files;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The size of a struct, and its fields with their offsets.
#[derive(Clone, Debug, PartialEq)]
struct Layout {
    bytes: usize,
    fields: Vec<(String, usize)>,
}

fn twin<P: Params>() -> (&'static str, Layout) {
    let fields = P::FIELDS.iter().map(|&(name, offset)| (name.to_owned(), offset)).collect();
    (P::NAME, Layout { bytes: size_of::<P>(), fields })
}

fn twins() -> BTreeMap<&'static str, Layout> {
    BTreeMap::from([
        twin::<AddParams>(),
        twin::<AttentionParams>(),
        twin::<Conv2dParams>(),
        twin::<EmbedParams>(),
        twin::<GemmNtParams>(),
        twin::<GroupNormParams>(),
        twin::<LayerNormParams>(),
        twin::<PixelsParams>(),
        twin::<ScaleParams>(),
        twin::<SiluParams>(),
        twin::<SoftmaxParams>(),
        twin::<StartParams>(),
        twin::<StepParams>(),
        twin::<StepWeights>(),
        twin::<UnscaleParams>(),
    ])
}

/// The variables `*SUFFIX` of bytes in constant memory, by what stands before the suffix. The PTX leaves out zeros at the end.
fn variables<'p>(ptx: &'p str, suffix: &str) -> BTreeMap<&'p str, Vec<u8>> {
    let variable = |line: &'p str| {
        let (name, rest) = line.strip_prefix(".const ")?.split_once(".b8 ")?.1.split_once('[')?;
        let (len, rest) = rest.split_once(']')?;
        let list = rest.split_once('{')?.1.split_once('}')?.0;
        let mut bytes: Vec<u8> = list.split(',').map(|byte| byte.trim().parse().unwrap()).collect();
        bytes.resize(len.parse().unwrap(), 0);
        Some((name.strip_suffix(suffix)?, bytes))
    };
    ptx.lines().filter_map(variable).collect()
}

/// What `PARAMS_LAYOUT` of `kernels/common.cuh` left in a file.
fn layouts(ptx: &str) -> BTreeMap<&str, Layout> {
    let mut names = variables(ptx, "_fields");
    let layout = |(name, bytes): (_, Vec<u8>)| {
        let numbers: Vec<usize> = bytes.chunks_exact(4).map(|b| u32::from_le_bytes(b.try_into().unwrap()) as usize).collect();
        let names = String::from_utf8(names.remove(name).unwrap()).unwrap();
        let names: Vec<String> = names.trim_end_matches('\0').split(", ").map(str::to_owned).collect();
        assert_eq!(names.len() + 1, numbers.len(), "{name}");
        (name, Layout { bytes: numbers[0], fields: names.into_iter().zip(numbers[1..].iter().copied()).collect() })
    };
    variables(ptx, "_layout").into_iter().map(layout).collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(folder).unwrap().map(|item| item.unwrap().path());
    paths.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] }).collect()
}

/// The texts of a folder of this crate that end in `suffix`, by path.
fn texts(folder: &str, suffix: &str) -> Vec<(PathBuf, String)> {
    let paths = sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)).into_iter();
    paths
        .filter(|path| path.to_str().unwrap().ends_with(suffix))
        .map(|path| (path.clone(), fs::read_to_string(path).unwrap()))
        .collect()
}

/// What stands behind each `before` up to the next `after`.
fn between<'t>(text: &'t str, before: &'t str, after: &'t str) -> impl Iterator<Item = &'t str> {
    text.split(before).skip(1).map(move |rest| rest.split_once(after).unwrap().0)
}

#[test]
fn parameters_lie_where_the_kernels_read_them() {
    let twins = twins();
    let mut found = BTreeSet::new();
    assert!(!files().is_empty());
    for file in files() {
        for (name, layout) in layouts(file.ptx) {
            let twin = twins.get(name).unwrap_or_else(|| panic!("{name} of {} has no twin in Rust", file.name));
            assert_eq!(&layout, twin, "{name} of {} for {}", file.name, file.arch);
            found.insert((file.arch, name));
        }
    }
    for arch in files().iter().map(|file| file.arch) {
        for name in twins.keys() {
            assert!(found.contains(&(arch, *name)), "{name} has no PARAMS_LAYOUT for {arch}");
        }
    }
}

/// How the names of structs end that kernels read: as an argument, or from memory.
const SUFFIXES: [&str; 2] = ["Params", "Weights"];

/// Those that launches take without the macro of `PARAMS_LAYOUT`, and those that the list above lacks.
#[test]
fn every_struct_of_parameters_is_compared() {
    let known: BTreeSet<String> = twins().into_keys().map(str::to_owned).collect();
    let named = |texts: Vec<(PathBuf, String)>| -> BTreeSet<String> {
        let word = |rest: &str| rest.split_whitespace().next().map(str::to_owned);
        let words = |text: &str| text.split("struct ").skip(1).filter_map(word).collect::<Vec<_>>();
        texts.iter().flat_map(|(_, text)| words(text)).filter(|name| SUFFIXES.iter().any(|end| name.ends_with(end))).collect()
    };
    assert_eq!(named([texts("kernels", ".cu"), texts("kernels", ".cuh")].concat()), known);
    assert_eq!(named(texts("src/ops", "gpu.rs")), known);
}

/// A constant of entries that no launch takes is dead code to the compiler, so those that operations name are launched.
#[test]
fn every_embedded_kernel_is_launched() {
    let mut launched = BTreeSet::new();
    for (_, text) in texts("src/ops", ".rs").into_iter().filter(|(path, _)| !path.ends_with("twins.rs")) {
        for name in between(&text, "entries!(\"", "\")") {
            launched.extend([format!("{name}_f16"), format!("{name}_bf16")]);
        }
    }
    let embedded: BTreeSet<String> = files().iter().flat_map(|file| file.entries).map(|e| e.name.to_owned()).collect();
    assert_eq!(embedded, launched);
}
