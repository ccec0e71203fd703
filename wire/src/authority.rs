//! Makes the `:authority` of gRPC clients on unix sockets one that `h2` accepts.
//!
//! gRPC C-core (Python, C++, Ruby) sends the socket's path as `:authority`, percent-encoded
//! (`tmp%2Fca%2Fagent.sock`), grpc-java sends it raw (`/tmp/ca/agent.sock`); `h2` parses the field as
//! an authority (RFC 3986 §3.2), which neither is, and resets the stream. [`AuthorityRepair`] watches
//! the octets that a client sends and overwrites the offending ones **in place, keeping the coded
//! length**:
//!
//! ```text
//! octets -> frames (RFC 9113 §4.1) -> header block fragments -> HPACK fields (RFC 7541 §6) -> :authority's value
//! ```
//!
//! Lengths stay, so frames, CONTINUATION boundaries and the size of every entry of the dynamic table
//! stay as the client counts them; an indexed field later finds `h2`'s repaired copy. Nothing is
//! allocated and nothing is remembered but a few counters. On anything unexpected the rest of the
//! connection passes through untouched and `h2` judges it.

use crate::hpack::FieldRepair;

/// What a client sends before its first frame (RFC 9113 §3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const HEAD: usize = 9;
const HEADERS: u8 = 1;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;

/// The repair of one connection's incoming octets, in whatever pieces they arrive.
#[derive(Debug)]
pub struct AuthorityRepair {
    frame: Frame,
    field: FieldRepair,
    /// A header block is open: only CONTINUATION may follow (RFC 9113 §6.10).
    open: bool,
    end: bool,
}

/// Where in the sequence of frames the next octet stands.
#[derive(Debug)]
enum Frame {
    Preface {
        seen: u8,
    },
    Head {
        octets: [u8; HEAD],
        seen: u8,
    },
    /// A frame that holds no header block.
    Skip {
        left: u32,
    },
    PadLength {
        left: u32,
        priority: bool,
    },
    Priority {
        left: u32,
        octets: u8,
        padding: u8,
    },
    Fragment {
        left: u32,
        padding: u8,
    },
    Padding {
        left: u8,
    },
    /// Something was not as it should be: hands off.
    PassThrough,
}

impl Default for AuthorityRepair {
    fn default() -> Self {
        Self {
            frame: Frame::Preface { seen: 0 },
            field: FieldRepair::default(),
            open: false,
            end: false,
        }
    }
}

impl AuthorityRepair {
    /// Repairs the next octets of the connection.
    pub fn repair(&mut self, mut octets: &mut [u8]) {
        while !octets.is_empty() {
            let taken = self.step(octets);
            if taken == 0 {
                return;
            }
            let Some(rest) = octets.get_mut(taken..) else {
                return;
            };
            octets = rest;
        }
    }

    /// Consumes at least one octet; none once everything passes through.
    fn step(&mut self, octets: &mut [u8]) -> usize {
        match &mut self.frame {
            Frame::PassThrough => 0,
            Frame::Preface { seen } => {
                let rest = PREFACE.get(usize::from(*seen)..).unwrap_or_default();
                let taken = rest.len().min(octets.len());
                if octets.get(..taken) != rest.get(..taken) {
                    self.frame = Frame::PassThrough;
                    return 0;
                }
                *seen += u8::try_from(taken).unwrap_or_default();
                if usize::from(*seen) == PREFACE.len() {
                    self.frame = HEAD_START;
                }
                taken
            }
            Frame::Head { octets: head, seen } => {
                let room = head.get_mut(usize::from(*seen)..).unwrap_or_default();
                let taken = room.len().min(octets.len());
                for (to, from) in room.iter_mut().zip(octets.iter()) {
                    *to = *from;
                }
                *seen += u8::try_from(taken).unwrap_or_default();
                if usize::from(*seen) == HEAD {
                    let head = *head;
                    self.frame = self.begin(head);
                }
                taken
            }
            Frame::Skip { left } => {
                let taken = upto(*left, octets.len());
                *left -= taken;
                if *left == 0 {
                    self.frame = HEAD_START;
                }
                taken as usize
            }
            Frame::PadLength { left, priority } => {
                let padding = octets.first().copied().unwrap_or_default();
                let (left, priority) = (*left - 1, *priority);
                self.frame = self.after_pad_length(left, priority, padding);
                1
            }
            Frame::Priority {
                left,
                octets: missing,
                padding,
            } => {
                let taken = upto(u32::from(*missing), octets.len());
                *missing -= u8::try_from(taken).unwrap_or_default();
                if *missing == 0 {
                    let (left, padding) = (*left, *padding);
                    self.frame = self.fragment(left, padding);
                }
                taken as usize
            }
            Frame::Fragment { left, padding } => {
                let taken = upto(*left, octets.len());
                *left -= taken;
                let (left, padding) = (*left, *padding);
                let fragment = octets.get_mut(..taken as usize).unwrap_or_default();
                if self.field.repair(fragment).is_err() {
                    self.frame = Frame::PassThrough;
                } else if left == 0 {
                    self.frame = self.fragment(0, padding);
                }
                taken as usize
            }
            Frame::Padding { left } => {
                let taken = upto(u32::from(*left), octets.len());
                *left -= u8::try_from(taken).unwrap_or_default();
                if *left == 0 {
                    self.frame = HEAD_START;
                }
                taken as usize
            }
        }
    }

    fn begin(&mut self, head: [u8; HEAD]) -> Frame {
        let [a, b, c, kind, flags, ..] = head;
        let left = u32::from_be_bytes([0, a, b, c]);
        if self.open != (kind == CONTINUATION) {
            return Frame::PassThrough;
        }
        match kind {
            HEADERS => {
                self.open = true;
                self.end = flags & END_HEADERS != 0;
                let priority = flags & PRIORITY != 0;
                match (flags & PADDED != 0, left) {
                    (true, 0) => Frame::PassThrough,
                    (true, _) => Frame::PadLength { left, priority },
                    (false, _) => self.after_pad_length(left, priority, 0),
                }
            }
            CONTINUATION => {
                self.end = flags & END_HEADERS != 0;
                self.fragment(left, 0)
            }
            _ if left == 0 => HEAD_START,
            _ => Frame::Skip { left },
        }
    }

    fn after_pad_length(&mut self, left: u32, priority: bool, padding: u8) -> Frame {
        let Some(left) = left.checked_sub(u32::from(padding)) else {
            return Frame::PassThrough;
        };
        if !priority {
            return self.fragment(left, padding);
        }
        match left.checked_sub(5) {
            Some(left) => Frame::Priority {
                left,
                octets: 5,
                padding,
            },
            None => Frame::PassThrough,
        }
    }

    /// Where a fragment of `left` octets begins; with none left, what comes after it.
    fn fragment(&mut self, left: u32, padding: u8) -> Frame {
        if left > 0 {
            return Frame::Fragment { left, padding };
        }
        if self.end {
            self.open = false;
            // A field that is cut off at the end of its block: h2 will end the connection.
            if !self.field.is_complete() {
                return Frame::PassThrough;
            }
        }
        if padding > 0 {
            Frame::Padding { left: padding }
        } else {
            HEAD_START
        }
    }
}

const HEAD_START: Frame = Frame::Head {
    octets: [0; HEAD],
    seen: 0,
};

/// The smaller of both; a frame has fewer than 2^24 octets.
fn upto(left: u32, there: usize) -> u32 {
    left.min(u32::try_from(there).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const GRPCIO: &[u8] = b"tmp%2Fca%2Fagent.sock";
    const REPAIRED: &[u8] = b"tmp-2Fca-2Fagent.sock";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = length[1..].to_vec();
        frame.extend([kind, flags, 0, 0, 0, 1]);
        frame.extend(payload);
        frame
    }

    /// `:method: POST`, then `:authority` as grpcio writes it, then one more field.
    fn block(authority: &[u8]) -> Vec<u8> {
        let mut block = vec![0x83, 0x40, 10];
        block.extend(b":authority");
        block.push(u8::try_from(authority.len()).unwrap());
        block.extend(authority);
        block.extend(b"\x00\x04path\x03/%/");
        block
    }

    fn connection(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut all = PREFACE.to_vec();
        all.extend(frame(4, 0, &[0, 3, 0, 0, 0, 100]));
        all.extend(frames.concat());
        all
    }

    fn repaired(octets: &[u8], piece: usize) -> Vec<u8> {
        let mut repair = AuthorityRepair::default();
        let mut octets = octets.to_vec();
        for piece in octets.chunks_mut(piece) {
            repair.repair(piece);
        }
        octets
    }

    /// However the octets are cut into pieces, `sent` becomes `expected`.
    fn check(sent: &[Vec<u8>], expected: &[Vec<u8>]) {
        let (sent, expected) = (connection(sent), connection(expected));
        for piece in [1, 2, 3, 7, 9, 64, usize::MAX] {
            assert_eq!(repaired(&sent, piece), expected, "in pieces of {piece}");
        }
    }

    #[test]
    fn the_authority_of_grpcio_is_repaired_and_nothing_else() {
        check(
            &[frame(HEADERS, END_HEADERS, &block(GRPCIO))],
            &[frame(HEADERS, END_HEADERS, &block(REPAIRED))],
        );
    }

    #[test]
    fn padding_priority_and_other_frames_do_not_hide_it() {
        let around = |block: &[u8]| {
            let mut payload = vec![3, 0, 0, 0, 0, 15];
            payload.extend(block);
            payload.extend(b"%%%");
            frame(HEADERS, END_HEADERS | PADDED | PRIORITY, &payload)
        };
        let data = frame(0, 0, b"\x40\x0a:authority\x01%");
        let empty = frame(4, 1, b"");
        check(
            &[data.clone(), empty.clone(), around(&block(GRPCIO))],
            &[data, empty, around(&block(REPAIRED))],
        );
    }

    #[test]
    fn a_block_may_be_cut_anywhere_into_continuations() {
        let (sent, clean) = (block(GRPCIO), block(REPAIRED));
        for cut in 0..sent.len() {
            let parts = |block: &[u8]| {
                vec![
                    frame(HEADERS, 0, &block[..cut]),
                    frame(CONTINUATION, END_HEADERS, &block[cut..]),
                ]
            };
            check(&parts(&sent), &parts(&clean));
        }
    }

    #[test]
    fn every_later_block_of_the_connection_is_repaired() {
        let one = |authority: &[u8]| frame(HEADERS, END_HEADERS, &block(authority));
        check(&[one(GRPCIO), one(b"/a/b")], &[one(REPAIRED), one(b"-a-b")]);
    }

    #[test]
    fn a_violation_leaves_the_rest_to_h2() {
        let bad = frame(HEADERS, END_HEADERS, &block(GRPCIO));
        let violations = [
            // CONTINUATION without HEADERS, another frame within a block, padding longer than the frame, no room for it.
            frame(CONTINUATION, END_HEADERS, b""),
            [frame(HEADERS, 0, b""), frame(0, 0, b"x")].concat(),
            frame(HEADERS, END_HEADERS | PADDED, &[200, 1]),
            frame(HEADERS, END_HEADERS | PADDED, &[]),
            frame(HEADERS, END_HEADERS | PRIORITY, &[1, 2]),
            // A field that its block cuts off.
            frame(HEADERS, END_HEADERS, b"\x40\x0a:auth"),
        ];
        for violation in violations {
            check(
                &[violation.clone(), bad.clone()],
                &[violation.clone(), bad.clone()],
            );
        }
        let http1 = b"GET / HTTP/1.1\r\nhost: a%b\r\n\r\n";
        assert_eq!(repaired(http1, 5), http1);
    }

    proptest! {
        #[test]
        fn any_octets_in_any_pieces_keep_their_length(
            octets in proptest::collection::vec(any::<u8>(), 0..400),
            piece in 1_usize..50,
        ) {
            let mut all = connection(&[]);
            all.extend(&octets);
            let after = repaired(&all, piece);
            prop_assert_eq!(after.len(), all.len());
            prop_assert_eq!(repaired(&all, 1), after, "the pieces do not matter");
        }
    }
}
