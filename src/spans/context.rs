//! W3C trace contexts, as the header `traceparent` has them.

use std::fmt;

use uuid::Uuid;

/// Which trace, which span of it, and whether it is sampled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceContext {
    /// Never 0.
    pub trace_id: u128,
    /// Never 0.
    pub span_id: u64,
    /// Whether spans of it are kept.
    pub sampled: bool,
}

impl TraceContext {
    /// Reads `00-<trace>-<span>-<flags>`; `None` where it is anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('-');
        let mut hex = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            let is_hex = part.bytes().all(|byte| byte.is_ascii_hexdigit());
            is_hex.then(|| u128::from_str_radix(part, 16).ok())?
        };
        let (version, trace_id, span_id, flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
        let span_id = u64::try_from(span_id).ok()?;
        let is_whole = version == 0 && trace_id != 0 && span_id != 0 && parts.next().is_none();
        is_whole.then_some(Self {
            trace_id,
            span_id,
            sampled: flags & 1 == 1,
        })
    }

    /// Another span of the same trace.
    #[must_use]
    pub fn child(self, span_id: u64) -> Self {
        Self { span_id, ..self }
    }

    /// The trace of an event that has none: its id is the event's, so all its attempts, by whatever worker, are one trace and are sampled
    /// together. `ratio` of all events are.
    #[must_use]
    pub fn of_event(event_id: Uuid, span_id: u64, ratio: f64) -> Self {
        let trace_id = event_id.as_u128().max(1);
        // The last 56 bits are what samplers take for chance; in ids of version 7 they are.
        #[expect(clippy::cast_precision_loss, reason = "a share need not be exact")]
        let place = (trace_id & LAST_56_BITS) as f64 / LAST_56_BITS as f64;
        Self {
            trace_id,
            span_id,
            sampled: ratio >= 1.0 || place < ratio,
        }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            trace_id,
            span_id,
            sampled,
        } = self;
        write!(
            f,
            "00-{trace_id:032x}-{span_id:016x}-{:02x}",
            u8::from(*sampled)
        )
    }
}

const LAST_56_BITS: u128 = (1 << 56) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_context_is_written_as_it_was_read() {
        let context = TraceContext::parse(HEADER);
        let expected = TraceContext {
            trace_id: 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736,
            span_id: 0x00f0_67aa_0ba9_02b7,
            sampled: true,
        };
        assert_eq!(context, Some(expected));
        assert_eq!(expected.to_string(), HEADER);
        let unsampled = TraceContext::parse(&HEADER.replace("-01", "-02"));
        assert_eq!(unsampled.map(|context| context.sampled), Some(false));
    }

    #[test]
    fn what_is_no_context_is_none() {
        for wrong in [
            "",
            "00",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-",
        ] {
            assert_eq!(TraceContext::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn an_event_is_sampled_in_each_of_its_attempts_or_in_none() {
        let sampled = |ratio: f64| {
            let events = (0..1000).map(|n| Uuid::from_u128((n * 0x9E37_79B9_7F4A_7C15_u128) | 1));
            let sampled = |event: &Uuid| {
                let [one, other] =
                    [7, 8].map(|span| TraceContext::of_event(*event, span, ratio).sampled);
                assert_eq!(one, other);
                one
            };
            events.filter(sampled).count()
        };
        assert_eq!((sampled(0.0), sampled(1.0)), (0, 1000));
        let tenth = sampled(0.1);
        assert!((70..130).contains(&tenth), "{tenth}");
    }
}
