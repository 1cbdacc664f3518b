//! Headers as they stand in a packet: read whole, for each read of a packet is a call.

/// Of Ethernet.
#[repr(C)]
pub(crate) struct Ethernet {
    pub(crate) destination: [u8; 6],
    pub(crate) source: [u8; 6],
    pub(crate) kind: [u8; 2],
}

impl Ethernet {
    /// EtherTypes.
    pub(crate) const IPV4: u16 = 0x0800;
    pub(crate) const ARP: u16 = 0x0806;
    pub(crate) const IPV6: u16 = 0x86dd;
}

/// Of IPv4, without options (RFC 791). Addresses are in network order.
#[repr(C)]
pub(crate) struct Ipv4Header {
    first: u8,
    _service: u8,
    _total: [u8; 2],
    _id: [u8; 2],
    pub(crate) fragment: [u8; 2],
    _time: u8,
    pub(crate) protocol: u8,
    _checksum: [u8; 2],
    pub(crate) source: u32,
    pub(crate) destination: u32,
}

const _: () = assert!(size_of::<Ethernet>() == 14 && size_of::<Ipv4Header>() == 20);

impl Ipv4Header {
    /// 4, if it is what it seems.
    #[inline(always)]
    pub(crate) fn version(&self) -> u8 {
        self.first >> 4
    }

    /// With its options, in bytes.
    #[inline(always)]
    pub(crate) fn length(&self) -> usize {
        usize::from(self.first & 15) * 4
    }
}
