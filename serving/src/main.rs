//! The program `ocad-server`.

use std::process::ExitCode;

use clap::Parser;
use ocad_server::config::Config;
use ocad_server::start;
use tracing_subscriber::EnvFilter;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let config = Config::parse();
    let filter = match EnvFilter::try_new(&config.log) {
        Ok(filter) => filter,
        Err(cause) => {
            eprintln!("error: `--log {}` is no filter: {cause}: use error, warn, info or debug", config.log);
            return ExitCode::from(2);
        }
    };
    tracing_subscriber::fmt().json().flatten_event(true).with_env_filter(filter).with_writer(std::io::stderr).init();
    match start::run(&config) {
        // what could not be ended still runs, and must not find its library torn down under it
        Ok(()) => signal_hook::low_level::exit(0),
        Err(error) => {
            eprintln!("error: {}", error.cause().map_or_else(|| error.to_string(), ToOwned::to_owned));
            ExitCode::FAILURE
        }
    }
}
