//! Messages in gRPC frames, with buffers of their own size.
//!
//! tonic's own codec gives every call 8 KiB for a start, and an open stream keeps them: with thousands of idle streams
//! that is most of what a stream occupies.

use std::marker::PhantomData;

use prost::Message;
use tonic::Status;
use tonic::codec::{BufferSettings, Codec, EncodeBuf, Encoder};
use tonic_prost::ProstCodec;

/// What a request's buffer starts with, bytes; it grows to the length that the frame's head names.
const REQUEST: usize = 512;
/// What an answer's buffer starts with, bytes: the frame's head. The message says how much it needs.
const ANSWER: usize = 16;
/// How much of a stream's messages may wait for each other before they are passed on, bytes: tonic's own.
const YIELD: usize = 32 << 10;

/// Sends `T`, receives `U`.
#[derive(Clone, Copy, Debug)]
pub struct Frames<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for Frames<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for Frames<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = Exactly<T>;
    type Decoder = <ProstCodec<T, U> as Codec>::Decoder;

    fn encoder(&mut self) -> Self::Encoder {
        Exactly(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstCodec::<T, U>::raw_decoder(BufferSettings::new(REQUEST, YIELD))
    }
}

/// Reserves what the message needs before it is written.
#[derive(Clone, Copy, Debug)]
pub struct Exactly<T>(PhantomData<T>);

impl<T: Message> Encoder for Exactly<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(message.encoded_len());
        message
            .encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(ANSWER, YIELD)
    }
}
