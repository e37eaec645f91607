//! A real nginx, with the files of `nginx/` or with a configuration of the test's own.

use super::http::{Answer, Headers, exchange, request};
use super::process::{Directory, Process};
use super::redis::next_port;
use super::{Gateway, Sse, eventually};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Ports that are tried.
const TRIES: usize = 50;
/// Connections of one worker; a stream takes two.
const CONNECTIONS: usize = 1024;

/// A running nginx on loopback. Ended on drop.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    address: SocketAddr,
    status: SocketAddr,
    directory: Directory,
}

impl Nginx {
    /// nginx with the shipped files, rendered as `deploy/local/parts.py` does it, in front of
    /// these replicas.
    pub fn before(replicas: &[Gateway]) -> Self {
        let addresses: Vec<SocketAddr> = replicas.iter().map(Gateway::address).collect();
        Self::before_addresses(&addresses)
    }

    /// As [`Nginx::before`], for servers that need not be there.
    pub fn before_addresses(replicas: &[SocketAddr]) -> Self {
        Self::launch(|directory, listen, status| {
            write_shared(directory, replicas);
            write(directory, "nginx.conf", &shipped_main(listen, status));
        })
    }

    /// As [`Nginx::before`], with `changes` in the main file, each of which must fit it somewhere.
    pub fn before_with(replicas: &[Gateway], changes: &[(&str, &str)]) -> Self {
        let addresses: Vec<SocketAddr> = replicas.iter().map(Gateway::address).collect();
        Self::launch(|directory, listen, status| {
            write_shared(directory, &addresses);
            let mut main = shipped_main(listen, status);
            for (old, new) in changes {
                assert!(main.contains(old), "nginx.conf has no {old:?}");
                main = main.replace(old, new);
            }
            write(directory, "nginx.conf", &main);
        })
    }

    /// As [`Nginx::before`], for clients that say their address by `X-Client`: all of a test are on this machine.
    pub fn before_clients(replicas: &[Gateway]) -> Self {
        let addresses: Vec<SocketAddr> = replicas.iter().map(Gateway::address).collect();
        Self::launch(|directory, listen, status| {
            write_shared(directory, &addresses);
            let told = "http {\nset_real_ip_from 127.0.0.1; real_ip_header X-Client;\n";
            let main = shipped_main(listen, status).replacen("http {\n", told, 1);
            write(directory, "nginx.conf", &main);
        })
    }

    /// nginx with one `server` of the test's own: these directives, after `listen`.
    pub fn with(server: &str) -> Self {
        Self::launch(|directory, listen, _| {
            let temporary: String = ["client_body", "proxy", "fastcgi", "scgi", "uwsgi"]
                .map(|kind| format!("{kind}_temp_path {kind};\n"))
                .concat();
            let main = format!(
                "pid nginx.pid;\nerror_log stderr notice;\nevents {{}}\nhttp {{\n{temporary}\
                 access_log /dev/stdout;\nserver {{\nlisten {listen};\n{server}\n}}\n}}\n"
            );
            write(directory, "nginx.conf", &main);
        })
    }

    /// Writes the files with `prepare`, which is told where nginx shall listen for clients and for operators, and
    /// starts it.
    fn launch(prepare: impl Fn(&Path, &str, &str)) -> Self {
        let directory = Directory::create();
        for _ in 0..TRIES {
            let (address, status) = (free_address(), free_address());
            prepare(&directory.0, &address.to_string(), &status.to_string());
            let mut command = command(&directory.0);
            let mut process = Process::spawn("nginx", &mut command)
                .unwrap_or_else(|why| panic!("nginx cannot be started: {why}"));
            let mut ended = false;
            eventually("nginx listens", || {
                ended = process.ended().is_some();
                ended || TcpStream::connect(address).is_ok()
            });
            if !ended {
                return Self {
                    process,
                    address,
                    status,
                    directory,
                };
            }
            let said = process.stderr.all().join("\n");
            assert!(said.contains("Address already in use"), "{said}");
        }
        panic!("no free port for nginx in {TRIES} tries");
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where operators ask it, of the shipped files.
    pub fn status(&self) -> SocketAddr {
        self.status
    }

    /// One request.
    pub fn request(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> Answer {
        exchange(
            self.address,
            &request(method, target, headers, body.as_ref()),
        )
    }

    /// GET.
    pub fn get(&self, target: &str) -> Answer {
        self.request("GET", target, &[], "")
    }

    /// POST.
    pub fn post(&self, target: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
        self.request("POST", target, headers, body)
    }

    /// Opens a stream.
    pub fn open(&self, target: &str, headers: &[(&str, &str)]) -> Sse {
        Sse::open(&format!("http://{}{target}", self.address), headers)
    }

    /// Opens a stream and waits until it is live; the stream, and the replica that it is on.
    pub fn listen(&self, target: &str) -> (Sse, String) {
        let mut stream = self.open(target, &[]);
        let opened = stream.opened().json();
        let replica = opened["replica"].as_str().expect("a name").to_owned();
        (stream, replica)
    }

    /// `nginx -s reload`: new workers, while the old ones keep their streams.
    pub fn reload(&self) {
        let mut command = command(&self.directory.0);
        let output = command.args(["-s", "reload"]).output();
        let output = output.expect("nginx can be run");
        assert!(output.status.success(), "{output:?}");
        let is_done = |line: &str| line.contains("gracefully shutting down").then_some(());
        self.process
            .stderr
            .wait_for(is_done)
            .expect("the old workers are told");
    }

    /// Waits for a line of the access log that holds this.
    pub fn wait_for_access(&self, part: &str) -> String {
        let find = |line: &str| line.contains(part).then(|| line.to_owned());
        let line = self.process.stdout.wait_for(find);
        line.unwrap_or_else(|| panic!("no line of the access log holds {part:?}"))
    }

    /// Everything that it has written.
    pub fn written(&self) -> Vec<String> {
        let mut lines = self.process.stdout.all();
        lines.extend(self.process.stderr.all());
        lines
    }
}

impl Drop for Nginx {
    /// By SIGTERM: killed, the first process would leave its workers behind. Their outputs are
    /// closed when the last one has gone.
    fn drop(&mut self) {
        self.process.terminate();
        self.process.stderr.wait_for(|_| None::<()>);
    }
}

/// The shipped main file.
fn shipped_main(listen: &str, status: &str) -> String {
    let main = [
        ("NGINX_LISTEN", listen),
        ("NGINX_STATUS_LISTEN", status),
        ("NGINX_WORKER_CONNECTIONS", &CONNECTIONS.to_string()),
        ("NGINX_WORKER_FILES", &(CONNECTIONS + 200).to_string()),
    ];
    render("nginx.conf", &main)
}

/// An address of loopback that nobody listens on, outside of the range that outgoing connections
/// take: a server that goes and comes back finds it free.
pub fn free_address() -> SocketAddr {
    (0..TRIES)
        .map(|_| SocketAddr::from(([127, 0, 0, 1], next_port())))
        .find(|address| TcpListener::bind(address).is_ok())
        .expect("a free port")
}

/// The path of a program; distributions keep nginx in sbin, which is not on everybody's path.
///
/// # Panics
/// If it is not installed: a test that needs it is never skipped in silence.
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path
        .split(':')
        .chain(["/usr/local/sbin", "/usr/sbin", "/sbin"]);
    folders
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file())
        .unwrap_or_else(|| {
            panic!("these tests need {name}, and it is not there: deploy/install.sh {name}")
        })
}

/// Writes what every main file includes: the shared files, and these replicas.
pub fn write_shared(directory: &Path, replicas: &[SocketAddr]) {
    for file in fs::read_dir(shipped("")).expect("nginx/ is there") {
        let file = file.expect("nginx/ can be read").path();
        let name = file.file_name().expect("a name").to_string_lossy();
        if name.starts_with("tidegate-") {
            fs::copy(&file, directory.join(&*name)).expect("a copy");
        }
    }
    if !counts_connections() {
        write(directory, "tidegate-status.conf", "");
    }
    for name in ["replicas.conf", "replicas-requests.conf"] {
        let servers = replicas
            .iter()
            .map(|address| render(name, &[("REPLICA", &address.to_string())]));
        write(directory, name, &servers.collect::<String>());
    }
}

/// The nginx that tests start: the one that `TIDEGATE_TEST_NGINX` names, or the system's.
pub fn nginx_program() -> PathBuf {
    std::env::var_os("TIDEGATE_TEST_NGINX").map_or_else(|| program("nginx"), PathBuf::from)
}

/// Whether it has the module that the packages of distributions have, and the wheel that `deploy/local/nginx` installs
/// has not.
fn counts_connections() -> bool {
    let output = Command::new(nginx_program()).arg("-V").output();
    let said = output.expect("nginx can be run").stderr;
    String::from_utf8_lossy(&said).contains("http_stub_status_module")
}

/// `nginx` over the configuration in this directory, told nothing else.
pub fn command(directory: &Path) -> Command {
    let mut command = Command::new(nginx_program());
    // Started by root, nginx would hand its workers to another user, who may not enter the folder.
    let user = if rustix::process::geteuid().is_root() {
        "user root; "
    } else {
        ""
    };
    command
        .env_clear()
        .arg("-p")
        .arg(directory)
        .args(["-c", "nginx.conf", "-e", "stderr", "-g"])
        .arg(format!("{user}daemon off;"));
    command
}

/// A file of `nginx/`.
pub fn shipped(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("nginx")
        .join(file)
}

/// A template of `nginx/` with all its values.
pub fn render(name: &str, values: &[(&str, &str)]) -> String {
    let template = shipped(&format!("{name}.template"));
    let mut text = fs::read_to_string(&template).expect("a template of nginx/");
    for (variable, value) in values {
        text = text.replace(&format!("${{{variable}}}"), value);
    }
    assert!(!text.contains("${"), "{name} wants more: {text}");
    text
}

/// Writes a file.
pub fn write(directory: &Path, name: &str, text: &str) {
    fs::write(directory.join(name), text).expect("a file in the test's directory");
}
