//! A link to Redis that a test can spoil.

use super::Redis;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// Passes connections on to a Redis. Its threads end with the connections; the one that accepts
/// ends with the process.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Connections that were accepted.
    accepted: AtomicUsize,
    /// Those that came before this many are silent.
    silent: AtomicUsize,
    /// A connection on which these bytes have come is silent from then on.
    lost: Mutex<Option<Vec<u8>>>,
    /// Nothing moves on any connection.
    held: Mutex<bool>,
    moves: Condvar,
}

impl Link {
    /// A link to this server.
    pub fn to(redis: &Redis) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (state, port) = (Arc::<State>::default(), redis.port());
        let shared = state.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let number = shared.accepted.fetch_add(1, Ordering::SeqCst);
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else {
                    continue;
                };
                let is_silent = Arc::<AtomicBool>::default();
                let ends = || (client.try_clone().unwrap(), server.try_clone().unwrap());
                let ((from, to), state, silent) = (ends(), shared.clone(), is_silent.clone());
                std::thread::spawn(move || {
                    pump(from, to, |bytes| {
                        state.wait_while_held();
                        let passes = !silent.load(Ordering::SeqCst) && state.passes(number);
                        if state.loses(bytes) {
                            silent.store(true, Ordering::SeqCst);
                        }
                        passes
                    });
                });
                let ((to, from), state) = (ends(), shared.clone());
                std::thread::spawn(move || {
                    pump(from, to, |_| {
                        state.wait_while_held();
                        !is_silent.load(Ordering::SeqCst) && state.passes(number)
                    });
                });
            }
        });
        Self { address, state }
    }

    /// `redis://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Connections that were made so far.
    pub fn connections(&self) -> usize {
        self.state.accepted.load(Ordering::SeqCst)
    }

    /// From now on the connections that stand take bytes and pass none on, as behind a balancer
    /// whose server has vanished. New ones are as good as ever.
    pub fn silence(&self) {
        self.state
            .silent
            .store(self.connections(), Ordering::SeqCst);
    }

    /// From now on bytes stay where they are, on connections that stand and on new ones; `false` has
    /// all of them move on.
    pub fn hold(&self, held: bool) {
        *self.state.held.lock().unwrap() = held;
        self.state.moves.notify_all();
    }

    /// The next command with this text reaches the server; its answer, and everything after it on
    /// that connection, is lost.
    pub fn lose_answer(&self, text: &str) {
        *self.state.lost.lock().unwrap() = Some(text.into());
    }
}

impl State {
    fn wait_while_held(&self) {
        let held = self.held.lock().unwrap();
        drop(self.moves.wait_while(held, |held| *held).unwrap());
    }

    fn passes(&self, number: usize) -> bool {
        number >= self.silent.load(Ordering::SeqCst)
    }

    fn loses(&self, bytes: &[u8]) -> bool {
        let mut lost = self.lost.lock().unwrap();
        let has = |part: &Vec<u8>| bytes.windows(part.len()).any(|at| at == part);
        lost.take_if(|part| has(part)).is_some()
    }
}

/// Passes on what may pass until either end closes.
fn pump(mut from: TcpStream, mut to: TcpStream, mut passes: impl FnMut(&[u8]) -> bool) {
    let mut bytes = [0; 8 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        let bytes = &bytes[..count];
        if passes(bytes) && to.write_all(bytes).is_err() {
            break;
        }
    }
    let _closed = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}
