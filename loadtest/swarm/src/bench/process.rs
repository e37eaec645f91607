//! The processes of a benchmark: started, measured from outside, and ended.

use super::cores::Cores;
use super::payload;
use rustix::process::{Pid, Signal};
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// Time for a server to answer.
const START: Duration = Duration::from_secs(20);
/// Between two looks at a server that starts.
const LOOK: Duration = Duration::from_millis(20);

/// How a server is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// At once.
    Kill,
    /// By its own hand: it has processes of its own.
    Terminate,
}

/// A server. It is ended on drop, and by the kernel should this process end without that.
#[derive(Debug)]
pub struct Process {
    child: Child,
    ending: Ending,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Process {
    /// Starts a program that listens on `address`, on the servers' cores.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        program: &Path,
        cores: &Cores,
        address: SocketAddr,
        ending: Ending,
        command: impl FnOnce(&mut Command),
    ) -> io::Result<Self> {
        let signal = match ending {
            Ending::Kill => "KILL",
            Ending::Terminate => "TERM",
        };
        let mut keeper = Command::new("setpriv");
        keeper.args(["--pdeathsig", signal, "--"]).arg(program);
        keeper.stdin(Stdio::null()).stdout(Stdio::null());
        command(&mut keeper);
        let child = cores.on_servers(|| keeper.spawn())?;
        Ok(Self {
            child,
            ending,
            address,
        })
    }

    /// What it says on its standard output, if the command asked for a pipe.
    pub fn output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// Waits until it answers `request` with something that begins with `answer`; an empty request
    /// until it accepts a connection.
    ///
    /// # Errors
    /// It has ended, or does not.
    pub fn wait(&mut self, request: &str, answer: &str) -> io::Result<()> {
        let began = payload::now();
        while payload::now() - began < u64::try_from(START.as_nanos()).unwrap_or(u64::MAX) {
            if let Some(status) = self.child.try_wait()? {
                return Err(io::Error::other(format!("it ended: {status}")));
            }
            if ask(self.address, request).is_ok_and(|told| told.starts_with(answer)) {
                return Ok(());
            }
            nap(LOOK);
        }
        Err(io::Error::other(format!(
            "{} does not answer {answer}",
            self.address
        )))
    }

    /// Processor time that it has used, all threads.
    ///
    /// # Errors
    /// It has ended.
    pub fn processor_time(&self) -> io::Result<Duration> {
        processor_time(&self.child.id().to_string())
    }

    /// Memory of its own and its share of what is shared, in bytes: the kernel's is not in it.
    ///
    /// # Errors
    /// It has ended.
    pub fn memory(&self) -> io::Result<u64> {
        self.told("smaps_rollup", "Pss:")
    }

    /// The most memory that it ever had, in bytes.
    ///
    /// # Errors
    /// It has ended.
    pub fn peak_memory(&self) -> io::Result<u64> {
        self.told("status", "VmHWM:")
    }

    /// Bytes that the kernel tells of it in a file of [proc(5)](https://man7.org/linux/man-pages/man5/proc.5.html).
    fn told(&self, file: &str, what: &str) -> io::Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id()))?;
        let line = text.lines().find_map(|line| line.strip_prefix(what));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kilobytes: u64 = kilobytes
            .and_then(|number| number.trim().parse().ok())
            .ok_or_else(|| io::Error::other(format!("the kernel does not tell {what}")))?;
        Ok(kilobytes * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = match self.ending {
            Ending::Kill => self.child.kill(),
            Ending::Terminate => {
                rustix::process::kill_process(Pid::from_child(&self.child), Signal::Term)
                    .map_err(io::Error::from)
            }
        };
        let _gone = self.child.wait();
    }
}

/// Processor time that a process has used, all threads.
fn processor_time(id: &str) -> io::Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat"))?;
    // The name may hold anything but its last parenthesis; after it the 12th and 13th field.
    let fields = stat.rsplit(')').next().unwrap_or_default();
    Ok(sum_of_ticks(fields.split_whitespace().skip(11).take(2)))
}

/// Processor time that the whole machine has used, and that of this process.
///
/// # Errors
/// The kernel does not tell.
pub fn machine_time() -> io::Result<(Duration, Duration)> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    // user nice system idle iowait irq softirq steal
    let fields = stat.lines().next().unwrap_or_default();
    let fields = fields.split_whitespace().skip(1).take(8).enumerate();
    let busy = fields.filter_map(|(place, field)| (!matches!(place, 3 | 4)).then_some(field));
    Ok((sum_of_ticks(busy), processor_time("self")?))
}

fn sum_of_ticks<'a>(fields: impl Iterator<Item = &'a str>) -> Duration {
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// Sends a request, and reads until the server closes, or has said enough to tell.
///
/// # Errors
/// The server is not there.
pub fn ask(address: SocketAddr, request: &str) -> io::Result<String> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(START))?;
    if request.is_empty() {
        return Ok(String::new());
    }
    socket.write_all(request.as_bytes())?;
    let mut answer = vec![0; 64 * 1024];
    let count = socket.read(&mut answer)?;
    answer.truncate(count);
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// An address of loopback that is free now.
///
/// # Errors
/// There is none.
pub fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

/// Waits. Nothing of a measurement goes on meanwhile.
#[expect(
    clippy::disallowed_methods,
    reason = "there is no runtime whose worker it could block"
)]
pub fn nap(time: Duration) {
    std::thread::sleep(time);
}
