use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::ptx;
use crate::ptxas::{self, Entry};

/// The first release that compiles for all architectures used here and writes the PTX version that the simulator knows.
const OLDEST: (u32, u32) = (13, 0);

/// Where `tools/setup-cuda` puts the toolkit, below the root of the workspace.
const PROJECT_TOOLKIT: &str = ".cuda";

/// Flags of every compilation, besides those that name files and architecture.
pub(crate) const FLAGS: [&str; 5] = ["-std=c++17", "-lineinfo", "-ptx", "-I", "kernels"];

/// An nvcc, and the root of the workspace that it works for.
#[derive(Clone, Debug)]
pub struct Nvcc {
    path: PathBuf,
    version: String,
    found_by: &'static str,
    root: PathBuf,
}

/// What came of a compilation to PTX.
#[derive(Clone, Debug)]
pub struct Ptx {
    /// Every file that was read except those of the toolkit and of the system, the source itself first; relative to the root of the
    /// workspace where they lie below it.
    pub sources: Vec<PathBuf>,
    /// Warnings of nvcc, empty if there are none.
    pub warnings: String,
}

/// What came of an assembly.
#[derive(Clone, Debug)]
pub struct Cubin {
    /// The kernels, by name.
    pub entries: Vec<Entry>,
    /// Warnings of ptxas, empty if there are none.
    pub warnings: String,
}

impl Nvcc {
    /// Looks for nvcc of CUDA 13.0 or later: in `CUDA_HOME`, on `PATH`, and in the folder that `tools/setup-cuda` makes below `root`,
    /// the root of the workspace. Paths in messages and in the PTX are relative to `root`, and `root`/kernels is searched for headers.
    ///
    /// # Errors
    /// [`Error::NoNvcc`] names the places looked at.
    pub fn find(root: &Path) -> Result<Nvcc, Error> {
        Nvcc::find_in(root, env::var_os("CUDA_HOME"), env::var_os("PATH"))
    }

    fn find_in(root: &Path, cuda_home: Option<OsString>, path: Option<OsString>) -> Result<Nvcc, Error> {
        let root = fs::canonicalize(root).map_err(Error::io(root))?;
        let mut candidates = Vec::new();
        let mut looked = Vec::new();
        match cuda_home.filter(|home| !home.is_empty()) {
            Some(home) => candidates.push(("CUDA_HOME", Path::new(&home).join("bin/nvcc"))),
            None => looked.push("CUDA_HOME is not set".to_owned()),
        }
        let path = path.unwrap_or_default();
        match env::split_paths(&path).map(|folder| folder.join("nvcc")).find(|nvcc| nvcc.is_file()) {
            Some(nvcc) => candidates.push(("PATH", nvcc)),
            None => looked.push("PATH has no nvcc".to_owned()),
        }
        candidates.push(("tools/setup-cuda", root.join(PROJECT_TOOLKIT).join("bin/nvcc")));
        for (found_by, path) in candidates {
            match version(&path) {
                Ok((release, version)) if release >= OLDEST => return Ok(Nvcc { path, version, found_by, root }),
                Ok((_, version)) => looked.push(format!("{} ({found_by}) is of CUDA {version}", path.display())),
                Err(reason) => {
                    looked.push(format!("{} ({found_by}) {reason}", path.strip_prefix(&root).unwrap_or(&path).display()))
                }
            }
        }
        Err(Error::NoNvcc { looked })
    }

    /// The program.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The full version: "13.0.88".
    pub fn version(&self) -> &str {
        &self.version
    }

    /// What led to it: "CUDA_HOME", "PATH" or "tools/setup-cuda".
    pub fn found_by(&self) -> &'static str {
        self.found_by
    }

    /// The root of the workspace, without symbolic links.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Compiles `source` (absolute, or relative to the root) for `arch` ("sm_80") and writes the PTX to `out`. The PTX is the same in
    /// whatever folder the workspace lies: `.file` lines read `kernels/gemm/gemm_nt.cu` and `cuda/include/cuda_fp16.hpp`.
    ///
    /// # Errors
    /// [`Error::Compile`] with what nvcc says.
    pub fn ptx(&self, source: &Path, arch: &str, out: &Path) -> Result<Ptx, Error> {
        let source = source.strip_prefix(&self.root).unwrap_or(source);
        let out = std::path::absolute(out).map_err(Error::io(out))?;
        let rules = out.with_extension("d");
        let mut command = Command::new(&self.path);
        command.args(FLAGS).arg(format!("-arch={}", arch.replace("sm_", "compute_")));
        command.arg("-MD").arg("-MF").arg(&rules).arg("-o").arg(&out).arg(source);
        let warnings = self.run(&mut command, source, arch)?;

        let text = fs::read_to_string(&out).map_err(Error::io(&out))?;
        let text = ptx::portable(&text, &self.root, &self.toolkits());
        fs::write(&out, text).map_err(Error::io(&out))?;
        let listed = fs::read_to_string(&rules).map_err(Error::io(&rules))?;
        fs::remove_file(&rules).map_err(Error::io(&rules))?;
        Ok(Ptx { sources: self.own_files(&listed, source), warnings })
    }

    /// Assembles a PTX file for `arch` ("sm_80") and writes the cubin to `out`.
    ///
    /// # Errors
    /// [`Error::Compile`] with what ptxas says; [`Error::Resources`] if its report has another form than expected.
    pub fn cubin(&self, ptx: &Path, arch: &str, out: &Path) -> Result<Cubin, Error> {
        let ptx = std::path::absolute(ptx).map_err(Error::io(ptx))?;
        let out = std::path::absolute(out).map_err(Error::io(out))?;
        let mut command = Command::new(self.ptxas());
        command.args(["-v", "-lineinfo"]).arg(format!("-arch={arch}")).arg(&ptx).arg("-o").arg(&out);
        let output = self.run(&mut command, &ptx, arch)?;
        let mut entries = ptxas::entries(&output)?;
        let text = fs::read_to_string(&ptx).map_err(Error::io(&ptx))?;
        let bounds = ptx::launch_bounds(&text);
        for entry in &mut entries {
            entry.max_threads = bounds.get(entry.name.as_str()).copied();
        }
        Ok(Cubin { entries, warnings: ptxas::warnings(&output) })
    }

    /// Runs a tool in the root; returns what it wrote besides its result.
    fn run(&self, command: &mut Command, source: &Path, arch: &str) -> Result<String, Error> {
        // What the user's shell adds to other projects' compilations has no place in these.
        command.env_remove("NVCC_PREPEND_FLAGS").env_remove("NVCC_APPEND_FLAGS").current_dir(&self.root);
        let output = command.output().map_err(Error::io(Path::new(command.get_program())))?;
        let mut text = String::from_utf8_lossy(&output.stderr).into_owned();
        text.push_str(&String::from_utf8_lossy(&output.stdout));
        if output.status.success() {
            return Ok(text);
        }
        if text.contains("host compiler") || text.contains("cc1plus") || text.contains("gcc: not found") {
            text.push_str("\nnvcc needs a C++ compiler beside it: install g++ (Debian and Ubuntu), gcc-c++ (Fedora, RHEL)");
        }
        if text.trim().is_empty() {
            text = format!("{} ended with {}", command.get_program().display(), output.status);
        }
        Err(Error::Compile { source: source.to_owned(), arch: arch.to_owned(), output: text })
    }

    /// nvcc may be a symbolic link; ptxas lies beside the link or beside its target.
    fn ptxas(&self) -> PathBuf {
        self.homes()
            .iter()
            .map(|home| home.join("bin/ptxas"))
            .find(|ptxas| ptxas.is_file())
            .unwrap_or_else(|| PathBuf::from("ptxas"))
    }

    /// The toolkit's folder, as it was named and without symbolic links.
    fn homes(&self) -> Vec<PathBuf> {
        let real = fs::canonicalize(&self.path).ok();
        let programs = [Some(self.path.clone()), real];
        programs.iter().flatten().filter_map(|nvcc| nvcc.parent()?.parent().map(Path::to_owned)).collect()
    }

    fn toolkits(&self) -> Vec<String> {
        self.homes().iter().map(|home| ptx::normal(&home.to_string_lossy())).collect()
    }

    /// The files of a make rule that belong to the project: all that are named relative to the root, or lie in the source's folder.
    fn own_files(&self, rules: &str, source: &Path) -> Vec<PathBuf> {
        let toolkits = self.toolkits();
        let folder = source.parent().filter(|_| source.is_absolute());
        let own = |file: &PathBuf| {
            let of_toolkit = toolkits.iter().any(|home| file.starts_with(home));
            !of_toolkit
                && (file.is_relative() || file.starts_with(&self.root) || folder.is_some_and(|folder| file.starts_with(folder)))
        };
        prerequisites(rules).into_iter().map(|file| ptx::normal(&file.to_string_lossy()).into()).filter(own).collect()
    }
}

/// Release and full version of an nvcc, or a phrase that says why not.
fn version(nvcc: &Path) -> Result<((u32, u32), String), String> {
    if !nvcc.is_file() {
        return Err("is not there".to_owned());
    }
    let output = Command::new(nvcc).arg("--version").output().map_err(|e| format!("does not run ({e})"))?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(&text).ok_or_else(|| "does not tell its version".to_owned())
}

/// From "Cuda compilation tools, release 13.0, V13.0.88".
fn parse_version(text: &str) -> Option<((u32, u32), String)> {
    let (_, version) = text.lines().find_map(|line| line.split_once(", V").filter(|_| line.contains("release ")))?;
    let mut numbers = version.trim().split('.').map(str::parse);
    let release = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    Some((release, version.trim().to_owned()))
}

/// The files to the right of the colon of a make rule, in which spaces of a name are written `\ `.
fn prerequisites(rules: &str) -> Vec<PathBuf> {
    let joined = rules.replace("\\\r\n", " ").replace("\\\n", " ");
    let files = joined.split_once(" : ").or_else(|| joined.split_once(": ")).map_or("", |(_, files)| files);
    let protected = files.replace("\\ ", "\0");
    protected.split_whitespace().map(|file| PathBuf::from(file.replace('\0', " "))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        let text = "nvcc: NVIDIA (R) Cuda compiler driver\nBuilt on Wed_Aug_20\nCuda compilation tools, release 13.0, V13.0.88\n";
        assert_eq!(parse_version(text), Some(((13, 0), "13.0.88".to_owned())));
        assert_eq!(parse_version("nvcc: command not found"), None);
        assert!((12, 9) < OLDEST && (13, 2) > OLDEST && (14, 0) > OLDEST);
    }

    #[test]
    fn make_rules() {
        let rules = "a.ptx : kernels/norm/b.cu \\\n    /usr/include/stdc-predef.h \\\n    kernels/sub\\ dir/q#.cuh \\\n    kernels/common.cuh\n";
        let expected = ["kernels/norm/b.cu", "/usr/include/stdc-predef.h", "kernels/sub dir/q#.cuh", "kernels/common.cuh"];
        assert_eq!(prerequisites(rules), expected.map(PathBuf::from));
        assert_eq!(prerequisites(""), Vec::<PathBuf>::new());
    }

    #[test]
    fn says_where_it_looked() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let expected = "no nvcc of CUDA 13.0 or later was found: CUDA_HOME is not set, PATH has no nvcc, .cuda/bin/nvcc (tools/setup-cuda) \
                        is not there; run tools/setup-cuda, then build again";
        for (cuda_home, path) in [(None, None), (None, Some("/nonexistent")), (Some(""), Some(""))] {
            let error = Nvcc::find_in(root, cuda_home.map(OsString::from), path.map(OsString::from)).unwrap_err().to_string();
            assert_eq!(error, expected, "{cuda_home:?} {path:?}");
        }
        let error = Nvcc::find_in(root, Some("/nonexistent".into()), None).unwrap_err().to_string();
        assert!(error.contains("/nonexistent/bin/nvcc (CUDA_HOME) is not there"), "{error}");
    }
}
