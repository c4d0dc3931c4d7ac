//! The limits and waits of the outgoing half, each with its default.

use std::time::Duration;

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
            reflection_timeout: Duration::from_secs(10),
            extra_roots_pem: Vec::new(),
        }
    }
}
