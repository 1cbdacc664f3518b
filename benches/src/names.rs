//! Names looked up inside a container on a network of the user's own.

use anyhow::{Context, Result, ensure};
use nix::sched::{CloneFlags, setns};
use std::{
    fs::{self, File},
    net::{IpAddr, UdpSocket},
    thread,
    time::{Duration, Instant},
};

/// How many, one after the other.
pub(crate) const MANY: u32 = 1000;

/// Looks up `name` in the network namespace of a process, where its
/// `resolv.conf` says; how long all took.
pub(crate) fn look_up(pid: i32, name: &str) -> Result<Duration> {
    let conf = fs::read_to_string(format!("/proc/{pid}/root/etc/resolv.conf"))?;
    let server = conf.lines().find_map(|line| line.strip_prefix("nameserver "));
    let server: IpAddr = server.context("no name server")?.trim().parse()?;
    let netns = File::open(format!("/proc/{pid}/ns/net"))?;
    let question = question(name)?;
    let ask = move || -> Result<Duration> {
        setns(&netns, CloneFlags::CLONE_NEWNET)?;
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        socket.connect((server, 53))?;
        socket.set_read_timeout(Some(Duration::from_secs(10)))?;
        let since = Instant::now();
        for _ in 0..MANY {
            socket.send(&question)?;
            let mut answer = [0; 512];
            let length = socket.recv(&mut answer)?;
            // No error, and one answer.
            ensure!(length > question.len() && answer[3] & 15 == 0 && answer[7] == 1, "no address");
        }
        Ok(since.elapsed())
    };
    let asked = thread::spawn(ask).join();
    asked.map_err(|_| anyhow::anyhow!("whoever asked has panicked"))?
}

/// One question for an IPv4 address (RFC 1035, 4.1).
fn question(name: &str) -> Result<Vec<u8>> {
    let mut bytes = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        bytes.push(u8::try_from(label.len())?);
        bytes.extend(label.as_bytes());
    }
    bytes.extend([0, 0, 1, 0, 1]);
    Ok(bytes)
}
