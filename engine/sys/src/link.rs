//! Switching a network interface on.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// `IFF_UP | IFF_RUNNING`, in the width that `ifreq` has for flags.
const UP: libc::c_short = 0x41;
const _: () = assert!(UP as libc::c_int == libc::IFF_UP | libc::IFF_RUNNING);

/// Sets `IFF_UP` on the loopback interface of this thread's network namespace.
///
/// # Errors
///
/// Those of socket(2) and of netdevice(7)'s `SIOCSIFFLAGS`.
pub fn loopback_up() -> io::Result<()> {
    // SAFETY: takes three numbers.
    let socket = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us alone.
    let socket = unsafe { OwnedFd::from_raw_fd(socket) };
    let mut request = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: UP },
    };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = from.cast_signed();
    }
    // SAFETY: SIOCSIFFLAGS reads one `ifreq` (name, zero-terminated, and
    // flags, both set above), which outlives the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw mut request) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
