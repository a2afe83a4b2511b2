//! `fieldveil serve`: runs the proxy in the foreground until it is told to stop.

use std::path::Path;

use super::exit::Exit;
use super::hint::Failure;
use super::load::load;
use super::logging::{self, LogFormat};
use crate::error::{Error, Fault};

pub(super) fn run(file: &Path, format: LogFormat) -> Result<Exit, Failure> {
    let config = load(file)?;
    logging::start(config.log_level, format);
    let path = file.to_owned();
    let again = move || {
        load(&path).map_err(|why| {
            let failure = Failure::from(why);
            Error::new(Fault::Operator, failure.to_string())
        })
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .map_err(|why| Failure::failed(format!("the runtime cannot be started: {why}"), "look at the limits of this user (ulimit -a)"))?;
    runtime.block_on(crate::app::serve(config, Box::new(again))).map_err(Failure::from)?;
    Ok(Exit::Done)
}
