//! Comes in: the keys in `security_headers = { … }`. Goes out: the values of the headers that every answer carries. Must
//! not know: answers.

use super::key::{ConfigKey, Group};
use super::kind::{Kind, text};

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

/// The value of a header, or `None` to send none.
fn header() -> Kind<Option<String>> {
    let value = text("the header's value").or("false");
    Kind {
        takes: "the header's value, or false to send none".into(),
        read: Box::new(|value| {
            if value.truth() == Some(false) {
                return Ok(None);
            }
            let text = value.text().filter(|text| !text.is_empty()).ok_or("")?;
            match text.bytes().all(|byte| (32..127).contains(&byte)) {
                true => Ok(Some(text.to_owned())),
                false => Err("; it is one line of ASCII"),
            }
        }),
        ..value
    }
}

/// The keys of this group.
pub(super) fn keys() -> Vec<ConfigKey> {
    Group::of(|config| &mut config.security_headers)
        .table("security_headers")
        .key("content_type_options", "X-Content-Type-Options of every answer: browsers do not guess another type")
        .takes(header(), |headers| &mut headers.content_type_options)
        .key(
            "strict_transport_security",
            "Strict-Transport-Security of answers over TLS: browsers come back over TLS only",
        )
        .takes(header(), |headers| &mut headers.strict_transport_security)
        .key("frame_options", "X-Frame-Options of HTML pages: which pages may show them in a frame")
        .takes(header(), |headers| &mut headers.frame_options)
        .key("referrer_policy", "Referrer-Policy of HTML pages: what their links tell of where they stand")
        .takes(header(), |headers| &mut headers.referrer_policy)
        .key(
            "content_security_policy",
            "Content-Security-Policy of HTML pages: where scripts and the like may come from",
        )
        .takes(header(), |headers| &mut headers.content_security_policy)
        .key("permissions_policy", "Permissions-Policy of HTML pages: which features of the browser they may use")
        .takes(header(), |headers| &mut headers.permissions_policy)
        .key(
            "cross_origin_opener_policy",
            "Cross-Origin-Opener-Policy of HTML pages: which windows may hold on to them",
        )
        .takes(header(), |headers| &mut headers.cross_origin_opener_policy)
        .key("cross_origin_resource_policy", "Cross-Origin-Resource-Policy of every answer: which sites may include it")
        .takes(header(), |headers| &mut headers.cross_origin_resource_policy)
        .keys()
}
