//! One entry's header, in POSIX's format (ustar, with PAX records for what
//! does not fit).

use rustix::fs::{FileType, Stat, major, minor};
use std::io::{self, Write};
use tar::{EntryType, Header};

const BLOCK: usize = 512;
/// Of a name in the header itself.
const NAME: usize = 100;
/// What seven octal digits hold.
const OCTAL_ID: u32 = 0o7_777_777;
/// What eleven octal digits hold.
const OCTAL_SIZE: u64 = 0o77_777_777_777;

/// An extended attribute: name and value.
pub(super) type Xattr = (String, Vec<u8>);

/// What an entry is, beside what stat(2) says of it.
pub(super) struct Entry<'a> {
    pub(super) name: &'a [u8],
    pub(super) kind: EntryType,
    /// Of a link.
    pub(super) target: &'a [u8],
    pub(super) stat: &'a Stat,
    /// Bytes that follow.
    pub(super) size: u64,
    pub(super) xattrs: &'a [Xattr],
}

/// The type of what is neither a hard link nor a socket.
pub(super) fn kind_of(stat: &Stat) -> Option<EntryType> {
    Some(match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => EntryType::Regular,
        FileType::Directory => EntryType::Directory,
        FileType::Symlink => EntryType::Symlink,
        FileType::CharacterDevice => EntryType::Char,
        FileType::BlockDevice => EntryType::Block,
        FileType::Fifo => EntryType::Fifo,
        FileType::Socket | FileType::Unknown => return None,
    })
}

/// Writes the header and, before it, the records that it needs.
pub(super) fn write(out: &mut dyn Write, entry: &Entry<'_>) -> io::Result<()> {
    let records = records(entry);
    if !records.is_empty() {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        set_name(&mut header, b"PaxHeaders.0/entry");
        header.set_size(records.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        out.write_all(header.as_bytes())?;
        out.write_all(&records)?;
        pad(out, records.len() as u64)?;
    }
    let stat = entry.stat;
    let mut header = Header::new_ustar();
    header.set_entry_type(entry.kind);
    set_name(&mut header, entry.name);
    fill(&mut header.as_old_mut().linkname, entry.target);
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(u64::from(stat.st_uid.min(OCTAL_ID)));
    header.set_gid(u64::from(stat.st_gid.min(OCTAL_ID)));
    header.set_size(entry.size.min(OCTAL_SIZE));
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0).min(OCTAL_SIZE));
    if matches!(entry.kind, EntryType::Char | EntryType::Block) {
        header.set_device_major(major(stat.st_rdev))?;
        header.set_device_minor(minor(stat.st_rdev))?;
    }
    header.set_cksum();
    out.write_all(header.as_bytes())
}

/// Zeros up to the next block.
pub(super) fn pad(out: &mut dyn Write, written: u64) -> io::Result<()> {
    let over = usize::try_from(written % BLOCK as u64).unwrap_or(0);
    let zeros = [0; BLOCK];
    out.write_all(zeros.get(over..).filter(|_| over > 0).unwrap_or_default())
}

/// Two empty blocks.
pub(super) fn end(out: &mut dyn Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

fn set_name(header: &mut Header, name: &[u8]) {
    fill(&mut header.as_old_mut().name, name);
}

fn fill(field: &mut [u8; NAME], text: &[u8]) {
    for (to, from) in field.iter_mut().zip(text) {
        *to = *from;
    }
}

fn records(entry: &Entry<'_>) -> Vec<u8> {
    let stat = entry.stat;
    let mut records = Vec::new();
    if entry.name.len() > NAME {
        record(&mut records, "path", entry.name);
    }
    if entry.target.len() > NAME {
        record(&mut records, "linkpath", entry.target);
    }
    if entry.size > OCTAL_SIZE {
        record(&mut records, "size", entry.size.to_string().as_bytes());
    }
    for (key, id) in [("uid", stat.st_uid), ("gid", stat.st_gid)] {
        if id > OCTAL_ID {
            record(&mut records, key, id.to_string().as_bytes());
        }
    }
    if stat.st_mtime_nsec != 0 || stat.st_mtime < 0 {
        record(&mut records, "mtime", time(stat).as_bytes());
    }
    for (name, value) in entry.xattrs {
        record(&mut records, &format!("SCHILY.xattr.{name}"), value);
    }
    records
}

/// Seconds and a fraction; before 1970 both are negative, as POSIX has it.
fn time(stat: &Stat) -> String {
    let nanos = i128::from(stat.st_mtime) * 1_000_000_000 + i128::from(stat.st_mtime_nsec);
    let sign = if nanos < 0 { "-" } else { "" };
    let nanos = nanos.unsigned_abs();
    let text = format!("{sign}{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// `LENGTH KEY=VALUE\n`, where the length counts its own digits.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_counts_its_own_digits() {
        for length in [1, 5, 88, 89, 90, 91, 984, 985, 986, 9_990] {
            let mut bytes = Vec::new();
            record(&mut bytes, "path", &vec![b'x'; length]);
            let digits = bytes.split(|byte| *byte == b' ').next().unwrap();
            let said: usize = std::str::from_utf8(digits).unwrap().parse().unwrap();
            assert_eq!(said, bytes.len(), "of a value of {length}");
        }
    }
}
