//! TLS contexts for both sides, built once and swapped on reload.
