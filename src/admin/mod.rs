//! The admin HTTP listener: liveness, readiness, metrics.
