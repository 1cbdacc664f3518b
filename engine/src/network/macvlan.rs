//! Networks of driver `macvlan`: containers are on the Ethernet of one of the
//! host's interfaces, their *parent*, with addresses of their own.
//!
//! Such an interface has one end only, which is the container's. The parent is
//! the user's, but for two kinds that the engine makes and removes: a VLAN of
//! an interface (`eth0.50`), and a dummy, which leads nowhere, for a network
//! whose user names no parent. The engine's alias tells them from the user's.

use super::{
    Error, Mac,
    definition::Definition,
    link::{CREATE, Rtnl, link, upped},
};
use netlink_packet_route::{
    RouteNetlinkMessage as Message,
    link::{
        InfoData, InfoKind, InfoMacVlan, InfoVlan, LinkAttribute, LinkInfo, LinkMessage,
        MacVlanMode,
    },
};
use nix::libc;
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Options of networks, as Docker's users spell them.
const PARENT: &str = "parent";
const MODE: &str = "macvlan_mode";

/// A network's idea of its macvlans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Macvlan {
    pub(super) parent: Parent,
    pub(super) mode: MacVlanMode,
}

/// The interface of the host's by which containers are on an Ethernet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Parent {
    /// The user's, or a VLAN of it.
    Named(String),
    /// The engine's own, with nothing behind it.
    Dummy(String),
}

/// An interface that a namespace is to get.
#[derive(Debug, Clone, Copy)]
pub(super) struct Port {
    /// Index of the parent.
    pub(super) parent: u32,
    pub(super) mode: MacVlanMode,
    /// Index of the interface itself, see [`Endpoint::index`](super::Endpoint::index).
    pub(super) index: u32,
    /// Whether its frames are judged inside before they leave.
    pub(super) fenced: bool,
}

impl Parent {
    pub(super) fn name(&self) -> &str {
        match self {
            Self::Named(name) | Self::Dummy(name) => name,
        }
    }

    pub(super) fn is_dummy(&self) -> bool {
        matches!(self, Self::Dummy(_))
    }
}

impl Macvlan {
    /// # Errors
    /// Docker's words for what makes no sense.
    pub(super) fn of(definition: &Definition) -> Result<Self, Error> {
        let given = |key| definition.options.get(key).map(String::as_str).unwrap_or_default();
        let mode = match given(MODE) {
            "" | "bridge" => MacVlanMode::Bridge,
            "private" => MacVlanMode::Private,
            "vepa" => MacVlanMode::Vepa,
            "passthru" => MacVlanMode::Passthrough,
            other => {
                return Err(Error::Option(format!(
                    "requested macvlan mode '{other}' is not valid, 'bridge' mode is the macvlan \
                     driver default"
                )));
            }
        };
        let parent = match given(PARENT) {
            "lo" => {
                let said = "loopback interface is not a valid macvlan parent link";
                return Err(Error::Option(said.into()));
            }
            "" => Parent::Dummy(format!("dm-{}", definition.id.short())),
            name => Parent::Named(name.to_owned()),
        };
        Ok(Self { parent, mode })
    }

    /// Whether both cannot be on one parent, in Docker's words.
    pub(super) fn check_beside(&self, other: &Definition, its: &Self) -> Result<(), Error> {
        let (id, parent) = (other.id, self.parent.name());
        let said = if parent != its.parent.name() {
            return Ok(());
        } else if self.mode == MacVlanMode::Passthrough {
            format!(
                "cannot use mode passthru, macvlan network {id} is already using parent interface \
                 {parent}"
            )
        } else if its.mode == MacVlanMode::Passthrough {
            format!(
                "macvlan network {id} is already using parent interface {parent} in mode passthru"
            )
        } else {
            return Ok(());
        };
        Err(Error::ParentInUse(said))
    }

    /// Makes the parent if it is not there, and is one that is made.
    ///
    /// # Errors
    /// There is no such interface, or the kernel refuses; then there is nothing of it.
    pub(super) fn make_parent(&self, rtnl: &mut Rtnl, alias: &str) -> Result<(), Error> {
        let name = self.parent.name();
        let refused = |error| Error::kernel(format!("make the interface {name}"), error);
        if !rtnl.knows(InfoKind::MacVlan).map_err(refused)? {
            return Err(Error::NoKind { kind: "macvlan", option: "CONFIG_MACVLAN" });
        }
        if rtnl.find(name).map_err(refused)?.is_some() {
            return Ok(());
        }
        let (info, missing, of) = match &self.parent {
            Parent::Dummy(_) => {
                let missing = Error::NoKind { kind: "dummy", option: "CONFIG_DUMMY" };
                (vec![LinkInfo::Kind(InfoKind::Dummy)], missing, None)
            }
            Parent::Named(name) => {
                let (of, id) = vlan(name)?;
                let of = rtnl.find(of).map_err(refused)?.ok_or_else(|| {
                    Error::Option(format!("-o parent interface was not found on the host: {of}"))
                })?;
                let id = LinkInfo::Data(InfoData::Vlan(vec![InfoVlan::Id(id)]));
                let missing = Error::NoKind { kind: "VLAN", option: "CONFIG_VLAN_8021Q" };
                (vec![LinkInfo::Kind(InfoKind::Vlan), id], missing, Some(of.index))
            }
        };
        match rtnl.add_parent(name, alias, info, of) {
            Err(error) if is_unknown(&error) => Err(missing),
            made => made.map_err(refused),
        }
    }
}

/// The interface and the VLAN of it that a name says, in Docker's words.
fn vlan(name: &str) -> Result<(&str, u16), Error> {
    let wrong = |said: String| Err(Error::Option(said));
    let Some((of, id)) = name.split_once('.') else {
        return wrong(format!(
            "invalid subinterface vlan name {name}, example formatting is eth0.10"
        ));
    };
    if id.contains('.') {
        return wrong(format!(
            "required interface name format is: name.vlan_id, ex. eth0.10 for vlan 10, instead \
             received {name}"
        ));
    }
    match id.parse::<i64>() {
        // IEEE 802.1Q keeps 0 and 4095 for itself.
        Ok(number @ 1..=4094) => Ok((of, u16::try_from(number).unwrap_or_default())),
        Ok(number) => wrong(format!("vlan id must be between 1-4094, received: {number}")),
        Err(_) => {
            wrong(format!("unable to parse a valid vlan id from: {id} (ex. eth0.10 for vlan 10)"))
        }
    }
}

/// The kernel knows no such kind of interface, nor has a module that does.
fn is_unknown(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EOPNOTSUPP)
}

impl Rtnl {
    /// Whether the kernel can make interfaces of a kind that needs a parent:
    /// asked without one, it refuses for that reason.
    fn knows(&mut self, kind: InfoKind) -> io::Result<bool> {
        let orphan = link(0, vec![LinkAttribute::LinkInfo(vec![LinkInfo::Kind(kind)])]);
        match self.ask(vec![(Message::NewLink(orphan), CREATE)]) {
            Err(error) if is_unknown(&error) => Ok(false),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(true),
            Err(error) => Err(error),
            Ok(_) => Err(io::Error::other("an interface without a parent was made")),
        }
    }

    fn add_parent(
        &mut self,
        name: &str,
        alias: &str,
        info: Vec<LinkInfo>,
        of: Option<u32>,
    ) -> io::Result<()> {
        let mut attributes =
            vec![LinkAttribute::IfName(name.into()), LinkAttribute::LinkInfo(info)];
        attributes.extend(of.map(LinkAttribute::Link));
        self.ask(vec![(Message::NewLink(link(0, attributes)), CREATE)])?;
        let named =
            [LinkAttribute::IfName(name.into()), LinkAttribute::IfAlias(alias.into())].to_vec();
        let finished = self.ask(vec![(Message::SetLink(upped(link(0, named))), 0)]);
        finished.map(drop).inspect_err(|_| {
            // What matters is why it could not be finished.
            drop(self.delete(name));
        })
    }

    /// Makes a macvlan, down, in `netns`.
    pub(super) fn add_macvlan(
        &mut self,
        port: Port,
        (inside, mac, mtu): (&str, Mac, Option<u32>),
        netns: BorrowedFd<'_>,
    ) -> io::Result<()> {
        let mode = InfoMacVlan::Mode(port.mode);
        let mut attributes = vec![
            LinkAttribute::IfName(inside.into()),
            LinkAttribute::Link(port.parent),
            LinkAttribute::NetNsFd(netns.as_raw_fd()),
            LinkAttribute::Address(mac.0.to_vec()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::MacVlan),
                LinkInfo::Data(InfoData::MacVlan(vec![mode])),
            ]),
        ];
        attributes.extend(mtu.map(LinkAttribute::Mtu));
        let new: LinkMessage = link(port.index, attributes);
        self.ask(vec![(Message::NewLink(new), CREATE)]).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        ids::{NetworkId, TenantName},
        network::{Driver, names::Names},
    };

    fn definition(options: &[(&str, &str)]) -> Definition {
        let options = options.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let names = Names::new("t0").unwrap();
        let operator = TenantName::operator();
        let nameless = names.nameless(&operator, "lan", Driver::Macvlan, 0);
        Definition { id: NetworkId::of([7; 32]), options: options.collect(), ..nameless }
    }

    fn refused(options: &[(&str, &str)]) -> String {
        Macvlan::of(&definition(options)).unwrap_err().to_string()
    }

    #[test]
    fn options_mean_what_they_mean_to_docker() {
        let plain = Macvlan::of(&definition(&[])).unwrap();
        let dummy = Parent::Dummy("dm-070707070707".into());
        assert_eq!(plain, Macvlan { parent: dummy, mode: MacVlanMode::Bridge });
        let there = Macvlan::of(&definition(&[(PARENT, "eth0"), (MODE, "vepa")])).unwrap();
        let named = Parent::Named("eth0".into());
        assert_eq!(there, Macvlan { parent: named, mode: MacVlanMode::Vepa });
        assert_eq!(
            refused(&[(MODE, "fast")]),
            "requested macvlan mode 'fast' is not valid, 'bridge' mode is the macvlan driver \
             default"
        );
        refused(&[(PARENT, "lo")]);
    }

    #[test]
    fn a_parent_that_passes_all_through_is_one_networks_only() {
        let of = |options| (definition(options), Macvlan::of(&definition(options)).unwrap());
        let (bridged, passed, elsewhere) = (
            of(&[(PARENT, "eth0")]),
            of(&[(PARENT, "eth0"), (MODE, "passthru")]),
            of(&[(PARENT, "eth1"), (MODE, "passthru")]),
        );
        bridged.1.check_beside(&bridged.0, &bridged.1).unwrap();
        bridged.1.check_beside(&elsewhere.0, &elsewhere.1).unwrap();
        let said = passed.1.check_beside(&bridged.0, &bridged.1).unwrap_err().to_string();
        assert!(said.starts_with("cannot use mode passthru, macvlan network 0707"), "{said}");
        let said = bridged.1.check_beside(&passed.0, &passed.1).unwrap_err().to_string();
        assert!(said.ends_with("is already using parent interface eth0 in mode passthru"));
    }

    #[test]
    fn a_vlan_is_read_from_its_interfaces_name() {
        assert_eq!(vlan("eth0.50").unwrap(), ("eth0", 50));
        for (name, words) in [
            ("eth0", "invalid subinterface vlan name eth0, example formatting is eth0.10"),
            ("eth0.0", "vlan id must be between 1-4094, received: 0"),
            ("eth0.4095", "vlan id must be between 1-4094, received: 4095"),
            ("eth0.x", "unable to parse a valid vlan id from: x (ex. eth0.10 for vlan 10)"),
        ] {
            assert_eq!(vlan(name).unwrap_err().to_string(), words);
        }
        vlan("eth0.1.2").unwrap_err();
    }
}
