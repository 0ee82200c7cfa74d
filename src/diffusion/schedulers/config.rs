//! `scheduler_config.json` and what each scheduler reads of it.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::weights::read_text;
use crate::{Error, Result};

/// More than any configuration needs; bounds what is read of a file that is something else.
const MAX_FILE_BYTES: u64 = 1 << 20;

/// A scheduler's configuration file, as read: values are checked by the scheduler that reads them.
#[derive(Clone, Debug)]
pub struct SchedulerConfig {
    path: PathBuf,
    class: String,
    values: Map<String, Value>,
}

impl SchedulerConfig {
    /// Reads a `scheduler_config.json`; see [`Self::from_json`].
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be read, [`Error::Format`] if it is not JSON. Python's `-Infinity`, which is not JSON
    /// but stands in the files of DPM-Solver (`lambda_min_clipped`), is read as null.
    pub fn read(path: &Path) -> Result<SchedulerConfig> {
        let text = read_text(path, MAX_FILE_BYTES)?;
        let json = serde_json::from_str(&without_infinity(&text))
            .map_err(|error| Error::format(path, format!("line {}", error.line()), error.to_string()))?;
        SchedulerConfig::from_json(path, &json)
    }

    /// Takes the content of a `scheduler_config.json`; `path` is named in errors.
    ///
    /// Two values are set as diffusers' `StableDiffusionPipeline` sets them for the scheduler it is given, whatever the
    /// file says: `steps_offset` 1 and `clip_sample` false. [`Self::verbatim`] leaves them alone.
    ///
    /// # Errors
    /// [`Error::Config`] if it is not an object with a `_class_name`.
    pub fn from_json(path: &Path, json: &Value) -> Result<SchedulerConfig> {
        let mut config = SchedulerConfig::verbatim(path, json)?;
        config.set("steps_offset", Value::from(1));
        config.set("clip_sample", Value::from(false));
        Ok(config)
    }

    /// As [`Self::from_json`], with every value as the file gives it.
    pub fn verbatim(path: &Path, json: &Value) -> Result<SchedulerConfig> {
        let Some(values) = json.as_object() else {
            return Err(Error::config(path, "_class_name", "the file must hold a JSON object"));
        };
        let Some(class) = values.get("_class_name").and_then(Value::as_str) else {
            return Err(Error::config(path, "_class_name", "missing: it must name a scheduler class of diffusers"));
        };
        Ok(SchedulerConfig { path: path.to_path_buf(), class: class.to_owned(), values: values.clone() })
    }

    /// The class that the file names, for example `PNDMScheduler`.
    pub fn class(&self) -> &str {
        &self.class
    }

    /// The file, as named in errors.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn set(&mut self, key: &str, value: Value) {
        self.values.insert(key.to_owned(), value);
    }

    /// A copy with one value replaced.
    pub(super) fn with(&self, key: &str, value: Value) -> SchedulerConfig {
        let mut copy = self.clone();
        copy.set(key, value);
        copy
    }

    /// The keys as a scheduler class with these defaults reads them.
    ///
    /// A key that the file has is used and any other takes the class's default, whether the class is the file's own or
    /// was asked for instead: that is how `XScheduler.from_config(pipeline.scheduler.config)` works in diffusers.
    pub(super) fn keys(&self, defaults: Defaults) -> Keys<'_> {
        Keys { config: self, defaults }
    }
}

/// `-Infinity` outside of strings becomes `null`.
fn without_infinity(text: &str) -> String {
    const TOKEN: &str = "-Infinity";
    let mut out = String::with_capacity(text.len());
    let (mut in_string, mut escaped) = (false, false);
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        if !in_string && let Some(after) = rest.strip_prefix(TOKEN) {
            out.push_str("null");
            rest = after;
            continue;
        }
        if c == '"' && !escaped {
            in_string = !in_string;
        }
        escaped = in_string && c == '\\' && !escaped;
        out.push(c);
        rest = &rest[c.len_utf8()..];
    }
    out
}

/// How timesteps are chosen from those of the training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spacing {
    Linspace,
    Leading,
    Trailing,
}

/// What the model's output means, with alpha = sqrt(alpha_bar) and sigma = sqrt(1 - alpha_bar):
/// x = alpha x0 + sigma epsilon, v = alpha epsilon - sigma x0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Prediction {
    Epsilon,
    Sample,
    V,
}

impl Prediction {
    /// x0 as (weight of the latent, weight of the output).
    pub fn x0(self, alpha: f64, sigma: f64) -> (f64, f64) {
        match self {
            Prediction::Epsilon => (1.0 / alpha, -sigma / alpha),
            Prediction::Sample => (0.0, 1.0),
            Prediction::V => (alpha, -sigma),
        }
    }

    /// epsilon as (weight of the latent, weight of the output).
    pub fn epsilon(self, alpha: f64, sigma: f64) -> (f64, f64) {
        match self {
            Prediction::Epsilon => (0.0, 1.0),
            Prediction::Sample => (1.0 / sigma, -alpha / sigma),
            Prediction::V => (sigma, alpha),
        }
    }
}

/// Defaults that differ between scheduler classes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Defaults {
    pub beta_start: f64,
    pub beta_end: f64,
    pub beta_schedule: &'static str,
    pub spacing: Spacing,
}

impl Defaults {
    const fn new(spacing: Spacing) -> Defaults {
        Defaults { beta_start: 0.0001, beta_end: 0.02, beta_schedule: "linear", spacing }
    }
    /// PNDM and DDIM.
    pub const LEADING: Defaults = Defaults::new(Spacing::Leading);
    /// Euler and the multistep solvers.
    pub const LINSPACE: Defaults = Defaults::new(Spacing::Linspace);
    /// LCM: those of Stable Diffusion.
    pub const LCM: Defaults =
        Defaults { beta_start: 0.00085, beta_end: 0.012, beta_schedule: "scaled_linear", spacing: Spacing::Leading };
}

/// Typed access to the keys of a configuration; every error names the file and the key.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    config: &'a SchedulerConfig,
    defaults: Defaults,
}

/// More training timesteps than any model has; bounds what a file can make us allocate.
const MAX_TRAIN_TIMESTEPS: i64 = 100_000;

impl<'a> Keys<'a> {
    /// A key that must be absent, null, false or empty, because what it turns on is not supported.
    pub fn refuse_set(&self, key: &str) -> Result<()> {
        match self.get(key) {
            None | Some(Value::Bool(false)) => Ok(()),
            Some(value) => Err(self.error(key, format!("{value} is not supported: remove the key or set it to null or false"))),
        }
    }

    /// Number of training timesteps, at least 1.
    pub fn num_train_timesteps(&self) -> Result<usize> {
        let steps = self.int("num_train_timesteps", 1000)?;
        let in_range = (1..=MAX_TRAIN_TIMESTEPS).contains(&steps);
        let steps = usize::try_from(steps).ok().filter(|_| in_range);
        steps.ok_or_else(|| self.error("num_train_timesteps", format!("must be from 1 to {MAX_TRAIN_TIMESTEPS}")))
    }

    /// Timesteps added by `leading` spacing.
    pub fn steps_offset(&self) -> Result<i64> {
        let offset = self.int("steps_offset", 0)?;
        if (0..MAX_TRAIN_TIMESTEPS).contains(&offset) {
            Ok(offset)
        } else {
            Err(self.error("steps_offset", format!("{offset} must be a small number from 0 up")))
        }
    }

    /// `beta_start` and `beta_end`, each in (0, 1).
    pub fn betas(&self) -> Result<(f64, f64)> {
        let beta = |key: &str, default: f64| {
            let beta = self.f64(key)?.unwrap_or(default);
            if beta > 0.0 && beta < 1.0 { Ok(beta) } else { Err(self.error(key, format!("{beta} must be between 0 and 1"))) }
        };
        Ok((beta("beta_start", self.defaults.beta_start)?, beta("beta_end", self.defaults.beta_end)?))
    }

    /// `beta_schedule`, not checked.
    pub fn beta_schedule(&self) -> Result<&'a str> {
        self.str("beta_schedule", self.defaults.beta_schedule)
    }

    /// `timestep_spacing`.
    pub fn spacing(&self) -> Result<Spacing> {
        match self.get("timestep_spacing") {
            None => Ok(self.defaults.spacing),
            Some(Value::String(name)) => match name.as_str() {
                "linspace" => Ok(Spacing::Linspace),
                "leading" => Ok(Spacing::Leading),
                "trailing" => Ok(Spacing::Trailing),
                other => Err(self.unsupported("timestep_spacing", other, "linspace, leading and trailing")),
            },
            Some(other) => Err(self.error("timestep_spacing", format!("{other} must be a string"))),
        }
    }

    /// `prediction_type`; `sample` only where the scheduler has it.
    pub fn prediction(&self, has_sample: bool) -> Result<Prediction> {
        match self.str("prediction_type", "epsilon")? {
            "epsilon" => Ok(Prediction::Epsilon),
            "v_prediction" => Ok(Prediction::V),
            "sample" if has_sample => Ok(Prediction::Sample),
            other if has_sample => Err(self.unsupported("prediction_type", other, "epsilon, v_prediction and sample")),
            other => Err(self.unsupported("prediction_type", other, "epsilon and v_prediction")),
        }
    }

    /// `final_sigmas_type`: true if the last sigma is zero, false if it is the smallest of the training.
    pub fn final_sigma_is_zero(&self) -> Result<bool> {
        match self.str("final_sigmas_type", "zero")? {
            "zero" => Ok(true),
            "sigma_min" => Ok(false),
            other => Err(self.unsupported("final_sigmas_type", other, "zero and sigma_min")),
        }
    }

    /// A string key.
    pub fn str(&self, key: &str, default: &'a str) -> Result<&'a str> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::String(text)) => Ok(text),
            Some(other) => Err(self.error(key, format!("{other} must be a string"))),
        }
    }

    /// A boolean key.
    pub fn bool(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(other) => Err(self.error(key, format!("{other} must be true or false"))),
        }
    }

    /// A whole number.
    pub fn int(&self, key: &str, default: i64) -> Result<i64> {
        match self.get(key) {
            None => Ok(default),
            Some(value) => value.as_i64().ok_or_else(|| self.error(key, format!("{value} must be a whole number"))),
        }
    }

    /// A number, if there is one.
    pub fn f64(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key) {
            None => Ok(None),
            Some(value) => match value.as_f64() {
                Some(number) => Ok(Some(number)),
                None => Err(self.error(key, format!("{value} must be a number"))),
            },
        }
    }

    /// A list of indices.
    pub fn indices(&self, key: &str) -> Result<Vec<usize>> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let index = |v: &Value| v.as_u64().and_then(|i| usize::try_from(i).ok());
        let list = value.as_array().and_then(|list| list.iter().map(index).collect());
        list.ok_or_else(|| self.error(key, format!("{value} must be a list of step indices")))
    }

    /// The error of a value that this program does not know.
    pub fn unsupported(&self, key: &str, found: impl std::fmt::Display, supported: &str) -> Error {
        self.error(key, format!("`{found}` is not supported; supported are {supported}"))
    }

    /// An error about this key.
    pub fn error(&self, key: &str, message: String) -> Error {
        Error::config(&self.config.path, key, message)
    }

    /// The value of a key; null counts as absent.
    fn get(&self, key: &str) -> Option<&'a Value> {
        self.config.values.get(key).filter(|value| !value.is_null())
    }
}
