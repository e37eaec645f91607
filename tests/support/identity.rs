//! An identity provider of this test's own: it signs tokens, and answers what asks for its keys as well or as badly as a
//! test has it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Between two bytes of an answer that drips.
const DRIP: Duration = Duration::from_millis(100);

/// A key pair for ES256, and what it is called.
#[derive(Debug)]
pub struct Signer {
    id: String,
    pair: EcdsaKeyPair,
}

impl Signer {
    /// A new one; without a name if it is empty.
    pub fn create(id: &str) -> Self {
        let (kind, random) = (&ECDSA_P256_SHA256_FIXED_SIGNING, SystemRandom::new());
        let document = EcdsaKeyPair::generate_pkcs8(kind, &random).expect("a key");
        let pair = EcdsaKeyPair::from_pkcs8(kind, document.as_ref(), &random).expect("a key");
        Self {
            id: id.to_owned(),
            pair,
        }
    }

    /// A token that says this.
    pub fn sign(&self, claims: &Value) -> String {
        let mut head = json!({"alg": "ES256"});
        if !self.id.is_empty() {
            head["kid"] = json!(self.id);
        }
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(&head), part(claims));
        let random = SystemRandom::new();
        let signature = self.pair.sign(&random, signed.as_bytes()).expect("signed");
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }

    /// Its public half, as a JWK.
    pub fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let mut jwk = json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "x": text(&point[1..33]), "y": text(&point[33..]),
        });
        if !self.id.is_empty() {
            jwk["kid"] = json!(self.id);
        }
        jwk
    }
}

/// The JWK set of these.
pub fn key_set(signers: &[&Signer]) -> String {
    let keys: Vec<Value> = signers.iter().map(|signer| signer.jwk()).collect();
    json!({"keys": keys}).to_string()
}

/// What a provider answers.
#[derive(Clone, Debug)]
pub enum Manner {
    /// A set.
    Keys(String),
    /// These bytes, and then the end of the connection.
    Says(Vec<u8>),
    /// These bytes, one after the other, with pauses between.
    Drips(Vec<u8>),
    /// This, and then the same bytes again and again.
    Floods(Vec<u8>),
    /// Nothing, and the connection stays.
    Silent,
}

/// An answer with this status line, type and body.
pub fn answer(status: &str, kind: &str, body: &str) -> Manner {
    let length = body.len();
    let head = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    Manner::Says(head.into_bytes())
}

/// A server on a port of loopback. Its thread ends with the process, and it answers nothing once it is dropped.
#[derive(Debug)]
pub struct Identity {
    address: SocketAddr,
    scheme: &'static str,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    manner: Mutex<Manner>,
    asked: AtomicUsize,
    requests: Mutex<Vec<String>>,
}

impl Identity {
    /// A provider of these keys.
    pub fn start(keys: &[&Signer]) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), keys, None)
    }

    /// The same at this address, over TLS if there is a configuration for it.
    pub fn start_at(address: SocketAddr, keys: &[&Signer], tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind(address).expect("a free port");
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State {
            manner: Mutex::new(Manner::Keys(key_set(keys))),
            asked: AtomicUsize::new(0),
            requests: Mutex::default(),
        });
        let (shared, tls) = (state.clone(), tls.map(Arc::new));
        let scheme = if tls.is_some() { "https" } else { "http" };
        std::thread::spawn(move || {
            for socket in listener.incoming().map_while(Result::ok) {
                let (state, tls) = (shared.clone(), tls.clone());
                std::thread::spawn(move || {
                    // Whoever asks may go at any time.
                    let _gone = match tls {
                        None => state.serve(socket),
                        Some(tls) => ServerConnection::new(tls)
                            .map_err(std::io::Error::other)
                            .and_then(|tls| state.serve(StreamOwned::new(tls, socket))),
                    };
                });
            }
        });
        Self {
            address,
            scheme,
            state,
        }
    }

    /// Where its keys are.
    pub fn url(&self) -> String {
        format!("{}://{}/jwks.json", self.scheme, self.address)
    }

    /// Answers so from now on.
    pub fn behaves(&self, manner: Manner) {
        *self.state.manner() = manner;
    }

    /// Has these keys from now on.
    pub fn has(&self, keys: &[&Signer]) {
        self.behaves(Manner::Keys(key_set(keys)));
    }

    /// How often it was asked.
    pub fn asked(&self) -> usize {
        self.state.asked.load(Ordering::SeqCst)
    }

    /// The heads of all requests.
    pub fn requests(&self) -> Vec<String> {
        let requests = self.state.requests.lock();
        requests.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl State {
    fn manner(&self) -> std::sync::MutexGuard<'_, Manner> {
        self.manner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, mut socket: impl Paced) -> std::io::Result<()> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            socket.read_exact(&mut byte)?;
            head.push(byte[0]);
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        self.requests
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(head);
        self.asked.fetch_add(1, Ordering::SeqCst);
        let manner = self.manner().clone();
        match manner {
            Manner::Keys(set) => {
                let kind = "application/jwk-set+json; charset=utf-8";
                if let Manner::Says(bytes) = answer("200 OK", kind, &set) {
                    socket.write_all(&bytes)?;
                }
            }
            Manner::Says(bytes) => socket.write_all(&bytes)?,
            Manner::Drips(bytes) => {
                for byte in bytes {
                    socket.write_all(&[byte])?;
                    socket.flush()?;
                    if !socket.pause()? {
                        break;
                    }
                }
            }
            Manner::Floods(bytes) => loop {
                socket.write_all(&bytes)?;
            },
            Manner::Silent => while socket.pause()? {},
        }
        socket.flush()?;
        socket.end()
    }
}

/// A connection that can wait for its other end to go.
trait Paced: Read + Write {
    fn socket(&mut self) -> &mut TcpStream;

    /// Waits a little; whether the other end is still there.
    fn pause(&mut self) -> std::io::Result<bool> {
        let socket = self.socket();
        socket.set_read_timeout(Some(DRIP))?;
        match socket.read(&mut [0]) {
            Ok(0) => Ok(false),
            Ok(_) => Ok(true),
            Err(why) if why.kind() == std::io::ErrorKind::WouldBlock => Ok(true),
            Err(why) => Err(why),
        }
    }

    /// Ends the connection once all has been taken.
    fn end(&mut self) -> std::io::Result<()> {
        self.socket().shutdown(std::net::Shutdown::Write)?;
        while self.pause()? {}
        Ok(())
    }
}

impl Paced for TcpStream {
    fn socket(&mut self) -> &mut TcpStream {
        self
    }
}

impl Paced for StreamOwned<ServerConnection, TcpStream> {
    fn socket(&mut self) -> &mut TcpStream {
        &mut self.sock
    }
}
