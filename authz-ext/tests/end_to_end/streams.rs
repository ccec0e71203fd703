//! Many checks on one connection, in every order and every size of frames.

use std::time::{Duration, Instant};

use h2::RecvStream;
use h2::client::ResponseFuture;
use prost::bytes::{BufMut as _, BytesMut};
use tokio::net::TcpStream;

use super::limits::{answered, begin, framed, http2, limited, read};
use super::support::*;

fn path(number: usize) -> (String, &'static str) {
    match number % 3 {
        0 => (format!("/public/{number}"), "allowed_by"),
        1 => (format!("/private/{number}"), "no_allow_matched"),
        _ => (format!("/publi/{number}"), "no_allow_matched"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_in_pieces_and_hundreds_at_once_are_each_answered_right() {
    let (running, _folder) = limited(|_| {}).await;
    let mut sender = http2(running.address()).await;
    let mut open = Vec::new();
    for number in 0..300 {
        sender = sender.ready().await.unwrap();
        let (path, expected) = path(number);
        let (response, mut body) = begin(&mut sender, &[]);
        let mut frame = framed(&path);
        // Whole, in halves, with its head alone, octet by octet.
        let first = match number % 4 {
            0 => frame.split_to(frame.len()),
            1 => frame.split_to(frame.len() / 2),
            2 => frame.split_to(5),
            _ => frame.split_to(3),
        };
        body.send_data(first, frame.is_empty()).unwrap();
        open.push((response, body, frame, number, expected));
    }
    // The last that began is the first to end.
    let mut waiting = Vec::new();
    while let Some((response, mut body, mut frame, number, expected)) = open.pop() {
        let piece = if number % 20 == 3 { 1 } else { frame.len() };
        while !frame.is_empty() {
            let piece = frame.split_to(piece.min(frame.len()));
            body.send_data(piece, frame.is_empty()).unwrap();
            tokio::task::yield_now().await;
        }
        waiting.push((response, number, expected));
    }
    // Side by side: answers that nobody reads fill the connection's window, and those behind them wait.
    let mut reading = tokio::task::JoinSet::new();
    for (response, number, expected) in waiting {
        reading.spawn(async move { assert_eq!(answered(response).await, expected, "{number}") });
    }
    while let Some(read) = reading.join_next().await {
        read.unwrap();
    }
    assert_eq!(read(&running.counters.checks_in_flight), 0);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_that_are_taken_back_leave_nothing_behind() {
    let (running, _folder) = limited(|_| {}).await;
    let mut sender = http2(running.address()).await;
    let mut open = Vec::new();
    for _ in 0..15 {
        sender = sender.ready().await.unwrap();
        let (response, mut body) = begin(&mut sender, &[]);
        body.send_data(framed("/public").slice(..20), false)
            .unwrap();
        open.push((response, body));
    }
    let start = Instant::now();
    let in_flight = || read(&running.counters.checks_in_flight);
    while in_flight() != 15 {
        assert!(start.elapsed() < Duration::from_secs(5), "{}", in_flight());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for (_, mut body) in open {
        body.send_reset(h2::Reason::CANCEL);
    }
    // Long before the deadline.
    while in_flight() != 0 {
        assert!(start.elapsed() < Duration::from_secs(8), "{}", in_flight());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    sender = sender.ready().await.unwrap();
    let (response, mut body) = begin(&mut sender, &[]);
    body.send_data(framed("/public"), true).unwrap();
    assert_eq!(answered(response).await, "allowed_by");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_takes_few_octets_at_a_time_gets_all_of_them() {
    let (running, _folder) = limited(|_| {}).await;
    let stream = TcpStream::connect(running.address()).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(7).data_frame_budget(1 << 30);
    let (sender, connection) = builder.handshake(stream).await.unwrap();
    tokio::spawn(async move {
        let _ = connection.await;
    });
    let mut sender = sender.ready().await.unwrap();
    let mut open: Vec<ResponseFuture> = Vec::new();
    for _ in 0..20 {
        sender = sender.ready().await.unwrap();
        let (response, mut body) = begin(&mut sender, &[]);
        body.send_data(framed("/public"), true).unwrap();
        open.push(response);
    }
    for response in open {
        let mut body: RecvStream = within("an answer", response).await.unwrap().into_body();
        let mut message = BytesMut::new();
        while let Some(chunk) = within("the body", body.data()).await {
            let chunk = chunk.unwrap();
            body.flow_control().release_capacity(chunk.len()).unwrap();
            message.put_slice(&chunk);
        }
        let length = u32::from_be_bytes(message[1..5].try_into().unwrap());
        assert_eq!(usize::try_from(length).unwrap(), message.len() - 5);
        let trailers = within("trailers", body.trailers()).await.unwrap();
        assert_eq!(trailers.unwrap()["grpc-status"], "0");
    }
    running.stop().await;
}
