//! Stages that run at the same time: what overlaps, and how they end together.

use super::*;
use crate::corpus::CorpusOptions;
use crate::diffusion::schedulers::SchedulerName;
use crate::rng::RngKind;
use crate::shards::ImageFormat;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::{Condvar, Mutex};
use std::time::Duration;

/// More than any wait of a working run, also on a machine with other work.
const PATIENCE: Duration = Duration::from_secs(120);

/// A run of `count` captions with the built-in model: small images in batches of 2, 5 in a shard.
fn settings(folder: &Path, count: usize) -> Settings {
    let captions = folder.join("captions.txt");
    std::fs::write(&captions, (0..count).map(|i| format!("{i} red cups\n")).collect::<String>()).unwrap();
    Settings {
        model: format!("{}/src/weights/assets/builtin", env!("CARGO_MANIFEST_DIR")),
        captions,
        corpus: CorpusOptions::default(),
        selection: Selection { offset: 0, limit: None, worker_index: 0, worker_count: 1 },
        sampling: Sampling {
            steps: 3,
            guidance: 2.0,
            negative: String::new(),
            scheduler: SchedulerName::Auto,
            height: Some(32),
            width: Some(32),
            seed: 1,
            rng: RngKind::default(),
        },
        output: Output { folder: folder.join("out"), shard_size: 5, format: ImageFormat::Png, quality: 95, save_latents: None },
        init_latents: None,
        batch: Batch::Images(2),
        trace: Some(folder.join("trace.json")),
    }
}

fn execute(settings: &Settings, events: &dyn Events, stop: &AtomicBool) -> Result<Summary> {
    let device = Device::cpu(2).unwrap();
    Run::prepare(settings.clone(), &device, Precision::F32)?.execute(events, stop)
}

/// Calls its function for every event.
struct Call<F>(F);

impl<F: Fn(&Event<'_>) + Sync> Events for Call<F> {
    fn event(&self, event: &Event<'_>) {
        (self.0)(event);
    }
}

fn ignore() -> impl Events {
    Call(|_: &Event<'_>| {})
}

/// Content of the finished tars.
fn tars(settings: &Settings) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(&settings.output.folder).unwrap().map(|entry| entry.unwrap().path());
    let tars = entries.filter(|path| path.extension().is_some_and(|extension| extension == "tar"));
    // Tars in progress are hidden.
    let finished = tars.filter(|path| !path.file_name().unwrap().to_string_lossy().starts_with('.'));
    finished.map(|path| (path.file_name().unwrap().to_string_lossy().into(), std::fs::read(&path).unwrap())).collect()
}

/// A span of a trace: track, name, first and last caption, begin, end.
#[derive(Debug)]
struct Seen {
    track: String,
    name: String,
    first: u64,
    last: u64,
    begin: f64,
    end: f64,
}

fn read_trace(path: &Path) -> Vec<Seen> {
    let json: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let events = json["traceEvents"].as_array().unwrap();
    let (names, spans): (Vec<_>, Vec<_>) = events.iter().partition(|event| event["ph"] == "M");
    let track = |id: &Value| names.iter().find(|name| name["tid"] == *id).unwrap()["args"]["name"].as_str().unwrap();
    let seen = |span: &&Value| {
        let begin = span["ts"].as_f64().unwrap();
        Seen {
            track: track(&span["tid"]).into(),
            name: span["name"].as_str().unwrap().into(),
            first: span["args"]["first"].as_u64().unwrap(),
            last: span["args"]["last"].as_u64().unwrap(),
            begin,
            end: begin + span["dur"].as_f64().unwrap(),
        }
    };
    spans.iter().map(seen).collect()
}

/// Steps begun and samples written, and threads that wait for them.
#[derive(Default)]
struct Course {
    counts: Mutex<(usize, usize)>,
    changed: Condvar,
}

impl Course {
    fn change(&self, by: (usize, usize)) -> (usize, usize) {
        let mut counts = self.counts.lock().unwrap();
        *counts = (counts.0 + by.0, counts.1 + by.1);
        self.changed.notify_all();
        *counts
    }

    fn wait(&self, what: &str, until: impl Fn((usize, usize)) -> bool) {
        let counts = self.counts.lock().unwrap();
        let (_counts, waited) = self.changed.wait_timeout_while(counts, PATIENCE, |counts| !until(*counts)).unwrap();
        assert!(!waited.timed_out(), "{what} did not come");
    }
}

/// The writer is held until the device is in the next batch, and the device in that batch until the writer is done with the one before: a
/// run whose stages took turns would not end. Images this small are encoded in no time: whether the next batch has begun by then is chance.
#[test]
fn writing_overlaps_the_next_batch() {
    let folder = tempfile::tempdir().unwrap();
    // One shard: its batches are 0..2, 2..4, 4..6, 6..8.
    let mut settings = settings(folder.path(), 8);
    settings.output.shard_size = 8;
    let course = Course::default();
    let (per_batch, batch) = (3 + 2, 2);
    let events = Call(|event: &Event<'_>| match event {
        Event::Step { .. } => {
            let (steps, _) = course.change((1, 0));
            let done = (steps - 1) / per_batch;
            if (steps - 1) % per_batch == 1 && done > 0 {
                course.wait("the samples of the last batch", |(_, samples)| samples >= batch * done);
            }
        }
        Event::Sample { index, .. } if *index < 6 => {
            let next = (*index as usize / batch + 1) * per_batch;
            course.wait("the next batch", |(steps, _)| steps > next);
            course.change((0, 1));
        }
        _ => {}
    });
    execute(&settings, &events, &AtomicBool::new(false)).unwrap();

    let trace = read_trace(&settings.trace.unwrap());
    let of = |track: &str, samples: Range<u64>| -> Vec<&Seen> {
        trace.iter().filter(|s| s.track.starts_with(track) && samples.contains(&s.first) && samples.contains(&s.last)).collect()
    };
    for n in 0..3 {
        let (this, next) = (2 * n..2 * n + 2, 2 * n + 2..2 * n + 4);
        let device = of("device", next.clone());
        let names: Vec<&str> = device.iter().map(|span| span.name.as_str()).collect();
        assert_eq!(names, ["text", "step 0", "step 1", "step 2", "decode", "decode"]);
        let (begin, end) = (device[0].begin, device[5].end);
        let [encoded, written] = ["encode", "write"].map(|track| {
            let spans: Vec<&Seen> = of(track, this.clone()).into_iter().filter(|span| span.name == track).collect();
            assert_eq!(spans.len(), 2, "{track}: {trace:#?}");
            spans
        });
        // The second sample is written only when the first one was let go, in the next batch.
        assert!(begin < written[1].begin && written[1].end < end, "batch {n} is written while the next is made: {trace:#?}");
        assert!(encoded.iter().all(|span| span.end < end), "batch {n} is encoded before the next is made: {trace:#?}");
        assert_eq!(of("tokenise", next).len(), 1);
    }
    assert!(trace.iter().any(|span| span.track == "write" && span.name == "finish 0"));
    let first = trace.iter().find(|span| span.track == "device" && span.name == "text").unwrap().begin;
    let waits: Vec<&Seen> = trace.iter().filter(|span| span.name.starts_with("wait") && span.begin > first).collect();
    // After the last batch there is nothing to come: whether that is known already when the device asks is chance.
    let last = trace.iter().filter(|span| span.name == "decode").map(|span| span.end).fold(0.0, f64::max);
    assert!(waits.iter().all(|span| span.begin > last), "the device waited: {waits:#?}");
}

/// The first batch of a shard is made while the last shard is given its names.
#[test]
fn a_shard_begins_before_the_last_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), 10);
    let course = Course::default();
    let events = Call(|event: &Event<'_>| match event {
        Event::Step { .. } => drop(course.change((1, 0))),
        // The last sample of the first shard: 3 batches of 5, 5 and 4 calls, and then those of the next.
        Event::Sample { index: 4, .. } => course.wait("the next shard", |(steps, _)| steps > 14),
        _ => {}
    });
    execute(&settings, &events, &AtomicBool::new(false)).unwrap();
    assert_eq!(tars(&settings).len(), 2);
}

#[test]
fn an_error_or_a_panic_of_any_stage_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let plain = settings(folder.path(), 30);
    let go_on = AtomicBool::new(false);

    let mut encode = plain.clone();
    (encode.output.folder, encode.output.format, encode.output.quality) = (folder.path().join("jpg"), ImageFormat::Jpg, 0);
    let error = execute(&encode, &ignore(), &go_on).unwrap_err().to_string();
    assert!(error.contains("JPEG quality 0"), "{error}");

    let in_device = Call(|event: &Event<'_>| assert!(!matches!(event, Event::Step { step: 1, .. }), "the device fails"));
    let error = execute(&plain, &in_device, &go_on).unwrap_err();
    assert!(matches!(error, Error::Internal { op: "device", .. }) && error.to_string().contains("the device fails"), "{error}");

    let in_writer = Call(|event: &Event<'_>| assert!(!matches!(event, Event::Sample { .. }), "the writer fails"));
    let error = execute(&plain, &in_writer, &go_on).unwrap_err();
    assert!(matches!(error, Error::Internal { op: "write", .. }), "{error}");

    // A tar that this program did not write, in the place of a later shard: found ahead, by the stage that opens shards.
    let in_the_way = plain.output.folder.join("00003.tar");
    let put = Call(|event: &Event<'_>| {
        if let Event::Planned { .. } = event {
            std::fs::write(&in_the_way, "theirs").unwrap();
        }
    });
    let error = execute(&plain, &put, &go_on).unwrap_err().to_string();
    assert!(error.contains("00003.tar") && error.contains("in the way"), "{error}");
    assert_eq!(std::fs::read(&in_the_way).unwrap(), b"theirs");
    std::fs::remove_file(&in_the_way).unwrap();

    // What all these left is gone on with.
    let summary = execute(&plain, &ignore(), &go_on).unwrap();
    assert_eq!(summary.samples, 30);
    let mut whole = plain.clone();
    whole.output.folder = folder.path().join("whole");
    execute(&whole, &ignore(), &go_on).unwrap();
    assert!(tars(&plain) == tars(&whole) && tars(&whole).len() == 6);
}

#[test]
fn a_stop_writes_what_is_finished() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), 12);
    let (stop, course) = (AtomicBool::new(false), Course::default());
    let events = Call(|event: &Event<'_>| match event {
        // In the second step of the fourth batch, the first of the second shard: 5 + 5 + 4 calls come before.
        Event::Step { .. } if course.change((1, 0)).0 == 16 => stop.store(true, Ordering::Relaxed),
        Event::Sample { .. } => drop(course.change((0, 1))),
        _ => {}
    });
    assert!(matches!(execute(&settings, &events, &stop), Err(Error::Interrupted)));
    assert_eq!(course.change((0, 0)), (16, 5), "the batches before are written, and no further step is begun");
    assert_eq!(tars(&settings).into_keys().collect::<Vec<_>>(), ["00000.tar"]);
    assert!(read_trace(settings.trace.as_ref().unwrap()).len() > 16, "an interrupted run leaves its trace too");
    let summary = execute(&settings, &ignore(), &AtomicBool::new(false)).unwrap();
    assert_eq!((summary.made, tars(&settings).len()), (7, 3));
}

#[test]
fn a_trace_that_cannot_be_written_is_refused_before_any_work() {
    let folder = tempfile::tempdir().unwrap();
    for path in ["nowhere/trace.json", ".", "captions.txt/trace.json", "/"] {
        let mut settings = settings(folder.path(), 1);
        settings.trace = Some(folder.path().join(path));
        let error = execute(&settings, &ignore(), &AtomicBool::new(false)).unwrap_err();
        assert!(matches!(&error, Error::Usage { message, .. } if message.contains("--trace")), "{path}: {error}");
        assert!(!settings.output.folder.exists());
    }
}

#[test]
fn a_plan_tells_the_memory_of_each_network() {
    let folder = tempfile::tempdir().unwrap();
    let device = Device::cpu(1).unwrap();
    let describe = |batch| {
        let settings = Settings { batch, ..settings(folder.path(), 30) };
        Run::prepare(settings, &device, Precision::F32).unwrap().describe().unwrap()
    };
    let one = describe(Batch::Usual);
    assert_eq!((&one["batch"], &one["batch_because"]), (&1.into(), &"the default on a processor".into()));
    for part in ["text", "UNet", "VAE"] {
        assert!(one["activations"].as_str().unwrap().contains(part), "{one}");
    }
    assert!(["weights", "buffers", "memory"].iter().all(|key| one[*key].as_str().unwrap().ends_with("iB")), "{one}");
    assert_eq!(describe(Batch::Auto)["batch"], 5, "a shard has no more");
}
