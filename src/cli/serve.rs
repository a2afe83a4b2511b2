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
    let again =
        move || load(&path).map_err(|why| Error::new(Fault::Operator, Failure::from(why).to_string()));
    super::runtime()?
        .block_on(crate::app::serve(config, Box::new(again)))
        .map_err(Failure::from)?;
    Ok(Exit::Done)
}
