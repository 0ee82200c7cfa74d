//! What the goldens cannot show: names, errors, the table's form, and the executor's contract.

use std::path::Path;

use serde_json::{Value, json};

use super::*;

fn sd1() -> Value {
    json!({
        "_class_name": "PNDMScheduler", "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000, "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1,
        "trained_betas": null, "clip_sample": false
    })
}

fn config(change: &Value) -> SchedulerConfig {
    let mut json = sd1();
    for (key, value) in change.as_object().unwrap() {
        json[key] = value.clone();
    }
    SchedulerConfig::verbatim(Path::new("m/scheduler_config.json"), &json).unwrap()
}

fn build(name: &str, change: Value, steps: usize) -> Result<Box<dyn Scheduler>> {
    create(name.parse()?, &config(&change), steps)
}

fn message(result: Result<Box<dyn Scheduler>>) -> String {
    result.map(|_| ()).unwrap_err().to_string()
}

#[test]
fn names_are_those_of_the_command_line() {
    let all: Vec<&str> = SchedulerName::all().map(SchedulerName::name).collect();
    assert_eq!(all, ["auto", "pndm", "ddim", "euler", "euler-a", "dpm++", "dpm++-karras", "unipc", "lcm"]);
    for name in SchedulerName::all() {
        assert_eq!(name.to_string().parse::<SchedulerName>().unwrap(), name);
    }
    let error = "heun".parse::<SchedulerName>().unwrap_err();
    assert!(error.hint().unwrap().contains("dpm++-karras"));
}

#[test]
fn auto_is_the_class_of_the_file() {
    let resolve = |class: &str| SchedulerName::Auto.resolve(&config(&json!({ "_class_name": class })));
    assert_eq!(resolve("DPMSolverMultistepScheduler").unwrap(), SchedulerName::DpmPlusPlus);
    assert_eq!(resolve("LCMScheduler").unwrap(), SchedulerName::Lcm);
    let error = resolve("HeunDiscreteScheduler").unwrap_err();
    assert_eq!(error.exit_code(), 2);
    let text = error.to_string();
    assert!(text.contains("m/scheduler_config.json") && text.contains("_class_name") && text.contains("euler-a"), "{text}");
    // Another scheduler can be asked for, whatever the file names.
    assert!(build("euler", json!({ "_class_name": "HeunDiscreteScheduler" }), 5).is_ok());
}

#[test]
fn pndm_takes_its_first_step_twice() {
    let scheduler = build("auto", json!({}), 20).unwrap();
    assert_eq!(scheduler.timesteps().len(), 21);
    assert_eq!(scheduler.timesteps()[..4], [951.0, 901.0, 901.0, 851.0]);
    assert_eq!(scheduler.timesteps()[20], 1.0);
    assert!(!scheduler.is_stochastic());
}

#[test]
fn ancestral_and_consistency_steps_draw_noise_except_the_last() {
    for name in ["euler-a", "lcm"] {
        let scheduler = build(name, json!({}), 4).unwrap();
        assert!(scheduler.is_stochastic());
        let noise: Vec<bool> = scheduler.plan().steps.iter().map(|step| step.noise > 0.0).collect();
        assert_eq!(noise, [true, true, true, false], "{name}");
    }
}

#[test]
fn an_outdated_file_is_set_right_as_the_pipeline_of_diffusers_does() {
    let json = json!({ "_class_name": "DDIMScheduler", "steps_offset": 0, "clip_sample": true });
    let config = SchedulerConfig::from_json(Path::new("c.json"), &json).unwrap();
    let scheduler = create(SchedulerName::Auto, &config, 10).unwrap();
    assert_eq!(scheduler.timesteps()[..2], [901.0, 801.0]);
    let verbatim = SchedulerConfig::verbatim(Path::new("c.json"), &json).unwrap();
    assert!(message(create(SchedulerName::Auto, &verbatim, 10)).contains("clip_sample"));
}

#[test]
fn pndm_in_place_of_another_sampler_starts_as_stable_diffusions() {
    let evaluations = |class: &str| {
        let config = SchedulerConfig::from_json(Path::new("c.json"), &json!({ "_class_name": class })).unwrap();
        create(SchedulerName::Pndm, &config, 10).unwrap().timesteps().len()
    };
    assert_eq!(evaluations("DPMSolverMultistepScheduler"), 11);
    assert_eq!(evaluations("PNDMScheduler"), 19, "the default of its own class: three steps of four evaluations");
}

#[test]
fn steps_that_cannot_be_taken_are_usage_errors() {
    for name in SchedulerName::all() {
        for steps in [0, 1001, usize::MAX] {
            let error = build(name.name(), json!({}), steps).map(|_| ()).unwrap_err();
            assert!(matches!(error, Error::Usage { .. }), "{name} x {steps}: {error}");
        }
    }
    // Timestep 1000 = 999 + steps_offset is not one of the training.
    assert!(message(build("ddim", json!({}), 1000)).contains("timestep 1000"));
    assert!(message(build("lcm", json!({}), 51)).contains("distilled on 50"));
    assert!(message(build("pndm", json!({ "skip_prk_steps": false }), 3)).contains("skip_prk_steps"));
    // The last alpha_bar is 0, and epsilon cannot be turned into x0 there.
    let zero_snr = json!({ "rescale_betas_zero_snr": true, "timestep_spacing": "trailing" });
    assert!(message(build("ddim", zero_snr, 5)).contains("not finite"));
}

#[test]
fn unsupported_values_name_file_and_key() {
    let cases = [
        ("auto", json!({ "beta_schedule": "sigmoid" }), "beta_schedule"),
        ("auto", json!({ "beta_start": 0 }), "beta_start"),
        ("auto", json!({ "beta_end": "0.012" }), "beta_end"),
        ("auto", json!({ "trained_betas": [0.1, 0.2] }), "trained_betas"),
        ("auto", json!({ "num_train_timesteps": 0 }), "num_train_timesteps"),
        ("auto", json!({ "num_train_timesteps": 1e18 }), "num_train_timesteps"),
        ("auto", json!({ "num_train_timesteps": -5 }), "num_train_timesteps"),
        ("auto", json!({ "steps_offset": -1 }), "steps_offset"),
        ("auto", json!({ "timestep_spacing": "uniform" }), "timestep_spacing"),
        ("auto", json!({ "timestep_spacing": 3 }), "timestep_spacing"),
        ("auto", json!({ "prediction_type": "sample" }), "prediction_type"),
        ("auto", json!({ "skip_prk_steps": "yes" }), "skip_prk_steps"),
        ("euler-a", json!({ "prediction_type": "sample" }), "prediction_type"),
        ("ddim", json!({ "prediction_type": "flow" }), "prediction_type"),
        ("ddim", json!({ "thresholding": true }), "thresholding"),
        ("euler", json!({ "use_beta_sigmas": true }), "use_beta_sigmas"),
        ("euler", json!({ "use_exponential_sigmas": true }), "use_exponential_sigmas"),
        ("euler", json!({ "timestep_type": "continuous" }), "timestep_type"),
        ("euler", json!({ "interpolation_type": "cubic" }), "interpolation_type"),
        ("euler", json!({ "final_sigmas_type": "one" }), "final_sigmas_type"),
        ("euler", json!({ "use_karras_sigmas": true, "sigma_min": 0.0 }), "sigma_min"),
        ("dpm++", json!({ "algorithm_type": "sde-dpmsolver++" }), "algorithm_type"),
        ("dpm++", json!({ "solver_type": "heun" }), "solver_type"),
        ("dpm++", json!({ "solver_order": 3 }), "solver_order"),
        ("dpm++", json!({ "variance_type": "learned" }), "variance_type"),
        ("dpm++", json!({ "use_lu_lambdas": true }), "use_lu_lambdas"),
        ("dpm++", json!({ "use_flow_sigmas": true }), "use_flow_sigmas"),
        ("dpm++", json!({ "lambda_min_clipped": 100.0 }), "lambda_min_clipped"),
        ("unipc", json!({ "predict_x0": false }), "predict_x0"),
        ("unipc", json!({ "solver_p": { "a": 1 } }), "solver_p"),
        ("unipc", json!({ "solver_type": "bh3" }), "solver_type"),
        ("unipc", json!({ "solver_order": 0 }), "solver_order"),
        ("unipc", json!({ "disable_corrector": [0, -1] }), "disable_corrector"),
        ("lcm", json!({ "original_inference_steps": 0 }), "original_inference_steps"),
        ("lcm", json!({ "original_inference_steps": 1001 }), "original_inference_steps"),
        ("lcm", json!({ "clip_sample": true }), "clip_sample"),
    ];
    for (name, change, key) in cases {
        let Err(error) = build(name, change.clone(), 10) else { panic!("{name} took {change}") };
        assert!(
            matches!(&error, Error::Config { path, key: k, .. } if path.ends_with("scheduler_config.json") && k == key),
            "{error}"
        );
    }
}

#[test]
fn keys_of_other_classes_are_ignored() {
    for (name, change) in [
        ("pndm", json!({ "thresholding": true, "use_karras_sigmas": true, "solver_order": 9 })),
        ("euler-a", json!({ "use_karras_sigmas": true, "interpolation_type": "log_linear", "final_sigmas_type": 5 })),
        ("ddim", json!({ "original_inference_steps": -1, "skip_prk_steps": "?" })),
    ] {
        assert_eq!(build(name, change, 10).unwrap().plan(), build(name, json!({}), 10).unwrap().plan(), "{name}");
    }
}

/// Any number of steps either gives a whole plan or a usage error; nothing panics.
#[test]
fn every_number_of_steps_is_planned_or_refused() {
    for train in [1, 2, 3, 100] {
        for spacing in ["leading", "linspace", "trailing"] {
            for name in SchedulerName::all().filter(|&name| name != SchedulerName::Lcm) {
                for steps in 1..=train {
                    let change = json!({ "num_train_timesteps": train, "timestep_spacing": spacing, "steps_offset": 0 });
                    let what = format!("{name} x {steps} of {train}, {spacing}");
                    match build(name.name(), change, steps) {
                        Ok(scheduler) => {
                            let plan = scheduler.plan();
                            let evaluations = plan.steps.len();
                            assert!(evaluations == steps || evaluations == steps + 1, "{what}: {evaluations}");
                            assert_eq!((plan.timesteps.len(), plan.input_scale.len()), (evaluations, evaluations), "{what}");
                            let trained = 0.0..=(train - 1) as f32;
                            assert!(plan.timesteps.iter().all(|t| trained.contains(t)), "{what}: {:?}", plan.timesteps);
                        }
                        Err(Error::Usage { .. }) => {}
                        Err(error) => panic!("{what}: {error}"),
                    }
                }
            }
        }
    }
}

#[test]
fn misuse_of_a_run_is_an_error() {
    let mut scheduler = build("unipc", json!({}), 3).unwrap();
    let mut no_noise = |_: &mut [f32]| panic!("unipc draws no noise");
    let mut x = [1.0f32; 4];
    assert!(matches!(scheduler.step(1, &[0.0; 4], &mut x, &mut no_noise), Err(Error::Internal { .. })));
    assert!(matches!(scheduler.step(0, &[0.0; 3], &mut x, &mut no_noise), Err(Error::Shape { .. })));
    assert_eq!(x, [1.0; 4]);
    scheduler.step(0, &[0.0; 4], &mut x, &mut no_noise).unwrap();
    assert!(matches!(scheduler.step(1, &[0.0; 2], &mut x[..2], &mut no_noise), Err(Error::Shape { .. })));
    scheduler.step(1, &[0.0; 4], &mut x, &mut no_noise).unwrap();
    scheduler.step(2, &[0.0; 4], &mut x, &mut no_noise).unwrap();
    assert!(matches!(scheduler.step(3, &[0.0; 4], &mut x, &mut no_noise), Err(Error::Internal { .. })));
    scheduler.reset();
    scheduler.step(0, &[0.0; 2], &mut x[..2], &mut no_noise).unwrap();
}

/// The exact solution for a model that always predicts the same x0 is known, and every solver here finds it.
#[test]
fn a_constant_prediction_is_reached_exactly() {
    for name in ["ddim", "dpm++", "dpm++-karras", "unipc", "euler"] {
        let change = json!({ "prediction_type": "sample", "set_alpha_to_one": true });
        let mut scheduler = build(name, change, 7).unwrap();
        let mut x = [3.0f32, -2.0];
        for i in 0..7 {
            scheduler.step(i, &[0.5, -0.25], &mut x, &mut |_| {}).unwrap();
        }
        assert!((x[0] - 0.5).abs() < 1e-5 && (x[1] + 0.25).abs() < 1e-5, "{name}: {x:?}");
    }
}

#[test]
fn files_of_dpm_solver_hold_minus_infinity() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("scheduler_config.json");
    let write = |text: &str| std::fs::write(&path, text).unwrap();
    write(r#"{"_class_name": "DPMSolverMultistepScheduler", "note": "a \"-Infinity\" \\", "lambda_min_clipped": -Infinity}"#);
    let config = SchedulerConfig::read(&path).unwrap();
    // Nothing is clipped: the run starts at the last timestep of the training.
    assert_eq!(create(SchedulerName::Auto, &config, 5).unwrap().timesteps(), [999.0, 799.0, 599.0, 400.0, 200.0]);
    write("{\n\"_class_name\": Infinity}");
    assert!(SchedulerConfig::read(&path).unwrap_err().to_string().contains("line 2"));
    write("[]");
    assert!(SchedulerConfig::read(&path).unwrap_err().to_string().contains("_class_name"));
    write(&" ".repeat(2 << 20));
    assert!(SchedulerConfig::read(&path).unwrap_err().to_string().contains("larger"));
    let missing = SchedulerConfig::read(&folder.path().join("none")).unwrap_err();
    assert!(matches!(missing, Error::Io { .. }));
}

const KEYS: &[&str] = &[
    "_class_name",
    "algorithm_type",
    "beta_end",
    "beta_schedule",
    "beta_start",
    "clip_sample",
    "disable_corrector",
    "euler_at_final",
    "final_sigmas_type",
    "interpolation_type",
    "lambda_min_clipped",
    "lower_order_final",
    "num_train_timesteps",
    "original_inference_steps",
    "predict_x0",
    "prediction_type",
    "rescale_betas_zero_snr",
    "set_alpha_to_one",
    "sigma_max",
    "sigma_min",
    "skip_prk_steps",
    "solver_order",
    "solver_type",
    "steps_offset",
    "timestep_scaling",
    "timestep_spacing",
    "timestep_type",
    "use_karras_sigmas",
];

const VALUES: &str = r#"[null, true, false, 0, 1, 2, 3, 7, -1, 0.5, 1e-300, 1e300, -1e300, 18446744073709551615, 50, 1000, 99999, "", "zero",
    "sigma_min", "linear", "log_linear", "squaredcos_cap_v2", "linspace", "trailing", "sample", "v_prediction", "bh1", [], [0, 1], [[]], {}]"#;

proptest::proptest! {
    /// Any file gives a finite plan or an error that names it; nothing panics.
    #[test]
    fn odd_files_never_panic(name in 0..9usize, changes in proptest::collection::vec((0..KEYS.len(), 0..31usize), 1..5), steps in 1..60usize) {
        let values: Vec<Value> = serde_json::from_str(VALUES).unwrap();
        let mut json = sd1();
        for (key, value) in changes {
            json[KEYS[key]] = values[value].clone();
        }
        let name = SchedulerName::all().nth(name).unwrap();
        let path = Path::new("scheduler_config.json");
        match SchedulerConfig::verbatim(path, &json).and_then(|config| create(name, &config, steps)) {
            Ok(scheduler) => assert_eq!(scheduler.plan().first_not_finite(), None),
            Err(Error::Config { path: named, .. }) => assert_eq!(named, path),
            Err(error) => assert!(matches!(error, Error::Usage { .. }), "{error}"),
        }
    }

    /// Nor does text that is no configuration.
    #[test]
    fn odd_text_never_panics(text in "\\PC{0,40}", cut in 0..200usize) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scheduler_config.json");
        let valid = sd1().to_string();
        std::fs::write(&path, format!("{}{text}", &valid[..cut.min(valid.len())])).unwrap();
        if let Err(error) = SchedulerConfig::read(&path) {
            assert!(error.to_string().contains("scheduler_config.json"), "{error}");
        }
    }
}
