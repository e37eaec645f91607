//! Goal: the parts of the source know one another in one direction only.
//!
//! Method: every path of `src/` that begins with `crate`, `super`, `self` or a child module is read
//! from the text and followed to the file it leads to, through re-exports. Tests and comments do not
//! count. Two rules hold of these arrows:
//!
//! | rule | why |
//! |---|---|
//! | a room knows only the rooms below it (`ROOMS`) | what is low can be read, tested and simulated alone |
//! | within a room no two files know one another | either can be read first |

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed step ends the test"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The rooms, and what each may know. `words` are the files at the bottom; `lib` names all.
const ROOMS: [(&str, &[&str]); 16] = [
    ("words", &[]),
    ("metrics", &["words"]),
    ("dial", &[]),
    ("hub", &["words"]),
    ("broker", &["words", "metrics"]),
    ("limits", &["words", "metrics"]),
    ("auth", &["words", "metrics"]),
    (
        "follow",
        &["words", "metrics", "limits", "auth", "hub", "broker"],
    ),
    (
        "stream",
        &[
            "words", "metrics", "limits", "auth", "hub", "broker", "follow",
        ],
    ),
    ("ingest", &["metrics", "broker", "follow"]),
    (
        "config",
        &["words", "dial", "limits", "auth", "hub", "broker"],
    ),
    (
        "http",
        &[
            "words", "metrics", "limits", "auth", "hub", "broker", "follow", "stream", "config",
        ],
    ),
    (
        "app",
        &[
            "words", "metrics", "dial", "limits", "auth", "hub", "broker", "follow", "stream",
            "ingest", "config", "http",
        ],
    ),
    ("client", &["dial"]),
    (
        "cli",
        &[
            "words", "metrics", "dial", "auth", "broker", "config", "app", "client",
        ],
    ),
    ("fuzz", &["words", "auth", "broker", "http"]),
];
/// What the words are.
const WORDS: [&str; 12] = [
    "address", "id", "topic", "event", "cursor", "log", "gap", "sse", "time", "swap", "stderr",
    "sync",
];

/// A module's path below the crate.
type Module = Vec<String>;

/// One file.
#[derive(Debug)]
struct File {
    /// Below `src/`.
    name: String,
    /// Paths that it names, as they stand there, each with its line.
    paths: Vec<(Vec<String>, usize)>,
    /// What its `use` makes known under another name than the full path: name to path.
    imports: BTreeMap<String, Vec<String>>,
}

/// All files by module.
type Files = BTreeMap<Module, File>;
/// Arrows from file to file, with the first line that makes each.
type Arrows = BTreeMap<(String, String), usize>;

#[test]
fn rooms_know_only_those_below_them() {
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
    for ((from, to), line) in arrows(&files()) {
        let (here, there) = (room(&from), room(&to));
        let allowed = ROOMS.iter().find(|(name, _)| *name == here);
        let Some((_, below)) = allowed else {
            panic!("{from}: {here} is no room; add it to ROOMS");
        };
        if here != there && !below.contains(&there.as_str()) {
            wrong.push(format!(
                "src/{from}:{line}: {here} knows {there} (src/{to})"
            ));
        }
        used.insert((here, there));
    }
    for (here, below) in ROOMS {
        let is_used = |there: &&str| used.contains(&(here.to_owned(), (*there).to_owned()));
        let unused = below.iter().filter(|there| !is_used(there));
        wrong.extend(unused.map(|there| format!("ROOMS: {here} does not know {there} any more")));
    }
    assert!(
        wrong.is_empty(),
        "arrows that are not those of ROOMS:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn no_two_files_of_a_room_know_one_another() {
    let arrows = arrows(&files());
    let mut next: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (from, to) in arrows.keys() {
        if room(from) == room(to) {
            next.entry(from).or_default().insert(to);
        }
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> = next
        .keys()
        .map(|from| (*from, reach(from, &next)))
        .collect();
    let is_in_circle = |from: &str, to: &str| {
        reached
            .get(to)
            .is_some_and(|reached| reached.contains(from))
    };
    let wrong: Vec<String> = arrows
        .iter()
        .filter(|((from, to), _)| room(from) == room(to) && is_in_circle(from, to))
        .map(|((from, to), line)| format!("src/{from}:{line}: knows src/{to}, and is known there"))
        .collect();
    assert!(wrong.is_empty(), "circles:\n{}", wrong.join("\n"));
}

#[test]
fn paths_are_found_and_followed() {
    let text = r#"
        //! crate::not::this
        mod child;
        pub(in crate::http) use child::{Thing, deep::{Other as Another, self}};
        /* crate::nor::this */ const TEXT: &str = "crate::nor::that";
        fn f<'a>(c: char) { if c == '"' { crate::hub::feed() } child::g(); super::h::<u8>() }
        #[cfg(test)]
        mod tests { use crate::nor::these; }
        use crate::last;
    "#;
    let (paths, imports) = read(text);
    let found: Vec<String> = paths.iter().map(|(path, _)| path.join("::")).collect();
    assert_eq!(
        found,
        [
            "child::Thing",
            "child::deep::Other",
            "child::deep",
            "crate::hub::feed",
            "child::g",
            "super::h",
            "crate::last"
        ]
    );
    assert_eq!(imports["Another"].join("::"), "child::deep::Other");
}

/// Everything that can be reached from a file.
fn reach<'a>(from: &'a str, next: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeSet<&'a str> {
    let (mut reached, mut open) = (BTreeSet::new(), vec![from]);
    while let Some(at) = open.pop() {
        for to in next.get(at).into_iter().flatten() {
            if reached.insert(*to) {
                open.push(to);
            }
        }
    }
    reached
}

/// The room of a file: the folder or file right below `src/`.
fn room(file: &str) -> String {
    let first = file.split('/').next().unwrap_or_default();
    let name = first.strip_suffix(".rs").unwrap_or(first);
    if WORDS.contains(&name) {
        "words".to_owned()
    } else {
        name.to_owned()
    }
}

fn files() -> Files {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Files::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let name = path.strip_prefix(&root).expect("below src/");
            let name = name.to_str().expect("a name in UTF-8").to_owned();
            // The program names the library like everybody else.
            let Some(module) = name.strip_suffix(".rs").filter(|name| *name != "main") else {
                continue;
            };
            let mut module: Module = module.split('/').map(str::to_owned).collect();
            if module.last().is_some_and(|last| last == "mod") {
                module.pop();
            }
            let (paths, imports) = read(&fs::read_to_string(&path).expect("text"));
            let file = File {
                name,
                paths,
                imports,
            };
            files.insert(module, file);
        }
    }
    assert!(files.len() > 50, "the sources are somewhere else");
    files
}

/// The arrows among all files. `lib.rs` names every module, which says nothing.
fn arrows(files: &Files) -> Arrows {
    let mut arrows = Arrows::new();
    for (module, file) in files {
        for (path, line) in &file.paths {
            let Some(to) = follow(files, module, path, 0) else {
                continue;
            };
            let arrow = (file.name.clone(), files[&to].name.clone());
            let is_root = [&arrow.0, &arrow.1].map(String::as_str).contains(&"lib.rs");
            if arrow.0 != arrow.1 && !is_root {
                arrows.entry(arrow).or_insert(*line);
            }
        }
    }
    arrows
}

/// The module that a path leads to from a module, through what is re-exported; none if it leads out
/// of the crate.
fn follow(files: &Files, from: &Module, path: &[String], depth: usize) -> Option<Module> {
    let (mut at, mut rest): (Module, &[String]) = match path.first()?.as_str() {
        "crate" => (Module::new(), &path[1..]),
        "self" => (from.clone(), &path[1..]),
        "super" => (from.split_last()?.1.to_vec(), &path[1..]),
        child if is_module(files, &join(from, child)) => (from.clone(), path),
        _ => return None,
    };
    loop {
        match rest.first().map(String::as_str) {
            Some("super") => {
                at.pop();
            }
            Some(child) if is_module(files, &join(&at, child)) => at.push(child.to_owned()),
            _ => break,
        }
        rest = &rest[1..];
    }
    let import = || files.get(&at)?.imports.get(rest.first()?);
    match import() {
        Some(import) if depth < 8 && at != *from => {
            follow(files, &at, import, depth + 1).or(Some(at))
        }
        _ => files.contains_key(&at).then_some(at),
    }
}

fn is_module(files: &Files, module: &Module) -> bool {
    files.contains_key(module)
}

fn join(module: &Module, child: &str) -> Module {
    let mut joined = module.clone();
    joined.push(child.to_owned());
    joined
}

/// The paths in a file, each with its line, and what it imports under which name.
fn read(text: &str) -> (Vec<(Vec<String>, usize)>, BTreeMap<String, Vec<String>>) {
    let tokens = without_tests(&tokens(text));
    let (mut paths, mut imports) = (Vec::new(), BTreeMap::new());
    let mut at = 0;
    while at < tokens.len() {
        let (token, line) = &tokens[at];
        if token == "pub" && tokens.get(at + 1).is_some_and(|(next, _)| next == "(") {
            at += tokens[at..].iter().take_while(|(t, _)| t != ")").count();
        } else if token == "use" {
            at += 1;
            tree(&tokens, &mut at, &[], &mut |path, name| {
                paths.push((path.clone(), *line));
                imports.insert(name, path);
            });
        } else if is_word(token) && (at == 0 || tokens[at - 1].0 != "::") {
            let mut path = vec![token.clone()];
            while tokens.get(at + 1).is_some_and(|(next, _)| next == "::")
                && tokens.get(at + 2).is_some_and(|(next, _)| is_word(next))
            {
                path.push(tokens[at + 2].0.clone());
                at += 2;
            }
            if path.len() > 1 {
                paths.push((path, *line));
            }
        }
        at += 1;
    }
    (paths, imports)
}

/// Reads what follows `use`: a path, or several that begin with the same.
fn tree(
    tokens: &[(String, usize)],
    at: &mut usize,
    before: &[String],
    found: &mut impl FnMut(Vec<String>, String),
) {
    let mut path = before.to_vec();
    let mut name = None;
    while let Some((token, _)) = tokens.get(*at) {
        match token.as_str() {
            "{" => {
                *at += 1;
                while tokens.get(*at).is_some_and(|(token, _)| token != "}") {
                    tree(tokens, at, &path, found);
                    if tokens.get(*at).is_some_and(|(token, _)| token == ",") {
                        *at += 1;
                    }
                }
                *at += 1;
                return;
            }
            ";" | "," | "}" => break,
            "as" => {
                name = tokens.get(*at + 1).map(|(name, _)| name.clone());
                *at += 1;
            }
            "self" if !path.is_empty() => {}
            word if is_word(word) => path.push(word.to_owned()),
            _ => {}
        }
        *at += 1;
    }
    if let Some(last) = path.last() {
        let name = name.unwrap_or_else(|| last.clone());
        found(path, name);
    }
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Without items that are compiled for tests only.
fn without_tests(tokens: &[(String, usize)]) -> Vec<(String, usize)> {
    let is_mark = |at: usize| {
        let mark = ["#", "[", "cfg", "(", "test", ")", "]"];
        let here = tokens.get(at..at + mark.len()).unwrap_or_default();
        here.iter().map(|(token, _)| token.as_str()).eq(mark)
    };
    let (mut kept, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        if !is_mark(at) {
            kept.push(tokens[at].clone());
            at += 1;
            continue;
        }
        // To the end of its braces, or to a semicolon before any.
        let mut depth = 0;
        while let Some((token, _)) = tokens.get(at) {
            at += 1;
            match token.as_str() {
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    if depth == 0 {
                        break;
                    }
                }
                ";" if depth == 0 => break,
                _ => {}
            }
        }
    }
    kept
}

/// Words, `::` and other signs, each with its line. Comments, texts and characters are left out.
fn tokens(text: &str) -> Vec<(String, usize)> {
    let chars: Vec<char> = text.chars().collect();
    let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);
    let starts = |at: usize, what: &str| {
        what.chars()
            .eq(chars[at..].iter().copied().take(what.len()))
    };
    while at < chars.len() {
        let end = match chars[at] {
            _ if starts(at, "//") => find(&chars, at, "\n"),
            _ if starts(at, "/*") => find(&chars, at + 2, "*/") + 2,
            _ if starts(at, "r#\"") => find(&chars, at + 3, "\"#") + 2,
            _ if starts(at, "r\"") => find(&chars, at + 2, "\"") + 1,
            '"' => end_of_text(&chars, at + 1, '"'),
            // A character, not a lifetime.
            '\'' if starts(at + 1, "\\") || chars.get(at + 2) == Some(&'\'') => {
                end_of_text(&chars, at + 1, '\'')
            }
            c if c.is_alphanumeric() || c == '_' => {
                let more = chars[at..]
                    .iter()
                    .take_while(|c| c.is_alphanumeric() || **c == '_');
                let end = at + more.count();
                tokens.push((chars[at..end].iter().collect(), line));
                end
            }
            _ if starts(at, "::") => {
                tokens.push(("::".to_owned(), line));
                at + 2
            }
            c if c.is_whitespace() => at + 1,
            c => {
                tokens.push((c.to_string(), line));
                at + 1
            }
        };
        let end = end.min(chars.len());
        line += chars[at..end].iter().filter(|c| **c == '\n').count();
        at = end;
    }
    tokens
}

/// Where something begins from a place on, or the end.
fn find(chars: &[char], from: usize, what: &str) -> usize {
    let what: Vec<char> = what.chars().collect();
    let rest = chars.get(from..).unwrap_or_default();
    let found = rest.windows(what.len()).position(|here| here == what);
    found.map_or(chars.len(), |found| from + found)
}

/// Behind the sign that ends a text, which a backslash may stand before.
fn end_of_text(chars: &[char], mut at: usize, sign: char) -> usize {
    while at < chars.len() && chars[at] != sign {
        at += if chars[at] == '\\' { 2 } else { 1 };
    }
    at + 1
}
