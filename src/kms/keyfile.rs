//! Key files: who may read them, reading them without leaving copies, and making one.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::crypto::nonce;
use crate::keys::{ProviderError, ProviderErrorKind};
use crate::secret::Secret;

/// No key file of any form is longer.
const LONGEST: u64 = 1024;

/// Makes a master key: 32 random bytes as 64 hexadecimal characters in a new file of mode 0600, on disk when this
/// returns. Tell the user, loudly, to back it up: without it nothing sealed can be read again. The file appears whole or
/// not at all: of two processes that make it at once one fails, and can read what the other made.
///
/// # Errors
/// Where the file exists already, or cannot be written.
pub fn generate(path: &Path) -> Result<(), ProviderError> {
    let key: Secret<[u8; 32]> = Secret::fill(|out| nonce::fill(out))
        .map_err(|_| ProviderError::new(ProviderErrorKind::Internal, "no randomness for a master key"))?;
    let mut text = Zeroizing::new([0; 65]);
    hex::encode_to_slice(key.expose(), &mut text[..64])
        .map_err(|_| ProviderError::new(ProviderErrorKind::Internal, "hexadecimal encoding failed"))?;
    text[64] = b'\n';
    let failed = |what: &str, error: std::io::Error| misconfigured(path, &format!("{what}: {error}"));
    let mut unique = [0; 8];
    nonce::fill(&mut unique)
        .map_err(|_| ProviderError::new(ProviderErrorKind::Internal, "no randomness for a file's name"))?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", hex::encode(unique)));
    let beside = PathBuf::from(beside);
    let made = write_new(&beside, &text[..]).and_then(|()| std::fs::hard_link(&beside, path));
    drop(std::fs::remove_file(&beside));
    match made {
        // A file system without links: whole all the same, unless somebody reads it this very moment.
        Err(error) if error.kind() != ErrorKind::AlreadyExists => write_new(path, &text[..]),
        made => made,
    }
    .map_err(|error| failed("cannot be created", error))?;
    // The name must survive a crash too: a data key wrapped by a master key that is gone is gone as well.
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|error| failed("its folder cannot be synchronised", error))
}

fn write_new(path: &Path, text: &[u8]) -> std::io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text)?;
    file.sync_all()
}

/// Reads a key file that nobody but its owner, who must be this process's user, can read or write.
pub(super) fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, ProviderError> {
    let file =
        File::open(path).map_err(|error| misconfigured(path, &format!("cannot be opened: {error}")))?;
    // The open file is looked at, not the path: it cannot be swapped in between.
    let about = file
        .metadata()
        .map_err(|error| misconfigured(path, &format!("cannot be examined: {error}")))?;
    if !about.is_file() {
        return Err(misconfigured(path, "is not a regular file"));
    }
    let mode = about.mode() & 0o7777;
    if mode & 0o177 != 0 {
        return Err(misconfigured(
            path,
            &format!("has mode {mode:04o}: run `chmod 600` on it"),
        ));
    }
    if let Some(us) = own_user().filter(|&us| us != about.uid()) {
        let owner = about.uid();
        return Err(misconfigured(
            path,
            &format!("belongs to user {owner}, this process runs as user {us}"),
        ));
    }
    if about.len() > LONGEST {
        return Err(misconfigured(path, "is too long for a key file"));
    }
    // Room from the start: a buffer that grows leaves copies of the key behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST as usize + 1));
    file.take(LONGEST)
        .read_to_end(&mut bytes)
        .map_err(|error| misconfigured(path, &format!("cannot be read: {error}")))?;
    Ok(bytes)
}

/// 32 bytes out of 64 hexadecimal characters, white space around them aside.
pub(super) fn master_from_hex(text: &[u8]) -> Option<Secret<[u8; 32]>> {
    let text = text.trim_ascii();
    Secret::fill(|out| hex::decode_to_slice(text, out)).ok()
}

/// This process's user, as the kernel sees it. Only Linux tells without a system call of our own; elsewhere the mode
/// check alone has to do, which lets nobody but the owner and root read the file.
fn own_user() -> Option<u32> {
    std::fs::metadata("/proc/self").ok().map(|about| about.uid())
}

pub(super) fn misconfigured(path: &Path, what: &str) -> ProviderError {
    ProviderError::new(
        ProviderErrorKind::Misconfigured,
        format!("key file {} {what}", path.display()),
    )
}
