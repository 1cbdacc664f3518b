//! What a process inside a container does: this test binary, run again as one act.

use std::{
    fs::{self, File},
    io,
    net::{TcpStream, UdpSocket},
    time::Duration,
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket},
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
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::empty(), SockProtocol::Icmp)
                .map(drop),
        ),
        ["packet"] => of_errno(
            socket(AddressFamily::Packet, SockType::Raw, SockFlag::empty(), None).map(drop),
        ),
        ["open", path] => told(File::open(path).map(drop)),
        ["write", path, text] => told(fs::write(path, text)),
        ["ppids", count] => {
            for _ in 0..count.parse::<u32>().unwrap() {
                unistd::getppid();
            }
            "ok".into()
        }
        ["absent-files", count] => {
            for _ in 0..count.parse::<u32>().unwrap() {
                assert!(nix::sys::stat::lstat("/no/such/file").is_err());
            }
            "ok".into()
        }
        ["sleeps", count, millis] => {
            for _ in 0..count.parse::<u32>().unwrap() {
                std::thread::sleep(Duration::from_millis(millis.parse().unwrap()));
            }
            "ok".into()
        }
        ["read-for-ever"] => {
            let (reader, _writer) = unistd::pipe().unwrap();
            println!("act: reading");
            unistd::read(&reader, &mut [0; 1])
                .map_or_else(|errno| errno.to_string(), |_| "ok".into())
        }
        ["listen", address] => {
            let listener = std::net::TcpListener::bind(address).unwrap();
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
        ["child-cgroup", path, count] => {
            fs::create_dir(path).unwrap();
            fs::write(format!("{path}/cgroup.procs"), "0").unwrap();
            act(&["ppids", count])
        }
        ["threads", threads, count] => {
            std::thread::scope(|scope| {
                for _ in 0..threads.parse::<u32>().unwrap() {
                    scope.spawn(|| act(&["ppids", count]));
                }
            });
            "ok".into()
        }
        ["ptrace", pid] => {
            let pid = unistd::Pid::from_raw(pid.parse().unwrap());
            of_errno(nix::sys::ptrace::seize(pid, nix::sys::ptrace::Options::empty()))
        }
        ["exec", path] => told(std::process::Command::new(path).status().map(drop)),
        ["exec-memfd"] => {
            let name = c"anonymous";
            let memory =
                nix::sys::memfd::memfd_create(name, nix::sys::memfd::MFdFlags::empty()).unwrap();
            fs::copy(
                "/bin/true",
                format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&memory)),
            )
            .unwrap();
            let path = format!(
                "/proc/{}/fd/{}",
                std::process::id(),
                std::os::fd::AsRawFd::as_raw_fd(&memory)
            );
            told(std::process::Command::new(path).status().map(drop))
        }
        _ => panic!("no such act: {words:?}"),
    }
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
