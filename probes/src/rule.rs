//! What the guard refuses: numbers in the kernel, names for people.

use tritium_common::guard::rule;

/// One table: variant, the kernel's number, name in logs and metrics, what it needs to be in
/// force (parts of [`crate::Verdict::need`]), and what it is about.
macro_rules! rules {
    ($($(#[doc = $about:literal])+ $variant:ident = $number:ident, $name:literal, $needs:expr;)+) => {
        /// What the guard refuses.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Rule {
            $($(#[doc = $about])+ $variant,)+
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its name in logs and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            pub(crate) const fn of_number(number: u32) -> Option<Self> {
                match number {
                    $(rule::$number => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// Programs that must all be attached.
            pub(crate) const fn needs(self) -> &'static [&'static str] {
                match self {
                    $(Self::$variant => $needs,)+
                }
            }
        }
    };
}

const WIRE: &[&str] = &["tc program"];

rules! {
    /// connect or sendto towards another tenant's address.
    Connect = CONNECT, "connect", &["connect4", "connect6", "sendmsg4", "sendmsg6"];
    /// A packet to or from another tenant's address that got round the first rule.
    Packet = PACKET, "packet", &["skb egress", "skb ingress"];
    /// A raw or packet socket. The cgroup's program is for raw ones; packet sockets are the
    /// runtime's to refuse where there is no LSM.
    RawSocket = RAW_SOCKET, "raw-socket", &["sock_create"];
    /// A device outside the allow-list.
    Device = DEVICE, "device", &["cgroup device"];
    /// A write to a sysctl.
    Sysctl = SYSCTL, "sysctl", &["cgroup sysctl"];
    /// exec of a denied file, or of one that has no name any more (memfd).
    Exec = EXEC, "exec", &["bprm_check_security"];
    /// ptrace towards another container or the host.
    Ptrace = PTRACE, "ptrace", &["ptrace_access_check"];
    /// A frame from an Ethernet address that is not the interface's.
    SpoofedMac = SPOOFED_MAC, "spoofed-mac", WIRE;
    /// A packet from an address that is not the interface's.
    SpoofedIp = SPOOFED_IP, "spoofed-ip", WIRE;
    /// ARP that claims another's address.
    Arp = ARP, "arp", WIRE;
    /// Neighbour discovery that claims another's address.
    Neighbour = NEIGHBOUR, "neighbour", WIRE;
    /// A router's advertisement or redirect.
    Router = ROUTER, "router", WIRE;
    /// A DHCP server's answer.
    Dhcp = DHCP, "dhcp", WIRE;
    /// A source-routed packet.
    SourceRoute = SOURCE_ROUTE, "source-route", WIRE;
    /// A frame that is neither IPv4, IPv6 nor ARP, has a VLAN tag, or is broken.
    Frame = FRAME, "frame", WIRE;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rule_has_its_number_and_a_name_of_its_own() {
        let named: Vec<Rule> = (0..100).filter_map(Rule::of_number).collect();
        assert_eq!(named, Rule::ALL);
        let names: std::collections::HashSet<_> = Rule::ALL.iter().map(|it| it.name()).collect();
        assert_eq!(names.len(), Rule::ALL.len());
    }
}
