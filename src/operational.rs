//! What operators should know: the closed list of operational events, each with its type in the catalogue and its code in the log.

use std::fmt::Write as _;

/// Something that an operator should know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationalEvent {
    /// The last attempt of a delivery failed.
    DeliveryExhausted,
    /// A delivery was refused for good.
    DeliveryRejected,
    /// A subscription gets nothing until it is active again.
    SubscriptionPaused,
    /// An endpoint gets nothing but probes for now.
    BreakerOpened,
    /// An endpoint gets everything again.
    BreakerClosed,
    /// A signing secret is older than agreed.
    RotationOverdue,
}

/// How much it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look at it some day.
    Warning,
    /// Somebody should look at it now.
    Error,
}

impl OperationalEvent {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::DeliveryExhausted,
        Self::DeliveryRejected,
        Self::SubscriptionPaused,
        Self::BreakerOpened,
        Self::BreakerClosed,
        Self::RotationOverdue,
    ];

    /// Its event type: the word for it in the database, in metrics, and in what a subscription to it receives.
    pub fn event_type(self) -> &'static str {
        match self {
            Self::DeliveryExhausted => "posthaste.delivery.exhausted",
            Self::DeliveryRejected => "posthaste.delivery.rejected",
            Self::SubscriptionPaused => "posthaste.subscription.paused",
            Self::BreakerOpened => "posthaste.breaker.opened",
            Self::BreakerClosed => "posthaste.breaker.closed",
            Self::RotationOverdue => "posthaste.rotation.overdue",
        }
    }

    /// Its code in log lines. Stable: others search for it.
    pub fn code(self) -> &'static str {
        match self {
            Self::DeliveryExhausted => "WEBHOOK_DELIVERY_FAILED",
            Self::DeliveryRejected => "WEBHOOK_DELIVERY_REJECTED",
            Self::SubscriptionPaused => "WEBHOOK_SUBSCRIPTION_PAUSED",
            Self::BreakerOpened => "WEBHOOK_BREAKER_OPENED",
            Self::BreakerClosed => "WEBHOOK_BREAKER_CLOSED",
            Self::RotationOverdue => "WEBHOOK_SECRET_ROTATION_OVERDUE",
        }
    }

    /// Its message in log lines. Stable, too.
    pub fn message(self) -> &'static str {
        match self {
            Self::DeliveryExhausted => "Webhook delivery failed after retries",
            Self::DeliveryRejected => "Webhook delivery was refused for good",
            Self::SubscriptionPaused => "Webhook subscription was paused",
            Self::BreakerOpened => "Webhook endpoint gets nothing but probes",
            Self::BreakerClosed => "Webhook endpoint gets everything again",
            Self::RotationOverdue => "Webhook signing secret is older than agreed",
        }
    }

    /// How much it matters.
    pub fn severity(self) -> Severity {
        match self {
            Self::DeliveryExhausted | Self::SubscriptionPaused | Self::BreakerOpened => {
                Severity::Error
            }
            Self::DeliveryRejected | Self::RotationOverdue => Severity::Warning,
            Self::BreakerClosed => Severity::Info,
        }
    }
}

impl Severity {
    /// The word for it in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// The table in the README: every operational event with its severity, its code and its message.
pub fn markdown_table() -> String {
    let mut table = String::from(
        "| event type | severity | code in the log | message |\n| --- | --- | --- | --- |\n",
    );
    for event in OperationalEvent::ALL {
        let (name, code) = (event.event_type(), event.code());
        let (severity, message) = (event.severity().as_str(), event.message());
        // Writing to a String cannot fail.
        let _ = writeln!(table, "| `{name}` | {severity} | `{code}` | {message} |");
    }
    table
}
