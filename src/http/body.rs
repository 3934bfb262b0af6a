//! What an answer carries: all of it at once, or pieces as they come.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper::body::{Bytes, Frame, SizeHint};
use tokio::sync::mpsc;

/// An answer's body.
#[derive(Debug)]
pub(super) enum Body {
    /// All of it; nothing once it was taken.
    Whole(Option<Bytes>),
    /// What the other end of the channel sends, until that is dropped.
    Pieces(mpsc::Receiver<Bytes>),
}

impl Body {
    /// A body that is there already.
    pub(super) fn whole(content: impl Into<Bytes>) -> Body {
        Body::Whole(Some(content.into()))
    }

    /// Whether it has no end of its own.
    pub(super) fn is_stream(&self) -> bool {
        matches!(self, Body::Pieces(_))
    }

    /// A body whose pieces are still to come. One piece waits at most, so whoever sends is as slow as the client.
    pub(super) fn pieces() -> (mpsc::Sender<Bytes>, Body) {
        let (sender, receiver) = mpsc::channel(1);
        (sender, Body::Pieces(receiver))
    }
}

impl hyper::body::Body for Body {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.get_mut() {
            Body::Whole(content) => Poll::Ready(content.take().map(|all| Ok(Frame::data(all)))),
            Body::Pieces(pieces) => pieces
                .poll_recv(context)
                .map(|piece| piece.map(|piece| Ok(Frame::data(piece)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Whole(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(content) => SizeHint::with_exact(content.as_ref().map_or(0, |all| all.len() as u64)),
            Body::Pieces(_) => SizeHint::default(),
        }
    }
}
