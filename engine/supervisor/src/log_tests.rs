//! Expected lines are dockerd 28.5's own.

use super::*;
use std::{fs, io::Read, process::id};

struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tritium-log-{name}-{}", id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn open(&self, max_size: Option<u64>, max_file: Option<u32>) -> JsonLog {
        self.opened(max_size, max_file, false)
    }

    fn opened(&self, max_size: Option<u64>, max_file: Option<u32>, compress: bool) -> JsonLog {
        let path = self.0.join("log");
        JsonLog::open(Log { path, max_size, max_file, compress, attributes: None }).unwrap()
    }

    fn texts(&self, name: &str) -> Vec<String> {
        let mut text = String::new();
        let mut file = File::open(self.0.join(name)).unwrap();
        match name.ends_with(".gz") {
            true => flate2::read::GzDecoder::new(file).read_to_string(&mut text).unwrap(),
            false => file.read_to_string(&mut text).unwrap(),
        };
        let parsed =
            text.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        parsed.map(|value| value["log"].as_str().unwrap().to_owned()).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

#[test]
fn time_is_printed_as_go_prints_it() {
    assert_eq!(rfc3339(Duration::ZERO), "1970-01-01T00:00:00Z");
    assert_eq!(rfc3339(Duration::new(951_782_400, 120_000_000)), "2000-02-29T00:00:00.12Z");
    assert_eq!(rfc3339(Duration::new(1_764_000_000, 1)), "2025-11-24T16:00:00.000000001Z");
    assert_eq!(rfc3339(Duration::new(4_102_444_799, 0)), "2099-12-31T23:59:59Z");
}

#[test]
fn text_is_escaped_as_docker_escapes_it() {
    let mut out = Vec::new();
    escape(&mut out, b"a<b>&\t\"\\ \xe2\x80\xa8 \xff\xc3\xa9\r\x1b\x7f");
    let expected = "a\\u003cb\\u003e\\u0026\\u0009\\\"\\\\ \\u2028 \\ufffdé\\r\\u001b\u{7f}";
    assert_eq!(String::from_utf8(out).unwrap(), expected);
}

#[test]
fn an_object_has_dockers_shape() {
    let then = SystemTime::UNIX_EPOCH + Duration::from_millis(1_500);
    let plain = tail(Stream::Stderr, None, then);
    assert_eq!(plain, "\",\"stream\":\"stderr\",\"time\":\"1970-01-01T00:00:01.5Z\"}\n");
    let told = tail(Stream::Stdout, Some("{\"a\":\"b\"}"), then);
    let expected =
        "\",\"stream\":\"stdout\",\"attrs\":{\"a\":\"b\"},\"time\":\"1970-01-01T00:00:01.5Z\"}\n";
    assert_eq!(told, expected);
}

#[test]
fn lines_come_out_whole_however_they_came_in() {
    let scratch = Scratch::new("lines");
    let mut log = scratch.open(None, None);
    log.record(Stream::Stdout, b"on").unwrap();
    log.record(Stream::Stderr, b"error\n").unwrap();
    log.record(Stream::Stdout, b"e\n\ntwo\nlast").unwrap();
    log.finish(Stream::Stdout).unwrap();
    log.finish(Stream::Stderr).unwrap();
    assert_eq!(scratch.texts("log"), ["error\n", "one\n", "\n", "two\n", "last"]);
}

#[test]
fn a_long_line_becomes_several_objects_and_no_character_is_cut() {
    let scratch = Scratch::new("long");
    let mut log = scratch.open(None, None);
    let line = format!("{}é{}\n", "x".repeat(LONGEST - 1), "y".repeat(10));
    for piece in line.as_bytes().chunks(1_000) {
        log.record(Stream::Stdout, piece).unwrap();
    }
    let texts = scratch.texts("log");
    assert_eq!(texts.len(), 2);
    assert_eq!(texts.concat(), line);
}

#[test]
fn a_full_file_is_rotated_and_only_so_many_are_kept() {
    let scratch = Scratch::new("rotate");
    let mut log = scratch.open(Some(100), Some(3));
    for number in 0..10 {
        log.record(Stream::Stdout, format!("line {number}\n").as_bytes()).unwrap();
    }
    assert_eq!(scratch.texts("log"), ["line 8\n", "line 9\n"]);
    assert_eq!(scratch.texts("log.1"), ["line 6\n", "line 7\n"]);
    assert_eq!(scratch.texts("log.2"), ["line 4\n", "line 5\n"]);
    assert!(!scratch.0.join("log.3").exists());
}

#[test]
fn rotated_files_are_compressed_and_nothing_else_is_left() {
    let scratch = Scratch::new("compress");
    // Begun by one that was killed; files from before compression was asked for.
    for left in ["log.1.gz.tmp", "log.2"] {
        File::create(scratch.0.join(left)).unwrap().write_all(b"old\n").unwrap();
    }
    let mut log = scratch.opened(Some(100), Some(3), true);
    for number in 0..10 {
        log.record(Stream::Stdout, format!("line {number}\n").as_bytes()).unwrap();
    }
    assert_eq!(scratch.texts("log"), ["line 8\n", "line 9\n"]);
    assert_eq!(scratch.texts("log.1.gz"), ["line 6\n", "line 7\n"]);
    assert_eq!(scratch.texts("log.2.gz"), ["line 4\n", "line 5\n"]);
    assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 3);
}

#[test]
fn a_large_file_is_compressed_while_the_next_one_fills() {
    let scratch = Scratch::new("squeeze");
    let mut log = scratch.opened(Some(1 << 20), Some(2), true);
    let line = "x".repeat(1000) + "\n";
    let mut written = 0;
    while !scratch.0.join("log.1.gz").exists() {
        log.record(Stream::Stdout, line.as_bytes()).unwrap();
        written += 1;
        assert!(written < 2000, "it is not done when the next file is full");
    }
    let first = scratch.texts("log.1.gz");
    // Sixteen steps of 64 KiB; done at once, it would be one line more.
    assert!(written > first.len() + 10, "it was done at once: {written}");
    assert!(first.iter().all(|text| *text == line));
    assert!(!scratch.0.join("log.1").exists());
}
