//! The function library: its sources, and how they get into Redis.
//!
//! Two libraries share `core.lua`. `<prefix>_v<N>` holds what replicas call; another version of it
//! stands beside it, so that older and newer replicas run side by side in a rolling upgrade.
//! `<prefix>` holds what people call, and is replaced only by a higher version.

/// The version of the layout in Redis. Raise it with any change of the Lua sources that has been
/// released.
pub(super) const VERSION: u32 = 1;

const CORE: &str = include_str!("core.lua");
const INTERNAL: &str = include_str!("internal.lua");
const PUBLIC: &str = include_str!("public.lua");

/// The two libraries, for one prefix.
#[derive(Debug)]
pub(super) struct Library {
    pub(super) internal: String,
    pub(super) public: String,
    /// A hash of the sources: two builds of one version agree, or one of them is refused.
    pub(super) code: String,
    prefix: String,
}

impl Library {
    pub(super) fn new(prefix: &str) -> Self {
        let mut hash = crc32fast::Hasher::new();
        for source in [CORE, INTERNAL, PUBLIC, prefix] {
            hash.update(source.as_bytes());
        }
        let code = format!("{:08x}", hash.finalize());
        let fill = |name: String, source: &str| {
            format!("#!lua name={name}\n{CORE}\n{source}")
                .replace("@PREFIX@", prefix)
                .replace("@VERSION@", &VERSION.to_string())
                .replace("@CODE@", &code)
        };
        Self {
            internal: fill(format!("{prefix}_v{VERSION}"), INTERNAL),
            public: fill(prefix.to_owned(), PUBLIC),
            prefix: prefix.to_owned(),
            code,
        }
    }

    /// The name of an internal function.
    pub(super) fn function(&self, name: &str) -> String {
        format!("{}_v{VERSION}_{name}", self.prefix)
    }

    /// The function that tells the version of the public library.
    pub(super) fn public_version(&self) -> String {
        format!("{}_version", self.prefix)
    }
}

/// What this build calls itself in Redis, for whoever compares.
#[derive(Debug)]
pub(crate) struct LibraryWords {
    /// Tells version and build of the functions that replicas call.
    pub(crate) internal: String,
    /// Tells those of the functions that people call.
    pub(crate) public: String,
    pub(crate) version: u32,
    pub(crate) code: String,
}

/// The words for one prefix.
pub(crate) fn words(prefix: &str) -> LibraryWords {
    let library = Library::new(prefix);
    LibraryWords {
        internal: library.function("version"),
        public: library.public_version(),
        version: VERSION,
        code: library.code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_is_filled() {
        let library = Library::new("tg");
        for source in [&library.internal, &library.public] {
            assert!(
                !source.contains('@')
                    || !source.contains("@PREFIX@")
                        && !source.contains("@VERSION@")
                        && !source.contains("@CODE@")
            );
        }
        assert!(library.public.starts_with("#!lua name=tg\n"));
        assert!(library.internal.starts_with("#!lua name=tg_v1\n"));
        assert_eq!(library.function("publish"), "tg_v1_publish");
    }
}
