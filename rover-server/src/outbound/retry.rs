//! Which requests are tried again, and when.

use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use http::{HeaderMap, Method, StatusCode};

/// How often and how patiently a request is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetryOptions {
    /// Attempts in all, the first among them.
    pub(crate) attempts: u32,
    /// The longest wait before the second attempt; doubled for each further one.
    pub(crate) backoff: Duration,
    /// No wait is longer, except one that the server asks for.
    pub(crate) max_backoff: Duration,
}

impl RetryOptions {
    /// The wait after attempt number `attempt`, from 1: random between nothing and the backoff, so that many clients that
    /// failed together do not come back together.
    pub(super) fn wait(&self, attempt: u32) -> Duration {
        let longest = self.backoff.saturating_mul(1 << attempt.saturating_sub(1).min(20)).min(self.max_backoff);
        longest.mul_f64(fastrand::f64())
    }
}

/// Whether sending the request twice has the effect of sending it once (RFC 9110, section 9.2.2).
pub(crate) fn is_idempotent(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS | Method::PUT | Method::DELETE | Method::TRACE)
}

/// Whether a response with this status may be another one a moment later.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// How long the server asks to wait (RFC 9110, section 10.2.3).
pub(super) fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn waits_grow_up_to_the_longest_and_vary() {
        let ms = Duration::from_millis;
        let options = RetryOptions { attempts: 5, backoff: ms(100), max_backoff: ms(300) };
        for (attempt, longest) in [(1, 100), (2, 200), (3, 300), (60, 300)] {
            let waits: Vec<_> = (0..200).map(|_| options.wait(attempt)).collect();
            assert!(waits.iter().all(|wait| *wait <= ms(longest)));
            assert!(waits.iter().any(|wait| *wait > ms(longest / 2)));
            assert!(waits.iter().any(|wait| *wait < ms(longest / 2)));
        }
    }

    #[test]
    fn servers_ask_in_seconds_or_by_a_date() {
        let asked = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(RETRY_AFTER, HeaderValue::from_static(value));
            asked_wait(&headers)
        };
        assert_eq!(asked("7"), Some(Duration::from_secs(7)));
        assert_eq!(asked("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert_eq!(asked("soon"), None);
        assert_eq!(asked_wait(&HeaderMap::new()), None);
    }
}
