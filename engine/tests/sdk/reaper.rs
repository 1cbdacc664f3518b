//! Stands in for Ryuk, testcontainers' reaper, whose image is Docker Hub's: the same
//! protocol (github.com/testcontainers/moby-ryuk), as little of the rest as is needed.
//!
//! Clients connect to port 8080, send filters a line each, and hear `ACK` for each. When
//! the last of them has gone for a while, all that the filters name is removed by the socket
//! that was mounted here, and the reaper ends.

use std::{
    io::{BufRead, BufReader, Read, Result, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    sync::mpsc,
    thread,
    time::Duration,
};

enum News {
    Filter(String),
    Came,
    Left,
}

fn main() -> Result<()> {
    let patience = std::env::var("RYUK_RECONNECTION_TIMEOUT").unwrap_or_default();
    let patience = Duration::from_secs(patience.trim_end_matches('s').parse().unwrap_or(10));
    let listener = TcpListener::bind("0.0.0.0:8080")?;
    let (sender, news) = mpsc::channel();
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let sender = sender.clone();
            sender.send(News::Came).unwrap();
            thread::spawn(move || {
                // However it ends, the client has gone.
                let _outcome = listen(client, &sender);
                sender.send(News::Left).unwrap();
            });
        }
    });
    println!("Started!");
    let (mut filters, mut clients, mut came) = (Vec::new(), 0, false);
    loop {
        let next = match clients == 0 && came {
            true => news.recv_timeout(patience).ok(),
            false => news.recv().ok(),
        };
        match next {
            Some(News::Filter(filter)) => filters.push(filter),
            Some(News::Came) => (clients, came) = (clients + 1, true),
            Some(News::Left) => clients -= 1,
            None => return filters.iter().try_for_each(|filter| reap(filter)),
        }
    }
}

fn listen(client: TcpStream, sender: &mpsc::Sender<News>) -> Result<()> {
    let mut answers = client.try_clone()?;
    for line in BufReader::new(client).lines() {
        sender.send(News::Filter(line?.trim().to_owned())).unwrap();
        answers.write_all(b"ACK\n")?;
    }
    Ok(())
}

/// `filter`: `label=NAME=VALUE`, more of them after `&`.
fn reap(filter: &str) -> Result<()> {
    let labels: Vec<String> = filter
        .split('&')
        .filter_map(|part| part.strip_prefix("label="))
        .map(|label| format!("%22{}%22", label.replace('=', "%3D")))
        .collect();
    // Without a label everything would go.
    assert!(!labels.is_empty(), "no filter: {filter}");
    let filters = format!("filters=%7B%22label%22%3A%5B{}%5D%7D", labels.join(","));
    for (list, remove) in [
        (format!("/containers/json?all=1&{filters}"), "/containers/ID?force=1&v=1"),
        (format!("/networks?{filters}"), "/networks/ID"),
    ] {
        let answer = ask("GET", &list)?;
        for part in answer.split("\"Id\":\"").skip(1) {
            let id = part.split('"').next().unwrap_or_default();
            ask("DELETE", &remove.replace("ID", id))?;
            println!("removed {id}");
        }
    }
    ask("POST", &format!("/volumes/prune?{filters}"))?;
    ask("POST", &format!("/images/prune?{filters}")).map(drop)
}

fn ask(method: &str, path: &str) -> Result<String> {
    let mut socket = UnixStream::connect("/var/run/docker.sock")?;
    write!(socket, "{method} /v1.44{path} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    assert!(answer.starts_with("HTTP/1.1 2"), "{method} {path}: {answer}");
    Ok(answer)
}
