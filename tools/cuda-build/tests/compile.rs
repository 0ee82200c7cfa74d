//! Compiles real files with the nvcc of this machine.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cuda_build::{Error, Folder, Kernel, Nvcc, compile_folder, refuse_spills, resource_table};

const COMMON: &str = "#pragma once\n#include <cuda_fp16.h>\n__device__ inline float twice(float x) { return x + x; }\n";
/// Has a function of internal linkage, whose name nvcc makes from the path of the file.
const SCALE: &str = r#"#include "common.cuh"
static __device__ __noinline__ float shifted(float x) { return x + 3.0f; }
extern "C" __global__ void __launch_bounds__(128, 2) scale_f16(__half* y, const __half* x) {
    __shared__ float row[128];
    row[threadIdx.x] = twice(__half2float(x[threadIdx.x]));
    __syncthreads();
    y[threadIdx.x] = __float2half(shifted(row[127 - threadIdx.x]));
}
"#;
const FILL: &str = r#"extern "C" __global__ void fill_f32(float* y) { y[threadIdx.x] = 1.0f; }
"#;
const SPILLING: &str = r#"extern "C" __global__ void __maxnreg__(24) spilling_f32(float* y, const float* x) {
    float v[40];
    for (int i = 0; i < 40; i++) v[i] = x[i * 256 + threadIdx.x];
    for (int j = 0; j < 3; j++)
        for (int i = 0; i < 40; i++) v[i] *= v[(i * 7 + 3) % 40];
    for (int i = 0; i < 40; i++) y[i * 256 + threadIdx.x] = v[i];
}
"#;

/// An empty root of a workspace below the target folder.
fn workspace(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    if root.exists() {
        fs::remove_dir_all(&root).unwrap();
    }
    fs::create_dir_all(root.join("kernels/norm")).unwrap();
    root
}

fn write(root: &Path, name: &str, text: &str) {
    fs::write(root.join("kernels").join(name), text).unwrap();
}

/// The toolkit of the project, for a workspace that has none.
fn nvcc(root: &Path) -> Nvcc {
    let project = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cuda");
    let link = root.join(".cuda");
    if project.exists() && !link.exists() {
        std::os::unix::fs::symlink(fs::canonicalize(project).unwrap(), link).unwrap();
    }
    Nvcc::find(root).unwrap_or_else(|error| panic!("{error}"))
}

fn compile(root: &Path) -> Result<Vec<Kernel>, Error> {
    let cache = root.join("cache");
    let folder = Folder { kernels: Path::new("kernels"), archs: &["sm_80", "sm_90a"], cache: &cache, jobs: 2 };
    compile_folder(&nvcc(root), &folder).map(|(kernels, _lock)| kernels)
}

/// "norm/scale sm_80" of those that nvcc ran for.
fn compiled(root: &Path) -> Vec<String> {
    let kernels = compile(root).unwrap_or_else(|error| panic!("{error}"));
    kernels.iter().filter(|kernel| kernel.compiled).map(|kernel| format!("{} {}", kernel.name, kernel.arch)).collect()
}

#[test]
fn a_file_becomes_the_same_ptx_anywhere_and_a_cubin() {
    let mut texts = Vec::new();
    for name in ["anywhere", "elsewhere with space/deeper"] {
        let root = workspace(name);
        write(&root, "common.cuh", COMMON);
        write(&root, "norm/scale.cu", SCALE);
        let nvcc = nvcc(&root);
        let (ptx, cubin) = (root.join("scale.ptx"), root.join("scale.cubin"));
        let made = nvcc.ptx(Path::new("kernels/norm/scale.cu"), "sm_80", &ptx).unwrap();
        assert_eq!(made.sources, ["kernels/norm/scale.cu", "kernels/common.cuh"].map(PathBuf::from));
        assert_eq!(made.warnings, "");
        let entries = nvcc.cubin(&ptx, "sm_80", &cubin).unwrap().entries;
        let [entry] = entries.as_slice() else { panic!("{entries:?}") };
        assert_eq!((entry.name.as_str(), entry.static_shared, entry.max_threads), ("scale_f16", 512, Some(128)));
        assert!(entry.registers > 4 && !entry.uses_local_memory(), "{entry:?}");
        assert_eq!(&fs::read(&cubin).unwrap()[..4], b"\x7fELF");
        texts.push(fs::read_to_string(&ptx).unwrap());
    }
    assert!(texts[0].contains(".target sm_80") && texts[0].contains("_INTERNAL_00000000_"));
    for file in ["\"kernels/norm/scale.cu\"", "\"kernels/common.cuh\"", "\"cuda/include/cuda_fp16.hpp\""] {
        assert!(texts[0].contains(file), "{file}");
    }
    assert_eq!(texts[0], texts[1]);
}

#[test]
fn only_what_changed_is_compiled_again() {
    let root = workspace("changes");
    write(&root, "common.cuh", COMMON);
    write(&root, "norm/scale.cu", SCALE);
    write(&root, "fill.cu", FILL);
    write(&root, "fill_sm90.cu", &FILL.replace("fill_f32", "fill_f32_sm90"));
    assert_eq!(compiled(&root), ["fill sm_80", "fill sm_90a", "fill_sm90 sm_90a", "norm/scale sm_80", "norm/scale sm_90a"]);
    let before = compile(&root).unwrap();
    assert!(before.iter().all(|kernel| !kernel.compiled));

    write(&root, "norm/scale.cu", SCALE);
    assert_eq!(compiled(&root), [""; 0], "written, but the same");
    write(&root, "common.cuh", &COMMON.replace("x + x", "2.0f * x"));
    assert_eq!(compiled(&root), ["norm/scale sm_80", "norm/scale sm_90a"]);
    fs::remove_file(root.join("cache/fill.sm_90a.cubin")).unwrap();
    assert_eq!(compiled(&root), ["fill sm_90a"]);
    write(&root, "norm/common.cuh", &COMMON.replace("x + x", "x * 4.0f"));
    assert!(compiled(&root).contains(&"norm/scale sm_80".to_owned()), "another header is the nearest one");
    assert_eq!(compiled(&root), [""; 0]);

    let table = resource_table(&before);
    let row = table.lines().find(|line| line.starts_with("norm/scale  scale_f16") && line.contains("sm_90a")).unwrap();
    assert!(row.ends_with(" 128"), "{table}");
}

#[test]
fn errors_name_file_and_line_and_are_not_kept() {
    let root = workspace("errors");
    write(&root, "fill.cu", &FILL.replace("1.0f;", "one;"));
    let error = compile(&root).unwrap_err().to_string();
    assert!(
        error.starts_with("kernels/fill.cu does not compile for sm_80:\nkernels/fill.cu(1): error: identifier \"one\""),
        "{error}"
    );
    write(&root, "fill.cu", FILL);
    assert_eq!(compiled(&root), ["fill sm_80", "fill sm_90a"]);
    write(&root, "fill.cu", &FILL.replace("{ y", "{ int unread; y"));
    for run in 0..2 {
        let kernels = compile(&root).unwrap();
        assert!(kernels[0].warnings.contains("kernels/fill.cu(1): warning #177-D"), "run {run}: {}", kernels[0].warnings);
    }
}

#[test]
fn spills_need_a_reason() {
    let root = workspace("spills");
    write(&root, "spilling.cu", SPILLING);
    let error = refuse_spills(&root, &compile(&root).unwrap()).unwrap_err().to_string();
    assert!(error.contains("kernels/spilling.cu: spilling_f32 for sm_80: "), "{error}");
    assert!(error.contains("kernels/spilling.cu: spilling_f32 for sm_90a: "), "{error}");
    assert!(error.contains("// accepts spills: REASON"), "{error}");
    write(&root, "spilling.cu", &format!("// accepts spills:\n{SPILLING}"));
    assert!(refuse_spills(&root, &compile(&root).unwrap()).is_err(), "without a reason");
    write(&root, "spilling.cu", &format!("// accepts spills: to see them accepted\n{SPILLING}"));
    refuse_spills(&root, &compile(&root).unwrap()).unwrap();
}

#[test]
fn the_program_compiles_one_file_and_says_what_it_read() {
    let root = workspace("program");
    write(&root, "common.cuh", COMMON);
    write(&root, "norm/scale.cu", &SCALE.replace("common.cuh", "../common.cuh"));
    write(&root, "fill.cu", &FILL.replace("1.0f;", "one;"));
    nvcc(&root); // links the toolkit
    let run = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_cuda-build")).arg(&root).args(arguments).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let ptx = root.join("made/norm/scale.ptx");
    let out = ptx.to_str().unwrap();
    let read = "kernels/norm/scale.cu\nkernels/common.cuh\n".to_owned();
    assert_eq!(run(&["kernels/norm/scale.cu", out]), (Some(0), read, String::new()));
    assert!(fs::read_to_string(&ptx).unwrap().contains(".entry scale_f16("));
    let (code, _, error) = run(&["kernels/fill.cu", out]);
    assert_eq!((code, error.contains("kernels/fill.cu(1): error")), (Some(1), true), "{error}");
    assert_eq!(run(&["kernels/fill.cu"]).0, Some(2));
}
