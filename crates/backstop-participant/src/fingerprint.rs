//! What a call asks for, as a digest: one key never stands for two requests.

use prost::Message;
use sha2::{Digest, Sha256};

/// A digest of a method and its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Of a decoded request. `method` is any name that never changes.
    ///
    /// A message with map fields must be generated with ordered maps (`btree_map`), or it has another
    /// encoding each time; else use [`Fingerprint::of_bytes`] on a form of your own.
    #[must_use]
    pub fn of(method: &str, request: &impl Message) -> Self {
        Self::of_bytes(method, &request.encode_to_vec())
    }

    /// Of a request in a form that is the same each time it comes.
    #[must_use]
    pub fn of_bytes(method: &str, request: &[u8]) -> Self {
        let mut hash = Sha256::new();
        // The method's length keeps apart what belongs to it and what to the request.
        hash.update(u64::try_from(method.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(method.as_bytes());
        hash.update(request);
        Self(hash.finalize().into())
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}
