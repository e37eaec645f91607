//! What may go wrong in a run.

/// Faults that are mixed.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each fault by itself")]
pub struct Mix {
    /// Connections of replicas break; operations run twice.
    pub cuts: bool,
    /// A frame vanishes on a connection that stays up, or cannot be read.
    pub vanishing: bool,
    /// Logs hold six entries only.
    pub trimming: bool,
    /// Topics are deleted.
    pub deletion: bool,
    /// Topics are ended, and opened anew once that has expired.
    pub ends: bool,
    /// Hours pass.
    pub expiry: bool,
    /// The log's server is replaced by one that lacks the last writes.
    pub rewinds: bool,
    /// The log loses its last writes, and the process goes on.
    pub reloads: bool,
    /// The log is emptied by a process that goes on.
    pub flushes: bool,
    /// The server's clock is put back and forth.
    pub clock_steps: bool,
    /// Ages are configured anew, longer or shorter.
    pub settings: bool,
    /// Topics are given up as soon as nobody reads them, so that feeds open behind a log.
    pub sweeps: bool,
    /// Half of all replies take very long, and streams come and go meanwhile.
    pub slow_replies: bool,
    /// First visits ask for everything that is retained.
    pub history: bool,
    /// All windows of a replica together hold a few events only.
    pub crowded: bool,
}
