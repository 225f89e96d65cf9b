//! Comes in: the keys in `security_headers = { … }`. Goes out: the values of the headers that every answer carries. Must
//! not know: answers.

use super::key::ConfigKey;
use super::value::ConfigValue;

/// The headers by which browsers are told to be careful. `None`: not sent.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct SecurityHeaders {
    /// Sent with every answer.
    pub(crate) content_type_options: Option<String>,
    /// Sent with answers over TLS.
    pub(crate) strict_transport_security: Option<String>,
    /// Sent with pages, like those below.
    pub(crate) frame_options: Option<String>,
    pub(crate) referrer_policy: Option<String>,
    pub(crate) content_security_policy: Option<String>,
    pub(crate) permissions_policy: Option<String>,
    pub(crate) cross_origin_opener_policy: Option<String>,
    /// Sent with every answer.
    pub(crate) cross_origin_resource_policy: Option<String>,
}

impl Default for SecurityHeaders {
    fn default() -> SecurityHeaders {
        SecurityHeaders {
            content_type_options: Some("nosniff".to_owned()),
            strict_transport_security: Some("max-age=31536000".to_owned()),
            frame_options: Some("SAMEORIGIN".to_owned()),
            referrer_policy: Some("strict-origin-when-cross-origin".to_owned()),
            content_security_policy: None,
            permissions_policy: None,
            cross_origin_opener_policy: None,
            cross_origin_resource_policy: None,
        }
    }
}

const TAKES: &str = "the header's value, or false to send none";

/// The value of a header, or `None` to send none.
fn header(value: &ConfigValue) -> Result<Option<String>, &'static str> {
    if value.truth() == Some(false) {
        return Ok(None);
    }
    let text = value.text().filter(|text| !text.is_empty()).ok_or("")?;
    match text.bytes().all(|byte| (32..127).contains(&byte)) {
        true => Ok(Some(text.to_owned())),
        false => Err("; it is one line of ASCII"),
    }
}

macro_rules! header_key {
    ($name:literal, $field:ident, $what:literal, $default:literal, $example:literal) => {
        ConfigKey {
            name: $name,
            what: $what,
            takes: TAKES,
            default: $default,
            example: $example,
            store: |config, value| {
                config.security_headers.$field = header(value)?;
                Ok(())
            },
        }
    };
}

pub(super) static SECURITY_HEADER_KEYS: &[ConfigKey] = &[
    header_key!(
        "security_headers.content_type_options",
        content_type_options,
        "X-Content-Type-Options of every answer: browsers do not guess another type",
        "nosniff",
        "false"
    ),
    header_key!(
        "security_headers.strict_transport_security",
        strict_transport_security,
        "Strict-Transport-Security of answers over TLS: browsers come back over TLS only",
        "max-age=31536000",
        "\"max-age=63072000; includeSubDomains\""
    ),
    header_key!(
        "security_headers.frame_options",
        frame_options,
        "X-Frame-Options of HTML pages: which pages may show them in a frame",
        "SAMEORIGIN",
        "\"DENY\""
    ),
    header_key!(
        "security_headers.referrer_policy",
        referrer_policy,
        "Referrer-Policy of HTML pages: what their links tell of where they stand",
        "strict-origin-when-cross-origin",
        "\"no-referrer\""
    ),
    header_key!(
        "security_headers.content_security_policy",
        content_security_policy,
        "Content-Security-Policy of HTML pages: where scripts and the like may come from",
        "false",
        "\"default-src 'self'\""
    ),
    header_key!(
        "security_headers.permissions_policy",
        permissions_policy,
        "Permissions-Policy of HTML pages: which features of the browser they may use",
        "false",
        "\"camera=(), microphone=()\""
    ),
    header_key!(
        "security_headers.cross_origin_opener_policy",
        cross_origin_opener_policy,
        "Cross-Origin-Opener-Policy of HTML pages: which windows may hold on to them",
        "false",
        "\"same-origin\""
    ),
    header_key!(
        "security_headers.cross_origin_resource_policy",
        cross_origin_resource_policy,
        "Cross-Origin-Resource-Policy of every answer: which sites may include it",
        "false",
        "\"same-origin\""
    ),
];
