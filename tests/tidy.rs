//! Goal: the house rules hold that no compiler checks.
//!
//! Method: the repository's own files, read as text. One test a rule, named as the rule; each fault
//! is told as `file:line`, all of them at once.
//!
//! | rule | why |
//! |---|---|
//! | no test is ignored | what is not run holds nothing |
//! | no test sleeps | a time that is long enough here is too short there; tests wait for conditions |
//! | the gate alone makes routes | a handler that begins with no judgement does not compile there, and would elsewhere |
//! | guards, old rules and scenarios that documents name are there | a promise without its test is only hoped for |
//! | links between pages lead somewhere, and the README lists all pages | what nobody finds is not written |

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::string_slice,
    reason = "a failed step ends the test"
)]

use std::fs;
use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// Folders with code of this repository.
const CODE: [&str; 3] = ["src", "tests", "loadtest"];

/// One file: its path below the root, and its text.
#[derive(Debug)]
struct Source {
    path: String,
    text: String,
}

impl Source {
    /// Lines that hold code, each with its number: comments and what stands in quotes are left out.
    fn code(&self) -> impl Iterator<Item = (usize, String)> {
        let lines = self.text.lines().enumerate();
        lines.map(|(index, line)| (index + 1, without_words(line)))
    }

    /// As [`Source::code`], of tests alone: all of a file below `tests/`, else what follows `mod tests`.
    fn test_code(&self) -> impl Iterator<Item = (usize, String)> {
        let is_test = self.path.starts_with("tests/");
        self.code()
            .skip_while(move |(_, line)| !is_test && !line.starts_with("mod tests"))
    }
}

/// A line without its comment and without what stands in quotes.
fn without_words(line: &str) -> String {
    let mut code = String::new();
    let (mut quoted, mut escaped) = (false, false);
    for (at, c) in line.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' if !line[..at].ends_with('\'') => quoted = !quoted,
            '/' if !quoted && line[at..].starts_with("//") => break,
            _ if !quoted => code.push(c),
            _ => {}
        }
    }
    code
}

/// A file of the repository.
fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// The files of these folders that end so, in order: paths below the root.
fn files(folders: &[&str], extension: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(Path::new(ROOT).join(folder)).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.extension().is_some_and(|found| found == extension) {
                let path = path.strip_prefix(ROOT).expect("below the root");
                paths.push(path.to_string_lossy().into_owned());
            }
        }
    }
    paths.sort();
    paths
}

/// The folder and all below it.
fn folders(of: &str) -> Vec<String> {
    let mut all = vec![of.to_owned()];
    for entry in fs::read_dir(Path::new(ROOT).join(of)).expect("a folder") {
        let entry = entry.expect("an entry");
        if entry.file_type().expect("a kind").is_dir() {
            let below = format!("{of}/{}", entry.file_name().to_string_lossy());
            all.extend(folders(&below));
        }
    }
    all
}

/// All Rust files below these folders, in order.
fn sources(below: &[&str]) -> Vec<Source> {
    let all: Vec<String> = below.iter().flat_map(|folder| folders(folder)).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    let read = |path: String| Source {
        text: read(&path),
        path,
    };
    files(&all, "rs").into_iter().map(read).collect()
}

/// Fails with all faults, if there are any.
#[track_caller]
fn assert_none(rule: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{rule}:\n{}", faults.join("\n"));
}

/// Every `file:line` of `lines` that holds one of `words`.
fn places(
    source: &Source,
    lines: impl Iterator<Item = (usize, String)>,
    words: &[&str],
) -> Vec<String> {
    let faulty = lines.filter(|(_, line)| words.iter().any(|word| line.contains(word)));
    faulty
        .map(|(number, line)| format!("{}:{number}: {}", source.path, line.trim()))
        .collect()
}

// --- tests ------------------------------------------------------------------------------------------------------------

#[test]
fn no_test_is_ignored() {
    let faults = sources(&CODE)
        .iter()
        .flat_map(|source| places(source, source.code(), &["#[ignore"]))
        .collect::<Vec<_>>();
    assert_none("each test runs", &faults);
}

#[test]
fn no_test_sleeps() {
    let sleeps = ["sleep(", "sleep_ms(", "sleep_until(", "::sleep"];
    let faults = sources(&["src", "tests"])
        .iter()
        .flat_map(|source| places(source, source.test_code(), &sleeps))
        .collect::<Vec<_>>();
    assert_none("tests wait for conditions, never for time", &faults);
}

// --- routes ---------------------------------------------------------------------------------------------------------

#[test]
fn the_gate_alone_makes_routes() {
    let makes = ["axum::routing", "MethodRouter", "_service("];
    let faults = sources(&["src"])
        .iter()
        .filter(|source| !source.path.starts_with("src/http/gate/"))
        .flat_map(|source| places(source, source.code(), &makes))
        .filter(|fault| !fault.ends_with("use axum::routing::MethodFilter;"))
        .collect::<Vec<_>>();
    assert_none("routes begin with a judgement", &faults);
}

// --- documents --------------------------------------------------------------------------------------------------------

/// The names that stand in `text` between `before` and `after`, each once, in order.
fn named(text: &str, before: &str, after: char) -> Vec<String> {
    let parts = text.split(before).skip(1);
    let mut names: Vec<String> = parts
        .map(|rest| rest.split_once(after).expect("a closing mark").0.to_owned())
        .filter(|name| !name.is_empty())
        .collect();
    names.sort();
    names.dedup();
    names
}

#[test]
fn every_guard_of_an_invariant_exists() {
    let documents = ["ARCHITECTURE.md", "SECURITY.md", "docs/operations.md"]
        .map(read)
        .concat();
    let mut guards = 0;
    let mut missing = Vec::new();
    for folder in ["tests", "src"] {
        for guard in named(&documents, &format!("`{folder}/"), '`') {
            let Some((file, test)) = guard.split_once(": ") else {
                continue;
            };
            let source = read(&format!("{folder}/{file}"));
            if !source.contains(&format!("fn {test}()")) {
                missing.push(format!("{folder}/{file}: {test}"));
            }
            guards += 1;
        }
    }
    assert_none("documents name tests that exist", &missing);
    assert!(guards > 15, "{guards} guards");
}

/// Files and headings; `deploy/dist/links.py` names each link that is broken.
#[test]
fn every_link_between_pages_leads_somewhere() {
    let checked = Command::new("python3")
        .args([&format!("{ROOT}/deploy/dist/links.py"), ROOT])
        .output()
        .expect("python3 runs");
    let said = String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
}

#[test]
fn the_readme_lists_every_page() {
    let readme = read("README.md");
    let listed: Vec<&str> = readme
        .lines()
        .filter(|line| line.starts_with("| ["))
        .collect();
    let pages = [files(&["docs"], "md"), files(&["."], "md")].concat();
    let missing: Vec<String> = pages
        .into_iter()
        .filter(|page| page != "README.md")
        .filter(|page| {
            !listed
                .iter()
                .any(|line| line.contains(&format!("]({page})")))
        })
        .collect();
    assert_none("the table of the README has a row for each page", &missing);
}

/// What holds a loss that was found is told beside it, and can be played.
#[test]
fn every_old_rule_is_told_names_a_mix_and_can_be_put_back() {
    let simulation = read("tests/simulation/main.rs");
    let mut rules = Vec::new();
    let mut faults = Vec::new();
    for patch in files(&["tests/simulation/old_rules"], "patch") {
        let text = read(&patch);
        let mix = text.lines().find_map(|line| line.strip_prefix("mix: "));
        if !mix.is_some_and(|mix| simulation.contains(&format!("fn {mix}()"))) {
            faults.push(format!("{patch}: no such mix"));
        }
        faults.extend(stale(&patch, &text));
        let name = Path::new(&patch).file_stem().expect("a name");
        rules.push(name.to_string_lossy().into_owned());
    }
    assert_none("an old rule can be put back, and a mix finds it", &faults);
    assert_eq!(named(&read("ARCHITECTURE.md"), "old rule `", '`'), rules);
}

/// What is broken in the model can still be broken.
#[test]
fn every_broken_rule_of_the_model_names_a_scenario_and_can_be_broken() {
    let files_of_model = files(&["tests/model"], "rs");
    let scenarios: String = files_of_model.iter().map(|path| read(path)).collect();
    let mut faults = Vec::new();
    for patch in files(&["tests/model/broken"], "patch") {
        let text = read(&patch);
        let scenario = text
            .lines()
            .find_map(|line| line.strip_prefix("scenario: "));
        if !scenario.is_some_and(|name| scenarios.contains(&format!("name: \"{name}\""))) {
            faults.push(format!("{patch}: no such scenario"));
        }
        faults.extend(stale(&patch, &text));
    }
    assert_none("a rule of the model can be broken", &faults);
}

/// Hunks of a patch that do not find what they change.
fn stale(patch: &str, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for part in text.split("\n+++ b/").skip(1) {
        let (file, hunks) = part.split_once('\n').expect("hunks");
        let file = read(file.split('\t').next().expect("a name"));
        let hunks = hunks.split("\n--- a/").next().expect("hunks");
        for hunk in hunks.split("@@ -").skip(1) {
            let (place, _) = hunk.split_once(" @@").expect("a place");
            if !file.contains(&before(hunk)) {
                faults.push(format!("{patch}: -{place} is not there any more"));
            }
        }
    }
    faults
}

/// What a hunk finds before it changes it.
fn before(hunk: &str) -> String {
    let lines = hunk.lines().skip(1);
    let found = lines.filter_map(|line| {
        let line = if line.is_empty() { " " } else { line };
        line.strip_prefix([' ', '-'])
    });
    let lines: Vec<&str> = found.collect();
    lines.join("\n") + "\n"
}

/// A page may name a file of tests as a whole.
#[test]
fn every_file_of_tests_that_a_document_names_exists() {
    let mut missing = Vec::new();
    for page in files(&[".", "docs"], "md") {
        for file in named(&read(&page), "`tests/", '`') {
            let file = file.split(": ").next().expect("a name");
            if !Path::new(ROOT).join("tests").join(file).exists() {
                missing.push(format!("{page}: tests/{file}"));
            }
        }
    }
    assert_none("documents name files that exist", &missing);
}

/// What is named is there to be played; what can be played guards something, and was.
#[test]
fn every_fault_scenario_guards_an_invariant_and_has_a_result() {
    let list = read("loadtest/swarm/src/scenario/list.rs");
    let scenarios = named(&list, " name: \"", '"');
    assert!(scenarios.len() > 20, "{scenarios:?}");
    assert_eq!(named(&read("ARCHITECTURE.md"), "`fault: ", '`'), scenarios);
    let of_durability = named(&read("docs/durability.md"), "`fault: ", '`');
    assert!(of_durability.len() > 5, "{of_durability:?}");
    for scenario in of_durability {
        assert!(scenarios.contains(&scenario), "{scenario}");
    }
    let results = read("loadtest/RESULTS.md");
    for scenario in scenarios {
        let mut rows = results.lines().filter(|line| line.starts_with("| "));
        let row = format!("{scenario} ");
        assert!(rows.any(|line| line[2..].starts_with(&row)), "{scenario}");
    }
}

// --- the method itself ------------------------------------------------------------------------------------------------

#[test]
fn words_are_no_code() {
    let code = without_words;
    assert_eq!(code("a(\"sleep(\"); // sleep("), "a(); ");
    assert_eq!(code("'\"' b"), "'\"' b");
    assert_eq!(code("\"a\\\"b\" c"), " c");
}
