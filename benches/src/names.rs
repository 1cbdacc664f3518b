//! Names looked up inside a container on a network of the user's own.

use crate::network::Place;
use anyhow::{Context, Result, ensure};
use std::{
    fs,
    io::{Write, stdout},
    net::{IpAddr, UdpSocket},
    time::{Duration, Instant},
};

/// How many, one after the other.
pub(crate) const MANY: u32 = 1000;

/// Looks up `name` as a process in the container of `pid`, where its
/// `resolv.conf` says; how long all took.
pub(crate) fn looked_up(pid: i32, name: &str) -> Result<Duration> {
    let conf = fs::read_to_string(format!("/proc/{pid}/root/etc/resolv.conf"))?;
    let server = conf.lines().find_map(|line| line.strip_prefix("nameserver "));
    let server = server.context("no name server")?.trim();
    let mut command = Place::container(pid)?.command(std::env::current_exe()?);
    let output = command.args(["look-up", server, name]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cannot look up {name}: {said}");
    Ok(Duration::from_nanos(std::str::from_utf8(&output.stdout)?.trim().parse()?))
}

/// Looks it up, and writes the nanoseconds that it took.
pub(crate) fn look_up(server: IpAddr, name: &str) -> Result<()> {
    let socket = UdpSocket::bind(("0.0.0.0", 0))?;
    socket.connect((server, 53))?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    let question = question(name)?;
    let since = Instant::now();
    for _ in 0..MANY {
        socket.send(&question)?;
        let mut answer = [0; 512];
        let length = socket.recv(&mut answer)?;
        // No error, and one answer.
        ensure!(length > question.len() && answer[3] & 15 == 0 && answer[7] == 1, "no address");
    }
    Ok(writeln!(stdout().lock(), "{}", since.elapsed().as_nanos())?)
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
