//! The C library's allocator, told to keep little.

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
