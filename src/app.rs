//! Builds every room once from the configuration; the only place that names concrete providers.
