//! Methods other than Check, by tonic's routes: health and reflection.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};

use h2::server::SendResponse;
use h2::{RecvStream, SendStream};
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use prost::bytes::Bytes;
use tonic::service::Routes;
use tonic::{Code, Status};
use tower::ServiceExt as _;

/// Answers one request, until all is said or the client has heard enough.
pub(super) async fn answer(
    routes: Routes,
    request: Request<RecvStream>,
    mut respond: SendResponse<Bytes>,
) {
    let request = request.map(|body| tonic::body::Body::new(Received(body)));
    let answered = routes.oneshot(request);
    let answered: Result<_, Infallible> = tokio::select! {
        answered = answered => answered,
        _ = poll_fn(|cx| respond.poll_reset(cx)) => return,
    };
    let Ok(response) = answered;
    let (head, body) = response.into_parts();
    let over = body.is_end_stream();
    let Ok(mut stream) = respond.send_response(Response::from_parts(head, ()), over) else {
        return;
    };
    if over {
        return;
    }
    if let Err(error) = say(&mut stream, body).await {
        tracing::debug!(%error, "an answer was not sent");
    }
}

/// Sends the whole body, as fast as the client takes it.
async fn say(stream: &mut SendStream<Bytes>, body: tonic::body::Body) -> Result<(), h2::Error> {
    let mut body = pin!(body);
    loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            _ = poll_fn(|cx| stream.poll_reset(cx)) => return Ok(()),
        };
        match frame {
            None => return stream.send_data(Bytes::new(), true),
            Some(Err(_)) => {
                stream.send_reset(h2::Reason::INTERNAL_ERROR);
                return Ok(());
            }
            Some(Ok(frame)) => match frame.into_data() {
                Ok(data) => say_data(stream, data).await?,
                Err(frame) => {
                    if let Ok(trailers) = frame.into_trailers() {
                        return stream.send_trailers(trailers);
                    }
                }
            },
        }
    }
}

async fn say_data(stream: &mut SendStream<Bytes>, mut data: Bytes) -> Result<(), h2::Error> {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let room = poll_fn(|cx| stream.poll_capacity(cx)).await;
        let Some(room) = room.transpose()? else {
            return Ok(());
        };
        let part = data.split_to(room.min(data.len()));
        stream.send_data(part, false)?;
    }
    Ok(())
}

/// A request's body, as others read it.
struct Received(RecvStream);

impl Body for Received {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let body = &mut self.get_mut().0;
        let failed = |error: h2::Error| Status::new(Code::Cancelled, error.to_string());
        if let Some(data) = ready!(body.poll_data(cx)) {
            let data = data.map_err(failed)?;
            let _ = body.flow_control().release_capacity(data.len());
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        let trailers = ready!(body.poll_trailers(cx)).map_err(failed)?;
        Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }
}
