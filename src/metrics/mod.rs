//! Prometheus series: every name, help text and label set in one list.
