//! One question to the kernel, and its answer, over a netlink socket.
//!
//! Synchronous on purpose: the kernel works a request off inside `sendto(2)`
//! and has queued its answer when that returns (`netlink_rcv_skb` in
//! net/netlink/af_netlink.c), so there is never anything to wait for.

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_REQUEST, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_sys::Socket;
use nix::sys::socket::{setsockopt, sockopt::SndBufForce};
use std::{fmt, io};

/// Longer than any answer: the kernel cuts dumps into pieces of 32 KiB
/// (`max_recvmsg_len` in af_netlink.c).
const ANSWER: usize = 64 * 1024;

/// Room for a batch of some 100 000 elements, in bytes.
const LONGEST: usize = 16 * 1024 * 1024;

/// When the kernel says whether it did as told.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ack {
    /// On each message.
    Each,
    /// On the message before the last: a batch of nf_tables, which is done as a
    /// whole, and whose last message only ends it.
    Batch,
}

pub(super) struct Conversation {
    socket: Socket,
    sequence: u32,
    answer: Vec<u8>,
}

impl fmt::Debug for Conversation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conversation").field("socket", &self.socket).finish_non_exhaustive()
    }
}

impl Conversation {
    /// Opens a socket in the calling thread's network namespace; it stays
    /// there whatever the thread does later.
    pub(super) fn open(protocol: isize) -> io::Result<Self> {
        let mut socket = Socket::new(protocol)?;
        socket.bind_auto()?;
        socket.set_cap_ack(true)?;
        socket.set_non_blocking(true)?;
        // A batch is one datagram, and must fit.
        setsockopt(&socket, SndBufForce, &LONGEST)?;
        Ok(Self { socket, sequence: 0, answer: Vec::with_capacity(ANSWER) })
    }

    /// Sends messages (each with its flags) in one go, answers what came back.
    ///
    /// # Errors
    /// The first of the kernel's refusals. Without a batch, the kernel has
    /// still carried out the other messages.
    pub(super) fn ask<M>(&mut self, messages: Vec<(M, u16)>, ack: Ack) -> io::Result<Vec<M>>
    where
        M: NetlinkSerializable + NetlinkDeserializable,
    {
        let count = messages.len();
        let first = self.sequence.wrapping_add(1);
        let mut request = Vec::new();
        for (nth, (message, flags)) in messages.into_iter().enumerate() {
            self.sequence = self.sequence.wrapping_add(1);
            let acked = ack == Ack::Each || nth + 2 == count;
            let mut header = NetlinkHeader::default();
            header.flags = flags | NLM_F_REQUEST | if acked { NLM_F_ACK } else { 0 };
            header.sequence_number = self.sequence;
            let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
            message.finalize();
            let start = request.len();
            request.resize(start + message.buffer_len(), 0);
            message.serialize(&mut request[start..]);
        }
        self.socket.send(&request, 0)?;
        let expected = if ack == Ack::Each { count } else { 1 };
        self.receive(first, expected)
    }

    /// Reads until the queue is empty.
    fn receive<M: NetlinkDeserializable>(
        &mut self,
        first: u32,
        expected: usize,
    ) -> io::Result<Vec<M>> {
        let (mut items, mut refusal, mut done) = (Vec::new(), None, 0);
        loop {
            self.answer.clear();
            match self.socket.recv(&mut self.answer, 0) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
            let mut rest = self.answer.as_slice();
            while !rest.is_empty() {
                let message = NetlinkMessage::<M>::deserialize(rest).map_err(io::Error::other)?;
                let length = usize::try_from(message.header.length).unwrap_or(usize::MAX);
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
                // An answer to an earlier question that was given up.
                if message.header.sequence_number.wrapping_sub(first) > u32::MAX / 2 {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(item) => items.push(item),
                    NetlinkPayload::Done(_) => done += 1,
                    NetlinkPayload::Error(error) if error.code.is_none() => done += 1,
                    NetlinkPayload::Error(error) => refusal = refusal.or(Some(error.to_io())),
                    NetlinkPayload::Noop | NetlinkPayload::Overrun(_) | _ => {}
                }
            }
        }
        match refusal {
            Some(error) => Err(error),
            None if done < expected => Err(io::Error::other("the kernel did not acknowledge")),
            None => Ok(items),
        }
    }
}
