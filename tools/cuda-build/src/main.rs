//! `cuda-build ROOT FILE OUT`: compiles `ROOT/FILE`, a file of `ROOT/kernels`, for sm_80 as the build does, writes the PTX to OUT and prints
//! the files that were read, one a line. Exit codes: 0 done, 1 nvcc is missing or refuses the file, 2 bad usage.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use cuda_build::Nvcc;

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().skip(1).collect();
    let [root, file, out] = arguments.as_slice() else {
        eprintln!(
            "usage: cuda-build ROOT FILE OUT, as in `cuda-build . kernels/softmax/softmax.cu target/mine/softmax/softmax.ptx`"
        );
        return ExitCode::from(2);
    };
    match compile(root.as_ref(), file.as_ref(), out.as_ref()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn compile(root: &Path, file: &Path, out: &Path) -> Result<(), Box<dyn std::error::Error>> {
    if let Some(folder) = out.parent() {
        fs::create_dir_all(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    }
    let made = Nvcc::find(root)?.ptx(file, "sm_80", out)?;
    eprint!("{}", made.warnings);
    for source in made.sources {
        writeln!(io::stdout(), "{}", source.display())?;
    }
    Ok(())
}
