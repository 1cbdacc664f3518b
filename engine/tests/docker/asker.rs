//! What a program inside a container asks: this test binary, run again in its control group and
//! its network namespace.

use std::{
    fs,
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    path::PathBuf,
    process::{Command, Stdio},
    time::Duration,
};

/// Not a test of its own: asks as `TRITIUM_TEST_ASK` says, and prints who answered what.
#[test]
fn asks() {
    let Ok(order) = std::env::var("TRITIUM_TEST_ASK") else { return };
    let [way, address, question] = order.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let (address, question) = (address.parse().unwrap(), bytes(question));
    match way {
        "datagram" => tell(by_datagram(address, &question).unwrap()),
        "connected" => {
            let socket = socket(address);
            socket.connect(address).unwrap();
            loop {
                socket.send(&question).unwrap();
                let (answer, from) = received(&socket).unwrap();
                assert_eq!(socket.peer_addr().unwrap(), from);
                tell((answer, from));
                // Once more for each line.
                if io::stdin().read_line(&mut String::new()).unwrap() == 0 {
                    return;
                }
            }
        }
        "stream" => tell(by_stream(address, &question).unwrap()),
        _ => panic!("nobody asks so: {way}"),
    }
}

fn socket(address: SocketAddr) -> UdpSocket {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    socket
}

fn received(socket: &UdpSocket) -> io::Result<(Vec<u8>, SocketAddr)> {
    let mut answer = vec![0; 4096];
    let (length, from) = socket.recv_from(&mut answer)?;
    answer.truncate(length);
    Ok((answer, from))
}

/// As musl does: by a socket that anybody may answer.
fn by_datagram(address: SocketAddr, question: &[u8]) -> io::Result<(Vec<u8>, SocketAddr)> {
    let socket = socket(address);
    socket.send_to(question, address)?;
    received(&socket)
}

fn by_stream(address: SocketAddr, question: &[u8]) -> io::Result<(Vec<u8>, SocketAddr)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let length = u16::try_from(question.len()).unwrap().to_be_bytes();
    stream.write_all(&[&length, question].concat())?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    Ok((answer, stream.peer_addr()?))
}

fn tell((answer, from): (Vec<u8>, SocketAddr)) {
    println!("asked: {from} {}", digits(&answer));
}

/// A program that asks, where the process `pid` is.
pub(crate) fn asker(pid: &str, (way, address): (&str, &str), question: &[u8]) -> Command {
    let script = r#"echo $$ >"$1/cgroup.procs" && shift && exec nsenter "$@""#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(group_of(pid));
    command.arg(format!("--net=/proc/{pid}/ns/net")).arg(std::env::current_exe().unwrap());
    command.args(["--exact", "asker::asks", "--nocapture", "--test-threads=1"]);
    command.env("TRITIUM_TEST_ASK", format!("{way} {address} {}", digits(question)));
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    command
}

/// Asks, and answers who answered what.
pub(crate) fn ask(pid: &str, how: (&str, &str), question: &[u8]) -> (Vec<u8>, SocketAddr) {
    let output = asker(pid, how, question).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().find_map(told).unwrap_or_else(|| panic!("nobody answered: {output:?}"))
}

/// What one line of the program's says.
pub(crate) fn told(line: &str) -> Option<(Vec<u8>, SocketAddr)> {
    let (from, answer) = line.split_once("asked: ")?.1.split_once(' ')?;
    Some((bytes(answer), from.parse().unwrap()))
}

/// The directory of its control group in the tree of version 2.
fn group_of(pid: &str) -> PathBuf {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    let tree = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2")).unwrap();
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
    PathBuf::from(tree.split(' ').nth(1).unwrap()).join(group)
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(digits: &str) -> Vec<u8> {
    let pair = |at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
    (0..digits.len()).step_by(2).map(pair).collect()
}
