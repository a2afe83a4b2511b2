//! Data keys as handles that seal and open, the ring that holds them, and the traits their providers and stores
//! implement. Key bytes never leave a [`Dek`]; where wrapped keys come from is the business of layers above.

mod dek;
mod fuzz;
mod provider;
mod ring;
mod store;

pub use dek::{Dek, NONCE_BUDGET};
pub use fuzz::fuzz_envelope;
pub use provider::{BoxFuture, KeyProvider, MasterKey, ProviderError, ProviderErrorKind};
pub use ring::{DomainKeys, KeyRing};
pub use store::{AltName, DekStore, Inserted, KeyRecord, StoreError, StoreErrorKind};
