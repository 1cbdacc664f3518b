//! What is to be done about one message: the rules of Docker's resolver. Pure.
//!
//! - A name or address on one of the asker's networks is answered from there,
//!   and what it has none of (an IPv6 address, a TXT record) is answered with
//!   nothing: such a name is never asked for outside.
//! - All else goes outside, unless the asker is on internal networks only; or
//!   it is the address of a single label and `ndots` was set by somebody, whose
//!   search domains shall then be tried instead.

use super::{
    Settings,
    directory::{Directory, Family},
    question::{NoQuestion, Question, Transport},
};
use crate::ids::ContainerId;
use hickory_proto::{op::ResponseCode, rr::RecordType};
use std::net::IpAddr;

/// What is to be done.
#[derive(Debug)]
pub(super) enum Verdict {
    Nothing,
    Answer(Vec<u8>),
    Forward(Question),
}

/// Looks at a message from `asker`. `dice`: anything, for the order of answers.
pub(super) fn consider(
    directory: &Directory,
    (asker, settings): (ContainerId, &Settings),
    (bytes, transport): (&[u8], Transport),
    dice: impl FnOnce() -> usize,
) -> Verdict {
    let question = match Question::parse(bytes) {
        Ok(question) => question,
        Err(NoQuestion::Noise) => return Verdict::Nothing,
        Err(NoQuestion::Refused(refusal)) => return Verdict::Answer(refusal),
    };
    if let Some(answer) = known(directory, asker, (&question, transport), dice) {
        return Verdict::Answer(answer);
    }
    if !directory.reaches_out(asker) {
        return Verdict::Answer(question.answer(ResponseCode::ServFail));
    }
    let for_address = matches!(question.kind(), RecordType::A | RecordType::AAAA);
    let single = question.name().is_some_and(|name| !name.contains('.'));
    if settings.ndots_set && for_address && single {
        return Verdict::Answer(question.addresses(&[], transport));
    }
    Verdict::Forward(question)
}

fn known(
    directory: &Directory,
    asker: ContainerId,
    (question, transport): (&Question, Transport),
    dice: impl FnOnce() -> usize,
) -> Option<Vec<u8>> {
    if !question.is_of_internet() {
        return None;
    }
    let family = if question.kind() == RecordType::A {
        Family::V4
    } else if question.kind() == RecordType::AAAA {
        Family::V6
    } else if question.kind() == RecordType::ANY {
        Family::Any
    } else {
        Family::Nothing
    };
    if question.kind() == RecordType::PTR
        && let Some(name) = question.address().and_then(|ip| directory.reverse(asker, ip))
    {
        return Some(question.pointer(&name, transport));
    }
    let mut addresses = directory.resolve(asker, &question.name()?, family)?;
    rotate(&mut addresses, dice);
    Some(question.addresses(&addresses, transport))
}

/// So that those who take the first answer do not all take the same.
fn rotate(addresses: &mut [IpAddr], dice: impl FnOnce() -> usize) {
    if addresses.len() > 1 {
        let first = dice() % addresses.len();
        addresses.rotate_left(first);
    }
}
