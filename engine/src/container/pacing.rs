//! Does a container pace its TCP connections only because the host does?
//!
//! Namespaces have the first one's congestion control when they are made. Where that is BBR, the
//! operator chose it for the wire; between containers it costs half the throughput, so the guard
//! leaves it off there. Who names one for a container (`--sysctl`) has it everywhere.

use crate::spec::HostConfig;
use std::fs;

const CONGESTION_CONTROL: &str = "net.ipv4.tcp_congestion_control";

pub(super) fn is_only_the_hosts(host: &HostConfig) -> bool {
    let chosen = host.sysctls.as_ref().is_some_and(|all| all.contains_key(CONGESTION_CONTROL));
    // Without the file there is no TCP, either.
    let hosts = || fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control");
    !chosen && hosts().is_ok_and(|name| name.starts_with("bbr"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_chosen_for_a_container_stays() {
        let host = |json: &str| serde_json::from_str::<HostConfig>(json).unwrap();
        let chosen = format!(r#"{{"Sysctls":{{"{CONGESTION_CONTROL}":"bbr"}}}}"#);
        assert!(!is_only_the_hosts(&host(&chosen)));
        let hosts = fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap();
        let paced = hosts.starts_with("bbr");
        assert_eq!(is_only_the_hosts(&host("{}")), paced);
        assert_eq!(is_only_the_hosts(&host(r#"{"Sysctls":{"net.core.somaxconn":"9"}}"#)), paced);
    }
}
