//! Keeping little: the C library's allocator, and the pages of the program.

use std::fs;
use std::io;
use std::ops::Range;

/// Makes the allocator give back what is freed: one arena, blocks from 32 KiB
/// on by mmap(2), at most 16 KiB of slack on the heap. mallopt(3).
pub fn keep_little() {
    const SETTINGS: [(libc::c_int, libc::c_int); 4] = [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, 32 << 10),
        (libc::M_TRIM_THRESHOLD, 16 << 10),
        (libc::M_TOP_PAD, 4 << 10),
    ];
    for (setting, value) in SETTINGS {
        // SAFETY: takes two numbers and the allocator's own lock. It answers
        // 0 for a setting it does not know, which then stays as it was.
        let _known = unsafe { libc::mallopt(setting, value) };
    }
}

/// Gives free pages of the heap back to the kernel. malloc_trim(3).
pub fn trim() {
    // SAFETY: takes a number and the allocator's own lock. The answer only
    // says whether there was anything to give back.
    let _gave = unsafe { libc::malloc_trim(0) };
}

/// Lets go of the program's own pages: code and constants, which the kernel
/// maps again from the page cache when they are next used.
///
/// # Errors
///
/// `/proc/self/smaps` cannot be read, or those of madvise(2).
pub fn forget_program() -> io::Result<()> {
    // On the stack, so that nothing of the allocator runs after this line.
    let mut mappings = [const { 0..0 }; 8];
    for (to, from) in mappings.iter_mut().zip(untouched(&fs::read_to_string("/proc/self/smaps")?)) {
        *to = from;
    }
    trim();
    for Range { start, end } in &mappings {
        let address = std::ptr::with_exposed_provenance_mut::<libc::c_void>(*start);
        // SAFETY: an unused range is empty, which is nothing to do. The others
        // `untouched` has picked: private mappings of a file that nobody can
        // write to, and of which no page differs from the file (the kernel
        // counts none as anonymous). Dropping such pages changes no byte that
        // can be read there: the next access gets the same ones from the
        // file, which the kernel keeps from being written while it executes.
        let result = unsafe { libc::madvise(address, end - start, libc::MADV_DONTNEED) };
        crate::checked(result.into())?;
    }
    Ok(())
}

/// The mappings in a text of proc_pid_smaps(5) that are read-only, private,
/// of a file, and without a page of their own.
fn untouched(smaps: &str) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        let mut fields = line.split_ascii_whitespace();
        match (fields.next(), fields.next()) {
            (Some("Anonymous:"), Some("0")) => found.extend(current.take()),
            (Some(range), Some(rights)) if !range.ends_with(':') => {
                let path = fields.nth(3).filter(|path| path.starts_with('/'));
                let fixed = matches!(rights, "r--p" | "r-xp") && path.is_some();
                current = fixed.then(|| parsed(range)).flatten();
            }
            _ => {}
        }
    }
    found
}

fn parsed(range: &str) -> Option<Range<usize>> {
    let (start, end) = range.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    Some(number(start)?..number(end)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_file_still_has_is_let_go() {
        let smaps = "00200000-0024d000 r--p 00000000 fe:00 1 /a/b\nRss: 4 kB\nAnonymous:             0 kB\n\
                     0024d000-00357000 r-xp 0004c000 fe:00 1 /a/b\nAnonymous:             0 kB\n\
                     00357000-0035b000 r--p 00155000 fe:00 1 /a/b\nAnonymous:             8 kB\n\
                     0035b000-0035f000 rw-p 00158000 fe:00 1 /a/b\nAnonymous:             0 kB\n\
                     7f0000000000-7f0000001000 r-xp 00000000 00:00 0 [vdso]\nAnonymous:             0 kB\n";
        assert_eq!(untouched(smaps), [0x20_0000..0x24_d000, 0x24_d000..0x35_7000]);
    }

    #[test]
    fn a_program_that_forgot_itself_goes_on() {
        forget_program().unwrap();
        assert_eq!("text".len() + 1, 5);
    }
}
