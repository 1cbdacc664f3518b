//! The same program, a third as long.
//!
//! libseccomp asks for one call after the other, so a policy that lets 350 calls
//! through is 1250 instructions, which the kernel checks, translates and tries
//! out for every container: 0.4 ms of each start. But the calls that are let
//! through lie side by side. So the program is followed for all numbers at once,
//! as ranges, and written anew as one binary search per architecture; what looks
//! at a call's arguments is copied as it is.
//!
//! What must stay true: both answer the same for every architecture, number and
//! argument. Whatever is not understood here makes it `None`, and the caller
//! keeps the long one.

use nix::libc::sock_filter;
use std::collections::{BTreeMap, BTreeSet};

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const JUMP_EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
const JUMP_GREATER: u16 = 0x25; // BPF_JMP | BPF_JGT | BPF_K
const JUMP_AT_LEAST: u16 = 0x35; // BPF_JMP | BPF_JGE | BPF_K
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// Offsets in `struct seccomp_data` (linux/seccomp.h).
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// Set in the number of an x32 call.
const X32: u32 = 0x4000_0000;
/// As far as a conditional jump may lead, less what is written in between.
const NEAR: usize = 250;
/// More steps than any sane profile takes.
const MOST: usize = 1 << 18;

/// What becomes of a range of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Target {
    Return(u32),
    /// The instruction that loads an argument, and all that follows.
    Block(usize),
}

/// Numbers from here to the next range's start.
type Range = (u32, Target);

#[derive(Debug, Clone, Copy)]
enum Register {
    Empty,
    Architecture,
    /// The number, less this.
    Number(u32),
}

/// A shorter program that answers the same; `None` if there is none, or the
/// program has something that is not understood.
pub(super) fn shrink(program: &[u8]) -> Option<Vec<u8>> {
    let long = parse(program)?;
    // An architecture that the program knows is one that a stranger is compared with.
    let (strangers, architectures) = Walk::follow(&long, None)?;
    let [(0, Target::Return(stranger))] = strangers[..] else { return None };
    let mut known = Vec::new();
    for architecture in architectures {
        known.push((architecture, Walk::follow(&long, Some(architecture))?.0));
    }
    let short = Writer::write(&long, &known, stranger)?;
    let is_shorter = short.len() < long.len();
    is_shorter.then(|| short.iter().flat_map(bytes_of).collect())
}

fn parse(program: &[u8]) -> Option<Vec<sock_filter>> {
    let (instructions, rest) = program.as_chunks::<8>();
    rest.is_empty().then(|| {
        let parsed = instructions.iter().map(|[a, b, jt, jf, k @ ..]| sock_filter {
            code: u16::from_ne_bytes([*a, *b]),
            jt: *jt,
            jf: *jf,
            k: u32::from_ne_bytes(*k),
        });
        parsed.collect()
    })
}

fn bytes_of(instruction: &sock_filter) -> [u8; 8] {
    let [a, b] = instruction.code.to_ne_bytes();
    let [c, d, e, f] = instruction.k.to_ne_bytes();
    [a, b, instruction.jt, instruction.jf, c, d, e, f]
}

/// Follows the program for one architecture, or for one that it does not know.
struct Walk<'a> {
    program: &'a [sock_filter],
    architecture: Option<u32>,
    found: Vec<Range>,
    /// The architectures that it was compared with.
    compared: BTreeSet<u32>,
    steps: usize,
}

impl<'a> Walk<'a> {
    /// Every number's target, in order, of which neighbours differ; and the
    /// architectures that this one was compared with.
    fn follow(
        program: &'a [sock_filter],
        architecture: Option<u32>,
    ) -> Option<(Vec<Range>, BTreeSet<u32>)> {
        let (found, compared) = (Vec::new(), BTreeSet::new());
        let mut walk = Self { program, architecture, found, compared, steps: 0 };
        // In each quarter the bit of x32 is the same for all.
        for quarter in 0..4 {
            let first = quarter * X32;
            walk.step(0, Register::Empty, first, first + (X32 - 1))?;
        }
        walk.found.sort_unstable();
        walk.found.dedup_by_key(|(_, target)| *target);
        Some((walk.found, walk.compared))
    }

    /// From the instruction `at` on, for the numbers from `low` to `high`.
    fn step(&mut self, at: usize, register: Register, low: u32, high: u32) -> Option<()> {
        self.steps += 1;
        if self.steps > MOST {
            return None;
        }
        let instruction = self.program.get(at)?;
        let next = at + 1;
        let (yes, no) = (next + usize::from(instruction.jt), next + usize::from(instruction.jf));
        let k = instruction.k;
        match (instruction.code, register) {
            (RETURN, _) => self.found.push((low, Target::Return(k))),
            (JUMP, _) => return self.step(next + usize::try_from(k).ok()?, register, low, high),
            (LOAD, _) => match k {
                NUMBER => return self.step(next, Register::Number(0), low, high),
                ARCHITECTURE => return self.step(next, Register::Architecture, low, high),
                _ => self.found.push((low, Target::Block(at))),
            },
            (AND, Register::Number(0)) if k == !X32 => {
                return self.step(next, Register::Number(low & X32), low, high);
            }
            (JUMP_EQUAL, Register::Architecture) => {
                self.compared.insert(k);
                let to = if self.architecture == Some(k) { yes } else { no };
                return self.step(to, register, low, high);
            }
            (JUMP_EQUAL, Register::Number(less)) => {
                // Of its own, then all below and all above.
                let Some(number) = k.checked_add(less).filter(|n| (low..=high).contains(n)) else {
                    return self.step(no, register, low, high);
                };
                self.step(yes, register, number, number)?;
                if low < number {
                    self.step(no, register, low, number - 1)?;
                }
                if number < high {
                    self.step(no, register, number + 1, high)?;
                }
            }
            (JUMP_GREATER | JUMP_AT_LEAST, Register::Number(less)) => {
                let first = k.checked_add(u32::from(instruction.code == JUMP_GREATER));
                // No number is as great as that.
                let first = first.and_then(|first| first.checked_add(less));
                let Some(first) = first.filter(|first| *first <= high) else {
                    return self.step(no, register, low, high);
                };
                if first <= low {
                    return self.step(yes, register, low, high);
                }
                self.step(no, register, low, first - 1)?;
                self.step(yes, register, first, high)?;
            }
            _ => return None,
        }
        Some(())
    }
}

/// Writes the program from its end, so that where a jump leads is known.
#[derive(Default)]
struct Writer {
    /// Backwards.
    written: Vec<sock_filter>,
    /// Where what is.
    places: BTreeMap<Target, usize>,
}

impl Writer {
    fn write(
        long: &[sock_filter],
        known: &[(u32, Vec<Range>)],
        stranger: u32,
    ) -> Option<Vec<sock_filter>> {
        let mut writer = Self::default();
        writer.copy_blocks(long, known)?;
        let mut otherwise = writer.put(RETURN, stranger);
        for (architecture, ranges) in known {
            let tree = writer.search(ranges)?;
            // The search stands right behind its load of the number.
            let tree = writer.near(tree);
            writer.jump_to(tree);
            writer.put(LOAD, NUMBER);
            let found = writer.written.len() - 1;
            let not_found = writer.jump_to(otherwise);
            otherwise = writer.compare(JUMP_EQUAL, *architecture, found, not_found)?;
        }
        writer.put(LOAD, ARCHITECTURE);
        writer.written.reverse();
        Some(writer.written)
    }

    /// What looks at arguments, as it is: jumps get shorter by what is left out.
    fn copy_blocks(&mut self, long: &[sock_filter], known: &[(u32, Vec<Range>)]) -> Option<()> {
        let targets = known.iter().flat_map(|(_, ranges)| ranges);
        let mut open: Vec<usize> = targets
            .filter_map(|(_, target)| match target {
                Target::Block(at) => Some(*at),
                Target::Return(_) => None,
            })
            .collect();
        let mut needed = BTreeSet::new();
        while let Some(at) = open.pop() {
            if needed.insert(at) {
                open.extend(following(long, at)?);
            }
        }
        for at in needed.into_iter().rev() {
            let mut copy = *long.get(at)?;
            let here = self.written.len();
            let distance = |to: usize| Some(here - self.places.get(&Target::Block(to))? - 1);
            match following(long, at)?[..] {
                [yes, no] => {
                    copy.jt = u8::try_from(distance(yes)?).ok()?;
                    copy.jf = u8::try_from(distance(no)?).ok()?;
                }
                [to] if copy.code == JUMP => copy.k = u32::try_from(distance(to)?).ok()?,
                // It goes on with the next one, which must be the next one here.
                [to] if distance(to)? == 0 => {}
                [] => {}
                _ => return None,
            }
            self.written.push(copy);
            self.places.insert(Target::Block(at), here);
        }
        Some(())
    }

    /// A binary search; gives where it begins.
    fn search(&mut self, ranges: &[Range]) -> Option<usize> {
        if let [(_, target)] = ranges {
            return self.leaf(*target);
        }
        let (below, above) = ranges.split_at(ranges.len() / 2);
        // Leaves last, so that they are near.
        let mut places = [None; 2];
        for (place, half) in places.iter_mut().zip([above, below]) {
            if half.len() > 1 {
                *place = Some(self.search(half)?);
            }
        }
        for (place, half) in places.iter_mut().zip([above, below]) {
            let there = match *place {
                Some(there) => there,
                None => self.search(half)?,
            };
            *place = Some(self.near(there));
        }
        let [Some(yes), Some(no)] = places else { return None };
        self.compare(JUMP_AT_LEAST, above.first()?.0, yes, no)
    }

    fn leaf(&mut self, target: Target) -> Option<usize> {
        let there = self.places.get(&target).copied();
        match target {
            Target::Block(_) => there,
            Target::Return(value) => {
                let there = there.filter(|there| self.written.len() - there < NEAR);
                Some(there.unwrap_or_else(|| {
                    let here = self.put(RETURN, value);
                    self.places.insert(target, here);
                    here
                }))
            }
        }
    }

    /// The place itself, or a jump to it.
    fn near(&mut self, there: usize) -> usize {
        if self.written.len() - there < NEAR { there } else { self.jump_to(there) }
    }

    fn jump_to(&mut self, there: usize) -> usize {
        let distance = self.written.len() - there - 1;
        // A program has 4096 instructions at most.
        self.put(JUMP, u32::try_from(distance).unwrap_or(u32::MAX))
    }

    fn compare(&mut self, code: u16, k: u32, yes: usize, no: usize) -> Option<usize> {
        let here = self.written.len();
        let distance = |to: usize| u8::try_from(here - to - 1).ok();
        self.written.push(sock_filter { code, jt: distance(yes)?, jf: distance(no)?, k });
        Some(here)
    }

    fn put(&mut self, code: u16, k: u32) -> usize {
        self.written.push(sock_filter { code, jt: 0, jf: 0, k });
        self.written.len() - 1
    }
}

/// The instructions that may come after one.
fn following(program: &[sock_filter], at: usize) -> Option<Vec<usize>> {
    let instruction = program.get(at)?;
    let next = at + 1;
    Some(match instruction.code {
        RETURN => Vec::new(),
        JUMP => vec![next + usize::try_from(instruction.k).ok()?],
        // BPF_JMP of linux/bpf_common.h.
        code if code & 7 == 5 => {
            vec![next + usize::from(instruction.jt), next + usize::from(instruction.jf)]
        }
        _ => vec![next],
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{
        capabilities::{DOCKER, Set},
        seccomp::{compile::long_program, profile::Profile},
    };

    /// The machine of seccomp(2), for the instructions that libseccomp writes.
    fn answer(program: &[sock_filter], architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
        let (mut at, mut register) = (0, 0_u32);
        loop {
            let sock_filter { code, jt, jf, k } = program[at];
            at += 1;
            let mut jump = |yes: bool| at += usize::from(if yes { jt } else { jf });
            match code {
                LOAD => {
                    register = match k {
                        NUMBER => number,
                        ARCHITECTURE => architecture,
                        _ => {
                            let [low, high] = halves(arguments[(k as usize - 16) / 8]);
                            if k % 8 == 0 { low } else { high }
                        }
                    }
                }
                JUMP => at += k as usize,
                JUMP_EQUAL => jump(register == k),
                JUMP_GREATER => jump(register > k),
                JUMP_AT_LEAST => jump(register >= k),
                0x45 => jump(register & k != 0),
                AND => register &= k,
                RETURN => return k,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    fn halves(argument: u64) -> [u32; 2] {
        let [a, b, c, d, e, f, g, h] = argument.to_le_bytes();
        [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
    }

    fn both(text: &str, capabilities: Set) -> (Vec<sock_filter>, Vec<sock_filter>) {
        let profile = Profile::parse(text).unwrap();
        let long = long_program(&profile, capabilities).unwrap();
        let short = shrink(&long).expect("it is understood, and shorter");
        (parse(&long).unwrap(), parse(&short).unwrap())
    }

    fn agree(long: &[sock_filter], short: &[sock_filter]) {
        let edges = [1 << 10, X32 - 1, X32 | 1 << 10, 2 * X32, u32::MAX - 1, u32::MAX];
        let numbers: Vec<u32> =
            (0..600).chain((0..600).map(|number| number | X32)).chain(edges).collect();
        // Of the conditions in Docker's profile: families, clone's flags, personalities.
        let values = [0, 1, 2, 8, 16, 38, 39, 40, 41, 0x20000, 0x20008, 0x7e02_0000, u64::MAX];
        for architecture in [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0x1234] {
            for number in &numbers {
                for value in values {
                    let arguments = [value; 6];
                    assert_eq!(
                        answer(short, architecture, *number, arguments),
                        answer(long, architecture, *number, arguments),
                        "{architecture:#x} {number:#x} {value:#x}"
                    );
                }
            }
        }
    }

    #[test]
    fn dockers_profile_answers_the_same_in_a_third_of_the_length() {
        for capabilities in [Set::NONE, DOCKER, DOCKER.with(21)] {
            let (long, short) = both(super::super::DEFAULT, capabilities);
            agree(&long, &short);
            assert!(short.len() < 450, "{} of {}", short.len(), long.len());
            assert!(long.len() > 1200, "{}", long.len());
        }
    }

    #[test]
    fn a_profile_that_lets_all_through_but_some_answers_the_same() {
        let text = r#"{ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            { "names": ["mkdir", "mkdirat", "unshare"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13 },
            { "names": ["personality"], "action": "SCMP_ACT_KILL",
              "args": [{ "index": 0, "value": 8, "op": "SCMP_CMP_EQ" }] } ] }"#;
        let profile = Profile::parse(text).unwrap();
        let long = long_program(&profile, Set::NONE).unwrap();
        if let Some(short) = shrink(&long) {
            agree(&parse(&long).unwrap(), &parse(&short).unwrap());
        }
    }

    #[test]
    fn what_is_not_understood_is_left_alone() {
        assert_eq!(shrink(&[0; 12]), None, "half an instruction");
        // BPF_LD | BPF_MEM, then a return.
        let strange = [sock_filter { code: 0x60, jt: 0, jf: 0, k: 0 }; 2];
        assert_eq!(shrink(&strange.iter().flat_map(bytes_of).collect::<Vec<u8>>()), None);
    }
}
