//! Frames and sections of the MongoDB wire protocol: bytes to structure and back. Owns no socket and knows no command.
