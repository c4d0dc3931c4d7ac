//! The limits and waits of the outgoing half, each with its default.

use std::time::Duration;

/// Largest window that HTTP/2 knows (RFC 9113, 6.9.1).
pub const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;

/// How participants are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParticipantSettings {
    /// Connections held to each endpoint. More than one because servers allow some 200 calls at once on a
    /// connection. Default 2.
    pub connections_per_endpoint: usize,
    /// Time for name, TCP and TLS together, within the call's own time. Default 1 s.
    pub connect_timeout: Duration,
    /// How long a keepalive ping may stay unanswered. Default 20 s.
    pub keepalive_timeout: Duration,
    /// Largest reply, in bytes. Default 4 MiB.
    pub reply_bytes_max: usize,
    /// Largest request, in bytes. Default 4 MiB.
    pub request_bytes_max: usize,
    /// Most bytes of headers, and of trailers, that are taken with a reply. A usual limit, 16 KiB, would turn a refusal with
    /// large details into a broken stream. What does not fit is missing; at four times as much the connection is given up.
    /// Default 128 KiB.
    pub reply_headers_bytes_max: u32,
    /// What one reply may send before any of it has been read; at most [`WINDOW_BYTES_MAX`]. HTTP/2's own 64 KiB would cost a
    /// large reply a round trip for each piece. A promise and no memory: an idle connection holds none of it. Default 2 MiB.
    pub stream_window_bytes: u32,
    /// The same for all replies of a connection together. Default 5 MiB.
    pub connection_window_bytes: u32,
    /// So many calls in a row may pass their deadline without a sign of life before the connection is taken for dead and the
    /// next call dials anew. Without it a host that vanished would swallow calls until TCP gives up, a quarter of an hour
    /// later. Default 5.
    pub silent_calls_max: u32,
    /// Time for all that is asked of one participant's server reflection. Default 10 s.
    pub reflection_timeout: Duration,
    /// Certificate authorities to trust besides the machine's own, as PEM. Default none.
    pub extra_roots_pem: Vec<u8>,
}

impl Default for ParticipantSettings {
    fn default() -> Self {
        Self {
            connections_per_endpoint: 2,
            connect_timeout: Duration::from_secs(1),
            keepalive_timeout: Duration::from_secs(20),
            reply_bytes_max: 4 << 20,
            request_bytes_max: 4 << 20,
            reply_headers_bytes_max: 128 << 10,
            stream_window_bytes: 2 << 20,
            connection_window_bytes: 5 << 20,
            silent_calls_max: 5,
            reflection_timeout: Duration::from_secs(10),
            extra_roots_pem: Vec::new(),
        }
    }
}
