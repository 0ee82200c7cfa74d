//! What is kept is what would be made, whatever happened to the files.

use super::*;
use crate::clip::text::{TextConfig, TextEncoder};
use crate::clip::{ClipConfig, ClipModel};
use crate::device::{Buffer, Device, Gpu, Precision};
use crate::diffusion::unet::{Unet, UnetConfig};
use crate::diffusion::vae::{VaeConfig, VaeDecoder, VaeEncoder};
use crate::ops::gemm::packed_layout;
use crate::ops::testing::gpus;
use crate::weights::{Component, Loader, Naming, read_json, write_safetensors};
use std::cell::Cell;
use std::sync::Barrier;
use tempfile::TempDir;

/// A checkpoint of two tensors, and a folder for what is kept of it.
struct Fixture {
    component: TempDir,
    packed: TempDir,
}

/// The buffers of a load, how many rows of them were made, and what the load says.
#[derive(Debug, PartialEq)]
struct Loaded {
    values: Vec<f32>,
    rows: usize,
    packing: Packing,
}

const STORED: Packing = Packing { taken: 0, made: 2, problem: None };
const TAKEN: Packing = Packing { taken: 2, made: 0, problem: None };

/// Sets the time of a file back: what was written just now may be written again without a trace.
fn settle(path: &Path) {
    File::options().append(true).open(path).unwrap().set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
}

impl Fixture {
    fn new() -> Fixture {
        let fixture = Fixture { component: tempfile::tempdir().unwrap(), packed: tempfile::tempdir().unwrap() };
        fixture.write(1);
        fixture
    }

    fn write(&self, seed: u64) {
        // 15 elements, of two bytes on a GPU: what follows is not aligned.
        let tensors = [("a.weight".to_string(), vec![3, 5]), ("b.weight".to_string(), vec![7])];
        write_safetensors(&self.source(), &tensors, DType::F32, seed).unwrap();
        settle(&self.source());
    }

    fn source(&self) -> PathBuf {
        self.component.path().join("model.safetensors")
    }

    fn load(&self, device: &Device) -> Loaded {
        self.load_in(device, Ok(self.packed.path().to_path_buf()))
    }

    fn load_in(&self, device: &Device, folder: Result<PathBuf>) -> Loaded {
        let checkpoint = Checkpoint::open(self.component.path(), Component::TextEncoder).unwrap();
        let rows = Cell::new(0);
        let packed = packed_layout(device).map(|layout| (layout, folder));
        let ((a, b), packing) = checkpoint.load_packed_in(packed, |loader| two(loader, device, &rows)).unwrap();
        let mut values = vec![f32::NAN; 22];
        a.read_f32(0, &mut values[..15]).unwrap();
        b.read_f32(0, &mut values[15..]).unwrap();
        Loaded { values, rows: rows.get(), packing }
    }

    /// Names in the folder of what is kept: of files, or of everything else.
    fn names(&self, files: bool) -> Vec<String> {
        let entries = fs::read_dir(self.packed.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.ends_with(".safetensors") == files).collect()
    }

    /// The one file.
    fn kept(&self) -> PathBuf {
        let names = self.names(true);
        assert_eq!(names.len(), 1, "{names:?}");
        self.packed.path().join(&names[0])
    }
}

/// A model of two buffers; the rows of one are turned round, and counted as they are made.
fn two(loader: &Loader<'_>, device: &Device, rows: &Cell<usize>) -> Result<(Buffer, Buffer)> {
    let (a, b) = (loader.tensor("a.weight", &[3, 5]), loader.tensor("b.weight", &[7]));
    let turned = Buffer::from_rows(device, a.keep("turned"), [3, 5], device.storage(), |i, row| {
        rows.set(rows.get() + usize::from(!a.is_declared()));
        a.copy_f32(5 * i, row);
        row.reverse();
    })?;
    Ok((turned, Buffer::of(device, &b, DType::F32)?))
}

fn sim() -> Device {
    Device::Gpu(Gpu::sim(DType::F16, 1).unwrap())
}

#[test]
fn a_second_load_makes_nothing_and_has_the_same_bits() {
    for device in gpus() {
        let fixture = Fixture::new();
        let plain = fixture.load_in(&device, Err(Error::usage("nowhere", "")));
        let stored = fixture.load(&device);
        assert_eq!(stored, Loaded { packing: STORED, values: plain.values, rows: 3 });
        let taken = fixture.load(&device);
        assert_eq!(taken, Loaded { packing: TAKEN, rows: 0, values: stored.values });
        assert!(fixture.kept().to_string_lossy().ends_with(&format!(".{}.safetensors", device.storage())));
    }
}

#[test]
fn a_cpu_keeps_nothing() {
    assert_eq!(packed_layout(&Device::cpu(1).unwrap()), None);
}

/// Loads a network of the built-in model twice, and returns the name and checksum of each of its buffers.
fn keep_network(
    folder: &str,
    naming: Naming,
    skips: &[&str],
    packed: &Path,
    new: &dyn Fn(&Device, &Path, &Loader<'_>) -> Result<()>,
) -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/weights/assets/builtin").join(folder);
    let config = folder.join("config.json");
    let checkpoint = || Checkpoint::open(&folder, naming).unwrap().skip(skips);
    let load = || {
        let Device::Gpu(gpu) = &sim() else { panic!() };
        let device = Device::Gpu(gpu.clone());
        new(&device, &config, &Loader::declare()).unwrap();
        let declared = gpu.allocations(); // of layers that take their memory even so
        let packed = packed_layout(&device).map(|layout| (layout, Ok(packed.to_path_buf())));
        let (_, packing) = checkpoint().load_packed_in(packed, |loader| new(&device, &config, loader)).unwrap();
        (packing, gpu.allocations() - 2 * declared)
    };
    let (stored, buffers) = load();
    assert_eq!(stored, Packing { taken: 0, made: buffers, problem: None }, "{}", folder.display());
    assert_eq!(load(), (Packing { taken: buffers, made: 0, problem: None }, buffers), "{}", folder.display());
    let path = packed.join(file_name(&checkpoint(), &folder.canonicalize().unwrap(), DType::F16));
    let file = WeightFile::open(&path).unwrap();
    let sums: Vec<String> =
        file.metadata().into_iter().filter(|(key, _)| key.starts_with("crc32 ")).map(|(k, v)| k + &v).collect();
    assert!(sums.len() >= buffers && buffers > 10, "{sums:?}");
    sums
}

/// Every buffer of every network goes through the file, and has the bytes that it had when this version was given to their layout.
#[test]
fn all_buffers_are_kept_and_the_same_in_one_version() {
    let packed = tempfile::tempdir().unwrap();
    let f32s = Precision::F32;
    let vae = |path: &Path| VaeConfig::parse(path, &read_json(path)?);
    let networks = [
        keep_network("text_encoder", Component::TextEncoder.naming(), &[], packed.path(), &|device, path, loader| {
            TextEncoder::new(TextConfig::parse(path, &read_json(path)?)?, device, loader).map(drop)
        }),
        keep_network("unet", Component::Unet.naming(), &[], packed.path(), &|device, path, loader| {
            Unet::new(UnetConfig::parse(path, &read_json(path)?)?, device, f32s, loader).map(drop)
        }),
        // Halves of one checkpoint, each with a file of its own.
        keep_network("vae", Component::Vae.naming(), &["encoder.", "quant_conv."], packed.path(), &|device, path, loader| {
            VaeDecoder::new(vae(path)?, device, f32s, loader).map(drop)
        }),
        keep_network(
            "vae",
            Component::Vae.naming(),
            &["decoder.", "post_quant_conv."],
            packed.path(),
            &|device, path, loader| VaeEncoder::new(vae(path)?, device, f32s, loader).map(drop),
        ),
        keep_network("clip", Naming::CLIP, &[], packed.path(), &|device, path, loader| {
            ClipModel::new(ClipConfig::parse(path, &read_json(path)?)?, device, loader).map(drop)
        }),
    ];
    assert_eq!(kept_files(packed.path()).count(), networks.len());
    let mut sums = networks.concat();
    sums.sort();
    let found = (packed_layout(&sim()).unwrap().version, &sha256_hex(sums.concat().as_bytes())[..16]);
    assert_eq!(
        found,
        (1, "98e46646f571cfd9"),
        "weights are packed otherwise: count LAYOUT up, where they are, and put the hash here"
    );
}

#[test]
fn a_changed_source_is_noticed_and_its_file_replaced() {
    let (fixture, device) = (Fixture::new(), sim());
    let first = fixture.load(&device);
    // As long, and as old.
    let time = fixture.source().metadata().unwrap().modified().unwrap();
    fixture.write(2);
    File::options().append(true).open(fixture.source()).unwrap().set_modified(time).unwrap();
    let second = fixture.load(&device);
    assert_eq!(second.packing, STORED);
    assert_ne!(second.values, first.values);
    assert_eq!(fixture.load(&device).packing, TAKEN);
    // In place.
    let mut bytes = fs::read(fixture.source()).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 0x80; // the sign
    fs::write(fixture.source(), bytes).unwrap();
    settle(&fixture.source());
    let third = fixture.load(&device);
    assert_eq!((third.packing, third.values[21]), (STORED, -second.values[21]));
    for config in ["{}", "{ }"] {
        fs::write(fixture.component.path().join("config.json"), config).unwrap();
        assert_eq!((fixture.load(&device).packing, fixture.load(&device).packing), (STORED, TAKEN), "{config}");
    }
    fixture.kept(); // one, still
}

/// What another version of the program, or another model of the same files, made is not taken.
#[test]
fn other_packings_are_not_taken() {
    let (fixture, device) = (Fixture::new(), sim());
    fixture.load(&device);
    let checkpoint = Checkpoint::open(fixture.component.path(), Component::TextEncoder).unwrap();
    let layout = packed_layout(&device).unwrap();
    let declared = |names: [&str; 2], width| vec![(names[0].into(), vec![3, 5]), (names[1].into(), vec![width])];
    let same = declared(["a.weight", "b.weight"], 7);
    let identity = |layout, declared: &NamedShapes| identity(&checkpoint, layout, declared).unwrap();
    let kept = |identity: &str| Kept::open(&fixture.kept(), identity).is_some();
    assert!(kept(&identity(layout, &same)));
    assert!(!kept(&identity(PackedLayout { version: layout.version + 1, ..layout }, &same)));
    assert!(!kept(&identity(PackedLayout { storage: DType::BF16, ..layout }, &same)));
    for other in
        [declared(["a.weight", "c.weight"], 7), declared(["b.weight", "a.weight"], 7), declared(["a.weight", "b.weight"], 8)]
    {
        assert!(!kept(&identity(layout, &other)), "{other:?}");
    }
}

/// Any bit of the file, and any length: the model is the same, and the load after the next is served again.
#[test]
fn damage_is_noticed_and_mended() {
    let (fixture, device) = (Fixture::new(), sim());
    let expected = fixture.load(&device).values;
    let path = fixture.kept();
    let whole = fs::read(&path).unwrap();
    let header = 8 + u64::from_le_bytes(*whole.first_chunk().unwrap()) as usize;
    let text = whole[..header].iter().rposition(|&byte| byte != b' ').unwrap();
    let mut noticed = 0;
    let check = |bytes: &[u8], what: &str| {
        fs::write(&path, bytes).unwrap();
        let damaged = fixture.load(&device);
        assert!(damaged.values == expected, "{what}: {damaged:?}");
        fixture.load(&device);
        assert_eq!(fixture.load(&device), Loaded { values: expected.clone(), rows: 0, packing: TAKEN }, "{what}");
        damaged.packing
    };
    let fill = header + 30..header + 32; // nobody reads it
    for at in (0..text + 2).chain(header..whole.len()).filter(|at| !fill.contains(at)) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        let packing = check(&bytes, &format!("byte {at}"));
        noticed += usize::from(at < header && packing != TAKEN);
        assert!(at < header || packing.problem.is_some_and(|problem| problem.contains("damaged")), "byte {at} of the data");
    }
    // All but the texts that only people read.
    assert!(noticed > text * 2 / 3, "{noticed} of {text}");
    for len in [0, 7, 8, text / 2, header - 1, header, header + 1, whole.len() - 1] {
        assert_ne!(check(&whole[..len], &format!("{len} bytes")), TAKEN);
    }
    assert_ne!(check(&vec![0; whole.len()], "zeros"), TAKEN);
    assert_ne!(check(&[&whole[..], b" "].concat(), "a byte more"), TAKEN);
    let zeros = [&whole[..header], &vec![0; whole.len() - header]].concat();
    assert!(check(&zeros, "data that did not reach the disk").problem.is_some());
}

#[test]
fn loads_that_begin_together_all_get_the_same() {
    const LOADS: usize = 6;
    for _ in 0..10 {
        let (fixture, barrier) = (Fixture::new(), Barrier::new(LOADS));
        let expected = fixture.load_in(&sim(), Err(Error::usage("nowhere", ""))).values;
        std::thread::scope(|scope| {
            let load = || {
                let device = sim();
                barrier.wait();
                fixture.load(&device)
            };
            let loads: Vec<_> = (0..LOADS).map(|_| scope.spawn(load)).collect();
            for load in loads {
                let loaded = load.join().unwrap();
                assert!(loaded.values == expected && loaded.packing.problem.is_none(), "{loaded:?}");
                assert!([(0, 2), (2, 0)].contains(&(loaded.packing.taken, loaded.packing.made)), "{loaded:?}");
            }
        });
        assert_eq!(fixture.load(&sim()).packing, TAKEN);
        assert!(fixture.names(false).iter().all(|name| name.ends_with(".lock")), "{:?}", fixture.names(false));
    }
}

/// Whoever finds another writing goes on without; what a killed one left is written anew.
#[test]
fn one_writes_at_a_time() {
    let (fixture, device) = (Fixture::new(), sim());
    fixture.load(&device);
    let path = fixture.kept();
    let lock = try_lock(&lock_path(&path)).unwrap().unwrap();
    fs::remove_file(&path).unwrap();
    assert_eq!(fixture.load(&device).packing, STORED);
    assert!(!path.exists());
    drop(lock);
    fs::write(temporary_path(&path), "half").unwrap();
    assert_eq!((fixture.load(&device).packing, fixture.load(&device).packing), (STORED, TAKEN));
    assert!(!temporary_path(&path).exists());
}

#[test]
fn a_folder_that_cannot_be_written_is_a_problem_and_no_error() {
    let (fixture, device) = (Fixture::new(), sim());
    let expected = fixture.load(&device).values;
    let file = fixture.component.path().join("file");
    fs::write(&file, "").unwrap();
    let loaded = fixture.load_in(&device, Ok(file.clone()));
    let problem = loaded.packing.problem.unwrap();
    assert_eq!(loaded.values, expected);
    assert!(problem.contains("cannot create folder") && problem.contains(file.to_str().unwrap()), "{problem}");
    assert!(problem.contains("SYNTIC_PACKED"), "{problem}");
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_a_problem_and_no_error() {
    let fixture = Fixture::new();
    let checkpoint = Checkpoint::open(fixture.component.path(), Component::TextEncoder).unwrap();
    for bytes in [10, 1 << 20] {
        let path = fixture.packed.path().join("a.safetensors");
        let lock = try_lock(&lock_path(&path)).unwrap().unwrap();
        let mut writer = Writer::create(path.clone(), lock, "identity", fixture.component.path(), 1).unwrap();
        writer.file = BufWriter::new(File::options().write(true).open("/dev/full").unwrap());
        let packed = PackedWeights { kept: None, state: Mutex::new(State { writer: Some(writer), ..State::default() }) };
        packed.begin("a", DType::U8, &[bytes]);
        packed.append(&vec![1; bytes]);
        packed.append(&[]);
        let packing = packed.finish(&checkpoint).unwrap();
        assert!(packing.problem.as_ref().is_some_and(|problem| problem.contains("No space left")), "{packing:?}");
        assert_eq!(fixture.names(true).len(), 0);
        assert!(!temporary_path(&path).exists());
    }
}

/// It may be written again within the same tick of its file system's clock.
#[test]
fn a_source_of_this_moment_is_not_kept() {
    let (fixture, device) = (Fixture::new(), sim());
    File::options().append(true).open(fixture.source()).unwrap().set_modified(SystemTime::now()).unwrap();
    assert_eq!(fixture.load(&device).packing, STORED);
    assert_eq!((fixture.names(true).len(), fixture.load(&device).packing), (0, STORED));
}

/// No later change of it could be told by its time; that is said, and nothing written in vain.
#[test]
fn a_source_from_the_future_is_not_kept() {
    let (fixture, device) = (Fixture::new(), sim());
    let tomorrow = SystemTime::now() + Duration::from_secs(24 * 3600);
    File::options().append(true).open(fixture.source()).unwrap().set_modified(tomorrow).unwrap();
    let problem = fixture.load(&device).packing.problem.unwrap();
    assert!(problem.contains("model.safetensors is in the future") && problem.contains("touch"), "{problem}");
    assert_eq!((fixture.names(true).len(), fixture.names(false).len()), (0, 0));
}

/// What was made of it may be of either content.
#[test]
fn a_source_that_changes_meanwhile_is_not_kept() {
    let (fixture, device) = (Fixture::new(), sim());
    let checkpoint = Checkpoint::open(fixture.component.path(), Component::TextEncoder).unwrap();
    let packed = packed_layout(&device).map(|layout| (layout, Ok(fixture.packed.path().to_path_buf())));
    let loaded = checkpoint.load_packed_in(packed, |loader| {
        let model = two(loader, &device, &Cell::new(0))?;
        fixture.write(2);
        Ok(model)
    });
    assert_eq!((loaded.unwrap().1, fixture.names(true).len()), (STORED, 0));
}

#[test]
fn models_that_are_gone_are_not_kept() {
    let (gone, fixture, device) = (Fixture::new(), Fixture::new(), sim());
    let folder = || Ok(fixture.packed.path().to_path_buf());
    assert_eq!(gone.load_in(&device, folder()).packing, STORED);
    let path = fixture.kept();
    drop(gone);
    assert_eq!(fixture.load(&device).packing, STORED);
    assert!(path.exists(), "it may come back");
    let old = |path: &Path| File::options().append(true).open(path).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    fixture.names(true).iter().for_each(|name| old(&fixture.packed.path().join(name)));
    let third = Fixture::new();
    assert_eq!(third.load_in(&device, folder()).packing, STORED);
    assert!(!path.exists());
    assert_eq!((fixture.names(true).len(), fixture.load(&device).packing), (2, TAKEN));
    // Of a model that is on another machine: it is used there.
    let kept = kept_files(fixture.packed.path()).find(|path| age(path).is_some_and(|age| age > ORPHAN_AGE));
    assert_eq!(kept, None, "the use was noted");
}

/// Files of others in the folder, be they ever so old and like ours, stay.
#[test]
fn files_of_others_are_left_alone() {
    let (gone, fixture, device) = (Fixture::new(), Fixture::new(), sim());
    gone.load_in(&device, Ok(fixture.packed.path().to_path_buf()));
    let ours = fixture.kept();
    drop(gone);
    let place = |name: &str| fixture.packed.path().join(name);
    let hash = "0123456789abcdef";
    let named = place(&format!("unet-{hash}.f16.safetensors"));
    // With such a name, but another header.
    write_safetensors(&named, &[("a".to_string(), vec![3])], DType::F32, 1).unwrap();
    // With such a header, but another name.
    let copies = ["model.safetensors".to_string(), format!("unet-{hash}.safetensors"), format!("unet-{hash}0.f16.safetensors")];
    copies.iter().for_each(|name| _ = fs::copy(&ours, place(name)).unwrap());
    let writing = place(&format!(".vae-{hash}.f16.safetensors.tmp"));
    let killed = place(&format!(".unet-{hash}.bf16.safetensors.tmp"));
    let other = place(".notes.safetensors.tmp");
    [&writing, &killed, &other].iter().for_each(|path| fs::write(path, "half").unwrap());
    let lock = try_lock(&lock_path(&place(&format!("vae-{hash}.f16.safetensors")))).unwrap().unwrap();
    for name in fixture.names(true) {
        File::options().append(true).open(place(&name)).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    }
    assert_eq!(fixture.load(&device).packing, STORED);
    assert!(!ours.exists() && !killed.exists());
    assert!([&named, &writing, &other].iter().all(|path| path.exists()), "{:?}", fixture.names(false));
    assert!(copies.iter().all(|name| place(name).exists()), "{:?}", fixture.names(true));
    drop(lock);
}

#[test]
fn two_buffers_of_one_name_are_a_bug() {
    let (fixture, device) = (Fixture::new(), sim());
    let checkpoint = Checkpoint::open(fixture.component.path(), Component::TextEncoder).unwrap();
    let packed = packed_layout(&device).map(|layout| (layout, Ok(fixture.packed.path().to_path_buf())));
    let error = checkpoint.load_packed_in(packed, |loader| {
        let (_, b) = (loader.tensor("a.weight", &[3, 5]), loader.tensor("b.weight", &[7]));
        Ok([Buffer::of(&device, &b, DType::F32)?, Buffer::of(&device, &b, DType::F16)?])
    });
    let error = error.unwrap_err();
    assert!(matches!(error, Error::Internal { .. }) && error.to_string().contains("`b.weight values`"), "{error}");
}

#[test]
fn the_folder_is_where_the_user_says_or_in_the_cache() {
    let folder = |set: &[(&str, &str)]| {
        folder_of(|name| set.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())).unwrap()
    };
    let cache = ("SYNTIC_CACHE", "/s");
    assert_eq!(folder(&[cache]), Some("/s/packed".into()));
    assert_eq!(folder(&[cache, ("SYNTIC_PACKED", "")]), Some("/s/packed".into()));
    assert_eq!(folder(&[cache, ("SYNTIC_PACKED", "/p")]), Some("/p".into()));
    assert_eq!(folder(&[cache, ("SYNTIC_PACKED", "off")]), None);
    assert!(folder_of(|_| None).is_err());
}
