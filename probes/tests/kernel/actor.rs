//! What a process inside a container does: this test binary, run again as one act.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket},
    os::fd::AsRawFd as _,
    process::Command,
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::{
        memfd::{MFdFlags, memfd_create},
        ptrace,
        socket::{
            AddressFamily, SockFlag, SockProtocol, SockType, getsockopt, setsockopt, socket,
            sockopt::TcpCongestion,
        },
        stat::lstat,
    },
    unistd,
};

/// Not a test of its own: does what `TRITIUM_TEST_ACT` says, line by line, and prints how it went.
#[test]
fn acts() {
    let Ok(script) = std::env::var("TRITIUM_TEST_ACT") else { return };
    let words: Vec<&str> = script.lines().collect();
    println!("act: {}", act(&words));
}

fn act(words: &[&str]) -> String {
    match words {
        [
            "ask" | "ask-connected" | "ask-by-tcp" | "connect" | "connect-within" | "send" | "raw"
            | "icmp" | "header" | "packet" | "listen" | "send-when-told" | "talk",
            ..,
        ] => network(words),
        ["ppids" | "absent-files" | "sleeps" | "read-for-ever" | "threads", ..] => calls(words),
        ["open", path] => told(File::open(path).map(drop)),
        ["write", path, text] => told(fs::write(path, text)),
        ["child-cgroup", path, count] => {
            fs::create_dir(path).unwrap();
            fs::write(format!("{path}/cgroup.procs"), "0").unwrap();
            act(&["ppids", count])
        }
        ["ptrace", pid] => {
            let pid = unistd::Pid::from_raw(pid.parse().unwrap());
            of_errno(ptrace::seize(pid, ptrace::Options::empty()))
        }
        ["exec", path] => told(Command::new(path).status().map(drop)),
        ["exec-memfd"] => {
            let memory = memfd_create(c"anonymous", MFdFlags::empty()).unwrap();
            let path = format!("/proc/{}/fd/{}", std::process::id(), memory.as_raw_fd());
            fs::copy("/bin/true", &path).unwrap();
            told(Command::new(path).status().map(drop))
        }
        _ => panic!("no such act: {words:?}"),
    }
}

fn network(words: &[&str]) -> String {
    match words {
        ["ask" | "ask-connected" | "ask-by-tcp", ..] => asked(words),
        ["connect", address] => told(TcpStream::connect(address).map(drop)),
        ["connect-within", address] => told(
            TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_millis(400))
                .map(drop),
        ),
        ["send", address] => {
            let any = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(any).unwrap();
            told(socket.send_to(b"hello", address).map(drop))
        }
        ["raw"] => of_errno(
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Udp)
                .map(drop),
        ),
        // Sends a message of that type by a raw socket.
        ["icmp", kind, address] => {
            let address: IpAddr = address.parse().unwrap();
            let mut message = [0; 8];
            message[0] = kind.parse().unwrap();
            let socket = icmp_socket(address);
            told(socket.send_to(&message, &SocketAddr::new(address, 0).into()).map(drop))
        }
        // The same with a header of the sender's own, which says that it carries `protocol`.
        ["header", protocol, fragment] => {
            let address: IpAddr = Ipv4Addr::LOCALHOST.into();
            let mut packet = [0; 28];
            packet[0] = 0x45;
            packet[6] = fragment.parse().unwrap();
            packet[8] = 64;
            packet[9] = protocol.parse().unwrap();
            packet[12..16].copy_from_slice(&[127, 0, 0, 1]);
            packet[16..20].copy_from_slice(&[127, 0, 0, 1]);
            packet[20] = 8;
            let socket = icmp_socket(address);
            socket.set_header_included_v4(true).unwrap();
            told(socket.send_to(&packet, &SocketAddr::new(address, 0).into()).map(drop))
        }
        ["packet"] => of_errno(
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None).map(drop),
        ),
        ["listen", address] => {
            let listener = TcpListener::bind(address).unwrap();
            println!("act: {}", listener.local_addr().unwrap());
            loop {
                drop(listener.accept().unwrap());
            }
        }
        ["send-when-told", address] => {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect(address).unwrap();
            println!("act: ready");
            io::stdin().read_line(&mut String::new()).unwrap();
            told(socket.send(b"hello").map(drop))
        }
        ["talk", address, control] => {
            talk(address.parse().unwrap(), control);
            "ended".into()
        }
        _ => panic!("no such act: {words:?}"),
    }
}

/// Connects with a congestion control, tells which one it became, and says and hears bytes as it
/// is told to.
fn talk(address: SocketAddr, control: &str) {
    let socket =
        socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)
            .unwrap();
    if control != "default" {
        setsockopt(&socket, TcpCongestion, &OsString::from(control)).unwrap();
    }
    socket.connect(&address.into()).unwrap();
    let became = getsockopt(&socket, TcpCongestion).unwrap();
    println!("act: {}", became.to_string_lossy().trim_end_matches('\0'));
    let mut stream = TcpStream::from(socket);
    for line in io::stdin().lines() {
        let done = match line.unwrap().split_once(' ') {
            None => stream.write_all(b"!"),
            Some((_, millis)) => {
                let patience = Duration::from_millis(millis.parse().unwrap());
                stream.set_read_timeout(Some(patience)).unwrap();
                stream.read_exact(&mut [0; 1])
            }
        };
        println!("act: {}", told(done));
    }
}

fn icmp_socket(to: IpAddr) -> socket2::Socket {
    use socket2::{Domain, Protocol, Socket, Type};
    let (domain, protocol) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6),
    };
    Socket::new(domain, Type::RAW, Some(protocol)).unwrap()
}

/// Who answers what.
fn asked(words: &[&str]) -> String {
    let answer = match words {
        ["ask-by-tcp", address] => TcpStream::connect(address).and_then(|mut stream| {
            stream.write_all(b"?")?;
            stream.read_exact(&mut [0; 1])?;
            stream.peer_addr()
        }),
        [way, address] => {
            let any = if address.starts_with('[') { "[::]:0" } else { "0.0.0.0:0" };
            let socket = UdpSocket::bind(any).unwrap();
            socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let sent = if *way == "ask" {
                socket.send_to(b"?", address)
            } else {
                socket.connect(address).and_then(|()| socket.send(b"?"))
            };
            sent.and_then(|_| socket.recv_from(&mut [0; 1])).map(|(_, from)| {
                assert!(*way == "ask" || socket.peer_addr().unwrap() == from);
                from
            })
        }
        _ => panic!("no such act: {words:?}"),
    };
    answer.map_or_else(|error| told(Err(error)), |from| from.to_string())
}

fn calls(words: &[&str]) -> String {
    let times = |count: &str| 0..count.parse::<u32>().unwrap();
    match words {
        ["ppids", count] => times(count).for_each(|_| {
            unistd::getppid();
        }),
        ["absent-files", count] => {
            times(count).for_each(|_| assert!(lstat("/no/such/file").is_err()))
        }
        ["sleeps", count, millis] => {
            let time = Duration::from_millis(millis.parse().unwrap());
            times(count).for_each(|_| std::thread::sleep(time));
        }
        ["read-for-ever"] => {
            let (reader, _writer) = unistd::pipe().unwrap();
            println!("act: reading");
            unistd::read(&reader, &mut [0; 1]).unwrap();
        }
        ["threads", threads, count] => std::thread::scope(|scope| {
            for _ in times(threads) {
                scope.spawn(|| calls(&["ppids", count]));
            }
        }),
        _ => panic!("no such act: {words:?}"),
    }
    "ok".into()
}

fn told(result: io::Result<()>) -> String {
    match result {
        Ok(()) => "ok".into(),
        Err(error) => match error.raw_os_error() {
            Some(number) => format!("{:?}", Errno::from_raw(number)),
            None => format!("{:?}", error.kind()),
        },
    }
}

fn of_errno(result: Result<(), Errno>) -> String {
    told(result.map_err(io::Error::from))
}
