//! Messages in gRPC's frames: a flag, four octets of length, the message.

use std::future::poll_fn;
use std::task::{Context, Poll, ready};

use h2::RecvStream;
use prost::bytes::{BufMut as _, Bytes, BytesMut};

/// Flag and length.
pub(super) const HEAD: usize = 5;

/// A message that cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unread {
    /// Longer than allowed.
    TooLong,
    /// Not one whole message in a frame, or compressed, which nobody agreed to.
    Malformed,
    /// The client took the request back.
    Gone,
}

/// The one message of a request, read as it arrives.
#[derive(Debug)]
pub(super) struct Reader {
    body: RecvStream,
    longest: usize,
    first: Bytes,
    rest: BytesMut,
}

impl Reader {
    /// Reads a message of at most `longest` octets.
    pub(super) fn new(body: RecvStream, longest: usize) -> Self {
        Self {
            body,
            longest,
            first: Bytes::new(),
            rest: BytesMut::new(),
        }
    }

    /// The message, once the request has ended.
    pub(super) async fn read(&mut self) -> Result<Bytes, Unread> {
        poll_fn(|cx| self.poll_read(cx)).await
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<Result<Bytes, Unread>> {
        while let Some(chunk) = ready!(self.body.poll_data(cx)) {
            let Ok(chunk) = chunk else {
                return Poll::Ready(Err(Unread::Gone));
            };
            // It is ours now: the client may send as much again.
            let _ = self.body.flow_control().release_capacity(chunk.len());
            if self.rest.is_empty() && self.first.is_empty() {
                // Most messages come in one piece, and are not copied.
                self.first = chunk;
            } else {
                if self.rest.is_empty() {
                    self.rest.put_slice(&self.first);
                }
                self.rest.put_slice(&chunk);
            }
            if self.is_too_long() {
                return Poll::Ready(Err(Unread::TooLong));
            }
        }
        Poll::Ready(unframed(match self.rest.is_empty() {
            true => std::mem::take(&mut self.first),
            false => self.rest.split().freeze(),
        }))
    }

    /// By what it says of itself, or by what has come.
    fn is_too_long(&self) -> bool {
        let held: &[u8] = match self.rest.is_empty() {
            true => &self.first,
            false => &self.rest,
        };
        let stated = length(held).map_or(0, |length| usize::try_from(length).unwrap_or(usize::MAX));
        stated > self.longest || held.len() > self.longest.saturating_add(HEAD)
    }
}

fn length(frame: &[u8]) -> Option<u32> {
    let octets = frame.get(1..HEAD)?;
    octets.try_into().ok().map(u32::from_be_bytes)
}

fn unframed(mut frame: Bytes) -> Result<Bytes, Unread> {
    let stated = length(&frame).and_then(|length| usize::try_from(length).ok());
    let message = match (frame.first(), stated) {
        (Some(0), Some(stated)) if stated == frame.len() - HEAD => frame.split_off(HEAD),
        _ => return Err(Unread::Malformed),
    };
    Ok(message)
}

/// `message` in a frame.
pub(super) fn framed(message: &impl prost::Message) -> Bytes {
    let length = message.encoded_len();
    let mut frame = BytesMut::with_capacity(HEAD + length);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    // It has the room that it asked for.
    let _ = message.encode(&mut frame);
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_holds_exactly_one_message() {
        let read = |frame: &'static [u8]| unframed(Bytes::from_static(frame));
        assert_eq!(read(&[0, 0, 0, 0, 2, 8, 1]).unwrap(), &[8, 1][..]);
        assert_eq!(read(&[0, 0, 0, 0, 0]).unwrap(), &[][..]);
        let malformed: [&[u8]; 6] = [
            &[],
            &[0, 0, 0, 0],
            &[0, 0, 0, 0, 2, 8],
            &[0, 0, 0, 0, 1, 8, 1],
            &[1, 0, 0, 0, 2, 8, 1],
            &[0, 255, 255, 255, 255, 8],
        ];
        for frame in malformed {
            assert_eq!(read(frame), Err(Unread::Malformed), "{frame:?}");
        }
    }

    #[test]
    fn what_is_framed_is_read() {
        let message = "a message".to_owned();
        let read = unframed(framed(&message)).unwrap();
        let decoded: String = prost::Message::decode(read).unwrap();
        assert_eq!(decoded, message);
    }
}
