//! The `file` provider: a 32-byte master key as 64 hexadecimal characters in a file that only we can read.

use std::path::Path;

use super::keyfile;
use super::native_wrap::NativeWrap;
use crate::crypto::MATERIAL;
use crate::keys::{BoxFuture, KeyProvider, MasterKey, ProviderError};
use crate::name::KeyId;
use crate::secret::Secret;

/// A master key read from a file, once.
pub struct FileKey(NativeWrap);

impl FileKey {
    /// Reads the file, which [`super::generate`] can make.
    ///
    /// # Errors
    /// Where it is absent, is not of mode 0600 or stricter, belongs to another user, or does not hold 64 hexadecimal
    /// characters.
    pub fn open(path: &Path) -> Result<Self, ProviderError> {
        let text = keyfile::read(path)?;
        let key = keyfile::master_from_hex(&text)
            .ok_or_else(|| keyfile::misconfigured(path, "must hold 64 hexadecimal characters (32 bytes)"))?;
        Ok(Self(NativeWrap::new(&key)?))
    }
}

impl KeyProvider for FileKey {
    fn describe(&self) -> MasterKey {
        NativeWrap::master_key()
    }

    fn wrap<'a>(
        &'a self,
        id: &'a KeyId,
        material: &'a Secret<[u8; MATERIAL]>,
    ) -> BoxFuture<'a, Result<Vec<u8>, ProviderError>> {
        Box::pin(async move { self.0.wrap(id, material) })
    }

    fn unwrap<'a>(
        &'a self,
        id: &'a KeyId,
        master: &'a MasterKey,
        wrapped: &'a [u8],
    ) -> BoxFuture<'a, Result<Secret<[u8; MATERIAL]>, ProviderError>> {
        Box::pin(async move { self.0.unwrap(id, master, wrapped) })
    }

    fn health(&self) -> BoxFuture<'_, Result<(), ProviderError>> {
        Box::pin(async { Ok(()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn refusal(path: &Path) -> String {
        FileKey::open(path).err().unwrap().text
    }

    #[test]
    fn opens_what_was_generated_and_never_overwrites_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        keyfile::generate(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.trim().len(), 64);
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o7777,
            0o600
        );
        FileKey::open(&path).unwrap();
        assert!(keyfile::generate(&path).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }

    #[test]
    fn of_many_that_generate_at_once_one_wins_and_all_read_its_key() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        let made = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..8)
                .map(|_| {
                    scope.spawn(|| {
                        let made = keyfile::generate(&path).is_ok();
                        FileKey::open(&path).unwrap();
                        made
                    })
                })
                .collect();
            threads
                .into_iter()
                .filter_map(|t| t.join().ok())
                .filter(|made| *made)
                .count()
        });
        assert_eq!(made, 1);
        assert_eq!(
            std::fs::read_dir(folder.path()).unwrap().count(),
            1,
            "nothing is left beside it"
        );
    }

    #[test]
    fn rejects_a_file_that_others_can_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        keyfile::generate(&path).unwrap();
        for mode in [0o640, 0o604, 0o660, 0o644, 0o666, 0o700, 0o601] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            assert!(refusal(&path).contains("chmod 600"), "{mode:o}");
        }
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        FileKey::open(&path).unwrap();
    }

    #[test]
    fn rejects_what_is_no_key_without_repeating_it() {
        use std::os::unix::fs::OpenOptionsExt;
        let folder = tempfile::tempdir().unwrap();
        for (n, text) in [
            "",
            "00",
            &"zz".repeat(32),
            &"00".repeat(31),
            &"00".repeat(33),
            &"00".repeat(4000),
        ]
        .into_iter()
        .enumerate()
        {
            let path = folder.path().join(n.to_string());
            let mut file = std::fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&path)
                .unwrap();
            std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
            assert!(!refusal(&path).contains("zz"));
        }
        assert!(refusal(&folder.path().join("absent")).contains("cannot be opened"));
        assert!(refusal(folder.path()).contains("not a regular file"));
    }

    #[test]
    fn rejects_a_file_of_another_user() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("master.key");
        keyfile::generate(&path).unwrap();
        // Only root can give a file away; anybody else could not open such a file in the first place.
        if std::os::unix::fs::chown(&path, Some(65534), None).is_ok() {
            assert!(
                refusal(&path).contains("belongs to user 65534"),
                "{}",
                refusal(&path)
            );
        }
    }
}
