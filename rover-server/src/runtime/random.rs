//! Random bytes from the system's cryptographic source.
//!
//! Comes in: room for them. Goes out: bytes that nobody can foresee. This module must not know what for.

use std::sync::LazyLock;

use rustls::crypto::{GetRandomFailed, SecureRandom, ring};

/// The source that TLS has, too: the system's, by ring.
static SOURCE: LazyLock<&'static dyn SecureRandom> = LazyLock::new(|| ring::default_provider().secure_random);

/// Fills `bytes`.
///
/// # Errors
/// The system gives none.
pub(crate) fn fill(bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
    SOURCE.fill(bytes)
}

/// Where a generator that is no secret begins. Where the system gives nothing, somewhere else each time all the same.
pub(crate) fn seed() -> u64 {
    let mut bytes = [0; 8];
    match fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        Err(_) => fastrand::u64(..),
    }
}
