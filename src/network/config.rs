//! Reading `config.json`: every key is used, checked or known not to matter; an unsupported value is an error that names it.

use crate::{Error, Result};
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

/// Widest layer that is believed: far above any real model, and small enough that products of extents fit in 64 bits.
pub(crate) const MAX_WIDTH: usize = 1 << 16;

/// A component's configuration with a record of the keys that were looked at.
#[derive(Debug)]
pub(crate) struct ConfigFile {
    path: PathBuf,
    /// Where the keys lie inside the file: empty, or `text_config.`.
    prefix: String,
    map: Map<String, Value>,
    seen: RefCell<Vec<String>>,
}

impl ConfigFile {
    /// Wraps the content of `path`, which must be an object.
    pub fn new(path: &Path, value: &Value) -> Result<ConfigFile> {
        let Value::Object(map) = value else {
            return Err(Error::format(path, "", "expected a JSON object with the settings of a model"));
        };
        Ok(ConfigFile { path: path.to_path_buf(), prefix: String::new(), map: map.clone(), seen: RefCell::default() })
    }

    /// The object at `key`, whose errors name both keys; `None` if there is none.
    pub fn section(&self, key: &str) -> Option<ConfigFile> {
        let map = self.get(key)?.as_object()?.clone();
        Some(ConfigFile { path: self.path.clone(), prefix: format!("{}{key}.", self.prefix), map, seen: RefCell::default() })
    }

    /// The error of `key`.
    pub fn error(&self, key: &str, message: impl Into<String>) -> Error {
        Error::config(&self.path, format!("{}{key}", self.prefix), message)
    }

    /// The value of a key; `None` if it is absent or null.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.seen.borrow_mut().push(key.to_string());
        self.map.get(key).filter(|value| !value.is_null())
    }

    fn required<T>(&self, key: &str, value: Option<T>) -> Result<T> {
        value.ok_or_else(|| self.error(key, "is missing"))
    }

    fn integer(&self, key: &str, value: &Value, range: &RangeInclusive<usize>) -> Result<usize> {
        let found = value.as_u64().and_then(|n| usize::try_from(n).ok()).filter(|n| range.contains(n));
        found.ok_or_else(|| self.error(key, format!("{value} is not an integer from {} to {}", range.start(), range.end())))
    }

    /// An integer within `range`.
    pub fn usize(&self, key: &str, default: Option<usize>, range: RangeInclusive<usize>) -> Result<usize> {
        match self.get(key) {
            Some(value) => self.integer(key, value, &range),
            None => self.required(key, default),
        }
    }

    /// An integer within `range`, or nothing.
    pub fn optional_usize(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>> {
        self.get(key).map(|value| self.integer(key, value, &range)).transpose()
    }

    /// A list of integers within `range`.
    pub fn list(&self, key: &str, range: RangeInclusive<usize>) -> Result<Vec<usize>> {
        let value = self.required(key, self.get(key))?;
        let Value::Array(items) = value else {
            return Err(self.error(key, format!("{value} is not a list of integers")));
        };
        items.iter().map(|item| self.integer(key, item, &range)).collect()
    }

    /// One integer for each of `count` blocks, given as one for all or as a list.
    pub fn per_block(&self, key: &str, count: usize, default: usize, range: RangeInclusive<usize>) -> Result<Vec<usize>> {
        match self.get(key) {
            None => Ok(vec![default; count]),
            Some(Value::Array(items)) if items.len() == count => {
                items.iter().map(|item| self.integer(key, item, &range)).collect()
            }
            Some(value @ Value::Array(_)) => {
                Err(self.error(key, format!("{value} does not have one entry for each of the {count} blocks")))
            }
            Some(value) => Ok(vec![self.integer(key, value, &range)?; count]),
        }
    }

    /// A finite number above zero.
    pub fn positive(&self, key: &str, default: f32) -> Result<f32> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let number = value.as_f64().map(|n| n as f32).filter(|n| n.is_finite() && *n > 0.0);
        number.ok_or_else(|| self.error(key, format!("{value} is not a number above zero")))
    }

    /// A finite number.
    pub fn number(&self, key: &str, default: f32) -> Result<f32> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let number = value.as_f64().map(|n| n as f32).filter(|n| n.is_finite());
        number.ok_or_else(|| self.error(key, format!("{value} is not a number")))
    }

    /// True or false.
    pub fn bool(&self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.error(key, format!("{value} is neither true nor false")))
    }

    /// One of the named choices.
    pub fn choice<T: Copy>(&self, key: &str, default: Option<T>, choices: &[(&str, T)]) -> Result<T> {
        let Some(value) = self.get(key) else { return self.required(key, default) };
        self.chosen(key, value, choices)
    }

    /// A list of named choices.
    pub fn choices<T: Copy>(&self, key: &str, choices: &[(&str, T)]) -> Result<Vec<T>> {
        let value = self.required(key, self.get(key))?;
        let Value::Array(items) = value else {
            return Err(self.error(key, format!("{value} is not a list of block types")));
        };
        items.iter().map(|item| self.chosen(key, item, choices)).collect()
    }

    fn chosen<T: Copy>(&self, key: &str, value: &Value, choices: &[(&str, T)]) -> Result<T> {
        let found = choices.iter().find(|(name, _)| value.as_str() == Some(name));
        found.map(|&(_, choice)| choice).ok_or_else(|| {
            let names: Vec<&str> = choices.iter().map(|&(name, _)| name).collect();
            self.error(key, format!("{value} is not supported; supported: {}", names.join(", ")))
        })
    }

    /// Accepts `key` only if it is absent, null, or equal to `supported`, the value that the code is written for. A list is
    /// accepted if all its entries are.
    pub fn expect(&self, key: &str, supported: impl Into<Value>) -> Result<()> {
        let supported = supported.into();
        let same = |value: &Value| match (value.as_f64(), supported.as_f64()) {
            (Some(a), Some(b)) => a == b,
            _ => *value == supported,
        };
        match self.get(key) {
            None => Ok(()),
            Some(value) if same(value) => Ok(()),
            Some(Value::Array(items)) if !items.is_empty() && items.iter().all(same) => Ok(()),
            Some(value) => Err(self.error(key, format!("{value} is not supported; supported: {supported}"))),
        }
    }

    /// Number of entries of a list.
    pub fn count(&self, key: &str) -> Option<usize> {
        self.get(key).and_then(Value::as_array).map(Vec::len)
    }

    /// Names keys that do not change what the network computes here.
    pub fn ignore(&self, keys: &[&str]) {
        self.seen.borrow_mut().extend(keys.iter().map(|key| key.to_string()));
    }

    /// Fails if the file sets a key that nobody looked at: it could change the result. Null and false switch nothing on, and
    /// keys that begin with an underscore are about the file.
    pub fn finish(&self) -> Result<()> {
        let seen = self.seen.borrow();
        let silent = |value: &Value| matches!(value, Value::Null | Value::Bool(false));
        for (key, value) in &self.map {
            if !key.starts_with('_') && !silent(value) && !seen.contains(key) {
                return Err(self.error(key, format!("unknown setting with value {value}: it could change the result")));
            }
        }
        Ok(())
    }
}
