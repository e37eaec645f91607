//! The function libraries: their sources, and what they are called in Redis.
//!
//! Two libraries share `core.lua`. What replicas call stands in `<prefix>_<hash of its code>`: any
//! two builds have their own, and share one Redis. It is removed when no replica has used it for a
//! while; one that still wants it loads it again. What people call stands in `<prefix>`, and its
//! functions have one name only. So it has a version: a newer one replaces it, an older one never
//! does unless an operator says so (`tidegate functions --install`).

/// The version of the public functions. Raise it whenever [`PUBLIC_CODE`] changes: `core.lua` is
/// part of it.
pub(super) const VERSION: u32 = 10;

/// The hash of the public functions of this version. A test compares.
const PUBLIC_CODE: &str = "0ca9939de08250af";

const CORE: &str = include_str!("core.lua");
const INTERNAL: &str = include_str!("internal.lua");
const PUBLIC: &str = include_str!("public.lua");

/// The two libraries, for one prefix.
#[derive(Debug)]
pub(super) struct Library {
    pub(super) internal: String,
    pub(super) public: String,
    /// The name of the internal one.
    pub(super) name: String,
    prefix: String,
}

impl Library {
    pub(super) fn new(prefix: &str) -> Self {
        let code = hash(&[CORE, INTERNAL]);
        let name = format!("{prefix}_{code}");
        let fill = |name: &str, source: &str, code: &str| {
            format!("#!lua name={name}\n{CORE}\n{source}")
                .replace("@PREFIX@", prefix)
                .replace("@LIBRARY@", name)
                .replace("@VERSION@", &VERSION.to_string())
                .replace("@CODE@", code)
        };
        Self {
            internal: fill(&name, INTERNAL, &code),
            public: fill(prefix, PUBLIC, PUBLIC_CODE),
            name,
            prefix: prefix.to_owned(),
        }
    }

    /// The name of an internal function.
    pub(super) fn function(&self, name: &str) -> String {
        format!("{}_{name}", self.name)
    }

    /// The function that tells the version of the public library.
    pub(super) fn public_version(&self) -> String {
        format!("{}_version", self.prefix)
    }

    /// Whether this is the name of a library that replicas of some build call.
    pub(super) fn is_internal(&self, name: &str) -> bool {
        let tail = name
            .strip_prefix(&self.prefix)
            .and_then(|tail| tail.strip_prefix('_'));
        // Before they were named by their code they had a number.
        tail.is_some_and(|tail| {
            let hash = tail.len() == HASH_LEN && tail.bytes().all(|b| b.is_ascii_hexdigit());
            let number = tail.strip_prefix('v').unwrap_or_default();
            hash || !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
        })
    }
}

/// Letters of a hash.
const HASH_LEN: usize = 16;

/// FNV-1a: two builds that differ must not share a name; nobody is kept from making them collide.
fn hash(sources: &[&str]) -> String {
    let bytes = sources.iter().flat_map(|source| source.bytes().chain([0]));
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{hash:016x}")
}

/// What this build calls itself in Redis, for whoever compares.
#[derive(Debug)]
pub(crate) struct LibraryWords {
    /// Tells that the library is there that replicas of this build call.
    pub(crate) internal_version: String,
    /// Tells version and code of the functions that people call.
    pub(crate) public_version: String,
    pub(crate) version: u32,
    pub(crate) code: &'static str,
    /// The source of the functions that people call.
    pub(crate) public: String,
}

/// The words for one prefix.
pub(crate) fn words(prefix: &str) -> LibraryWords {
    let library = Library::new(prefix);
    LibraryWords {
        internal_version: library.function("version"),
        public_version: library.public_version(),
        version: VERSION,
        code: PUBLIC_CODE,
        public: library.public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placeholder_is_filled() {
        let library = Library::new("tg");
        for source in [&library.internal, &library.public] {
            for placeholder in ["@PREFIX@", "@LIBRARY@", "@VERSION@", "@CODE@"] {
                assert!(!source.contains(placeholder), "{placeholder}");
            }
        }
        assert!(library.public.starts_with("#!lua name=tg\n"));
        let name = format!("tg_{}", hash(&[CORE, INTERNAL]));
        assert!(
            library
                .internal
                .starts_with(&format!("#!lua name={name}\n"))
        );
        assert_eq!(library.function("publish"), format!("{name}_publish"));
    }

    #[test]
    fn a_change_of_the_public_functions_has_a_version_of_its_own() {
        assert_eq!(
            hash(&[CORE, PUBLIC]),
            PUBLIC_CODE,
            "core.lua or public.lua has changed: raise VERSION and set PUBLIC_CODE in \
             src/broker/redis/library.rs, so that replicas of this build replace the public functions \
             that older ones have loaded"
        );
    }

    #[test]
    fn libraries_of_replicas_are_known_by_their_names() {
        let library = Library::new("tg");
        assert!(library.is_internal(&library.name));
        assert!(library.is_internal("tg_v1"));
        for other in [
            "tg",
            "tg_",
            "tg_v",
            "tg_vx",
            "tg_mine",
            "other_0123456789abcdef",
            "tg2_v1",
        ] {
            assert!(!library.is_internal(other), "{other}");
        }
    }
}
