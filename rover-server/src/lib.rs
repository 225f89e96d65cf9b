//! Placeholder: the crate root that lands with the server replaces this file. It holds the public names that the CLI
//! is written against, and declares the modules that are finished.
#![allow(
    dead_code,
    unused_imports,
    missing_docs,
    reason = "placeholder until the server lands"
)]

mod access_log;
mod lua;
#[doc(hidden)]
pub mod route;
mod config;
mod log;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;

pub use config::{ConfigKey, config_keys};
pub use log::Level;

pub struct Server;
impl Server {
    pub fn from_file(_path: impl Into<PathBuf>) -> Server {
        Server
    }
    pub fn host(self, _host: impl Into<String>) -> Self {
        self
    }
    pub fn port(self, _port: u16) -> Self {
        self
    }
    pub fn workers(self, _workers: usize) -> Self {
        self
    }
    pub fn log_level(self, _level: Level) -> Self {
        self
    }
    pub fn debug(self, _debug: bool) -> Self {
        self
    }
    pub fn check(&self) -> Result<AppInfo, Error> {
        Err(Error)
    }
    pub fn bind(self) -> Result<Listening, Error> {
        Err(Error)
    }
}

pub struct AppInfo;
impl AppInfo {
    pub fn routes(&self) -> &[RouteInfo] {
        &[]
    }
}

pub struct RouteInfo {
    pub method: String,
    pub path: String,
    pub file: String,
    pub line: u32,
}

pub struct Listening;
impl Listening {
    pub fn addresses(&self) -> Vec<String> {
        Vec::new()
    }
    pub async fn run_until(self, _stop: impl Future<Output = ()>) -> Result<(), Error> {
        Err(Error)
    }
}

#[derive(Debug)]
pub struct Error;
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the server is not built yet")
    }
}
impl std::error::Error for Error {}
