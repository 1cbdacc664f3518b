//! One byte to and fro over TCP, as netperf's TCP_RR does it. This very
//! program is run a second time at either end.

use super::place::Place;
use anyhow::{Context, Result, ensure};
use std::{
    io::{Read, Write, stdout},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Instant,
};

/// Questions per run, and those before that warm up.
const QUESTIONS: usize = 4000;
const WARM: usize = 200;

/// The microseconds of each question from `client` to the server, which
/// listens on a port and is reached at `to`.
pub(super) fn run(
    (server, listens): (&Place, u16),
    client: &Place,
    (address, port): (&str, u16),
) -> Result<Vec<f64>> {
    let this = std::env::current_exe()?;
    let mut echo = server.command(&this);
    let _server = server.serve(echo.args(["echo", &listens.to_string()]), listens)?;
    let to = format!("{address}:{port}");
    let output = client.command(&this).args(["ask", &to]).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cannot ask {to}: {said}");
    let times = std::str::from_utf8(&output.stdout)?.lines();
    times.map(|line| Ok(line.parse::<f64>()? / 1000.0)).collect()
}

/// Answers one client.
pub(crate) fn echo(port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    let (mut stream, _) = listener.accept()?;
    stream.set_nodelay(true)?;
    let mut byte = [0];
    while stream.read(&mut byte)? == 1 {
        stream.write_all(&byte)?;
    }
    Ok(())
}

/// Asks, and writes the nanoseconds of each question.
pub(crate) fn ask(to: SocketAddr) -> Result<()> {
    let mut stream = TcpStream::connect(to).with_context(|| format!("cannot reach {to}"))?;
    stream.set_nodelay(true)?;
    let mut times = Vec::with_capacity(WARM + QUESTIONS);
    let mut byte = [0];
    for _ in 0..WARM + QUESTIONS {
        let since = Instant::now();
        stream.write_all(&byte)?;
        stream.read_exact(&mut byte)?;
        times.push(since.elapsed().as_nanos());
    }
    let mut text = String::new();
    for time in times.iter().skip(WARM) {
        text += &format!("{time}\n");
    }
    Ok(stdout().lock().write_all(text.as_bytes())?)
}
