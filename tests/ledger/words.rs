//! What publishers call things and send: what is drawn from.

use tidegate::id::Id;

/// Integers up to here survive Lua's doubles.
pub(super) const EXACT: u64 = 1 << 53;

/// What is drawn from.
pub(super) struct Words {
    /// The first five are drawn more often.
    pub(super) topics: Vec<String>,
    pub(super) types: Vec<String>,
    pub(super) data: Vec<String>,
    pub(super) keys: Vec<String>,
    /// After which is read, besides what is near the present.
    pub(super) ids: Vec<Id>,
    pub(super) event_bytes_max: usize,
    pub(super) topics_max: usize,
}

fn all(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

impl Words {
    /// Few, so that they meet. With keys that make others of topics, if a colon is all that stands between.
    pub(super) fn plain() -> Self {
        Self {
            topics: all(&["a", "a:1", "b", "ba", "ü:1", "c", "d", "e", ":1:a", "ü"]),
            types: all(&["", "price", "größe"]),
            data: all(&[
                "",
                "x",
                "zwei\nfür",
                "",
                "x",
                "zwei\nfür",
                "more than is allowed",
            ]),
            keys: all(&["k", "1:k", ":k", "1", "ü:1:k", "2:a:k"]),
            ids: vec![Id::ZERO],
            event_bytes_max: 12,
            topics_max: 6,
        }
    }

    /// Valid, and as awkward as can be: the longest, what is a word elsewhere (a number, a pattern, a key of ours),
    /// what looks alike, what ends lines.
    pub(super) fn hostile() -> Self {
        let longest = |unit: &str, most: usize| {
            let units = unit.repeat(most / unit.len());
            let rest = "x".repeat(most - units.len());
            units + &rest
        };
        let mut topics = vec![
            longest("a", 255),
            longest("ü", 255),
            longest("𝕏", 255),
            "{1}:log:{0}".to_owned(),
            "9007199254740993".to_owned(),
        ];
        topics.extend(all(&[
            "0",
            "-1",
            "-0",
            "nan",
            "inf",
            "1e5",
            "0x10",
            "true",
            "nil",
            "__index",
            "%d+",
            "^[%w]$",
            "(.-)",
            "\"",
            "'",
            "\\",
            "\\n",
            " ",
            " a ",
            "a",
            ":",
            "::1:a",
            "{0}",
            "tidegate",
            "tidegate:{0}:clock",
            "log:a",
            "e\u{301}",
            "é",
            "\u{2028}",
            "\u{feff}a",
            "\u{202e}a",
            "\u{10ffff}",
            "last",
        ]));
        let mut types = vec![longest("t", 255), longest("ü", 255), longest("𝕏", 255)];
        types.extend(all(&[
            "", " ", "a b  c", "\t", ":", "data: x", "end", "gap", "message", "tidegate", "0", "e",
            "\u{2028}", "\u{85}", "%s",
        ]));
        let most = 4096;
        let mut data = vec![
            longest("x", most),
            longest("ü", most),
            longest("𝕏", most),
            longest("\n", most),
            longest("x", most + 1),
            longest("𝕏", most + 1),
        ];
        data.extend(all(&[
            "",
            "\n",
            "\r",
            "\r\n",
            "\n\r",
            "\n\n",
            "a\r\nb\rc\n",
            " a",
            ":a",
            "data: x\n\nid: 1-1\n\n",
            "\0",
            "\u{feff}",
            "\u{85}\u{2028}\u{2029}",
            "\u{10ffff}",
            "9007199254740993",
            "-0",
            "nil",
            "{\"a\":1}",
            "\\0",
            "%",
        ]));
        let mut keys = vec![longest("k", 255)];
        keys.extend(all(&[
            "0", " ", "~", ":", "1:a", "{0}", "%s", "\\", "\"", "a:1:k", "nil",
        ]));
        let last = EXACT - 1;
        Self {
            topics,
            types,
            data,
            keys,
            ids: vec![
                Id::ZERO,
                Id::new(0, 1),
                Id::new(0, last),
                Id::new(1, 0),
                Id::new(last, 0),
                Id::new(last, last),
                Id::new(last - 1, last),
            ],
            event_bytes_max: most,
            topics_max: 30,
        }
    }
}
