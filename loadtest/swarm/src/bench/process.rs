//! The processes of a benchmark: started, measured from outside, and ended.

use super::payload;
use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Time for a server to answer.
const START: Duration = Duration::from_secs(20);
/// Between two looks at a server that starts.
const LOOK: Duration = Duration::from_millis(20);

/// A server. It is killed on drop, and by the kernel should this process end without that.
#[derive(Debug)]
pub struct Process {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Process {
    /// Starts a program that listens on `address`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(
        program: &Path,
        address: SocketAddr,
        command: impl FnOnce(&mut Command),
    ) -> io::Result<Self> {
        let mut keeper = Command::new("setpriv");
        keeper.args(["--pdeathsig", "KILL", "--"]).arg(program);
        keeper.stdin(Stdio::null()).stdout(Stdio::null());
        command(&mut keeper);
        let child = keeper.spawn()?;
        Ok(Self { child, address })
    }

    /// Waits until it answers `request` with something that begins with `answer`.
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
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name may hold anything but its last parenthesis; after it the 12th and 13th field.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .filter_map(|field| field.parse::<u64>().ok())
            .sum();
        Ok(Duration::from_millis(
            ticks * 1000 / rustix::param::clock_ticks_per_second(),
        ))
    }

    /// Memory of its own and its share of what is shared, in bytes: the kernel's is not in it.
    ///
    /// # Errors
    /// It has ended.
    pub fn memory(&self) -> io::Result<u64> {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.child.id()))?;
        let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
        let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
        let kilobytes: u64 = kilobytes
            .and_then(|number| number.trim().parse().ok())
            .ok_or_else(|| io::Error::other("the kernel does not tell Pss"))?;
        Ok(kilobytes * 1024)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _gone = self.child.kill();
        let _gone = self.child.wait();
    }
}

/// Sends a request, and reads until the server closes, or has said enough to tell.
///
/// # Errors
/// The server is not there.
pub fn ask(address: SocketAddr, request: &str) -> io::Result<String> {
    let mut socket = TcpStream::connect(address)?;
    socket.set_read_timeout(Some(START))?;
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
