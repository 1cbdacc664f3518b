//! Offsets of kernel struct members, from the type information the kernel carries.
//!
//! Rust's BPF target has no CO-RE relocations, so the loader asks here and
//! hands the answers to the programs as read-only globals. The format is
//! Documentation/bpf/btf.rst of the kernel; only what is needed of it is read.

use std::{collections::HashMap, fs, io, path::Path};

const STRUCT: u32 = 4;
const UNION: u32 = 5;
/// typedef, volatile, const, restrict and type tags: names or qualities of another type.
const TRANSPARENT: [u32; 5] = [8, 9, 10, 11, 18];

/// Why there are no offsets.
#[derive(Debug, thiserror::Error)]
pub enum ReadTypes {
    /// The kernel was built without BTF, or sysfs is not mounted.
    #[error("cannot read /sys/kernel/btf/vmlinux")]
    Read(#[source] io::Error),
    /// The kernel's type information is not as documented.
    #[error("/sys/kernel/btf/vmlinux is malformed")]
    Malformed,
}

/// The kernel's types.
pub(crate) struct Types {
    bytes: Vec<u8>,
    strings: usize,
    /// Where each type starts, by its number.
    starts: Vec<usize>,
    /// Numbers of the named structs and unions that were asked for.
    named: HashMap<&'static str, u32>,
}

impl Types {
    /// Reads the running kernel's types, remembering where `wanted` structs are.
    pub(crate) fn of_kernel(wanted: &[&'static str]) -> Result<Self, ReadTypes> {
        let bytes = fs::read(Path::new("/sys/kernel/btf/vmlinux")).map_err(ReadTypes::Read)?;
        Self::parse(bytes, wanted).ok_or(ReadTypes::Malformed)
    }

    fn parse(bytes: Vec<u8>, wanted: &[&'static str]) -> Option<Self> {
        let header = size(word(&bytes, 4)?);
        let first = header + size(word(&bytes, 8)?);
        let end = first + size(word(&bytes, 12)?);
        let strings = header + size(word(&bytes, 16)?);
        let mut types = Self { bytes, strings, starts: vec![0], named: HashMap::new() };
        let mut at = first;
        while at < end {
            let info = word(&types.bytes, at + 4)?;
            let (kind, members) = (kind_of(info), members_of(info));
            if kind == STRUCT || kind == UNION {
                let name = types.name(word(&types.bytes, at)?)?;
                if let Some(name) = wanted.iter().find(|wanted| wanted.as_bytes() == name) {
                    types.named.insert(name, u32::try_from(types.starts.len()).ok()?);
                }
            }
            types.starts.push(at);
            at += 12 + trailing_bytes(kind, members);
        }
        Some(types)
    }

    /// Byte offset of a member, also of one inside anonymous structs and unions of `name`.
    pub(crate) fn offset(&self, name: &str, member: &str) -> Option<u64> {
        self.offset_in(*self.named.get(name)?, member)
    }

    fn offset_in(&self, number: u32, member: &str) -> Option<u64> {
        let start = self.resolve(number)?;
        let info = word(&self.bytes, start + 4)?;
        if !matches!(kind_of(info), STRUCT | UNION) {
            return None;
        }
        for index in 0..members_of(info) {
            let at = start + 12 + 12 * index;
            let name = self.name(word(&self.bytes, at)?)?;
            let mut bits = word(&self.bytes, at + 8)?;
            if info >> 31 == 1 {
                // Some member is a bit field: the upper byte is its width.
                bits &= 0xff_ffff;
            }
            let here = u64::from(bits / 8);
            if name == member.as_bytes() {
                return Some(here);
            }
            if name.is_empty()
                && let Some(inside) = self.offset_in(word(&self.bytes, at + 4)?, member)
            {
                return Some(here + inside);
            }
        }
        None
    }

    /// Where a type starts, its names and qualities taken off.
    fn resolve(&self, mut number: u32) -> Option<usize> {
        loop {
            let start = *self.starts.get(size(number))?;
            if !TRANSPARENT.contains(&kind_of(word(&self.bytes, start + 4)?)) {
                return Some(start);
            }
            number = word(&self.bytes, start + 8)?;
        }
    }

    fn name(&self, offset: u32) -> Option<&[u8]> {
        let text = self.bytes.get(self.strings + size(offset)..)?;
        text.split(|byte| *byte == 0).next()
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?;
    Some(u32::from_le_bytes(four.try_into().ok()?))
}

fn size(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

fn kind_of(info: u32) -> u32 {
    info >> 24 & 31
}

fn members_of(info: u32) -> usize {
    size(info & 0xffff)
}

/// How much follows the twelve bytes that every type begins with.
fn trailing_bytes(kind: u32, members: usize) -> usize {
    match kind {
        1 | 14 | 17 => 4,
        3 => 12,
        4 | 5 | 15 | 19 => 12 * members,
        6 | 13 => 8 * members,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_tells_where_a_task_keeps_its_cgroups() {
        let types = Types::of_kernel(&["task_struct", "cgroup", "pt_regs"]).unwrap();
        assert!(types.offset("task_struct", "cgroups").unwrap() > 0);
        assert!(
            types.offset("cgroup", "ancestors").unwrap() > 0,
            "in an anonymous union on newer kernels"
        );
        assert_eq!(types.offset("task_struct", "no_such_member"), None);
        assert_eq!(types.offset("file", "f_inode"), None, "was not asked for");
    }

    #[test]
    fn cut_off_types_are_malformed_and_not_a_panic() {
        let whole = fs::read("/sys/kernel/btf/vmlinux").unwrap();
        for length in [0, 3, 24, 100, 5000] {
            assert!(Types::parse(whole[..length].to_vec(), &["task_struct"]).is_none());
        }
    }
}
