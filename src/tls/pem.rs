//! Certificates and private keys out of PEM files; every error names the file and what to do.

use std::fs;
use std::io;
use std::path::Path;

use rustls_pki_types::pem::{self, PemObject};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::mistake;
use crate::error::Error;

/// No certificate bundle in earnest is larger (the whole Mozilla store is a quarter of a mebibyte).
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Every certificate in the file, in its order; at least one.
pub(super) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bytes = read(path, "the certificate file")?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let found = found.map_err(|error| malformed(path, &error))?;
    if found.is_empty() {
        return Err(mistake(format!(
            "{} holds no certificate: it must have a block `-----BEGIN CERTIFICATE-----` (PEM, not DER)",
            path.display()
        )));
    }
    Ok(found)
}

/// The first private key in the file.
pub(super) fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let bytes = zeroize::Zeroizing::new(read(path, "the private key")?);
    match PrivateKeyDer::from_pem_slice(&bytes) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) => {
            let encrypted = memchr::memmem::find(&bytes, b"BEGIN ENCRYPTED PRIVATE KEY").is_some();
            Err(mistake(if encrypted {
                format!(
                    "the private key in {} is encrypted with a passphrase, which cannot be asked for here: \
                     write it without one (`openssl pkey -in … -out …`) and keep the file to its owner (chmod 600)",
                    path.display()
                )
            } else {
                format!(
                    "{} holds no private key: it must have a block `-----BEGIN PRIVATE KEY-----` (PKCS#8, PKCS#1 or SEC1)",
                    path.display()
                )
            }))
        }
        Err(error) => Err(malformed(path, &error)),
    }
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, Error> {
    let too_large = || mistake(format!("{} is too large to be a PEM file", path.display()));
    let read = fs::metadata(path).and_then(|meta| {
        if meta.len() > MAX_FILE {
            return Ok(None);
        }
        fs::read(path).map(Some)
    });
    read.map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => mistake(format!(
            "{what} {} does not exist: put it there, or correct the path (relative ones count from the working directory); \
             `fieldveil init` makes a pair for development",
            path.display()
        )),
        io::ErrorKind::PermissionDenied => mistake(format!(
            "{what} {} cannot be read: give this process's user the right to read it",
            path.display()
        )),
        _ => mistake(format!("{what} {} cannot be read: {error}", path.display())),
    })?
    .ok_or_else(too_large)
}

fn malformed(path: &Path, error: &pem::Error) -> Error {
    // Only the kind: the error itself quotes what it could not read, which may be part of a key.
    let what = match error {
        pem::Error::MissingSectionEnd { .. } => "a block has no end",
        pem::Error::IllegalSectionStart { .. } => "a block's first line is not well formed",
        pem::Error::Base64Decode(_) => "a block is not base64",
        _ => "it is not well formed",
    };
    mistake(format!(
        "{} is not a PEM file: {what}; make or copy it again",
        path.display()
    ))
}
