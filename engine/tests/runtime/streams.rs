//! Output, input, terminals.

use crate::host::{Host, exec, new_id, quiet, text_of, within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tritium_engine::{
    runtime::{ExecStdio, Streams},
    spec::Config,
};

#[tokio::test]
async fn input_comes_back_as_output_and_ends_when_it_is_closed() {
    let host = Host::new().await;
    let (id, quiet) = (new_id(), quiet());
    let config = Config { open_stdin: true, ..Config::default() };
    let prepared = host.runtime.prepare(id, &quiet).await.unwrap();
    let running = prepared.launch(host.job_with(id, &["cat"], &quiet, config)).await.unwrap();
    let mut output = running.attach(Streams { stdout: true, stderr: false }).await.unwrap();
    let mut input = running.stdin().unwrap();
    let sent = vec![b'x'; 1 << 20];
    let reader = async {
        let mut bytes = Vec::new();
        output.read_to_end(&mut bytes).await.unwrap();
        bytes
    };
    let writer = async {
        input.write_all(&sent).await.unwrap();
        drop(input);
        running.close_stdin().await;
    };
    let (bytes, ()) = within(async { tokio::join!(reader, writer) }).await;
    assert_eq!(text_of(&bytes).len(), 1 << 20);
    assert_eq!(within(running.exited()).await.code, 0);
    assert!(running.stdin().is_none());
    host.done(id).await;
}

#[tokio::test]
async fn a_terminal_has_a_size_that_can_change() {
    let host = Host::new().await;
    let (id, running) = host.launch(&["sleep", "1000"]).await;
    assert!(running.resize(1, 1).is_err(), "it has no terminal");
    let job = tritium_engine::runtime::ExecJob {
        terminal: true,
        stdin: true,
        size: Some((24, 80)),
        ..exec(&["sh", "-c", "stty size; read x; stty size"])
    };
    let mut beside = running.exec(job).await.unwrap();
    let ExecStdio::Terminal { mut input, mut output } = beside.take_stdio() else {
        panic!("no terminal")
    };
    let mut seen = Vec::new();
    let mut chunk = [0; 256];
    while !seen.ends_with(b"24 80\r\n") {
        let count = within(output.read(&mut chunk)).await.unwrap();
        seen.extend(&chunk[..count]);
    }
    beside.resize(40, 100).unwrap();
    input.write_all(b"\n").await.unwrap();
    // A terminal whose last user has gone answers EIO.
    while let Ok(count) = within(output.read(&mut chunk)).await {
        seen.extend(&chunk[..count]);
    }
    assert!(String::from_utf8_lossy(&seen).contains("40 100"), "{seen:?}");
    assert_eq!(within(beside.exited()).await.code, 0);
    running.signal(9).unwrap();
    within(running.exited()).await;
    host.done(id).await;
}
