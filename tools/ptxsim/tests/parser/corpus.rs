//! Real PTX: what nvcc makes of the kernels of the project and of the simulator's suite.

use crate::nvcc::nvcc;
use std::path::Path;
use std::sync::OnceLock;

/// One instruction of each kind, in a file that ptxas accepts.
pub const INSTRUCTIONS: &str = include_str!("instructions.ptx");

/// A PTX file with one entry.
pub struct Piece {
    pub name: String,
    pub text: String,
}

/// All kernels, each in a file of its own, and [`INSTRUCTIONS`].
pub fn pieces() -> &'static [Piece] {
    static PIECES: OnceLock<Vec<Piece>> = OnceLock::new();
    PIECES.get_or_init(|| {
        let mut pieces = vec![Piece { name: "instructions.ptx".to_owned(), text: INSTRUCTIONS.to_owned() }];
        for (folder, archs) in [("tools/ptxsim/tests/kernels", &["sm_80"][..]), ("kernels", &["sm_80", "sm_90a"][..])] {
            pieces.extend(compiled(folder, archs));
        }
        pieces
    })
}

fn compiled(folder: &str, archs: &[&str]) -> Vec<Piece> {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("parser").join(folder.replace('/', "-"));
    let folder = cuda_build::Folder { kernels: Path::new(folder), archs, cache: &cache, jobs: 2 };
    let (kernels, _lock) = cuda_build::compile_folder(&nvcc(), &folder).unwrap_or_else(|error| panic!("{error}"));
    let mut out = Vec::new();
    for kernel in kernels {
        let text = std::fs::read_to_string(&kernel.ptx).unwrap_or_else(|error| panic!("{}: {error}", kernel.ptx.display()));
        out.extend(split(&format!("{} {}", kernel.source.display(), kernel.arch), &text));
    }
    out
}

/// What nvcc writes is a head, entries, and a tail that begins with `.file`.
fn split(name: &str, text: &str) -> Vec<Piece> {
    const ENTRY: &str = "\n.visible .entry ";
    let mut starts: Vec<usize> = text.match_indices(ENTRY).map(|(at, _)| at + 1).collect();
    assert!(!starts.is_empty(), "{name}: no entry");
    let tail = text.find("\n\t.file").map_or(text.len(), |at| at + 1);
    starts.push(tail);
    let piece = |pair: &[usize]| {
        let entry = &text[pair[0]..pair[1]];
        let entry_name = entry[ENTRY.len() - 1..].split('(').next().unwrap_or_default();
        Piece { name: format!("{name} {entry_name}"), text: format!("{}{entry}{}", &text[..starts[0]], &text[tail..]) }
    };
    starts.windows(2).map(piece).collect()
}
