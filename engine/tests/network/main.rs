//! The networks, with real packets, each test on a host of its own. Needs root,
//! `ip` and `nft`.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]
#![expect(unreachable_pub, reason = "the test's own module is no library")]

mod attach;
mod dns;
mod engines;
mod host;
mod macvlan;
mod made;
mod ports;
mod shadow;
