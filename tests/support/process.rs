//! Processes that end with the test.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, PipeReader, Read, Write as _};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

use super::{FAILSAFE, eventually};
use rustix::process::{Pid, Signal, kill_process};

/// Lines that a process has written, kept as they come.
#[derive(Clone, Debug, Default)]
pub struct Lines(Arc<(Mutex<State>, Condvar)>);

#[derive(Debug, Default)]
struct State {
    lines: Vec<String>,
    closed: bool,
}

impl Lines {
    /// Keeps the lines of `from`, until it ends.
    pub fn collect(from: impl Read + Send + 'static) -> Self {
        let lines = Self::default();
        let kept = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(from).split(b'\n') {
                let Ok(line) = line else { break };
                kept.change(|state| {
                    state
                        .lines
                        .push(String::from_utf8_lossy(&line).into_owned());
                });
            }
            kept.change(|state| state.closed = true);
        });
        lines
    }

    fn change(&self, with: impl FnOnce(&mut State)) {
        let (state, changed) = &*self.0;
        with(&mut state.lock().unwrap_or_else(PoisonError::into_inner));
        changed.notify_all();
    }

    /// Everything up to now.
    pub fn all(&self) -> Vec<String> {
        let (state, _) = &*self.0;
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        state.lines.clone()
    }

    /// Waits for the first line that `find` makes something of; none if the process closed its
    /// output without one.
    pub fn wait_for<T>(&self, find: impl Fn(&str) -> Option<T>) -> Option<T> {
        let (state, changed) = &*self.0;
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        let found = |state: &State| state.lines.iter().find_map(|line| find(line));
        let (state, _) = changed
            .wait_timeout_while(state, FAILSAFE, |state| {
                !state.closed && found(state).is_none()
            })
            .unwrap_or_else(PoisonError::into_inner);
        found(&state)
    }

    /// Waits until the process has closed its output.
    fn wait_closed(&self) {
        let (state, changed) = &*self.0;
        let state = state.lock().unwrap_or_else(PoisonError::into_inner);
        drop(changed.wait_timeout_while(state, FAILSAFE, |state| !state.closed));
    }
}

/// A child process. Killed on drop; if the test is failing then, its output is shown.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// Standard output.
    pub stdout: Lines,
    /// Standard error.
    pub stderr: Lines,
}

impl Process {
    /// Starts `command` with both outputs kept.
    pub fn spawn(name: &str, command: &mut Command) -> std::io::Result<Self> {
        Self::start(name, command, Stdio::null(), Stdio::piped())
    }

    /// Starts `command` with this input, its errors kept, and its output, if it is a pipe.
    pub fn start(
        name: &str,
        command: &mut Command,
        stdin: Stdio,
        stdout: Stdio,
    ) -> std::io::Result<Self> {
        let mut child = command
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::piped())
            .spawn()?;
        // What lies open here would keep what was passed.
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let none = || Lines::collect(std::io::empty());
        Ok(Self {
            name: name.to_owned(),
            stdout: child.stdout.take().map_or_else(none, Lines::collect),
            stderr: Lines::collect(child.stderr.take().expect("a piped output")),
            child,
        })
    }

    /// Its input, if that is a pipe and nobody has taken it.
    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Starts `command` with its errors in a pipe that nobody reads until somebody reads what is returned.
    pub fn spawn_unread(name: &str, command: &mut Command) -> std::io::Result<(Self, PipeReader)> {
        let (unread, stderr) = std::io::pipe()?;
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()?;
        // What lies open here would keep the pipe's other end.
        command.stderr(Stdio::null());
        let process = Self {
            name: name.to_owned(),
            stdout: Lines::collect(std::io::empty()),
            stderr: Lines::collect(std::io::empty()),
            child,
        };
        Ok((process, unread))
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Its status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        eventually(&format!("{} ends", self.name), || self.ended().is_some());
        self.stdout.wait_closed();
        self.stderr.wait_closed();
        self.ended().expect("it has ended")
    }

    /// SIGKILL, and waits for the end.
    pub fn kill(&mut self) {
        self.signal(Signal::Kill);
        drop(self.child.wait());
    }

    /// SIGTERM.
    pub fn terminate(&mut self) {
        self.signal(Signal::Term);
    }

    /// SIGINT.
    pub fn interrupt(&mut self) {
        self.signal(Signal::Int);
    }

    /// SIGHUP.
    pub fn hang_up(&mut self) {
        self.signal(Signal::Hup);
    }

    /// SIGSTOP: the process keeps its sockets and does nothing.
    pub fn pause(&mut self) {
        self.signal(Signal::Stop);
    }

    /// SIGCONT.
    pub fn resume(&mut self) {
        self.signal(Signal::Cont);
    }

    fn signal(&mut self, signal: Signal) {
        if self.ended().is_some() {
            return;
        }
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        // Until it is waited for, its id stays its own.
        kill_process(pid.expect("a process id"), signal).expect("a signal to our own child");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let (out, err) = (self.stdout.all(), self.stderr.all());
            for line in out.iter().chain(&err) {
                eprintln!("{}: {line}", self.name);
            }
        }
    }
}

/// What a command that ran to its end has said.
#[derive(Debug)]
pub struct Output {
    /// The exit code; none if a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs the binary with `args` and a clean environment plus `environment`, to its end.
pub fn run(args: &[&str], environment: &[(&str, &str)]) -> Output {
    run_with(args, environment, "")
}

/// As [`run`], with this as its standard input.
pub fn run_with(args: &[&str], environment: &[(&str, &str)], input: &str) -> Output {
    let mut command = binary();
    command.args(args).envs(environment.iter().copied());
    let mut process = Process::start("tidegate", &mut command, Stdio::piped(), Stdio::piped())
        .expect("the binary starts");
    let mut stdin = process.stdin().expect("a piped input");
    let input = input.to_owned();
    // Whoever reads no input closes it.
    let written = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let code = process.wait().code();
    drop(written.join());
    Output {
        code,
        stdout: process.stdout.all().join("\n"),
        stderr: process.stderr.all().join("\n"),
    }
}

/// The binary, with nothing of this process's environment.
pub fn binary() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.env_clear();
    command
}

/// The environment variable of each config key: `stream.retry` is `TIDEGATE__STREAM__RETRY`.
pub fn environment(config: &[(&str, &str)]) -> HashMap<String, String> {
    let name = |key: &str| format!("TIDEGATE__{}", key.to_uppercase().replace('.', "__"));
    config
        .iter()
        .map(|(key, value)| (name(key), (*value).to_owned()))
        .collect()
}

/// A directory of this test's own; removed on drop.
#[derive(Debug)]
pub struct Directory(pub PathBuf);

static NEXT: AtomicUsize = AtomicUsize::new(0);

/// A number that no other test of this process has.
pub fn next_number() -> usize {
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Directory {
    /// An empty directory below the build's own directory for tests.
    pub fn create() -> Self {
        let name = format!("test-{}-{}", std::process::id(), next_number());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).expect("a directory for the test");
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}
