//! Compiles a folder of kernels, and again only what changed.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::SystemTime;

use crate::error::Error;
use crate::nvcc::{FLAGS, Nvcc};
use crate::ptxas::Entry;

/// The suffix of files for Hopper alone, and the one architecture that they are compiled for.
const HOPPER_ONLY: (&str, &str) = ("_sm90", "sm_90a");

/// What to compile.
#[derive(Clone, Debug)]
pub struct Folder<'a> {
    /// The folder with the `.cu` files, at any depth, and their headers; relative to the root of the workspace.
    pub kernels: &'a Path,
    /// "sm_80", ...; files whose name ends in `_sm90.cu` are compiled for sm_90a alone, if it is among these.
    pub archs: &'a [&'a str],
    /// Where results are kept, for all profiles and branches: `NAME.ARCH.ptx`, `NAME.ARCH.cubin`, and `NAME.ARCH.txt`, which tells
    /// what they were made from.
    pub cache: &'a Path,
    /// Compilations at a time.
    pub jobs: usize,
}

/// A `.cu` file, compiled for one architecture.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Its path in the folder without `.cu`: "gemm/gemm_nt".
    pub name: String,
    /// Its path from the root.
    pub source: PathBuf,
    /// "sm_80".
    pub arch: String,
    /// In the cache.
    pub ptx: PathBuf,
    /// In the cache, assembled from `ptx`.
    pub cubin: PathBuf,
    /// By name.
    pub entries: Vec<Entry>,
    /// Of nvcc and ptxas; empty if there are none.
    pub warnings: String,
    /// Whether nvcc ran: false if nothing had changed.
    pub compiled: bool,
}

/// Compiles every `.cu` file of the folder for every architecture. What was compiled before is taken from the cache if the sources
/// that were read, the flags and the version of nvcc are the same. Sorted by name, then in the order of `archs`.
///
/// While this runs, no other call with the same cache does. The lock ends with the returned file; copy the results before.
///
/// # Errors
/// What [`Nvcc::ptx`] and [`Nvcc::cubin`] say of the first file that fails, or an io error.
pub fn compile_folder(nvcc: &Nvcc, folder: &Folder) -> Result<(Vec<Kernel>, File), Error> {
    fs::create_dir_all(folder.cache).map_err(Error::io(folder.cache))?;
    let lock_path = folder.cache.join(".lock");
    let lock = File::create(&lock_path).map_err(Error::io(&lock_path))?;
    match lock.lock() {
        Err(error) if error.kind() != io::ErrorKind::Unsupported => return Err(Error::Io { path: lock_path, error }),
        _ => {}
    }

    let mut files = Vec::new();
    list(&nvcc.root().join(folder.kernels), &mut files)?;
    let relative = |file: &PathBuf| file.strip_prefix(nvcc.root()).unwrap_or(file).to_owned();
    let mut files: Vec<PathBuf> = files.iter().map(relative).collect();
    files.sort();
    let (sources, headers): (Vec<PathBuf>, Vec<PathBuf>) =
        files.into_iter().partition(|file| file.extension() == Some("cu".as_ref()));

    let plan: Vec<Job> = sources.iter().flat_map(|source| jobs(nvcc, folder, &headers, source)).collect();
    let kernels = in_parallel(&plan, folder.jobs)?;
    Ok((kernels, lock))
}

/// All files below a folder.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    for item in fs::read_dir(folder).map_err(Error::io(folder))? {
        let path = item.map_err(Error::io(folder))?.path();
        if path.is_dir() { list(&path, files)? } else { files.push(path) }
    }
    Ok(())
}

/// The compilations of one source.
fn jobs<'a>(nvcc: &'a Nvcc, folder: &Folder<'a>, headers: &'a [PathBuf], source: &'a Path) -> Vec<Job<'a>> {
    let name = source.strip_prefix(folder.kernels).unwrap_or(source).with_extension("").to_string_lossy().into_owned();
    let (suffix, only) = HOPPER_ONLY;
    let archs = folder.archs.iter().filter(|&&arch| !name.ends_with(suffix) || arch == only);
    let path = |arch: &str, kind: &str| folder.cache.join(format!("{name}.{arch}.{kind}"));
    let job = |&arch| Job {
        nvcc,
        headers,
        kernel: Kernel {
            name: name.clone(),
            source: source.to_owned(),
            arch: String::from(arch),
            ptx: path(arch, "ptx"),
            cubin: path(arch, "cubin"),
            entries: Vec::new(),
            warnings: String::new(),
            compiled: false,
        },
        record: path(arch, "txt"),
    };
    archs.map(job).collect()
}

fn in_parallel(plan: &[Job], threads: usize) -> Result<Vec<Kernel>, Error> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let results = Mutex::new(Vec::new());
    let work = || {
        while !failed.load(Ordering::Relaxed) {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(job) = plan.get(index) else { break };
            let result = job.run();
            failed.fetch_or(result.is_err(), Ordering::Relaxed);
            results.lock().unwrap_or_else(|e| e.into_inner()).push((index, result));
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads.clamp(1, plan.len().max(1)) {
            scope.spawn(work);
        }
    });
    let mut results = results.into_inner().unwrap_or_else(|e| e.into_inner());
    results.sort_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}

/// One compilation.
struct Job<'a> {
    nvcc: &'a Nvcc,
    headers: &'a [PathBuf],
    /// As yet without entries.
    kernel: Kernel,
    record: PathBuf,
}

impl Job<'_> {
    fn run(&self) -> Result<Kernel, Error> {
        match self.cached() {
            Some(kernel) => Ok(kernel),
            None => self.compile(),
        }
    }

    fn compile(&self) -> Result<Kernel, Error> {
        let kernel = &self.kernel;
        let folder = self.record.parent().unwrap_or(Path::new(""));
        fs::create_dir_all(folder).map_err(Error::io(folder))?;
        // Without its record, whatever lies there counts for nothing.
        match fs::remove_file(&self.record) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::Io { path: self.record.clone(), error }),
            _ => {}
        }
        let begun = SystemTime::now();
        let ptx = self.nvcc.ptx(&kernel.source, &kernel.arch, &kernel.ptx)?;
        let cubin = self.nvcc.cubin(&kernel.ptx, &kernel.arch, &kernel.cubin)?;
        let kernel =
            Kernel { entries: cubin.entries, warnings: ptx.warnings + &cubin.warnings, compiled: true, ..kernel.clone() };
        // What is edited meanwhile may have been read before or after: no record, so that it is compiled again.
        let edited = |source: &PathBuf| {
            fs::metadata(self.nvcc.root().join(source)).and_then(|data| data.modified()).is_ok_and(|at| at > begun)
        };
        if !ptx.sources.iter().any(edited) {
            let key = self.key(&ptx.sources).map_err(Error::io(&kernel.source))?;
            fs::write(&self.record, write_record(&key, &ptx.sources, &kernel)).map_err(Error::io(&self.record))?;
        }
        Ok(kernel)
    }

    fn cached(&self) -> Option<Kernel> {
        let text = fs::read_to_string(&self.record).ok()?;
        let mut kernel = self.kernel.clone();
        let (key, sources) = read_record(&text, &mut kernel)?;
        let present = kernel.ptx.is_file() && kernel.cubin.is_file();
        (present && self.key(&sources).ok()? == key).then_some(kernel)
    }

    /// Tells all that a result depends on. The names of all headers are part of it: one that is added may hide another.
    fn key(&self, sources: &[PathBuf]) -> io::Result<String> {
        let mut hasher = DefaultHasher::new();
        (env!("CARGO_PKG_VERSION"), self.nvcc.version(), FLAGS, &self.kernel.arch, self.headers).hash(&mut hasher);
        for source in sources {
            (source, fs::read(self.nvcc.root().join(source))?).hash(&mut hasher);
        }
        Ok(format!("{:016x}", hasher.finish()))
    }
}

/// A line for each fact: what it is, then its value.
fn write_record(key: &str, sources: &[PathBuf], kernel: &Kernel) -> String {
    let mut lines = vec![format!("key {key}")];
    lines.extend(sources.iter().map(|source| format!("source {}", source.display())));
    lines.extend(kernel.warnings.lines().map(|warning| format!("warning {warning}")));
    for e in &kernel.entries {
        let numbers =
            [e.registers, e.stack, e.spill_stores, e.spill_loads, e.static_shared, e.constant, e.max_threads.unwrap_or(0)];
        lines.push(format!("entry {} {}", e.name, numbers.map(|number| number.to_string()).join(" ")));
    }
    lines.join("\n") + "\n"
}

/// Fills the kernel; returns key and sources. None if it is not the text of a record.
fn read_record(text: &str, kernel: &mut Kernel) -> Option<(String, Vec<PathBuf>)> {
    let mut key = None;
    let mut sources = Vec::new();
    for line in text.lines() {
        let (what, value) = line.split_once(' ')?;
        match what {
            "key" => key = Some(value.to_owned()),
            "source" => sources.push(PathBuf::from(value)),
            "warning" => kernel.warnings.push_str(&format!("{value}\n")),
            "entry" => kernel.entries.push(read_entry(value)?),
            _ => return None,
        }
    }
    Some((key?, sources))
}

fn read_entry(text: &str) -> Option<Entry> {
    let (name, numbers) = text.split_once(' ')?;
    let numbers: Vec<u32> = numbers.split(' ').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let &[registers, stack, spill_stores, spill_loads, static_shared, constant, max_threads] = numbers.as_slice() else {
        return None;
    };
    let max_threads = (max_threads > 0).then_some(max_threads);
    Some(Entry { name: name.to_owned(), registers, stack, spill_stores, spill_loads, static_shared, constant, max_threads })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_back() {
        let empty = Kernel {
            name: "norm/a".into(),
            source: "kernels/norm/a.cu".into(),
            arch: "sm_80".into(),
            ptx: PathBuf::new(),
            cubin: PathBuf::new(),
            entries: Vec::new(),
            warnings: String::new(),
            compiled: false,
        };
        let entry = Entry {
            name: "a_forward_f16".into(),
            registers: 1,
            stack: 2,
            spill_stores: 3,
            spill_loads: 4,
            static_shared: 5,
            constant: 6,
            max_threads: Some(7),
        };
        let unbounded = Entry { name: "b".into(), max_threads: None, ..entry.clone() };
        let warnings = "kernels/norm/a.cu(5): warning #177-D: unused\n\n  int zz;\n".to_owned();
        let kernel = Kernel { entries: vec![entry, unbounded], warnings, ..empty.clone() };
        let sources = vec![PathBuf::from("kernels/norm/a.cu"), PathBuf::from("kernels/with space.cuh")];
        let mut back = empty.clone();
        let text = write_record("0123", &sources, &kernel);
        assert_eq!(read_record(&text, &mut back), Some(("0123".to_owned(), sources)));
        assert_eq!((back.entries, back.warnings), (kernel.entries, kernel.warnings));
        for broken in ["", "key", "key 1\nentry a 1 2", "key 1\nentry a 1 2 3 4 5 6 x", "nonsense"] {
            assert_eq!(read_record(broken, &mut empty.clone()), None, "{broken:?}");
        }
    }
}
