//! One client connection as a state machine: frames in, steps out. No socket, no clock, no key service.
