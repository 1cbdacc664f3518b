//! What connects a namespace: where it is plugged in, and how it is taken away.

use super::{Endpoint, Mac, macvlan::Port};
use ipnet::IpNet;
use std::{os::fd::OwnedFd, sync::Arc};

/// An interface that a namespace is to get.
#[derive(Debug)]
pub(super) struct PlugPlan<'a> {
    pub(super) socket: Socket,
    /// What it is called inside.
    pub(super) inside: &'a str,
    pub(super) mac: Mac,
    pub(super) mtu: Option<u32>,
    pub(super) nets: &'a [IpNet],
}

/// Where an interface is plugged in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Socket {
    /// The bridge of this index; isolated from other ports that are.
    Bridge {
        index: u32,
        isolated: bool,
    },
    Macvlan(Port),
}

/// How an interface of a container's is taken away.
#[derive(Debug, Clone)]
pub(super) enum Cable {
    /// By the host's end of the veth, which has this name.
    Host(String),
    /// Where it is, by its index, since it has no other end.
    Inside { netns: Arc<OwnedFd>, index: u32 },
}

impl Cable {
    pub(super) fn of(endpoint: &Endpoint, netns: impl Into<Arc<OwnedFd>>) -> Self {
        match endpoint.index {
            None => Self::Host(endpoint.host_interface.clone()),
            Some(index) => Self::Inside { netns: netns.into(), index },
        }
    }

    /// The same without the namespace. None: it goes with that, and only with that.
    pub(super) fn on_the_host(endpoint: &Endpoint) -> Option<Self> {
        endpoint.index.is_none().then(|| Self::Host(endpoint.host_interface.clone()))
    }

    /// Both names and these indices are unique.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Host(a), Self::Host(b)) => a == b,
            (Self::Inside { index: a, .. }, Self::Inside { index: b, .. }) => a == b,
            _ => false,
        }
    }
}
