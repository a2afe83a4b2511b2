//! What happened, as data: pseudonyms, paths and counts, never a protected value.
