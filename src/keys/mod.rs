//! Data keys as handles that seal and open, the ring that holds them, and the traits their providers and stores implement.
