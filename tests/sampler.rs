//! What the sampler promises about its own results: exact savings, independence of batch and threads, flaws, interruption.

mod golden_support;

use golden_support::Case;
use std::ops::ControlFlow;
use syntic::Error;
use syntic::device::{Device, Precision};
use syntic::diffusion::schedulers::{SchedulerName, create};
use syntic::diffusion::{Generated, Sample, Sampler, Savings, Settings, StableDiffusion};
use syntic::rng::RngKind;
use syntic::weights::ModelDir;

const CASES: [&str; 2] = ["sd1-tiny", "sd2-tiny"];

/// The model of a case with its four prompts.
struct World {
    model: StableDiffusion,
    prompts: Vec<Vec<u32>>,
    settings: Settings,
}

impl World {
    fn new(case: &str, threads: usize) -> World {
        let case = Case::open(case);
        let folder = ModelDir::open(case.folder.to_str().unwrap()).unwrap();
        let model = StableDiffusion::load(&folder, &Device::cpu(threads).unwrap(), Precision::F32).unwrap();
        let golden = case.golden("pipeline");
        let (shape, ids) = golden.integers("ids.prompts");
        let settings = Settings {
            // Three halvings of 9 and 4 latents do not come out even.
            height: model.spec.size_multiple() * 9,
            width: model.spec.size_multiple() * 4,
            guidance: 5.0,
            negative: golden.integers("ids.negative").1,
            rng: RngKind::Philox,
            savings: Savings::default(),
        };
        World { model, prompts: ids.chunks(shape[1]).map(<[u32]>::to_vec).collect(), settings }
    }

    fn sampler(&self, scheduler: SchedulerName, max_batch: usize) -> Sampler<'_> {
        let scheduler = create(scheduler, &self.model.spec.scheduler, 3).unwrap();
        Sampler::new(&self.model, scheduler, self.settings.clone(), max_batch).unwrap()
    }

    fn sample(&self, i: usize) -> Sample<'_> {
        Sample { ids: &self.prompts[i], seed: 7 + i as u64, latents: None }
    }

    fn generate(&self, scheduler: SchedulerName, order: &[usize]) -> Vec<Generated> {
        let samples: Vec<Sample<'_>> = order.iter().map(|&i| self.sample(i)).collect();
        self.sampler(scheduler, 4).generate(&samples, &mut |_, _| ControlFlow::Continue(())).unwrap()
    }
}

fn bits(image: &Generated) -> (Vec<u32>, &[u8]) {
    (image.latents.iter().map(|x| x.to_bits()).collect(), &image.pixels)
}

fn assert_same_bits(what: &str, a: &Generated, b: &Generated) {
    assert!(bits(a) == bits(b), "{what}: different bits");
}

#[test]
fn savings_change_no_bit() {
    for case in CASES {
        let mut world = World::new(case, 2);
        let saving = world.generate(SchedulerName::EulerAncestral, &[0, 1, 2]);
        assert!(bits(&saving[0]) != bits(&saving[1]), "different prompts and seeds give different images");
        let all = Savings::default();
        let fewer = [
            ("shared halves", Savings { shared_halves: false, ..all }),
            ("time", Savings { time_before_loop: false, ..all }),
            ("text", Savings { text_before_loop: false, ..all }),
            ("negative prompt", Savings { negative_once: false, ..all }),
            ("everything", Savings::NONE),
        ];
        for (what, savings) in fewer {
            world.settings.savings = savings;
            let images = world.generate(SchedulerName::EulerAncestral, &[0, 1, 2]);
            images.iter().zip(&saving).for_each(|(a, b)| assert_same_bits(&format!("{case}, {what}"), a, b));
        }
    }
}

#[test]
fn a_sample_does_not_depend_on_its_batch() {
    for case in CASES {
        let world = World::new(case, 2);
        // One stochastic, one that keeps history between steps.
        for scheduler in [SchedulerName::EulerAncestral, SchedulerName::UniPc] {
            let alone = world.generate(scheduler, &[1]);
            for order in [vec![1, 0, 2], vec![0, 1, 3], vec![3, 2, 1], vec![0, 2, 3, 1]] {
                let images = world.generate(scheduler, &order);
                let place = order.iter().position(|&i| i == 1).unwrap();
                assert_same_bits(&format!("{case}, {scheduler}, place {place} of {}", order.len()), &images[place], &alone[0]);
            }
        }
    }
}

#[test]
fn a_sample_does_not_depend_on_the_threads_or_on_earlier_batches() {
    let (one, three) = (World::new("sd1-tiny", 1), World::new("sd1-tiny", 3));
    let expected = one.generate(SchedulerName::UniPc, &[0, 1]);
    let images = three.generate(SchedulerName::UniPc, &[0, 1]);
    images.iter().zip(&expected).for_each(|(a, b)| assert_same_bits("threads", a, b));
    let mut sampler = one.sampler(SchedulerName::UniPc, 4);
    for order in [vec![3, 2, 1], vec![2], vec![0, 1]] {
        let samples: Vec<Sample<'_>> = order.iter().map(|&i| one.sample(i)).collect();
        let images = sampler.generate(&samples, &mut |_, _| ControlFlow::Continue(())).unwrap();
        if order == [0, 1] {
            images.iter().zip(&expected).for_each(|(a, b)| assert_same_bits("used sampler", a, b));
        }
    }
}

#[test]
fn a_sample_that_is_not_finite_is_marked_and_harms_no_other() {
    let world = World::new("sd1-tiny", 2);
    let expected = world.generate(SchedulerName::Ddim, &[0, 2]);
    assert!(expected.iter().all(|image| image.finite));
    let mut sampler = world.sampler(SchedulerName::Ddim, 4);
    let mut latents = vec![0.5; sampler.latent_len()];
    latents[3] = f32::NAN;
    let samples = [world.sample(0), Sample { latents: Some(&latents), ..world.sample(1) }, world.sample(2)];
    let images = sampler.generate(&samples, &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert_eq!(images.iter().map(|image| image.finite).collect::<Vec<_>>(), [true, false, true]);
    assert_same_bits("first", &images[0], &expected[0]);
    assert_same_bits("last", &images[2], &expected[1]);
}

#[test]
fn a_break_stops_before_the_next_evaluation() {
    let world = World::new("sd1-tiny", 1);
    let mut sampler = world.sampler(SchedulerName::Ddim, 1);
    for stop in 0..=3 {
        let mut calls = Vec::new();
        let result = sampler.generate(&[world.sample(0)], &mut |i, n| {
            calls.push((i, n));
            if i == stop { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(result, Err(Error::Interrupted)), "{result:?}");
        assert_eq!(calls, (0..=stop).map(|i| (i, 3)).collect::<Vec<_>>());
    }
    // The sampler is as good as before.
    let image = sampler.generate(&[world.sample(0)], &mut |_, _| ControlFlow::Continue(())).unwrap();
    assert_same_bits("after breaks", &image[0], &world.generate(SchedulerName::Ddim, &[0])[0]);
}

#[test]
fn wrong_sizes_are_refused() {
    let mut world = World::new("sd1-tiny", 1);
    assert_eq!(world.model.spec.size_multiple(), 8);
    let mut sampler = world.sampler(SchedulerName::Ddim, 2);
    let mut go = |_: usize, _: usize| ControlFlow::Continue(());
    let short = Sample { ids: &world.prompts[0][..5], ..world.sample(0) };
    let unknown = vec![9999; world.prompts[0].len()];
    for samples in [vec![], vec![world.sample(0); 3], vec![short], vec![Sample { latents: Some(&[0.0]), ..world.sample(0) }]] {
        assert!(matches!(sampler.generate(&samples, &mut go), Err(Error::Shape { .. })));
    }
    let result = sampler.generate(&[Sample { ids: &unknown, ..world.sample(0) }], &mut go);
    assert!(result.unwrap_err().to_string().contains("9999"));
    drop(sampler);
    for (height, width, named) in [(44, 32, "height 44"), (32, 0, "width 0"), (32, 1 << 20, "width 1048576")] {
        (world.settings.height, world.settings.width) = (height, width);
        let scheduler = create(SchedulerName::Ddim, &world.model.spec.scheduler, 3).unwrap();
        let error = Sampler::new(&world.model, scheduler, world.settings.clone(), 1).err().unwrap();
        assert!(matches!(error, Error::Usage { .. }) && error.to_string().contains(named), "{error}");
    }
}
