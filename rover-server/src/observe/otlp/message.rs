//! Writes the request around a batch of spans, and reads the collector's answer.

use bytes::{Buf, Bytes};
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

use super::queue::Batch;
use super::wire;
use crate::config::OtlpSettings;

/// Fields of `ExportTraceServiceRequest`, `ResourceSpans`, `Resource`, `ScopeSpans` and `InstrumentationScope`.
mod field {
    pub(super) const RESOURCE_SPANS: u32 = 1;
    pub(super) const RESOURCE: u32 = 1;
    pub(super) const SCOPE_SPANS: u32 = 2;
    pub(super) const ATTRIBUTE: u32 = 1;
    pub(super) const SCOPE: u32 = 1;
    pub(super) const NAME: u32 = 1;
    pub(super) const VERSION: u32 = 2;
}

const VERSION: &str = env!("CARGO_PKG_VERSION");

/// What all batches have in common.
pub(super) struct Envelope {
    /// The resource, as a field of `ResourceSpans`.
    resource: Vec<u8>,
    /// The scope, as a field of `ScopeSpans`.
    scope: Vec<u8>,
}

impl Envelope {
    pub(super) fn new(settings: &OtlpSettings) -> Envelope {
        let mut resource = Vec::new();
        let host = rustix::system::uname();
        let own = [
            ("service.name", settings.service_name.as_deref().unwrap_or("unknown_service:rover")),
            ("telemetry.sdk.name", "rover"),
            ("telemetry.sdk.language", "rust"),
            ("telemetry.sdk.version", VERSION),
            ("host.name", host.nodename().to_str().unwrap_or_default()),
        ];
        for (name, value) in own {
            if !settings.resource.iter().any(|(known, _)| known == name) {
                wire::attribute(&mut resource, field::ATTRIBUTE, name, value);
            }
        }
        wire::attribute_number(&mut resource, field::ATTRIBUTE, "process.pid", std::process::id().into());
        for (name, value) in &settings.resource {
            wire::attribute(&mut resource, field::ATTRIBUTE, name, value);
        }
        let mut scope = Vec::new();
        wire::text(&mut scope, field::NAME, "rover");
        wire::text(&mut scope, field::VERSION, VERSION);
        let as_field = |tag, message: &[u8]| {
            let mut out = Vec::new();
            wire::bytes(&mut out, tag, message);
            out
        };
        Envelope { resource: as_field(field::RESOURCE, &resource), scope: as_field(field::SCOPE, &scope) }
    }

    /// The request that carries the batch.
    pub(super) fn around(&self, batch: &Batch) -> Vec<u8> {
        let spans = self.scope.len() + batch.bytes.len();
        let all = self.resource.len() + wire::length_of(spans);
        let mut out = Vec::with_capacity(wire::length_of(all));
        wire::head(&mut out, field::RESOURCE_SPANS, all);
        out.extend_from_slice(&self.resource);
        wire::head(&mut out, field::SCOPE_SPANS, spans);
        out.extend_from_slice(&self.scope);
        out.extend_from_slice(&batch.bytes);
        out
    }
}

/// What a collector did not take of a request that it answered with 200: `ExportTracePartialSuccess`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Partial {
    pub(super) rejected: u64,
    pub(super) message: String,
}

/// Reads the answer of a collector; one that cannot be read says nothing.
pub(super) fn partial_success(answer: Bytes) -> Partial {
    let mut partial = Partial::default();
    // The field 1 of the answer holds the message.
    let _ = fields(answer, |tag, value| {
        if let (1, WireValue::Bytes(inner)) = (tag, value) {
            let _ = fields(inner, |tag, value| match (tag, value) {
                (1, WireValue::Number(rejected)) => partial.rejected = rejected,
                (2, WireValue::Bytes(message)) => partial.message = String::from_utf8_lossy(&message).into_owned(),
                _ => {}
            });
        }
    });
    partial
}

enum WireValue {
    Number(u64),
    Bytes(Bytes),
}

fn fields(mut message: Bytes, mut each: impl FnMut(u32, WireValue)) -> Result<(), prost::DecodeError> {
    while message.has_remaining() {
        let (tag, kind) = decode_key(&mut message)?;
        match kind {
            WireType::Varint => each(tag, WireValue::Number(decode_varint(&mut message)?)),
            WireType::LengthDelimited => {
                let length = usize::try_from(decode_varint(&mut message)?).unwrap_or(usize::MAX);
                if length > message.len() {
                    return Ok(());
                }
                each(tag, WireValue::Bytes(message.split_to(length)));
            }
            other => skip_field(other, tag, &mut message, DecodeContext::default())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use opentelemetry_proto::tonic::collector::trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse};
    use prost::Message;

    use super::*;

    #[test]
    fn partial_success_is_read() {
        let partial = ExportTracePartialSuccess { rejected_spans: 300, error_message: "too old".to_owned() };
        let answer = ExportTraceServiceResponse { partial_success: Some(partial) };
        let read = partial_success(answer.encode_to_vec().into());
        assert_eq!(read, Partial { rejected: 300, message: "too old".to_owned() });
        for nothing in [&b""[..], b"{}", &[0x0a, 0xff, 0xff, 0x7f], &[0xff; 20]] {
            assert_eq!(partial_success(Bytes::copy_from_slice(nothing)), Partial::default());
        }
    }
}
