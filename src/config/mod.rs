//! The configuration file: text plus injected environment to typed settings, all mistakes at once.
