//! What each MongoDB command means for protected fields: one planner per command, one closed table of verdicts.
