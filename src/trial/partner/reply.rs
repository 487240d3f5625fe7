//! How a partner answers.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::Interval;

use super::Received;

/// One answer. Those marked *raw* leave HTTP behind and take the whole connection; over HTTP/2 they close it instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// A status from 200 to 999 without a body.
    Status(u16),
    /// A status with headers and a body.
    StatusWith {
        /// From 200 to 999.
        status: u16,
        /// Names and values.
        headers: Vec<(String, String)>,
        /// Sent with its length.
        body: Bytes,
    },
    /// 307 with this `location`.
    Redirect(String),
    /// Another reply, this much later.
    Delay(Duration, Box<Reply>),
    /// No answer for as long as the connection lasts.
    Hang,
    /// Cuts the connection with a TCP reset (over HTTP/2 too).
    Reset,
    /// Closes the connection in good order (over HTTP/2 too), with nothing said.
    CloseWithoutReply,
    /// 200 and a body that never ends, as fast as it is read.
    GiantBody,
    /// 200 and a body that never ends, one byte every 100 ms.
    DripBody,
    /// *Raw*: a status line and headers that never end, as fast as they are read.
    EndlessHead,
    /// *Raw*: a response head that never ends, one byte every 100 ms.
    DripHead,
    /// *Raw*: these bytes, then the connection is closed.
    Raw(Bytes),
}

/// Which reply each request gets.
#[derive(Clone)]
pub struct Replies(Chooser);

impl Replies {
    /// Lets a function choose. It runs on the way of every request, so it must not block.
    pub fn by(choose: impl Fn(&Received) -> Reply + Send + Sync + 'static) -> Self {
        Self(Chooser::Function(Arc::new(choose)))
    }

    /// Answers `status` to the first `attempts` of each id, then 200.
    pub fn fail_first(attempts: u32, status: u16) -> Self {
        Self::by(move |received| {
            Reply::Status(if received.attempt <= attempts {
                status
            } else {
                200
            })
        })
    }

    /// The reply where it does not depend on the request.
    pub(super) fn fixed(&self) -> Option<&Reply> {
        match &self.0 {
            Chooser::Fixed(reply) => Some(reply),
            Chooser::Function(_) => None,
        }
    }

    pub(super) fn choose(&self, received: &Received) -> Reply {
        match &self.0 {
            Chooser::Fixed(reply) => reply.clone(),
            Chooser::Function(choose) => choose(received),
        }
    }
}

impl From<Reply> for Replies {
    fn from(reply: Reply) -> Self {
        Self(Chooser::Fixed(reply))
    }
}

#[derive(Clone)]
enum Chooser {
    Fixed(Reply),
    Function(Arc<dyn Fn(&Received) -> Reply + Send + Sync>),
}

/// What a reply comes down to once its delays are over.
pub(super) enum Answer {
    Respond(Response<ReplyBody>),
    Seize(Seizure),
    Hang,
}

/// What to do with a connection that is taken away from HTTP.
#[derive(Debug)]
pub(super) enum Seizure {
    Reset,
    Close,
    EndlessHead,
    DripHead,
    Raw(Bytes),
}

impl Reply {
    pub(super) async fn prepare(mut self) -> Answer {
        while let Self::Delay(delay, then) = self {
            tokio::time::sleep(delay).await;
            self = *then;
        }
        match self {
            Self::Status(status) => respond(status, &[], ReplyBody::empty()),
            Self::StatusWith {
                status,
                headers,
                body,
            } => respond(status, &headers, ReplyBody::Whole(Some(body))),
            Self::Redirect(to) => respond(307, &[("location".into(), to)], ReplyBody::empty()),
            Self::GiantBody => respond(200, &[], ReplyBody::Endless),
            Self::DripBody => respond(200, &[], ReplyBody::Drip(tokio::time::interval(DRIP))),
            Self::Delay(..) | Self::Hang => Answer::Hang,
            Self::Reset => Answer::Seize(Seizure::Reset),
            Self::CloseWithoutReply => Answer::Seize(Seizure::Close),
            Self::EndlessHead => Answer::Seize(Seizure::EndlessHead),
            Self::DripHead => Answer::Seize(Seizure::DripHead),
            Self::Raw(bytes) => Answer::Seize(Seizure::Raw(bytes)),
        }
    }
}

fn respond(status: u16, headers: &[(String, String)], body: ReplyBody) -> Answer {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    Answer::Respond(response.body(body).unwrap_or_else(|error| {
        // Whoever runs the trial asked for what HTTP cannot say; they are told where they look first.
        let text = format!("this partner was told to answer what it cannot: {error}\n");
        let mut response = Response::new(ReplyBody::Whole(Some(text.into())));
        *response.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        response
    }))
}

/// The body of an answer.
pub(super) enum ReplyBody {
    Whole(Option<Bytes>),
    Endless,
    Drip(Interval),
}

impl ReplyBody {
    pub(super) fn empty() -> Self {
        Self::Whole(None)
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let data = match self.get_mut() {
            Self::Whole(body) => body.take(),
            Self::Endless => Some(Bytes::from_static(&CHUNK)),
            Self::Drip(interval) => {
                std::task::ready!(interval.poll_tick(context));
                Some(Bytes::from_static(b"x"))
            }
        };
        Poll::Ready(data.map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(Some(body)) => SizeHint::with_exact(body.len() as u64),
            Self::Whole(None) => SizeHint::with_exact(0),
            Self::Endless | Self::Drip(_) => SizeHint::default(),
        }
    }
}

/// The pause of whatever drips.
pub(super) const DRIP: Duration = Duration::from_millis(100);
static CHUNK: [u8; 16 << 10] = [b'x'; 16 << 10];
