//! Secret bytes: zeroized on drop, compared in constant time, never printable.
