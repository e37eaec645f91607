//! Goal: a thread that writes streams and does not go on is seen by whoever asks how the replica is, and ends the process
//! rather than leave its streams in silence. A process that was stopped as a whole just goes on.
//!
//! Method: a debugger's hold (`ptrace`) on one thread of a real replica. The other threads run on.

use crate::support::{Directory, FAILSAFE, Gateway, Process, SOCKETS, eventually, program};
use std::os::unix::net::UnixDatagram;
use std::process::Command;

/// Holds the thread that is its argument until its input ends, and says so.
const HOLD: &str = r"
import ctypes, os, sys, threading
seize, interrupt, wall = 0x4206, 0x4207, 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
thread = int(sys.argv[1])
for request in seize, interrupt:
    if libc.ptrace(ctypes.c_long(request), ctypes.c_long(thread), None, None) != 0:
        print('not allowed', ctypes.get_errno(), flush=True)
        sys.exit()
libc.waitpid(thread, None, wall)
print('held', flush=True)
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
# Whoever holds a thread must take note of its end, too, or its process does not end.
libc.waitpid(thread, None, wall)
";

/// A thread that is held. Dropped, it goes on.
struct Held {
    process: Process,
    until: Option<std::io::PipeWriter>,
}

impl Held {
    fn release(mut self) {
        drop(self.until.take());
        self.process.wait();
    }
}

/// The id of a thread of this name, which it gives itself.
fn thread(gateway: &Gateway, name: &str) -> String {
    let mut id = None;
    eventually(name, || {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", gateway.id())).unwrap();
        let is_it = |task: &std::path::PathBuf| {
            std::fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name)
        };
        let found = tasks.map(|task| task.unwrap().path()).find(is_it);
        id = found.map(|task| task.file_name().unwrap().to_string_lossy().into_owned());
        id.is_some()
    });
    id.unwrap()
}

/// None where nobody may hold a thread of another process.
fn hold(gateway: &Gateway, name: &str) -> Option<Held> {
    let (input, until) = std::io::pipe().unwrap();
    let (output, said) = std::io::pipe().unwrap();
    let mut python = Command::new(program("python3"));
    python.args(["-c", HOLD, &thread(gateway, name)]);
    let process = Process::start("hold", &mut python, input.into(), said.into()).unwrap();
    let said = crate::support::Lines::collect(output);
    let said = said.wait_for(|line| Some(line.to_owned())).unwrap();
    if said != "held" {
        eprintln!("NOT CHECKED: a thread of another process cannot be held: {said}");
        return None;
    }
    Some(Held {
        process,
        until: Some(until),
    })
}

/// What a supervisor hears, line by line, up to this one.
fn hear(supervisor: &UnixDatagram, wanted: &str) -> Vec<String> {
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    // As many as come within the failsafe of each.
    for _ in 0..1000 {
        let read = supervisor.recv(&mut buffer).expect("it goes on speaking");
        let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
        heard.extend(text.lines().map(str::to_owned));
        if heard.iter().any(|line| line == wanted) {
            return heard;
        }
    }
    panic!("no {wanted}: {heard:?}");
}

/// Whether all streams of this run are ordinary bodies: then there is no such thread.
fn is_without_threads() -> bool {
    std::env::var(SOCKETS).is_ok_and(|value| value == "false")
}

#[test]
fn a_thread_that_stands_is_told_and_ends_the_process() {
    if is_without_threads() {
        return;
    }
    let mut gateway = Gateway::start(&[
        ("engine.threads", "2"),
        ("engine.stall_after", "3s"),
        ("engine.stall_max", "8s"),
    ]);
    let Some(held) = hold(&gateway, "streams-1") else {
        return;
    };
    for target in ["/healthz", "/readyz?delivery"] {
        eventually(target, || gateway.get(target).status == 503);
        let detail = gateway.get(target).text();
        assert!(detail.contains("streams-1 has not gone on"), "{detail}");
    }
    gateway.wait_for_metric("tidegate_stream_threads_standing", &[], 1.0);
    let status = gateway.wait();
    assert_eq!(status.code(), Some(70));
    let said = gateway
        .log()
        .into_iter()
        .rfind(|line| line.contains(r#""level":"ERROR""#));
    let said = said.expect("it says why");
    assert!(
        said.contains("streams-1") && said.contains("the process ends"),
        "{said}"
    );
    held.release();
}

/// The log is read by nobody, either: the process ends all the same.
#[test]
fn a_thread_that_stands_ends_the_process_although_nobody_hears_why() {
    if is_without_threads() {
        return;
    }
    let (mut gateway, _unread) = Gateway::start_unread(&[
        ("engine.threads", "1"),
        ("engine.stall_after", "3s"),
        ("engine.stall_max", "3s"),
        ("logging.level", "trace"),
        ("logging.queue_bytes", "16384"),
    ]);
    let dropped = || gateway.metric("tidegate_log_lines_dropped_total", &[]);
    eventually("the log is full", || dropped() > 0.0);
    let Some(held) = hold(&gateway, "streams-0") else {
        return;
    };
    assert_eq!(gateway.wait().code(), Some(70));
    held.release();
}

#[test]
fn a_thread_that_goes_on_again_is_well_again() {
    if is_without_threads() {
        return;
    }
    let mut gateway = Gateway::start(&[
        ("engine.threads", "1"),
        ("engine.stall_after", "3s"),
        ("engine.stall_max", "0s"),
        ("drain.time", "100ms"),
    ]);
    let mut stream = gateway.listen(&["news"]);
    let Some(held) = hold(&gateway, "streams-0") else {
        return;
    };
    eventually("it is told", || gateway.get("/healthz").status == 503);
    gateway.publish("news", "meanwhile");
    held.release();
    assert_eq!(stream.next_published().data, "meanwhile");
    eventually("it is well", || gateway.get("/healthz").status == 200);
    gateway.wait_for_metric("tidegate_stream_threads_standing", &[], 0.0);
    assert!(
        gateway
            .wait_for_log("all threads that write streams go on again")
            .is_some()
    );
    // A stop does not wait for a thread that stands.
    let held = hold(&gateway, "streams-0").unwrap();
    gateway.terminate();
    assert_eq!(gateway.wait().code(), Some(0));
    held.release();
}

/// The supervisor ends a process that gives no sign: this one must give none.
#[test]
fn while_a_thread_stands_the_watchdog_gets_no_sign() {
    if is_without_threads() {
        return;
    }
    let directory = Directory::create();
    let path = directory.0.join("notify");
    let supervisor = UnixDatagram::bind(&path).unwrap();
    supervisor.set_read_timeout(Some(FAILSAFE)).unwrap();
    let gateway = Gateway::start_for(
        &[
            ("NOTIFY_SOCKET", path.to_str().unwrap()),
            ("WATCHDOG_USEC", "900000"),
        ],
        &[
            ("engine.threads", "2"),
            ("engine.stall_after", "3s"),
            ("engine.stall_max", "0s"),
        ],
    );
    hear(&supervisor, "WATCHDOG=1");
    let Some(held) = hold(&gateway, "streams-0") else {
        return;
    };
    hear(
        &supervisor,
        "STATUS=a thread that writes streams does not go on",
    );
    // Some looks of the watch, and many times of a sign.
    eventually("it stands for longer", || {
        gateway.get("/healthz").text().contains(" 6 s")
    });
    held.release();
    let meanwhile = hear(&supervisor, "STATUS=0 streams");
    let signs = |line: &String| line == "WATCHDOG=1";
    let before = meanwhile
        .iter()
        .take_while(|line| *line != "STATUS=0 streams");
    assert_eq!(
        before.filter(|line| signs(line)).count(),
        0,
        "{meanwhile:?}"
    );
    if !meanwhile.iter().any(signs) {
        hear(&supervisor, "WATCHDOG=1");
    }
}
