//! Reading keys one by one, and keeping all faults until the end.

use config::{ConfigError, Environment, File, FileFormat, Value, ValueKind};
use std::collections::BTreeMap;
use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

/// What the command line says, over file and environment.
#[derive(Clone, Debug, Default)]
pub struct Flags {
    /// The TOML file to read first; none reads none.
    pub file: Option<PathBuf>,
    /// Single keys, which win over environment and file.
    pub overrides: Vec<(&'static str, String)>,
    /// Whether `TIDEGATE__SECTION__KEY` counts.
    pub environment: bool,
}

impl Flags {
    /// Flags that name only a file.
    #[must_use]
    pub fn file(path: PathBuf) -> Self {
        Self {
            file: Some(path),
            ..Self::default()
        }
    }
}

/// All that is wrong with a configuration, one sentence each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults(pub Vec<String>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl std::error::Error for Faults {}

/// Values by dotted key, those that were asked for, and what was wrong.
#[derive(Debug, Default)]
pub(super) struct Source {
    values: BTreeMap<String, Value>,
    asked: Vec<&'static str>,
    settled: BTreeMap<&'static str, u64>,
    faults: Vec<String>,
}

impl Source {
    pub(super) fn read(flags: &Flags) -> Result<Self, Faults> {
        let mut builder = config::Config::builder();
        if let Some(path) = &flags.file {
            builder = builder.add_source(File::from(path.as_path()).format(FileFormat::Toml));
        }
        if flags.environment {
            let environment = Environment::with_prefix("TIDEGATE")
                .prefix_separator("__")
                .separator("__");
            builder = builder.add_source(environment);
        }
        for (key, value) in &flags.overrides {
            builder = builder
                .set_override(*key, value.clone())
                .map_err(|why| unreadable(&why))?;
        }
        let merged = builder.build().map_err(|why| unreadable(&why))?;
        let mut source = Self::default();
        source.flatten("", merged.cache);
        Ok(source)
    }

    fn flatten(&mut self, prefix: &str, value: Value) {
        let origin = value.origin().map(str::to_owned);
        match value.kind {
            ValueKind::Table(table) => {
                for (name, value) in table {
                    let key = if prefix.is_empty() {
                        name
                    } else {
                        format!("{prefix}.{name}")
                    };
                    self.flatten(&key, value);
                }
            }
            ValueKind::Nil => {}
            kind => {
                self.values
                    .insert(prefix.to_owned(), Value::new(origin.as_ref(), kind));
            }
        }
    }

    pub(super) fn fault(&mut self, key: &str, what: &str) {
        let origin = self.values.get(key).and_then(|value| value.origin());
        let place = origin
            .map(|origin| format!(" (in {origin})"))
            .unwrap_or_default();
        self.faults.push(format!("{key}{place}: {what}"));
    }

    fn text(&mut self, key: &'static str) -> Option<String> {
        self.asked.push(key);
        let value = self.values.get(key)?.clone();
        if let Ok(text) = value.into_string() {
            Some(text)
        } else {
            self.fault(key, "must be a single value");
            None
        }
    }

    fn parse<T: FromStr>(&mut self, key: &'static str, text: &str) -> Option<T> {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            let what = std::any::type_name::<T>()
                .rsplit("::")
                .next()
                .unwrap_or_default();
            let expected = match what {
                "SocketAddr" => "an address such as 127.0.0.1:8081",
                "bool" => "true or false",
                "u16" | "u32" | "u64" | "usize" => "a whole number",
                _ => "a value of another kind",
            };
            self.fault(key, &format!("{text:?} is not {expected}"));
        }
        parsed
    }

    /// A key's text, or its default: what it says in the end.
    fn text_or(&mut self, key: &'static str, default: &str) -> String {
        let text = self.text(key).unwrap_or_else(|| default.to_owned());
        self.settle(key, &text);
        text
    }

    /// Keeps of what a key says so much that another value is told from it, and no secret.
    pub(super) fn settle(&mut self, key: &'static str, text: &str) {
        static KEYS: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        self.settled.insert(key, KEYS.hash_one(text));
    }

    /// What all keys say in the end, by key; comparable within one process.
    pub(super) fn settled(&mut self) -> BTreeMap<&'static str, u64> {
        std::mem::take(&mut self.settled)
    }

    /// A key with a default.
    pub(super) fn get<T: FromStr + Default>(&mut self, key: &'static str, default: &str) -> T {
        let text = self.text_or(key, default);
        self.parse(key, &text).unwrap_or_default()
    }

    /// An address to listen on.
    pub(super) fn address(&mut self, key: &'static str, default: &str) -> SocketAddr {
        let text = self.text_or(key, default);
        self.parse(key, &text)
            .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// A key that may be absent; an empty value counts as absent.
    pub(super) fn optional<T: FromStr>(&mut self, key: &'static str) -> Option<T> {
        let text = self.text_or(key, "");
        if text.is_empty() {
            return None;
        }
        self.parse(key, &text)
    }

    /// A span of time such as `15s` or `24h`.
    pub(super) fn duration(&mut self, key: &'static str, default: &str) -> Duration {
        let text = self.text_or(key, default);
        humantime::parse_duration(&text).unwrap_or_else(|_| {
            self.fault(
                key,
                &format!("{text:?} is not a duration such as 500ms, 15s or 24h"),
            );
            // Never used: a fault ends the start. Not zero, so that no second fault follows.
            Duration::from_secs(1)
        })
    }

    /// A span of time that may not be zero.
    pub(super) fn positive(&mut self, key: &'static str, default: &str) -> Duration {
        let duration = self.duration(key, default);
        if duration.is_zero() {
            self.fault(key, "must be longer than zero");
        }
        duration
    }

    /// A number of things that may not be none.
    pub(super) fn count(&mut self, key: &'static str, default: &str) -> usize {
        let before = self.faults.len();
        let count = self.get(key, default);
        if count == 0 && self.faults.len() == before {
            self.fault(key, "must be at least 1");
        }
        count
    }

    /// A list of tables, each read by `take` like a file of its own. In the environment it is one
    /// text, a TOML array.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        take: impl Fn(&mut Self) -> Option<T>,
    ) -> Vec<T> {
        self.asked.push(key);
        let Some(value) = self.values.get(key).cloned() else {
            return Vec::new();
        };
        let Some(tables) = tables_in(value) else {
            self.fault(key, "must be a list of tables");
            return Vec::new();
        };
        let mut taken = Vec::new();
        for (index, table) in tables.into_iter().enumerate() {
            let mut source = Self::default();
            source.flatten("", table);
            taken.extend(take(&mut source));
            if let Err(Faults(faults)) = source.finish() {
                let number = index + 1;
                let faults = faults
                    .iter()
                    .map(|fault| format!("{key}, entry {number}: {fault}"));
                self.faults.extend(faults);
            }
        }
        taken
    }

    /// A list of texts. In the environment it is one text, with commas between.
    pub(super) fn list(&mut self, key: &'static str) -> Vec<String> {
        self.asked.push(key);
        let kind = self.values.get(key).map(|value| value.kind.clone());
        let texts = match kind {
            None => Some(Vec::new()),
            Some(ValueKind::String(text)) => {
                let parts = text.split(',').map(str::trim);
                Some(
                    parts
                        .filter(|part| !part.is_empty())
                        .map(str::to_owned)
                        .collect(),
                )
            }
            Some(ValueKind::Array(entries)) => {
                let texts = entries.into_iter().map(|entry| match entry.kind {
                    ValueKind::String(text) => Some(text),
                    _ => None,
                });
                texts.collect::<Option<Vec<String>>>()
            }
            Some(_) => None,
        };
        let texts = texts.unwrap_or_else(|| {
            self.fault(key, "must be a list of texts");
            Vec::new()
        });
        self.settle(key, &texts.join("\n"));
        texts
    }

    /// True or false.
    pub(super) fn flag(&mut self, key: &'static str, default: &str) -> bool {
        self.get(key, default)
    }

    /// One of a few words; the first is the default.
    pub(super) fn choice(&mut self, key: &'static str, words: &[&'static str]) -> &'static str {
        let default = words.first().copied().unwrap_or_default();
        let text = self.text_or(key, default);
        words
            .iter()
            .copied()
            .find(|word| *word == text)
            .unwrap_or_else(|| {
                self.fault(key, &format!("{text:?} is not one of {}", words.join(", ")));
                default
            })
    }

    /// Whether a key has a value, sound or not.
    pub(super) fn has(&self, key: &str) -> bool {
        let value = self.values.get(key).cloned();
        value.is_some_and(|value| value.into_string().is_ok_and(|text| !text.is_empty()))
    }

    /// What a key says, as text.
    pub(super) fn said(&self, key: &str) -> Option<String> {
        self.values.get(key)?.clone().into_string().ok()
    }

    /// The contents of a file in PEM, which must hold something of this kind.
    pub(super) fn pem(&mut self, key: &'static str, kind: &str) -> Option<String> {
        let text = self.file(key)?;
        if text.contains(&format!("{kind}-----")) {
            return Some(text);
        }
        self.fault(key, &format!("the file has no {kind} in PEM"));
        None
    }

    /// The contents of the file that a key names, without white space around them.
    pub(super) fn file(&mut self, key: &'static str) -> Option<String> {
        let path = self.optional::<String>(key)?;
        match std::fs::read_to_string(&path) {
            Ok(text) if text.trim().is_empty() => {
                self.fault(key, &format!("{path} is empty"));
                None
            }
            Ok(text) => {
                self.settle(key, text.trim());
                Some(text.trim().to_owned())
            }
            Err(why) => {
                self.fault(key, &format!("{path} cannot be read: {why}"));
                None
            }
        }
    }

    /// Adds a fault for each key that nobody asked for, and ends the reading.
    pub(super) fn finish(mut self) -> Result<(), Faults> {
        let unknown: Vec<String> = self
            .values
            .keys()
            .filter(|key| !self.asked.contains(&key.as_str()))
            .cloned()
            .collect();
        for key in unknown {
            let near = |known: &&&str| strsim::jaro_winkler(known, &key);
            let nearest = self.asked.iter().max_by(|a, b| near(a).total_cmp(&near(b)));
            let hint = nearest
                .map(|known| format!("; did you mean {known}?"))
                .unwrap_or_default();
            self.fault(&key, &format!("there is no such key{hint}"));
        }
        if self.faults.is_empty() {
            Ok(())
        } else {
            Err(Faults(self.faults))
        }
    }

    pub(super) fn into_keys(self) -> Vec<&'static str> {
        self.asked
    }
}

fn tables_in(value: Value) -> Option<Vec<Value>> {
    let list = match value.kind {
        ValueKind::String(text) if text.is_empty() => return Some(Vec::new()),
        ValueKind::String(text) => {
            let text = format!("list = {text}");
            let file = File::from_str(&text, FileFormat::Toml);
            let read = config::Config::builder().add_source(file).build().ok()?;
            read.get::<Value>("list").ok()?.kind
        }
        kind => kind,
    };
    let ValueKind::Array(list) = list else {
        return None;
    };
    let are_tables = list
        .iter()
        .all(|entry| matches!(entry.kind, ValueKind::Table(_)));
    are_tables.then_some(list)
}

fn unreadable(why: &ConfigError) -> Faults {
    let why = match why {
        ConfigError::FileParse { uri, cause } => {
            let file = uri.as_deref().unwrap_or("the file");
            format!("{file}: {}", without_excerpt(&cause.to_string()))
        }
        why => why.to_string(),
    };
    Faults(vec![format!("the configuration cannot be read: {why}")])
}

/// A TOML error in one line, without the line of the file that it quotes: that may hold a secret.
fn without_excerpt(error: &str) -> String {
    let is_excerpt = |line: &&str| {
        line.split_once('|')
            .is_some_and(|(margin, _)| margin.chars().all(|c| c == ' ' || c.is_ascii_digit()))
    };
    let lines: Vec<&str> = error.lines().filter(|line| !is_excerpt(line)).collect();
    lines.join(": ")
}
