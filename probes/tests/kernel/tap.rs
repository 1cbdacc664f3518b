//! A packet socket on one interface of the calling thread's network namespace.

use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::sys::{
    socket::{
        AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, bind, recv, sendto,
        setsockopt, socket, sockopt::ReceiveTimeout,
    },
    time::{TimeVal, TimeValLike as _},
};

/// Sends and receives whole frames.
pub(crate) struct Tap {
    socket: OwnedFd,
    address: LinkAddr,
}

impl Tap {
    /// On the interface of that name.
    pub(crate) fn on(name: &str) -> Self {
        let interfaces = nix::ifaddrs::getifaddrs().unwrap();
        let mut of_that_name = interfaces.filter(|it| it.interface_name == name);
        let address = of_that_name.find_map(|it| it.address?.as_link_addr().copied()).unwrap();
        let (raw, close) = (SockType::Raw, SockFlag::SOCK_CLOEXEC);
        let socket = socket(AddressFamily::Packet, raw, close, SockProtocol::EthAll).unwrap();
        bind(socket.as_raw_fd(), &address).unwrap();
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(20)).unwrap();
        Self { socket, address }
    }

    /// Sends a frame as it is.
    pub(crate) fn send(&self, frame: &[u8]) {
        assert_eq!(self.try_send(frame).unwrap(), frame.len());
    }

    /// The same where it may be dropped on the way out.
    pub(crate) fn try_send(&self, frame: &[u8]) -> nix::Result<usize> {
        sendto(self.socket.as_raw_fd(), frame, &self.address, MsgFlags::empty())
    }

    /// The next frame; its own count as well. Waits for twenty seconds at most.
    pub(crate) fn receive(&self) -> Vec<u8> {
        let mut frame = vec![0; 2048];
        let length = recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::empty()).unwrap();
        frame.truncate(length);
        frame
    }

    /// The frames that are there already.
    pub(crate) fn waiting(&self) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        let mut frame = vec![0; 2048];
        while let Ok(length) = recv(self.socket.as_raw_fd(), &mut frame, MsgFlags::MSG_DONTWAIT) {
            all.push(frame.iter().take(length).copied().collect());
        }
        all
    }
}
