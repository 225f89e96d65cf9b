//! Why a request to another server failed, in words for an app.
//!
//! Comes in: errors of hyper, rustls and the system. Goes out: a [`Problem`], which says one short thing.

use std::error::Error;
use std::fmt;
use std::io::{self, ErrorKind};

use h2::Reason;
use rustls::CertificateError;

use crate::runtime::resources;

/// What went wrong. Its text is what `rover.http` returns behind nil.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The URL cannot be requested, and why.
    BadUrl(&'static str),
    NameNotFound,
    /// Nobody listens there.
    Refused,
    /// No way leads there.
    Unreachable(String),
    /// This system has no descriptor, memory or thread left: no word on the server.
    Shortage(String),
    /// No connection within `connect_timeout`.
    ConnectTimeout,
    /// No certificate to trust, or another disagreement on TLS.
    Tls(String),
    Timeout,
    Reset,
    /// The other side closed the connection before its answer was complete.
    Closed,
    /// What came is not HTTP.
    Malformed,
    HeadTooLarge,
    /// Interim answers (1xx) without end.
    TooManyInterims,
    BodyTooLarge,
    /// The content coding is broken.
    Undecodable,
    TooManyRedirects,
    CircuitOpen,
    QueueFull,
    /// The source of the request's own body broke off, or brought nothing more.
    BodyBrokeOff,
    /// The client whose request's body this was has gone away.
    BodyCut,
    /// The client sent a body that is framed wrongly.
    BodyMalformed,
    Other(String),
}

impl Problem {
    /// Whether the same request may succeed a moment later.
    pub(super) fn is_passing(&self) -> bool {
        matches!(
            self,
            Problem::NameNotFound
                | Problem::Refused
                | Problem::Unreachable(_)
                | Problem::Shortage(_)
                | Problem::ConnectTimeout
                | Problem::Reset
                | Problem::Closed
        )
    }

    /// Whether it tells of a server in trouble, rather than of the request.
    pub(super) fn blames_server(&self) -> bool {
        match self {
            Problem::Shortage(_) => false,
            Problem::Tls(_) | Problem::Timeout | Problem::Malformed | Problem::TooManyInterims => true,
            other => other.is_passing(),
        }
    }

    /// Whether it is the doing of whoever made the request's body, and no failure of the server's.
    pub(crate) fn is_of_client(&self) -> bool {
        matches!(self, Problem::BodyBrokeOff | Problem::BodyCut | Problem::BodyMalformed)
    }

    /// The innermost cause that has a name of its own.
    pub(super) fn of(error: &(dyn Error + 'static)) -> Problem {
        let mut at = Some(error);
        while let Some(error) = at {
            if let Some(found) = named(error) {
                return found;
            }
            at = error.source();
        }
        let mut last = error;
        while let Some(inner) = last.source() {
            last = inner;
        }
        Problem::Other(last.to_string())
    }
}

/// Whether the server has said that it did nothing for this request, so that any may be sent again: it refused the stream,
/// or came to the end of the connection before it (RFC 9113, sections 6.8 and 8.7).
pub(super) fn is_unprocessed(error: &hyper::Error) -> bool {
    let Some(error) = error.source().and_then(|error| error.downcast_ref::<h2::Error>()) else { return false };
    let reason = error.reason();
    error.is_remote()
        && (error.is_go_away() && reason == Some(Reason::NO_ERROR)
            || error.is_reset() && reason == Some(Reason::REFUSED_STREAM))
}

fn named(error: &(dyn Error + 'static)) -> Option<Problem> {
    if let Some(problem) = error.downcast_ref::<Problem>() {
        return Some(problem.clone());
    }
    if let Some(error) = error.downcast_ref::<rustls::Error>() {
        return Some(Problem::Tls(tls_text(error)));
    }
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        if error.is_parse_too_large() {
            return Some(Problem::HeadTooLarge);
        }
        if error.is_parse() {
            return Some(Problem::Malformed);
        }
        if error.is_timeout() {
            return Some(Problem::Timeout);
        }
        if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            return Some(Problem::Closed);
        }
        return None;
    }
    if let Some(error) = error.downcast_ref::<h2::Error>() {
        return Some(match error.get_io() {
            Some(error) => named(error).unwrap_or(Problem::Closed),
            None if error.is_go_away() && error.is_remote() => Problem::Closed,
            None if error.is_remote() => Problem::Reset,
            None => Problem::Malformed,
        });
    }
    let error = error.downcast_ref::<io::Error>()?;
    if let Some(inner) = error.get_ref() {
        let mut at: Option<&(dyn Error + 'static)> = Some(inner);
        while let Some(error) = at {
            if let Some(found) = named(error) {
                return Some(found);
            }
            at = error.source();
        }
    }
    Some(match error.kind() {
        ErrorKind::ConnectionRefused => Problem::Refused,
        ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::ConnectionAborted => Problem::Reset,
        ErrorKind::UnexpectedEof | ErrorKind::NotConnected => Problem::Closed,
        ErrorKind::TimedOut => Problem::ConnectTimeout,
        ErrorKind::HostUnreachable => Problem::Unreachable("host unreachable".to_owned()),
        ErrorKind::NetworkUnreachable => Problem::Unreachable("network unreachable".to_owned()),
        ErrorKind::AddrNotAvailable => Problem::Unreachable("no local port is free".to_owned()),
        // hyper's, of chunks that are none.
        ErrorKind::InvalidData | ErrorKind::InvalidInput if error.raw_os_error().is_none() => Problem::Malformed,
        _ if resources::is_shortage(error) => Problem::Shortage(without_number(error)),
        _ if error.raw_os_error().is_some() => Problem::Unreachable(without_number(error)),
        _ => return None,
    })
}

/// The system's words, without `(os error 24)`.
fn without_number(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_lowercase()
}

fn tls_text(error: &rustls::Error) -> String {
    use rustls::Error as Tls;
    let text = match error {
        Tls::InvalidCertificate(CertificateError::UnknownIssuer) => "the certificate is not from a trusted authority",
        Tls::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "the certificate has expired"
        }
        Tls::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            "the certificate is not valid yet"
        }
        Tls::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the certificate is for another name",
        Tls::InvalidCertificate(CertificateError::Revoked) => "the certificate has been revoked",
        Tls::InvalidCertificate(_) => "the certificate is not valid",
        Tls::InvalidMessage(_) => "the server does not speak TLS",
        other => return format!("TLS: {other}"),
    };
    format!("TLS: {text}")
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Problem::BadUrl(why) => return write!(f, "invalid URL: {why}"),
            Problem::Tls(text) | Problem::Unreachable(text) | Problem::Shortage(text) | Problem::Other(text) => text,
            Problem::NameNotFound => "name not found",
            Problem::Refused => "connection refused",
            Problem::ConnectTimeout => "connect timeout",
            Problem::Timeout => "timeout",
            Problem::Reset => "connection reset",
            Problem::Closed => "connection closed",
            Problem::Malformed => "malformed response",
            Problem::HeadTooLarge => "response header too large",
            Problem::TooManyInterims => "too many interim responses",
            Problem::BodyTooLarge => "response body too large",
            Problem::Undecodable => "response body cannot be decoded",
            Problem::TooManyRedirects => "too many redirects",
            Problem::CircuitOpen => "circuit open",
            Problem::QueueFull => "queue full",
            Problem::BodyBrokeOff => "request body broke off",
            Problem::BodyCut => "the client went away while it sent its body",
            Problem::BodyMalformed => "the request body is malformed",
        })
    }
}

impl Error for Problem {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_found_in_errors_of_the_system() {
        let of = |error: io::Error| Problem::of(&error).to_string();
        assert_eq!(of(ErrorKind::ConnectionRefused.into()), "connection refused");
        assert_eq!(of(io::Error::other(Problem::NameNotFound)), "name not found");
        assert_eq!(of(io::Error::other(io::Error::from(ErrorKind::ConnectionReset))), "connection reset");
        assert_eq!(of(io::Error::from_raw_os_error(libc::EMFILE)), "too many open files");
        assert!(
            !Problem::of(&io::Error::from_raw_os_error(libc::EMFILE)).blames_server(),
            "it is this system's trouble"
        );
        let expired = rustls::Error::InvalidCertificate(CertificateError::Expired);
        assert_eq!(of(io::Error::other(expired)), "TLS: the certificate has expired");
        assert_eq!(of(io::Error::other("something else")), "something else");
    }
}
