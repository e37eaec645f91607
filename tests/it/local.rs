//! Goal: `make up` runs the program that whoever types it expects, and with `TLS=1` it gives HTTPS with HTTP/2, over which
//! more than six streams of a page work.
//!
//! Method: the real scripts of `deploy/local`: the choice of the program in a repository of the test's own, with programs that
//! only tell a version; HTTPS by a whole cluster, asked by curl and Chromium.

use crate::support::chromium::Chromium;
use crate::support::{Directory, eventually, free_address, program};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const BINARY: &str = env!("CARGO_BIN_EXE_tidegate");
/// Of an outer make, which would be obeyed by the inner one.
const OUTER: [&str; 4] = ["MAKEFLAGS", "MAKELEVEL", "MFLAGS", "MAKEOVERRIDES"];

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

// --- which program ----------------------------------------------------------------------------------------------------

/// A checkout with two commits, of which the second changes no source, and a path without cargo.
struct Checkout {
    root: Directory,
    programs: Directory,
}

impl Checkout {
    fn create() -> Self {
        let (root, programs) = (Directory::create(), Directory::create());
        for name in [
            "bash", "env", "sh", "git", "sed", "cut", "find", "realpath", "dirname", "make",
            "mkdir", "cp",
        ] {
            symlink(program(name), programs.0.join(name)).unwrap();
        }
        let checkout = Self { root, programs };
        checkout.write(
            "Cargo.toml",
            "[package]\nname = \"tidegate\"\nversion = \"0.1.0\"\n",
        );
        checkout.write("Cargo.lock", "");
        checkout.write("build.rs", "");
        checkout.write(".cargo/config.toml", "");
        checkout.write("src/main.rs", "fn main() {}\n");
        checkout.write("README.md", "one\n");
        checkout.write(".gitignore", "/target\n");
        let make = "binary:\n\tmkdir -p target/release\n\tcp new target/release/tidegate\n";
        checkout.write("Makefile", make);
        checkout.write("new", "");
        let script = checkout.root.0.join("deploy/local/program");
        fs::create_dir_all(script.parent().unwrap()).unwrap();
        fs::copy(format!("{ROOT}/deploy/local/program"), script).unwrap();
        checkout.git("init --quiet");
        checkout.commit();
        checkout
    }

    fn write(&self, file: &str, text: &str) {
        let path = self.root.0.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn git(&self, words: &str) -> String {
        let done = Command::new("git")
            .args([
                "-c",
                "user.name=a",
                "-c",
                "user.email=a@b",
                "-c",
                "commit.gpgsign=false",
            ])
            .args(words.split(' '))
            .current_dir(&self.root.0)
            .output()
            .unwrap();
        assert!(done.status.success(), "git {words}: {}", text(&done.stderr));
        text(&done.stdout).trim().to_owned()
    }

    fn commit(&self) -> String {
        self.git("add --all");
        self.git("commit --quiet --message=change");
        self.git("rev-parse --short=12 HEAD")
    }

    /// Puts a command onto the path that says this.
    fn install(&self, name: &str, says: &str) -> PathBuf {
        let path = self.programs.0.join(name);
        fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    /// The path that is chosen, none if there is none, and what is said of it.
    fn chosen(&self, named: &str) -> (Option<PathBuf>, String) {
        let built = self.root.0.join("target/release/tidegate");
        let done = Command::new(self.root.0.join("deploy/local/program"))
            .arg(built)
            .env_clear()
            .env("PATH", &self.programs.0)
            .env("TIDEGATE_BIN", named)
            .output()
            .unwrap();
        let path = done
            .status
            .success()
            .then(|| PathBuf::from(text(&done.stdout).trim()));
        (path, text(&done.stderr))
    }

    #[track_caller]
    fn assert_chosen(&self, expected: Option<&Path>, said: &str) {
        let (path, told) = self.chosen("");
        assert_eq!(path.as_deref(), expected, "{told}");
        assert!(told.contains(said), "{told}");
    }
}

#[test]
fn an_installed_program_runs_the_cluster_if_it_is_of_these_sources() {
    let checkout = Checkout::create();
    checkout.assert_chosen(None, "there is no program");
    let revision = checkout.git("rev-parse --short=12 HEAD");
    let installed = checkout.install("tidegate", &format!("tidegate 0.1.0 ({revision})"));
    let fits = "installed (tidegate 0.1.0 (";
    checkout.assert_chosen(Some(&installed), "built from the sources that lie here");
    // With cargo just so: nobody waits for a compiler without need.
    let cargo = checkout.install("cargo", "");
    checkout.assert_chosen(Some(&installed), fits);
    // What is no source may change.
    checkout.write("README.md", "two\n");
    checkout.commit();
    checkout.assert_chosen(Some(&installed), "built from the sources that lie here");
    // Whoever changes the code does not get it: in a file that is known, in a new one, and in a commit.
    let built = fs::canonicalize(&checkout.root.0)
        .unwrap()
        .join("target/release/tidegate");
    for (file, change) in [("src/main.rs", "fn main() { }\n"), ("src/more.rs", "")] {
        checkout.write(file, change);
        checkout.write("new", "");
        fs::set_permissions(
            checkout.root.0.join("new"),
            fs::Permissions::from_mode(0o755),
        )
        .unwrap();
        checkout.assert_chosen(
            Some(&built),
            "is not of the sources that lie here: building",
        );
        checkout.assert_chosen(Some(&built), "built here");
        fs::remove_file(&built).unwrap();
    }
    checkout.commit();
    checkout.assert_chosen(Some(&built), "building");
    // Without cargo it is better than none, and that is said.
    fs::remove_file(&built).unwrap();
    fs::remove_file(cargo).unwrap();
    checkout.assert_chosen(Some(&installed), "The sources that lie here may differ");
    // One that was built from sources in between two commits fits nothing.
    let revision = checkout.git("rev-parse --short=12 HEAD");
    checkout.install("tidegate", &format!("tidegate 0.1.0 ({revision}-changed)"));
    checkout.assert_chosen(Some(&installed), "may differ");
    checkout.install("tidegate", "tidegate 0.2.0 (0123456789ab)");
    checkout.assert_chosen(
        None,
        "is not of version 0.1.0, which lies here, and there is no cargo",
    );
}

#[test]
fn a_program_that_is_named_and_that_of_a_release_come_first() {
    let checkout = Checkout::create();
    checkout.install("tidegate", "tidegate 9.9.9");
    let (path, said) = checkout.chosen("/some/where");
    assert_eq!(path.as_deref(), Some(Path::new("/some/where")));
    assert!(said.contains("as TIDEGATE_BIN says"), "{said}");
    fs::remove_file(checkout.root.0.join("Cargo.toml")).unwrap();
    checkout.assert_chosen(None, "neither a program nor its sources");
    let own = fs::canonicalize(&checkout.root.0).unwrap().join("tidegate");
    fs::copy(checkout.programs.0.join("tidegate"), &own).unwrap();
    checkout.assert_chosen(Some(&own), "of this release");
}

// --- HTTPS ------------------------------------------------------------------------------------------------------------

/// A cluster of one replica with `TLS=1`, ended on drop.
struct Cluster {
    home: Directory,
    ports: Vec<(&'static str, String)>,
}

impl Cluster {
    fn start() -> Self {
        // What was free may be taken a moment later, since other tests take ports as well.
        for _ in 0..10 {
            let names = [
                "NGINX_PORT",
                "NGINX_STATUS_PORT",
                "HTTPS_PORT",
                "REPLICA_PORT",
                "PROMETHEUS_PORT",
                "REDIS_PORT",
            ];
            let ports = names.map(|name| (name, free_address().port().to_string()));
            let cluster = Self {
                home: Directory::create(),
                ports: ports.to_vec(),
            };
            let made = cluster.make(&["up", "TLS=1"]);
            let said = text(&made.stderr);
            if made.status.success() {
                let told = text(&made.stdout);
                assert!(told.contains(&cluster.https()), "{told}");
                assert!(
                    told.contains("curl --cacert ") && told.contains("/certificate.pem"),
                    "{told}"
                );
                assert!(said.contains("as TIDEGATE_BIN says"), "{said}");
                return cluster;
            }
            assert!(said.contains("is in use"), "{said}");
        }
        panic!("no free ports in ten tries");
    }

    fn make(&self, words: &[&str]) -> Output {
        let mut make = Command::new("make");
        for name in OUTER {
            make.env_remove(name);
        }
        make.args(["--no-print-directory"])
            .args(words)
            .current_dir(ROOT)
            .envs(self.ports.iter().cloned())
            .env("REPLICAS", "1")
            .env("CLUSTER_DIR", &self.home.0)
            .env("TIDEGATE_BIN", BINARY)
            .output()
            .unwrap()
    }

    fn port(&self, name: &str) -> &str {
        &self
            .ports
            .iter()
            .find(|(known, _)| *known == name)
            .unwrap()
            .1
    }

    fn https(&self) -> String {
        format!("https://127.0.0.1:{}/", self.port("HTTPS_PORT"))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.home.0.join("nginx").join(name)
    }

    /// Protocol and status of an answer, and curl's own exit code.
    fn curl(&self, words: &[&str], host: &str) -> (String, Option<i32>) {
        let url = format!("https://{host}:{}/", self.port("HTTPS_PORT"));
        let done = Command::new("curl")
            .args([
                "--silent",
                "--http2",
                "--output",
                "/dev/null",
                "--write-out",
                "%{http_version} %{http_code}",
            ])
            .args(words)
            .arg(url)
            .output()
            .unwrap();
        (text(&done.stdout), done.status.code())
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let made = self.make(&["down"]);
        if !std::thread::panicking() {
            assert!(made.status.success(), "{}", text(&made.stderr));
        }
    }
}

/// The key of a certificate, as Chromium's list of exceptions has it.
fn fingerprint(certificate: &Path) -> String {
    let script = "openssl x509 -in \"$0\" -noout -pubkey | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64";
    let done = Command::new("sh")
        .args(["-c", script])
        .arg(certificate)
        .output()
        .unwrap();
    text(&done.stdout).trim().to_owned()
}

#[test]
fn https_has_http_2_a_certificate_to_trust_and_more_than_six_streams_of_a_page() {
    let cluster = Cluster::start();
    let certificate = cluster.file("certificate.pem");
    let key = fs::metadata(cluster.file("certificate-key.pem")).unwrap();
    assert_eq!(key.permissions().mode() & 0o777, 0o600);
    let trusted = ["--cacert", certificate.to_str().unwrap()];
    for host in ["127.0.0.1", "localhost"] {
        assert_eq!(cluster.curl(&trusted, host), ("2 200".to_owned(), Some(0)));
    }
    // 60: whoever does not trust it is not answered.
    assert_eq!(cluster.curl(&[], "127.0.0.1").1, Some(60));
    let status = text(&cluster.make(&["status"]).stdout);
    let row = format!("https      127.0.0.1:{}", cluster.port("HTTPS_PORT"));
    assert!(status.contains(&row), "{status}");

    // A second one does not get its port, and a running one keeps its settings.
    let other = Directory::create();
    let mut make = Command::new(format!("{ROOT}/deploy/local/cluster"));
    make.arg("up")
        .envs(cluster.ports.iter().cloned())
        .env("TLS", "1")
        .env("REPLICAS", "1");
    let refused = make
        .env("CLUSTER_DIR", &other.0)
        .env("TIDEGATE_BIN", BINARY)
        .output()
        .unwrap();
    assert!(
        text(&refused.stderr).contains("choose another HTTPS_PORT"),
        "{}",
        text(&refused.stderr)
    );
    let refused = cluster.make(&["up", "TLS=0"]);
    assert!(
        text(&refused.stderr).contains("is up with TLS=1"),
        "{}",
        text(&refused.stderr)
    );

    let pin = format!(
        "--ignore-certificate-errors-spki-list={}",
        fingerprint(&certificate)
    );
    if let Some(mut browser) = Chromium::start_with(&[&pin]) {
        eight_streams(&mut browser, &cluster);
    }

    // Who trusts it trusts it after the next start as well.
    let before = fs::read(&certificate).unwrap();
    assert!(cluster.make(&["down"]).status.success());
    assert!(cluster.make(&["up", "TLS=1"]).status.success());
    assert!(
        fs::read(&certificate).unwrap() == before,
        "another certificate"
    );
    // And nothing of it is left without TLS.
    assert!(cluster.make(&["down"]).status.success());
    let plain = cluster.make(&["up"]);
    assert!(plain.status.success() && !text(&plain.stdout).contains("https:"));
    assert_eq!(cluster.curl(&trusted, "127.0.0.1").1, Some(7), "refused");
}

/// A page with eight streams has all of them over HTTPS, and six over HTTP.
fn eight_streams(browser: &mut Chromium, cluster: &Cluster) {
    let http = format!("http://127.0.0.1:{}/", cluster.port("NGINX_PORT"));
    let open = "window.sources = [...Array(8).keys()].map((n) => new EventSource('/events/page' + n)); \
                window.got = []; sources.forEach((source, n) => source.onmessage = (e) => got.push(n + e.data)); 8";
    let opened = "sources.filter((source) => source.readyState === EventSource.OPEN).length";
    // The page's own origin is written by the browser, and taken: https here, behind a proxy that says so.
    let publish = |n: usize| {
        format!(
            "fetch('/events/page{n}', {{ method: 'POST', body: ' hello' }}).then((answer) => answer.status)"
        )
    };
    browser.open(&cluster.https());
    browser.evaluate(open);
    browser.until(&format!("{opened} === 8"));
    for n in 0..8 {
        assert_eq!(
            browser.evaluate(&publish(n)),
            json!(200),
            "with eight streams open"
        );
    }
    browser.until("got.length === 8");
    let protocol = "performance.getEntriesByType('navigation')[0].nextHopProtocol";
    assert_eq!(browser.evaluate(protocol), json!("h2"));
    // All six connections that a browser opens to an origin are streams: the other two wait, and so would any request.
    browser.open(&http);
    browser.evaluate(open);
    browser.until(&format!("{opened} === 6"));
    for n in 0..8 {
        let url = format!("{http}events/page{n}");
        let done = Command::new("curl")
            .args(["--silent", "--fail", "--data", " hello", &url])
            .output();
        assert!(done.unwrap().status.success());
    }
    browser.until("got.length === 6");
    let waiting = "sources.filter((source) => source.readyState === EventSource.CONNECTING).length";
    assert_eq!(browser.evaluate(waiting), json!(2));
    eventually("the page is left", || {
        browser.evaluate("sources.forEach((source) => source.close()); sources.length") == json!(8)
    });
}

/// Runs `tls.keep_certificate` over a folder.
fn keep_certificate(home: &Path) {
    let script = "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import tls; tls.keep_certificate(pathlib.Path(sys.argv[2]))";
    let done = Command::new("python3")
        .args(["-B", "-c", script, &format!("{ROOT}/deploy/local")])
        .arg(home)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", text(&done.stderr));
}

#[test]
fn a_certificate_is_kept_until_it_is_about_to_expire_or_is_broken() {
    let home = Directory::create();
    let (certificate, key) = (
        home.0.join("certificate.pem"),
        home.0.join("certificate-key.pem"),
    );
    keep_certificate(&home.0);
    let first = fs::read(&certificate).unwrap();
    keep_certificate(&home.0);
    assert!(fs::read(&certificate).unwrap() == first, "kept");
    let replaced = |why: &str, before: &[u8]| {
        keep_certificate(&home.0);
        let now = fs::read(&certificate).unwrap();
        assert!(now != before, "{why}");
        assert_eq!(
            fs::metadata(&key).unwrap().permissions().mode() & 0o777,
            0o600
        );
        now
    };
    // Ten days are left.
    let soon = Command::new("openssl")
        .args(["req", "-x509", "-key"])
        .arg(&key)
        .args(["-days", "10", "-subj", "/CN=soon", "-out"])
        .arg(&certificate)
        .output()
        .unwrap();
    assert!(soon.status.success(), "{}", text(&soon.stderr));
    let now = replaced("it expires soon", &fs::read(&certificate).unwrap());
    fs::write(&key, "").unwrap();
    let now = replaced("its key is gone", &now);
    let another = Directory::create();
    keep_certificate(&another.0);
    fs::copy(another.0.join("certificate-key.pem"), &key).unwrap();
    let now = replaced("its key is that of another", &now);
    fs::write(&certificate, now.get(..100).unwrap()).unwrap();
    replaced("it is torn", now.get(..100).unwrap());
    assert_eq!(
        fs::read_dir(&home.0).unwrap().count(),
        2,
        "nothing else is left"
    );
}
