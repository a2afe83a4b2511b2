//! Master-key providers: each wraps and unwraps data keys, one provider per file. Caching belongs to the key service,
//! which keeps unwrapped keys and knows how long it may.

mod csfle_local;
mod keyfile;
mod measured;
mod native_wrap;

mod env;
mod file;

pub use csfle_local::CsfleLocal;
pub use env::EnvKey;
pub use file::FileKey;
pub use keyfile::generate;
pub use measured::Measured;
pub use native_wrap::WRAPPED;
