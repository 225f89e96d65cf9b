//! The place of a span in its trace, as in a `traceparent` (W3C Trace Context, section 3.2).

use http::HeaderValue;

use crate::exchange::context::trace::{trace_id, traceparent};

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 1;

/// The flags that are passed on: sampled, and that the trace's id is random.
const KNOWN: u8 = 3;

/// A span that others may belong under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Parent {
    pub(super) trace: u128,
    pub(super) span: u64,
    pub(super) flags: u8,
}

impl Parent {
    /// The first span of a new trace.
    pub(super) fn new(is_sampled: impl FnOnce(u128) -> bool) -> Parent {
        let trace = fastrand::u128(1..);
        Parent { trace, span: span_id(), flags: if is_sampled(trace) { SAMPLED } else { 0 } }
    }

    /// What a header says, where that is valid.
    pub(super) fn read(header: &HeaderValue) -> Option<Parent> {
        let trace = u128::from_str_radix(trace_id(header)?, 16).ok()?;
        // Valid ones have their parts at the same places: 00-(32 digits)-(16 digits)-(2 digits).
        let text = header.to_str().ok()?;
        let span = u64::from_str_radix(text.get(36..52)?, 16).ok()?;
        let flags = u8::from_str_radix(text.get(53..55)?, 16).ok()? & KNOWN;
        Some(Parent { trace, span, flags })
    }

    /// A span of the same trace.
    pub(super) fn child(self) -> Parent {
        Parent { span: span_id(), ..self }
    }

    pub(super) fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The header that names the span.
    pub(super) fn header(self) -> HeaderValue {
        traceparent(self.trace, self.span, self.flags)
    }
}

fn span_id() -> u64 {
    fastrand::u64(1..)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let parent = Parent::read(&HeaderValue::from_static(text)).unwrap();
        assert_eq!((parent.trace, parent.span), (0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736, 0x00f0_67aa_0ba9_02b7));
        assert!(parent.is_sampled());
        assert_eq!(parent.header(), text);
        assert_eq!(parent.child().trace, parent.trace);
        assert_ne!(parent.child().span, parent.span);
    }

    #[test]
    fn others_than_valid_ones_are_none() {
        for wrong in ["", "00-0-0-01", "00-00000000000000000000000000000000-00f067aa0ba902b7-01"] {
            assert_eq!(Parent::read(&HeaderValue::from_static(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn flags_to_come_are_not_passed_on() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fe";
        let parent = Parent::read(&HeaderValue::from_static(text)).unwrap();
        assert_eq!((parent.flags, parent.is_sampled()), (2, false));
    }
}
