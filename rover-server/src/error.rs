//! The error type of the public API.

use std::fmt;

/// Why a server could not be started, or failed.
///
/// Displays as what the operator or the Lua author needs: a line for each mistake, with its file, its line and the cure.
#[derive(Debug)]
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<std::io::Error>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    App,
    Build,
    Io,
}

impl Error {
    pub(crate) fn app(message: impl Into<String>) -> Error {
        Error { kind: Kind::App, message: message.into(), source: None }
    }

    pub(crate) fn build(why: &rover_lua::Unsuited) -> Error {
        Error { kind: Kind::Build, message: why.to_string(), source: None }
    }

    pub(crate) fn io(what: impl fmt::Display, source: std::io::Error) -> Error {
        Error { kind: Kind::Io, message: what.to_string(), source: Some(source) }
    }

    /// An error of the system whose message says it all.
    pub(crate) fn io_explained(message: String) -> Error {
        Error { kind: Kind::Io, message, source: None }
    }

    /// Whether the app or its config is wrong, so that trying again would not help.
    pub fn is_app(&self) -> bool {
        self.kind == Kind::App
    }

    /// Whether this program was built in a way that no server can run with: it was linked with another LuaJIT.
    pub fn is_build(&self) -> bool {
        self.kind == Kind::Build
    }

    /// Whether the system refused something: an address, a thread, memory.
    pub fn is_io(&self) -> bool {
        self.kind == Kind::Io
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match &self.source {
            Some(source) => write!(f, ": {source}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}
