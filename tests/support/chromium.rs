//! A real Chromium without a window, spoken to over its debugging pipe
//! ([Chrome DevTools Protocol](https://chromedevtools.github.io/devtools-protocol/)): JSON messages,
//! each with a NUL at its end.

use super::{Directory, FAILSAFE, eventually};
use serde_json::{Value, json};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};

/// Collects what must not happen on any page: broken scripts, and what the policy forbids.
const WATCH: &str = "window.faults = [];
    addEventListener('error', (e) => faults.push(String(e.message)));
    addEventListener('unhandledrejection', (e) => faults.push(String(e.reason)));
    addEventListener('securitypolicyviolation', (e) => faults.push(e.violatedDirective + ' ' + e.blockedURI));";

/// One of the pages of a browser.
#[derive(Clone, Debug)]
pub struct Page(String);

/// A browser, and the page that it is turned to.
#[derive(Debug)]
pub struct Chromium {
    process: Child,
    input: ChildStdin,
    answers: Receiver<Value>,
    session: Option<String>,
    last: u64,
    /// Its profile; removed after it has ended.
    _profile: Directory,
}

impl Chromium {
    /// Starts one; none, with a word about it, if it is not installed. Where `TIDEGATE_NEED_CHROMIUM` is
    /// set, as on the build machine, that is a failure.
    pub fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// The same, with more flags.
    pub fn start_with(flags: &[&str]) -> Option<Self> {
        let Some(program) = installed() else {
            assert!(
                std::env::var_os("TIDEGATE_NEED_CHROMIUM").is_none(),
                "TIDEGATE_NEED_CHROMIUM is set, and there is no chromium: deploy/install.sh chromium"
            );
            eprintln!("NOT CHECKED: no chromium on the path, and so no page in a browser");
            return None;
        };
        let profile = Directory::create();
        // The pipe is descriptors 3 and 4. It is the browser's end when it closes.
        let mut process = Command::new("sh")
            .args([
                "-c",
                "exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1",
                "sh",
            ])
            .arg(program)
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
            ])
            .args(flags)
            .arg("--remote-debugging-pipe")
            .arg(format!("--user-data-dir={}", profile.0.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh runs");
        let input = process.stdin.take().expect("a piped input");
        let output = BufReader::new(process.stdout.take().expect("a piped output"));
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            for message in output.split(0).map_while(Result::ok) {
                let message: Value = serde_json::from_slice(&message).expect("JSON");
                // Events have no id; nobody waits for them.
                if message["id"].is_u64() && sender.send(message).is_err() {
                    break;
                }
            }
        });
        let mut browser = Self {
            process,
            input,
            answers,
            session: None,
            last: 0,
            _profile: profile,
        };
        browser.another_page();
        Some(browser)
    }

    /// Opens another page, and turns to it.
    pub fn another_page(&mut self) -> Page {
        self.session = None;
        let page = self.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let target = json!({ "targetId": page["targetId"], "flatten": true });
        let session = self.call("Target.attachToTarget", &target);
        let page = Page(session["sessionId"].as_str().expect("a session").to_owned());
        self.turn_to(&page);
        self.call("Page.enable", &json!({}));
        self.before_each_page(WATCH);
        page
    }

    /// Speaks to this page from now on.
    pub fn turn_to(&mut self, page: &Page) {
        self.session = Some(page.0.clone());
    }

    /// Runs a script on each page before any of its own.
    pub fn before_each_page(&mut self, script: &str) {
        let source = json!({ "source": script });
        self.call("Page.addScriptToEvaluateOnNewDocument", &source);
    }

    /// Opens a page and waits until it is there.
    pub fn open(&mut self, url: &str) {
        self.call("Page.navigate", &json!({ "url": url }));
        self.until(&format!(
            "location.href === {} && document.readyState === 'complete'",
            json!(url)
        ));
    }

    /// What an expression comes to.
    ///
    /// # Panics
    /// If it throws.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let asked =
            json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let mut answer = self.call("Runtime.evaluate", &asked);
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].take()
    }

    /// Waits until an expression is true.
    pub fn until(&mut self, expression: &str) {
        eventually(expression, || self.evaluate(expression) == json!(true));
    }

    /// What happened on the page that must not, and what it loaded from elsewhere.
    pub fn faults(&mut self) -> Value {
        self.evaluate(
            "faults.concat(performance.getEntriesByType('resource').map((r) => r.name)
                .filter((name) => new URL(name).protocol !== 'data:' && new URL(name).origin !== location.origin))",
        )
    }

    fn call(&mut self, method: &str, parameters: &Value) -> Value {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": parameters });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.input.write_all(&bytes).expect("chromium listens");
        loop {
            let answer = self.answers.recv_timeout(FAILSAFE);
            let mut answer = answer.unwrap_or_else(|why| panic!("{method} is not answered: {why}"));
            if answer["id"] == json!(self.last) {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
        }
    }
}

impl Drop for Chromium {
    /// It is asked first: killed, it would leave helpers behind that still write to the profile.
    fn drop(&mut self) {
        drop(
            self.input
                .write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0"),
        );
        while self.answers.recv_timeout(FAILSAFE).is_ok() {}
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

fn installed() -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    ["chromium", "chromium-browser", "google-chrome"]
        .iter()
        .flat_map(|name| {
            path.split(':')
                .map(move |folder| Path::new(folder).join(name))
        })
        .find(|program| program.is_file())
}
