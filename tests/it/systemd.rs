//! Goal: a replica gets on with systemd. It takes sockets that were opened before it, so that a
//! restart refuses no connection; it says when it is ready and when it stops, and gives signs of
//! life; and the shipped units are what systemd takes them for.
//!
//! Method: sockets are passed as systemd passes them (`LISTEN_FDS`, from descriptor 3 on), once by
//! systemd's own tool. The protocol of readiness is read from a real socket.

use crate::support::{
    Directory, End, FAILSAFE, Process, Redis, Sse, environment, eventually, exchange, follow_until,
    free_address, program, run,
};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

/// A socket that outlives the processes that accept on it.
fn listener() -> (TcpListener, SocketAddr) {
    // Others take ports as well: what was free may not be any more.
    let mut tries = (0..10).map(|_| TcpListener::bind(free_address()));
    let socket = tries.find_map(Result::ok).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// A replica that was passed these two sockets: 3 and 4, as systemd does it. Only the process
/// itself knows its id, so a shell sets it and becomes the replica.
fn launch(
    name: &str,
    first: &TcpListener,
    second: &TcpListener,
    config: &[(&str, &str)],
) -> Process {
    let fd = |socket: &TcpListener| Stdio::from(OwnedFd::from(socket.try_clone().unwrap()));
    let mut child = Command::new("/bin/sh");
    child
        .args([
            "-c",
            "exec 3<&0 4<&1 </dev/null >/dev/null; LISTEN_FDS=2 LISTEN_PID=$$ exec \"$0\" serve",
        ])
        .arg(env!("CARGO_BIN_EXE_tidegate"))
        .env_clear()
        .envs(environment(config));
    Process::start(name, &mut child, fd(first), fd(second)).unwrap()
}

/// One that listens on both of them.
fn replica(
    redis: &Redis,
    name: &str,
    main: &TcpListener,
    ops: &TcpListener,
    config: &[(&str, &str)],
) -> Process {
    let (url, main_address, ops_address) = (
        redis.url(),
        main.local_addr().unwrap().to_string(),
        ops.local_addr().unwrap().to_string(),
    );
    let own = [
        ("redis.url", url.as_str()),
        ("replica.name", name),
        ("server.listen", &main_address),
        ("ops.listen", &ops_address),
        ("logging.format", "json"),
    ];
    let process = launch(name, main, ops, &[&own, config].concat());
    let listening = process
        .stderr
        .wait_for(|line| line.contains("\"listening\"").then_some(()));
    assert!(listening.is_some(), "{:?}", process.stderr.all());
    process
}

fn get(address: SocketAddr, target: &str) -> crate::support::Answer {
    let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    exchange(address, request.as_bytes())
}

fn listen(address: SocketAddr) -> (Sse, String) {
    let mut stream = Sse::open(&format!("http://{address}/events/news"), &[]);
    let replica = stream.opened().json()["replica"]
        .as_str()
        .unwrap()
        .to_owned();
    (stream, replica)
}

#[test]
fn a_restart_refuses_no_connection() {
    let redis = Redis::start();
    let ((main, address), (ops, _)) = (listener(), listener());
    let mut old = replica(&redis, "old", &main, &ops, &[("drain.time", "1s")]);
    let (stream, name) = listen(address);
    assert_eq!(name, "old");
    old.terminate();
    assert_eq!(old.wait().code(), Some(0));
    // Nobody accepts: whoever comes now waits in the queue, and is answered by the next process.
    let waiting: Vec<TcpStream> = (0..20)
        .map(|_| TcpStream::connect(address).expect("not refused"))
        .collect();
    let missed = redis.publish("news", "missed", &[]);
    let coming_back = std::thread::spawn(|| {
        let mut stream = stream;
        assert_eq!(stream.rest().1, End::Cut);
        stream.reconnect().next_published()
    });
    let _new = replica(&redis, "new", &main, &ops, &[]);
    for socket in waiting {
        let request = b"GET /topics HTTP/1.1\r\nHost: localhost\r\n\r\n";
        assert_eq!(Sse::exchange(socket, request).status(), 200);
    }
    assert_eq!(coming_back.join().unwrap().id(), missed);
}

#[test]
fn an_old_process_drains_while_the_new_one_accepts() {
    let redis = Redis::start();
    let ((main, address), (ops, ops_address)) = (listener(), listener());
    let mut old = replica(
        &redis,
        "old",
        &main,
        &ops,
        &[("drain.hand_over", "true"), ("drain.time", "3s")],
    );
    let streams: Vec<(Sse, String)> = (0..12).map(|_| listen(address)).collect();
    assert!(streams.iter().all(|(_, name)| name == "old"));
    let new = replica(&redis, "new", &main, &ops, &[]);
    old.terminate();
    assert!(
        old.stderr
            .wait_for(|line| line.contains("\"draining\"").then_some(()))
            .is_some()
    );
    // Of what the old process had accepted before, it may still send one away.
    eventually("the new one is ready and alone", || {
        get(ops_address, "/readyz").status == 200
    });
    let asked = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let followers: Vec<_> = streams
            .into_iter()
            .map(|(stream, _)| {
                scope.spawn(|| {
                    follow_until("last", stream, |stream| {
                        let stream = stream.reconnect();
                        assert_eq!(stream.status(), 200);
                        stream
                    })
                })
            })
            .collect();
        // Every request is answered, and by nobody who is going.
        let mut old_is_there = true;
        while old_is_there {
            assert_eq!(get(address, "/topics").status, 200);
            assert_eq!(get(ops_address, "/readyz").status, 200);
            assert_eq!(listen(address).1, "new");
            redis.publish(
                "news",
                &asked.fetch_add(1, Ordering::Relaxed).to_string(),
                &[],
            );
            old_is_there = old.ended().is_none();
        }
        redis.publish("news", "last", &[]);
        let mut expected: Vec<String> = (0..asked.load(Ordering::Relaxed))
            .map(|number| number.to_string())
            .collect();
        expected.push("last".to_owned());
        for follower in followers {
            let seen = follower.join().unwrap().into_iter();
            assert_eq!(seen.map(|event| event.data).collect::<Vec<_>>(), expected);
        }
    });
    assert!(
        asked.load(Ordering::Relaxed) > 3,
        "asked while the old one was there"
    );
    assert_eq!(old.wait().code(), Some(0));
    drop(new);
}

#[test]
fn a_socket_that_nobody_asked_for_is_refused() {
    let redis = Redis::start();
    let ((main, address), (other, other_address)) = (listener(), listener());
    let (url, address) = (redis.url(), address.to_string());
    let config = [("redis.url", url.as_str()), ("server.listen", &address)];
    let mut process = launch("refused", &main, &other, &config);
    assert_eq!(process.wait().code(), Some(1));
    let said = process.stderr.all().join("\n");
    assert!(
        said.contains(&format!("the socket {other_address} was passed")),
        "{said}"
    );
}

#[test]
fn systemds_own_tool_passes_a_socket() {
    let address = free_address();
    let mut command = Command::new(program("systemd-socket-activate"));
    command
        .env_clear()
        .arg("--listen")
        .arg(address.to_string())
        .arg(format!("--setenv=TIDEGATE__SERVER__LISTEN={address}"))
        .arg(env!("CARGO_BIN_EXE_tidegate"))
        .arg("serve");
    let process = Process::spawn("systemd-socket-activate", &mut command).unwrap();
    let listens = |line: &str| line.contains("Listening on").then_some(());
    assert!(process.stderr.wait_for(listens).is_some());
    // The first connection starts the process, and is served by it.
    assert_eq!(get(address, "/healthz").text(), "ok\n");
}

/// What a supervisor hears, as lines.
struct Supervisor {
    socket: UnixDatagram,
    _directory: Directory,
    path: String,
}

impl Supervisor {
    fn new() -> Self {
        let directory = Directory::create();
        let path = directory.0.join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(FAILSAFE)).unwrap();
        Self {
            socket,
            path: path.to_str().unwrap().to_owned(),
            _directory: directory,
        }
    }

    /// Everything up to a message that holds this line.
    fn hear(&self, wanted: &str) -> Vec<String> {
        let mut heard = Vec::new();
        let mut buffer = [0; 4096];
        // Status lines change with what goes on, and are bounded in number.
        for _ in 0..500 {
            let read = self.socket.recv(&mut buffer);
            let read = read.unwrap_or_else(|why| panic!("no {wanted}: {why}; {heard:?}"));
            let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
            heard.extend(text.lines().map(str::to_owned));
            if heard.iter().any(|line| line == wanted) {
                return heard;
            }
        }
        panic!("no {wanted}: {heard:?}");
    }
}

#[test]
fn a_supervisor_is_told_how_things_stand() {
    let mut redis = Redis::start();
    redis.kill();
    let supervisor = Supervisor::new();
    let address = free_address();
    let mut command = crate::support::binary();
    command
        .arg("serve")
        .env("NOTIFY_SOCKET", &supervisor.path)
        .env("WATCHDOG_USEC", "900000")
        .envs(environment(&[
            ("redis.url", redis.url().as_str()),
            ("server.listen", address.to_string().as_str()),
            ("redis.backoff_max", "100ms"),
        ]));
    let mut process = Process::spawn("tidegate", &mut command).unwrap();
    // Alive, and not ready: Redis is away.
    let heard = supervisor.hear("STATUS=waiting for Redis");
    assert!(!heard.contains(&"READY=1".to_owned()), "{heard:?}");
    supervisor.hear("WATCHDOG=1");
    redis.restart();
    supervisor.hear("READY=1");
    let stream = listen(address).0;
    supervisor.hear("STATUS=1 streams");
    // A process that hangs gives no sign: this is what systemd ends it by.
    process.pause();
    supervisor.socket.set_nonblocking(true).unwrap();
    let mut buffer = [0; 4096];
    while supervisor.socket.recv(&mut buffer).is_ok() {}
    supervisor.socket.set_nonblocking(false).unwrap();
    process.resume();
    supervisor.hear("WATCHDOG=1");
    process.terminate();
    supervisor.hear("STOPPING=1");
    drop(stream);
    assert_eq!(process.wait().code(), Some(0));
}

/// The shipped units.
fn unit(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy/systemd")
        .join(name);
    std::fs::read_to_string(path).unwrap()
}

/// The value of a key that stands once.
fn value<'a>(unit: &'a str, key: &str) -> &'a str {
    let mut values = unit
        .lines()
        .filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    let value = values.next().unwrap_or_else(|| panic!("no {key}"));
    assert_eq!(values.next(), None, "{key} stands twice");
    value
}

#[test]
fn the_units_fit_the_program() {
    let (service, socket) = (unit("tidegate.service"), unit("tidegate.socket"));
    let said = run(&["serve", "--help"], &[]);
    assert!(said.stdout.contains("--config"), "what ExecStart says");
    assert!(value(&service, "ExecStart").ends_with("serve --config /etc/tidegate/tidegate.toml"));
    // Both ports of the unit are those of its configuration, or the start would be refused.
    let listens: Vec<&str> = socket
        .lines()
        .filter_map(|line| line.strip_prefix("ListenStream="))
        .collect();
    let sets = |key: &str| {
        let begin = format!("Environment={key}=");
        let line = service.lines().find_map(|line| line.strip_prefix(&begin));
        line.unwrap_or_else(|| panic!("no {key}"))
    };
    assert_eq!(
        listens,
        [
            sets("TIDEGATE__SERVER__LISTEN"),
            sets("TIDEGATE__OPS__LISTEN")
        ]
    );
    // The grace is longer than the drain, which is a default that tests/it/config.rs compares.
    let toml =
        std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/tidegate.toml"))
            .unwrap();
    let drain = toml.split("[drain]").nth(1).unwrap();
    let seconds = |text: &str| {
        text.trim_matches('"')
            .trim_end_matches('s')
            .parse::<u32>()
            .unwrap()
    };
    let drain = drain
        .lines()
        .find_map(|line| line.strip_prefix("#time = "))
        .unwrap();
    // Requests, then tasks that have begun.
    let join = include_str!("../../src/app.rs");
    let (_, join) = join
        .split_once("const JOIN: Duration = Duration::from_secs(")
        .unwrap();
    let tasks = 2 * join.split(')').next().unwrap().parse::<u32>().unwrap();
    assert!(seconds(value(&service, "TimeoutStopSec")) > seconds(drain) + tasks);
    let sum = format!("`drain.wait` + `drain.time` + {tasks} s");
    for page in ["docs/deploy.md", "docs/operations.md"] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
        assert!(
            std::fs::read_to_string(path).unwrap().contains(&sum),
            "{page}"
        );
    }
    let backlog = toml
        .lines()
        .find_map(|line| line.strip_prefix("#backlog = "))
        .unwrap();
    assert_eq!(value(&socket, "Backlog"), backlog);
}

/// The first line says what is allowed, each further one adds or, with `~`, takes away: systemd.exec(5).
#[test]
fn the_unit_lets_threads_stay_on_their_cores() {
    let service = unit("tidegate.service");
    let lines: Vec<&str> = service
        .lines()
        .filter_map(|line| line.strip_prefix("SystemCallFilter="))
        .collect();
    assert_eq!(lines.first(), Some(&"@system-service"));
    // Both sets that it is in; the last line that names one of them, or the call itself, decides.
    let names = ["sched_setaffinity", "@resources", "@system-service"];
    let names_it = |line: &&&str| {
        let mut words = line.trim_start_matches('~').split(' ');
        words.any(|word| names.contains(&word))
    };
    let last = lines.iter().rfind(names_it).unwrap();
    assert!(!last.starts_with('~'), "{last} takes it away: engine.pin");
}

/// As the unit runs it: a user that nobody has, with the right to read the key by its group alone.
#[test]
fn a_reload_takes_a_key_that_only_a_group_may_read() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("NOT CHECKED: only root can start a replica as somebody else");
        return;
    }
    let service = unit("tidegate.service");
    let key_file = "Environment=TIDEGATE__AUTH__PUBLISH_KEY_FILE=";
    let shipped = service.lines().find_map(|line| line.strip_prefix(key_file));
    let shipped = shipped.expect("where the key is");
    // A group of the dynamic user's own name would have systemd refuse the start.
    let shipped_group = value(&service, "SupplementaryGroups");
    assert_ne!(shipped_group, "tidegate");
    let install = format!("install -m 640 -g {shipped_group} -T /dev/stdin {shipped} <<<");
    assert!(service.contains(&install), "{install}");

    // A number in place of the group, which this machine may lack.
    let group = "64001";
    // Where any user may enter, and run the program.
    let name = format!("tidegate-test-{}", std::process::id());
    let directory = Directory(std::env::temp_dir().join(name));
    std::fs::create_dir(&directory.0).unwrap();
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&directory.0, everybody).unwrap();
    let binary = directory.0.join("tidegate");
    std::fs::copy(env!("CARGO_BIN_EXE_tidegate"), &binary).unwrap();
    let path = directory.0.join("publish-key");
    let install = |key: &str| {
        let line = install.replace(shipped_group, group);
        let line = line.replace(shipped, path.to_str().unwrap());
        let script = format!("{line}\"$KEY\"");
        let mut bash = Command::new("bash");
        let done = bash.args(["-c", &script]).env("KEY", key).status();
        assert!(done.unwrap().success(), "{script}");
    };
    install("first");
    let address = free_address();
    let mut command = Command::new(program("setpriv"));
    command
        .env_clear()
        .args([
            "--reuid=64000",
            "--regid=64000",
            "--groups",
            group,
            "--no-new-privs",
        ])
        .arg(binary)
        .arg("serve")
        .envs(environment(&[
            ("server.listen", address.to_string().as_str()),
            ("auth.publish_key_file", path.to_str().unwrap()),
        ]));
    let mut replica = Process::spawn("tidegate", &mut command).unwrap();
    let listens = |line: &str| line.contains("listening").then_some(());
    assert!(replica.stderr.wait_for(listens).is_some());
    let may_publish = |key: &str| {
        let request = format!(
            "POST /events/news HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {key}\r\nContent-Length: 1\r\n\r\nx"
        );
        exchange(address, request.as_bytes()).status == 200
    };
    assert!(may_publish("first") && !may_publish("second"));
    install("second");
    replica.hang_up();
    eventually("the new key is taken", || may_publish("second"));
    assert!(!may_publish("first"));
}
