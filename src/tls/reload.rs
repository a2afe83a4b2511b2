//! The context towards applications, swapped as a whole on reload: connections that are open keep the one they began
//! with, and files that cannot be used change nothing.

use std::sync::Arc;

use arc_swap::ArcSwap;
use rustls::ServerConfig;

use super::server::server_config;
use crate::config::Tls;
use crate::error::Error;

/// Holds the current context.
#[derive(Debug)]
pub struct ServerTls {
    current: ArcSwap<ServerConfig>,
}

impl ServerTls {
    /// Reads the files for the first time.
    pub fn load(files: &Tls) -> Result<Self, Error> {
        Ok(Self {
            current: ArcSwap::new(server_config(files)?),
        })
    }

    /// The context for the next connection.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load_full()
    }

    /// Reads the files again, which may be others than before; on an error the old context stays.
    pub fn reload(&self, files: &Tls) -> Result<(), Error> {
        self.current.store(server_config(files)?);
        Ok(())
    }
}
