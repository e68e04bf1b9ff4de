//! Memory for bytes. If there is none (`RLIMIT_AS`, a small container), that is an error and does not abort the process.

use rustix::io::Errno;

/// Room for so many bytes, or `ENOMEM`.
fn reserved(len: usize) -> rustix::io::Result<Vec<u8>> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(len).map_err(|_| Errno::NOMEM)?;
    Ok(memory)
}

/// So many zeros, or `ENOMEM`.
pub fn zeroed(len: usize) -> rustix::io::Result<Vec<u8>> {
    let mut memory = reserved(len)?;
    memory.resize(len, 0);
    Ok(memory)
}

/// A copy of these bytes, or `ENOMEM`.
pub fn copied(bytes: &[u8]) -> rustix::io::Result<Vec<u8>> {
    let mut memory = reserved(bytes.len())?;
    memory.extend_from_slice(bytes);
    Ok(memory)
}
