//! The `syntic` command, run as a user runs it, on a tiny model with random weights.

mod bench;
mod device;
mod generate;
mod hostile;
mod nvtx;
mod packed;
mod resume;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// The program under test, which leaves nothing of the tests' models in the user's cache.
fn syntic() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_syntic"));
    command.env("SYNTIC_PACKED", "off");
    command
}

/// A tiny model, written once for all tests.
fn model() -> &'static Path {
    static MODEL: OnceLock<PathBuf> = OnceLock::new();
    MODEL.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("tiny-{}", std::process::id()));
        let status =
            syntic().args(["random-model", "--arch", "tiny", "--dtype", "f32", "--seed", "7", "--out"]).arg(&folder).status();
        assert!(status.expect("syntic starts").success());
        folder
    })
}

/// What a run printed and how it ended.
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

fn run(command: &mut Command) -> Ran {
    let Output { status, stdout, stderr } = command.output().expect("syntic starts");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("output is UTF-8");
    Ran { code: status.code().unwrap_or(-1), stdout: text(stdout), stderr: text(stderr) }
}

impl Ran {
    /// Asserts the exit code, and that a message holds all of `parts`.
    #[track_caller]
    fn expect(self, code: i32, parts: &[&str]) -> Ran {
        assert_eq!(self.code, code, "stdout: {}\nstderr: {}", self.stdout, self.stderr);
        for part in parts {
            assert!(self.stderr.contains(part), "`{part}` is not in: {}", self.stderr);
        }
        self
    }
}

/// `syntic generate` on the tiny model, small and quick, with more flags.
fn generate(captions: &Path, out: &Path, more: &[&str]) -> Command {
    let mut command = syntic();
    command.arg("generate").arg("--model").arg(model()).arg("--captions").arg(captions).arg("--out").arg(out);
    command.args(["--height", "64", "--width", "64", "--steps", "2", "--shard-size", "4", "--threads", "1"]).args(more);
    command
}

/// A caption file of `count` different captions.
fn captions(folder: &Path, count: usize) -> PathBuf {
    let path = folder.join("captions.txt");
    let lines: String = (0..count).map(|i| format!("a photo of {i} dogs\n")).collect();
    std::fs::write(&path, lines).expect("captions are written");
    path
}

/// Content of every tar and parquet of a folder.
fn shard_bytes(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for entry in std::fs::read_dir(folder).expect("folder is read") {
        let path = entry.expect("entry").path();
        let name = path.file_name().expect("name").to_string_lossy().into_owned();
        if name.ends_with(".tar") || name.ends_with(".parquet") {
            files.insert(name, std::fs::read(&path).expect("file is read"));
        }
    }
    files
}
