//! What a case works with: an engine, names of its own there, and the broom.

use crate::{
    description::description,
    host::{Host, Said},
    http::{Head, Open, Request, text},
    shape,
};
use serde_json::{Value, json};
use std::{
    cell::Cell,
    io::Read,
    process::Command,
    time::{Duration, Instant},
};

/// Whatever a case makes is called by `name`, and goes when the case is over.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) host: &'a Host,
    prefix: String,
    /// The engine said of something that it is not built.
    pub(crate) unbuilt: Cell<bool>,
}

/// Head and whole body of an answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn status(&self) -> u16 {
        self.head.status
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("no JSON ({error}): {:?}", text(&self.body)))
    }

    /// The objects of a stream of them.
    pub(crate) fn objects(&self) -> Vec<Value> {
        let stream = serde_json::Deserializer::from_slice(&self.body).into_iter();
        stream.collect::<Result<_, _>>().unwrap()
    }

    pub(crate) fn message(&self) -> String {
        self.json()["message"].as_str().unwrap_or_default().to_owned()
    }

    /// It must have answered that; gives itself back.
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.head.status, status, "it said {:?}", text(&self.body));
        self
    }

    /// It must have refused with that status and those words among others.
    #[track_caller]
    pub(crate) fn refuses(&self, status: u16, words: &str) {
        assert_eq!(self.head.status, status, "it said {:?}", text(&self.body));
        assert!(self.message().contains(words), "{:?} has no {words:?}", self.message());
    }
}

impl<'a> Scene<'a> {
    pub(crate) fn new(host: &'a Host, number: usize) -> Self {
        let prefix = format!("cf{number}x{}", std::process::id());
        Self { host, prefix, unbuilt: Cell::new(false) }
    }

    /// A name that nothing of another case has.
    pub(crate) fn name(&self, part: &str) -> String {
        format!("{}-{part}", self.prefix)
    }

    fn note(&self, said: Said) -> Said {
        if said.err.contains("not built yet") {
            self.unbuilt.set(true);
        }
        said
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.host.command(arguments)
    }

    pub(crate) fn said(&self, arguments: &[&str]) -> Said {
        self.note(self.host.said(arguments))
    }

    /// Runs the CLI; it must succeed. What it printed, without the last newline.
    #[track_caller]
    pub(crate) fn ok(&self, arguments: &[&str]) -> String {
        let said = self.said(arguments);
        assert_eq!(said.code, 0, "docker {arguments:?} said {said:?}");
        said.out.trim_end_matches('\n').to_owned()
    }

    /// Runs the CLI; it must fail with that code. What it complained.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, arguments: &[&str]) -> String {
        let said = self.said(arguments);
        assert_eq!(said.code, code, "docker {arguments:?} said {said:?}");
        said.err
    }

    pub(crate) fn fed(&self, arguments: &[&str], input: &[u8]) -> Said {
        self.note(self.host.fed(arguments, input))
    }

    /// A request of which the answer is read as a stream.
    #[track_caller]
    pub(crate) fn open(&self, request: &Request<'_>) -> Open {
        let open = request.send(&self.host.socket).unwrap_or_else(|error| {
            panic!("{} {}: {error}", request.method, request.path);
        });
        // Of what it has not at all, an engine says 501 and nothing else.
        if open.head.status == 501 {
            self.unbuilt.set(true);
        }
        if let Some(operation) = description().operation(request.method, request.path) {
            let mut asked = self.host.asked.lock().unwrap();
            asked.entry(operation.id.clone()).or_default().push(open.head.status);
        }
        open
    }

    /// A request whose answer is read whole, and held against the description.
    #[track_caller]
    pub(crate) fn send(&self, request: &Request<'_>) -> Answer {
        let mut headers = request.headers.to_vec();
        headers.push(("Connection", "close"));
        let mut open = self.open(&Request { headers: &headers, ..*request });
        let mut body = Vec::new();
        if let Err(error) = open.read_to_end(&mut body) {
            panic!("{} {}: {error} after {:?}", request.method, request.path, text(&body));
        }
        let answer = Answer { head: open.head, body };
        self.hold_against_description(request, &answer);
        answer
    }

    #[track_caller]
    fn hold_against_description(&self, request: &Request<'_>, answer: &Answer) {
        let described = !request.path.starts_with("/v1.") || request.path.starts_with("/v1.51/");
        let operation = description().operation(request.method, request.path);
        if let (true, Some(operation)) = (described && request.method != "HEAD", operation) {
            let wrong = description().complaints(operation, answer.status(), &answer.body);
            let (method, path) = (request.method, request.path);
            assert!(wrong.is_empty(), "{method} {path} is not as described: {wrong:?}");
        }
    }

    /// `METHOD PATH` at the newest version, or as it stands if it starts with `/v` and a number.
    #[track_caller]
    pub(crate) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let path = if path.starts_with("/v1.") { path.to_owned() } else { format!("/v1.51{path}") };
        let body = body.map(Value::to_string).unwrap_or_default();
        let headers: &[(&str, &str)] =
            if body.is_empty() { &[] } else { &[("Content-Type", "application/json")] };
        self.send(&Request { method, path: &path, headers, body: body.as_bytes() })
    }

    #[track_caller]
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, None)
    }

    #[track_caller]
    pub(crate) fn post(&self, path: &str, body: &Value) -> Answer {
        self.ask("POST", path, Some(body))
    }

    /// A POST without a body.
    #[track_caller]
    pub(crate) fn poke(&self, path: &str) -> Answer {
        self.ask("POST", path, None)
    }

    #[track_caller]
    pub(crate) fn delete(&self, path: &str) -> Answer {
        self.ask("DELETE", path, None)
    }

    /// Asks for the connection itself, as the CLI does.
    #[track_caller]
    pub(crate) fn hijack(&self, path: &str, body: Option<&Value>) -> Open {
        let body = body.map(Value::to_string).unwrap_or_default();
        let open = self.open(&Request {
            method: "POST",
            path,
            headers: &[
                ("Content-Type", "application/json"),
                ("Connection", "Upgrade"),
                ("Upgrade", "tcp"),
            ],
            body: body.as_bytes(),
        });
        assert_eq!(open.head.status, 101, "{path} gave no stream: {:?}", open.head);
        open
    }

    /// A stream that an engine opens for a GET.
    #[track_caller]
    pub(crate) fn follow(&self, path: &str) -> Open {
        let open = self.open(&Request { method: "GET", path, headers: &[], body: &[] });
        assert_eq!(open.head.status, 200, "{path} gave no stream: {:?}", open.head);
        open
    }

    /// Creates a container by the API; of busybox, if nothing else is said. Its id.
    #[track_caller]
    pub(crate) fn create(&self, part: &str, mut config: Value) -> String {
        config.as_object_mut().unwrap().entry("Image").or_insert(json!("busybox"));
        let path = format!("/containers/create?name={}", self.name(part));
        let answer = self.post(&path, &config).expect(201);
        answer.json()["Id"].as_str().unwrap().to_owned()
    }

    #[track_caller]
    pub(crate) fn start(&self, id: &str) {
        self.poke(&format!("/containers/{id}/start")).expect(204);
    }

    /// A container that runs that shell script; ends at once when told to.
    #[track_caller]
    pub(crate) fn run(&self, part: &str, script: &str) -> String {
        let config = json!({
            "Cmd": ["sh", "-c", script], "StopSignal": "KILL",
            // As the CLI sends it; without, Docker shows `null` and Tritium `{}`.
            "HostConfig": { "PortBindings": {} },
        });
        let id = self.create(part, config);
        self.start(&id);
        id
    }

    /// One that does nothing until it is stopped.
    #[track_caller]
    pub(crate) fn idle(&self, part: &str) -> String {
        self.run(part, "exec sleep 1000")
    }

    /// Waits for its end; the exit code.
    #[track_caller]
    pub(crate) fn wait(&self, id: &str) -> i64 {
        let answer = self.poke(&format!("/containers/{id}/wait")).expect(200);
        answer.json()["StatusCode"].as_i64().unwrap()
    }

    #[track_caller]
    pub(crate) fn inspect(&self, id: &str) -> Value {
        self.get(&format!("/containers/{id}/json")).expect(200).json()
    }

    /// An image of one small file, called by `name(part)`; its reference.
    #[track_caller]
    pub(crate) fn image(&self, part: &str) -> String {
        let name = self.name(part);
        let path = format!("/v1.51/images/create?fromSrc=-&repo={name}&tag=latest");
        let tar = tar_of(&[("file", name.as_bytes())]);
        let headers: &[(&str, &str)] = &[("Content-Type", "application/x-tar")];
        self.send(&Request { method: "POST", path: &path, headers, body: &tar }).expect(200);
        name
    }

    /// Its fields must be those of Docker's answer, of the same types.
    #[track_caller]
    pub(crate) fn same_shape(&self, name: &str, value: &Value) {
        shape::compare(&self.host.name, name, value);
    }
}

/// A tar with these files.
pub(crate) fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *content).unwrap();
    }
    tar.into_inner().unwrap()
}

/// Waits for a state; never sleeps for a time that somebody guessed.
#[track_caller]
pub(crate) fn wait_for(what: &str, mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !reached() {
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// For a value of a query.
pub(crate) fn encoded(text: &str) -> String {
    use std::fmt::Write as _;
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").unwrap();
        }
        encoded
    })
}

impl Drop for Scene<'_> {
    /// Of what a case made, nothing stays; what it lost of its own accord does not matter.
    fn drop(&mut self) {
        let lines = |arguments: &[&str]| -> Vec<String> {
            let said = self.host.said(arguments);
            let mine = |line: &&str| line.contains(&self.prefix);
            said.out.lines().filter(mine).map(str::to_owned).collect()
        };
        let sweep = |remove: &[&str], found: Vec<String>| {
            if !found.is_empty() {
                let names = found.iter().map(|line| line.split(' ').next().unwrap_or_default());
                let all: Vec<&str> = remove.iter().copied().chain(names).collect();
                self.host.said(&all);
            }
        };
        let all = lines(&["ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}} {{.Image}}"]);
        sweep(&["rm", "-fv"], all);
        sweep(&["network", "rm"], lines(&["network", "ls", "--format", "{{.Name}}"]));
        sweep(&["volume", "rm"], lines(&["volume", "ls", "--format", "{{.Name}}"]));
        sweep(&["rmi", "-f"], lines(&["images", "--format", "{{.Repository}}:{{.Tag}}"]));
    }
}
