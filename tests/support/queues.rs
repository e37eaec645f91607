//! What waits in sockets of this machine, as
//! [proc(5)](https://man7.org/linux/man-pages/man5/proc_net.5.html) has it.

/// Bytes that were written to sockets of a local port and not acknowledged, the most of any.
pub fn send_queue(port: u16) -> usize {
    let of_port = format!(":{port:04X}");
    let queues = sockets().filter_map(|socket| {
        socket
            .local
            .ends_with(&of_port)
            .then_some(socket.unacknowledged)
    });
    queues.max().unwrap_or_default()
}

/// Bytes that came from a port of another program and were not read, the most of any socket.
pub fn receive_queue(peer: u16) -> usize {
    let of_port = format!(":{peer:04X}");
    let queues =
        sockets().filter_map(|socket| socket.peer.ends_with(&of_port).then_some(socket.unread));
    queues.max().unwrap_or_default()
}

struct Socket {
    local: String,
    peer: String,
    unacknowledged: usize,
    unread: usize,
}

/// Every socket of TCP over IPv4.
fn sockets() -> impl Iterator<Item = Socket> {
    let table = std::fs::read_to_string("/proc/net/tcp").expect("a table of sockets");
    let rows: Vec<Socket> = table.lines().skip(1).map(socket).collect();
    rows.into_iter()
}

fn socket(row: &str) -> Socket {
    let words: Vec<&str> = row.split_whitespace().collect();
    let (sent, received) = words[4].split_once(':').expect("two queues");
    let bytes = |hex| usize::from_str_radix(hex, 16).expect("a number");
    Socket {
        local: words[1].to_owned(),
        peer: words[2].to_owned(),
        unacknowledged: bytes(sent),
        unread: bytes(received),
    }
}
