//! Weights as a GPU wants them, kept in a file: a model is converted once on a machine, and not at every start of every worker. The file is
//! mapped, so workers share its pages in the system's cache, and a buffer of the GPU is filled from it by copying alone.
//!
//! There is one file for each component (its folder and the part of it that is used) and storage type, a safetensors file:
//!
//! ```text
//! <cache>/packed/unet-0123456789abcdef.f16.safetensors
//!   header          padded to a length that was set aside before the data was written, which is when its entries are known
//!     __metadata__  identity    what the data was made of and how: see `identity`
//!                   source      folder of the component; without it the file is removed, in time
//!                   crc32 NAME  checksum of a buffer
//!     NAME          type, shape and place of a buffer: "conv_in.weight rows", the first tensor it is made of and what was done with it
//!   data            the buffers as they lie in the GPU's memory, in the order in which the model asks for them
//! ```
//!
//! **Never stale.** The identity covers version of program and packing, storage type, size, times and inode of every weight file (taken from
//! the open file before it is read, and compared again before what was made of it is kept), `config.json`, and all names and shapes that
//! the model asks for. Hashing the weights would be safer still, but costs as much as packing them. A file of another identity is replaced.
//!
//! **Never wrong.** The header is checked against the length of the file (so a truncated one is not taken), each buffer against type, shape
//! and checksum when it is asked for. What fails is made from the checkpoint, and the file is replaced or removed. Because of the
//! checksums nothing is synced to the disk: a file that a power cut tore is noticed.
//!
//! **Many at once.** The first to lock `.NAME.lock` writes, under a temporary name that becomes NAME when all is there; others go on without.
//! A file in use is replaced, never written to.
//!
//! **One machine.** Machines that share the folder, but have copies of a model under the same path, would replace each other's file at every
//! start: give each a folder of its own. What tells machines apart tells containers apart too, so it is not part of the name.
//!
//! **Nobody else's.** A model that is not there any more leaves a file behind, which a later load removes once nobody used it for a week. The
//! folder may be anybody's: only files with such a name and header are counted, and removed.
//!
//! `SYNTIC_PACKED` is the folder, or `off`; else it is `packed` in the folder of [`builtin`](super::builtin). It can be removed at any time. Where
//! it cannot be written the model is loaded all the same, and [`Packing::problem`] says why.

#[cfg(test)]
mod tests;

use super::file::WeightFile;
use super::{Checkpoint, NamedShapes, builtin};
use crate::files::{remove_if_there, sha256_hex, temporary_path};
use crate::tensor::{DType, PackedLayout, PackedStore};
use crate::{Error, Result, VERSION};
use safetensors::tensor::Dtype;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

/// Bytes of the header set aside for each tensor of the checkpoint: a layer may make three buffers of one, each named
/// twice, by a hundred bytes.
const HEADER_ROOM: usize = 2048;

/// Bytes of the file handed out before the pages already read are given back to the system.
const RELEASE_EVERY: usize = 64 << 20;

/// A source is not trusted to get another time when it changes until this long after it did: the coarsest file systems count in 2 seconds.
const TICK: Duration = Duration::from_secs(2);

/// Time without use after which the packed weights of a model that is not there are removed: it may be on a disk that will be back, or
/// another machine's.
const ORPHAN_AGE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A use is noted, as the time of the file, when the last note is this old.
const USE_NOTED_EVERY: Duration = Duration::from_secs(24 * 3600);

/// What became of the packed weights of a component.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packing {
    /// Buffers that were there already.
    pub taken: usize,
    /// Buffers that were made from the checkpoint.
    pub made: usize,
    /// Why what was made is not there for the next load, where that can be helped.
    pub problem: Option<String>,
}

/// Where packed weights are kept, and what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PackedFolder {
    /// The folder; none if `SYNTIC_PACKED` is `off`, or there is no place for it.
    pub folder: Option<PathBuf>,
    /// Files of packed weights in it, half-written ones included.
    pub files: usize,
    /// Their size in bytes.
    pub bytes: u64,
}

/// The folder of packed weights. Reads names and sizes, and writes nothing.
pub fn packed_weights() -> PackedFolder {
    let Some(folder) = folder().ok().flatten() else { return PackedFolder::default() };
    let files = kept_files(&folder).chain(half_written(&folder).map(|(_, path)| path));
    let sizes: Vec<u64> = files.filter_map(|path| Some(path.metadata().ok()?.len())).collect();
    PackedFolder { folder: Some(folder), files: sizes.len(), bytes: sizes.iter().sum() }
}

/// The folder of packed weights; none if there shall not be one.
///
/// # Errors
/// [`Error::Usage`] if there is no place for it.
pub(super) fn folder() -> Result<Option<PathBuf>> {
    folder_of(|name| std::env::var_os(name))
}

fn folder_of(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<PathBuf>> {
    match variable("SYNTIC_PACKED").filter(|value| !value.is_empty()) {
        Some(value) if value == "off" => Ok(None),
        Some(value) => Ok(Some(value.into())),
        None => Ok(Some(builtin::cache_folder(variable)?.join("packed"))),
    }
}

/// The packed weights of one load: those of a file, or those that are made now and will be one.
#[derive(Debug)]
pub(super) struct PackedWeights {
    kept: Option<Kept>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    packing: Packing,
    writer: Option<Writer>,
    /// Names asked for.
    names: HashSet<String>,
    /// A name that was asked for twice.
    repeated: Option<String>,
    /// A buffer of the file was not what it should be.
    damaged: bool,
    /// Bytes handed out since pages were given back.
    pending: usize,
}

impl PackedWeights {
    /// What is kept in `folder` of the buffers that a model makes of the checkpoint, from which it asks for `declared`.
    pub fn open(folder: Result<PathBuf>, checkpoint: &Checkpoint, layout: PackedLayout, declared: &NamedShapes) -> PackedWeights {
        let (kept, writer) = match folder.and_then(|folder| find_or_begin(&folder, checkpoint, layout, declared)) {
            Ok((kept, writer)) => (kept, Ok(writer)),
            Err(error) => (None, Err(error)),
        };
        let mut state = State::default();
        match writer {
            Ok(writer) => state.writer = writer,
            Err(error) => state.fail(&error),
        }
        PackedWeights { kept, state: Mutex::new(state) }
    }

    /// Ends the load: gives what was made its name.
    ///
    /// # Errors
    /// [`Error::Internal`] if two buffers have one name.
    pub fn finish(self, checkpoint: &Checkpoint) -> Result<Packing> {
        let mut state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        if let Some(name) = state.repeated {
            return Err(Error::Internal { op: "packed weights", message: format!("two buffers are kept as `{name}`") });
        }
        if let Some(kept) = self.kept.filter(|_| state.damaged) {
            let removed = remove_if_there(kept.file.path());
            let what = format!("{} was damaged; the next load makes it again", kept.file.path().display());
            state.packing.problem = Some(match removed {
                Ok(()) => what,
                Err(error) => format!("{what}, but: {error}"),
            });
        }
        if let Some(writer) = state.writer.take().filter(|_| checkpoint.is_unchanged(TICK))
            && let Err(error) = writer.finish()
        {
            state.fail(&error);
        }
        Ok(state.packing)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Goes on without keeping anything.
    fn fail(&mut self, error: &Error) {
        self.writer = None;
        let advice = match error {
            Error::Usage { hint, .. } if !hint.is_empty() => hint,
            _ => "set SYNTIC_PACKED to a folder of a local disk that can be written, or to `off`",
        };
        self.packing.problem = Some(format!("packed weights are not kept for the next start: {error}; {advice}"));
    }
}

impl PackedStore for PackedWeights {
    fn find(&self, name: &str, dtype: DType, shape: &[usize]) -> Option<&[u8]> {
        let mut state = self.state();
        if !state.names.insert(name.to_string()) {
            state.repeated.get_or_insert(name.to_string());
        }
        let kept = self.kept.as_ref()?;
        let Some(bytes) = kept.find(name, dtype, shape) else {
            state.damaged = true;
            return None;
        };
        state.packing.taken += 1;
        state.pending += bytes.len();
        if state.pending > RELEASE_EVERY {
            kept.file.release();
            state.pending = 0;
        }
        Some(bytes)
    }

    fn begin(&self, name: &str, dtype: DType, shape: &[usize]) {
        let mut state = self.state();
        state.packing.made += 1;
        if let Some(Err(error)) = state.writer.as_mut().map(|writer| writer.begin(name, dtype, shape)) {
            state.fail(&error);
        }
    }

    fn append(&self, bytes: &[u8]) {
        let mut state = self.state();
        if let Some(Err(error)) = state.writer.as_mut().map(|writer| writer.append(bytes)) {
            state.fail(&error);
        }
    }
}

/// The file with what is wanted, or else its writer; neither if another process writes it right now.
fn find_or_begin(
    folder: &Path,
    checkpoint: &Checkpoint,
    layout: PackedLayout,
    declared: &NamedShapes,
) -> Result<(Option<Kept>, Option<Writer>)> {
    let source = checkpoint.folder().canonicalize().map_err(Error::io("find", checkpoint.folder()))?;
    let identity = identity(checkpoint, layout, declared)?;
    let path = folder.join(file_name(checkpoint, &source, layout.storage));
    if let Some(kept) = Kept::open(&path, &identity) {
        note_use(&path);
        return Ok((Some(kept), None));
    }
    if let Some(path) = checkpoint.newer_than_now() {
        return Err(Error::usage(
            format!("the time of {} is in the future, so a change of it could go unnoticed", path.display()),
            "`touch` the file if the clock is right",
        ));
    }
    fs::create_dir_all(folder).map_err(Error::io("create folder", folder))?;
    let Some(lock) = try_lock(&lock_path(&path))? else { return Ok((None, None)) };
    match Kept::open(&path, &identity) {
        Some(kept) => Ok((Some(kept), None)), // another worker was at it until now
        None => Ok((None, Some(Writer::create(path, lock, &identity, &source, declared.len())?))),
    }
}

/// Which file the packed weights of a checkpoint are in: one for each part of a folder that models are made of, and type.
fn file_name(checkpoint: &Checkpoint, source: &Path, storage: DType) -> String {
    let mut text = format!("{}\n", source.display());
    checkpoint.paths().for_each(|path| text += &format!("{}\n", path.file_name().unwrap_or_default().display()));
    checkpoint.skipped().iter().for_each(|prefix| text += &format!("without {prefix}\n"));
    let component = source.file_name().unwrap_or_default().display();
    format!("{component}-{}.{storage}.safetensors", &sha256_hex(text.as_bytes())[..16])
}

/// SHA-256 over everything that decides the buffers, in hexadecimal.
fn identity(checkpoint: &Checkpoint, layout: PackedLayout, declared: &NamedShapes) -> Result<String> {
    let mut text = format!("syntic {VERSION} packing {} {}\n", layout.version, layout.storage);
    for (path, stamp) in checkpoint.stamps() {
        text += &format!("{} {stamp:?}\n", path.file_name().unwrap_or_default().display());
    }
    let config = checkpoint.folder().join("config.json");
    if config.exists() {
        text += &super::file_sha256(&config)?;
    }
    declared.iter().for_each(|(name, shape)| text += &format!("\n{name} {shape:?}"));
    Ok(sha256_hex(text.as_bytes()))
}

/// True for names that [`file_name`] gives.
fn is_kept_name(name: &str) -> bool {
    let storage = |rest: &str| [DType::F16, DType::BF16, DType::F32].iter().any(|dtype| rest == format!("{dtype}.safetensors"));
    let Some((component, (hash, rest))) =
        name.rsplit_once('-').and_then(|(component, rest)| Some((component, rest.split_once('.')?)))
    else {
        return false;
    };
    !component.is_empty()
        && hash.len() == 16
        && hash.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        && storage(rest)
}

/// Sets the time of a file, from time to time; where that is not allowed it is not.
fn note_use(path: &Path) {
    if age(path).is_some_and(|age| age > USE_NOTED_EVERY) {
        _ = File::options().append(true).open(path).and_then(|file| file.set_modified(SystemTime::now()));
    }
}

/// Time since a file was written, or its use noted.
fn age(path: &Path) -> Option<Duration> {
    path.metadata().ok()?.modified().ok()?.elapsed().ok()
}

/// The file that whoever writes `path` has locked.
fn lock_path(path: &Path) -> PathBuf {
    temporary_path(path).with_extension("lock")
}

/// The lock of a file that is about to be written; none if somebody else has it.
fn try_lock(path: &Path) -> Result<Option<File>> {
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(path).map_err(Error::io("create", path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(source)) => Err(Error::Io { action: "lock", path: path.to_path_buf(), source }),
    }
}

/// A file of packed weights whose header is sound.
#[derive(Debug)]
struct Kept {
    file: WeightFile,
    /// Name of a buffer -> its entry.
    entries: HashMap<String, usize>,
    metadata: HashMap<String, String>,
}

impl Kept {
    /// The file at `path`, if it is one and of this identity.
    fn open(path: &Path, identity: &str) -> Option<Kept> {
        let file = WeightFile::open(path).ok()?;
        let metadata = file.metadata();
        if metadata.get("identity").is_none_or(|found| found != identity) {
            return None;
        }
        let entries = file.entries().iter().enumerate().map(|(i, entry)| (entry.key.clone(), i)).collect();
        Some(Kept { file, entries, metadata })
    }

    /// The bytes of a buffer, if they are there and whole.
    fn find(&self, name: &str, dtype: DType, shape: &[usize]) -> Option<&[u8]> {
        let entry = &self.file.entries()[*self.entries.get(name)?];
        let bytes = self.file.bytes(entry);
        let expected = self.metadata.get(&checksum_key(name))?;
        (entry.dtype == stored_as(dtype) && entry.shape == shape && *expected == checksum(crc32fast::hash(bytes)))
            .then_some(bytes)
    }
}

fn checksum_key(name: &str) -> String {
    format!("crc32 {name}")
}

fn checksum(crc32: u32) -> String {
    format!("{crc32:08x}")
}

fn stored_as(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F16 => Dtype::F16,
        DType::BF16 => Dtype::BF16,
        DType::U8 => Dtype::U8,
        DType::U32 => Dtype::U32,
    }
}

/// A file of packed weights that is being written. It vanishes if it is not finished.
#[derive(Debug)]
struct Writer {
    path: PathBuf,
    temporary: PathBuf,
    file: BufWriter<File>,
    /// Held until the file has its name, or is gone.
    _lock: File,
    /// Bytes for the header, its length included.
    room: usize,
    entries: Map<String, Value>,
    metadata: Map<String, Value>,
    /// Bytes of data so far.
    written: usize,
    /// The buffer that was begun last.
    last: Option<(String, crc32fast::Hasher)>,
}

impl Writer {
    fn create(path: PathBuf, lock: File, identity: &str, source: &Path, tensors: usize) -> Result<Writer> {
        let temporary = temporary_path(&path);
        remove_if_there(&temporary)?; // of a process that was killed
        let file = OpenOptions::new().write(true).create_new(true).open(&temporary).map_err(Error::io("create", &temporary))?;
        let metadata =
            json!({"identity": identity, "source": source.to_str().unwrap_or_default(), "made_by": format!("syntic {VERSION}")});
        let mut writer = Writer {
            path,
            temporary,
            file: BufWriter::new(file),
            _lock: lock,
            room: (tensors + 8) * HEADER_ROOM,
            entries: Map::new(),
            metadata: metadata.as_object().cloned().unwrap_or_default(),
            written: 0,
            last: None,
        };
        writer.seek(writer.room)?;
        Ok(writer)
    }

    fn seek(&mut self, to: usize) -> Result<()> {
        self.file.seek(SeekFrom::Start(to as u64)).map(drop).map_err(Error::io("write", &self.temporary))
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.file.write_all(bytes).map_err(Error::io("write", &self.temporary))
    }

    fn begin(&mut self, name: &str, dtype: DType, shape: &[usize]) -> Result<()> {
        // The format has no holes, and tensors start at multiples of their elements.
        let fill = self.written.next_multiple_of(dtype.size()) - self.written;
        if fill > 0 {
            self.begin_at(&format!("fill {}", self.written), Dtype::U8, &[fill], fill);
            self.append(&vec![0; fill])?;
        }
        let bytes = shape.iter().product::<usize>() * dtype.size();
        self.begin_at(name, stored_as(dtype), shape, bytes);
        Ok(())
    }

    fn begin_at(&mut self, name: &str, dtype: Dtype, shape: &[usize], bytes: usize) {
        self.end();
        let place = [self.written, self.written + bytes];
        self.entries.insert(name.into(), json!({"dtype": dtype.to_string(), "shape": shape, "data_offsets": place}));
        self.last = Some((name.into(), crc32fast::Hasher::new()));
    }

    fn append(&mut self, bytes: &[u8]) -> Result<()> {
        if let Some((_, crc32)) = &mut self.last {
            crc32.update(bytes);
        }
        self.written += bytes.len();
        self.write(bytes)
    }

    /// Notes the checksum of the last buffer.
    fn end(&mut self) {
        if let Some((name, crc32)) = self.last.take() {
            self.metadata.insert(checksum_key(&name), checksum(crc32.finalize()).into());
        }
    }

    /// Writes the header, and gives the file its name.
    fn finish(mut self) -> Result<()> {
        self.end();
        let mut header = Map::from_iter([("__metadata__".to_string(), Value::Object(std::mem::take(&mut self.metadata)))]);
        header.append(&mut self.entries);
        let text = Value::Object(header).to_string();
        let room = self.room - size_of::<u64>();
        if text.len() > room {
            let message = format!("a header of {} bytes in {room}", text.len());
            return Err(Error::Internal { op: "packed weights", message });
        }
        let mut text = text.into_bytes();
        text.resize(room, b' ');
        self.seek(0)?;
        self.write(&(room as u64).to_le_bytes())?;
        self.write(&text)?;
        self.file.flush().map_err(Error::io("write", &self.temporary))?;
        fs::rename(&self.temporary, &self.path).map_err(Error::io("rename to", &self.path))?;
        remove_orphans(&self.path);
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        _ = remove_if_there(&self.temporary); // gone already, if it was finished
    }
}

/// Removes from the folder of `kept` what nobody wants any more: packed weights that were not used for long, of models that are not there,
/// and what processes that were killed left half written.
fn remove_orphans(kept: &Path) {
    let Some(folder) = kept.parent() else { return };
    for path in kept_files(folder).filter(|path| age(path).is_some_and(|age| age > ORPHAN_AGE)) {
        let metadata = WeightFile::open(&path).map(|file| file.metadata()).unwrap_or_default();
        let ours = metadata.contains_key("identity") && metadata.get("made_by").is_some_and(|by| by.starts_with("syntic "));
        let source = metadata.get("source").filter(|source| !source.is_empty());
        if ours && source.is_some_and(|source| !Path::new(source).exists()) {
            _ = remove_if_there(&path);
        }
    }
    for (name, temporary) in half_written(folder) {
        // Whoever still writes it holds its lock.
        if let Ok(Some(_lock)) = try_lock(&lock_path(&folder.join(name))) {
            _ = remove_if_there(&temporary);
        }
    }
}

/// Files of packed weights in a folder, by their names.
fn kept_files(folder: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    names(folder).filter(|(name, _)| is_kept_name(name)).map(|(_, path)| path)
}

/// Files of packed weights that are being written, or were when their process was killed, with the names that they are to have.
fn half_written(folder: &Path) -> impl Iterator<Item = (String, PathBuf)> + use<> {
    names(folder).filter_map(|(name, path)| {
        let name = name.strip_prefix('.')?.strip_suffix(".tmp")?;
        is_kept_name(name).then(|| (name.to_string(), path))
    })
}

fn names(folder: &Path) -> impl Iterator<Item = (String, PathBuf)> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
}
