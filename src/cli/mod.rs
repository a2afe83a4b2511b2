//! temp
#![allow(dead_code, reason="temp")]
mod exit; mod hint; mod load; mod logging; mod serve;
use std::process::ExitCode;
/// temp
pub fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    let i = args.iter().position(|a| a == "--config").map(|i| args[i+1].clone()).unwrap_or("config/fieldveil.toml".into());
    match serve::run(std::path::Path::new(&i), logging::LogFormat::Human) { Ok(e) => e.into(), Err(f) => { eprintln!("{f}"); f.exit.into() } }
}
