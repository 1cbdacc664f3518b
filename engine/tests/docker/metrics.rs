//! The numbers on their way out: `tritium syscalls`, Prometheus, the dashboard.

use crate::engine::{Engine, wait_for};
use std::process::{Child, Command, Stdio};
use tritium_probes::dashboards;

#[test]
fn a_containers_system_calls_are_counted_exactly() {
    let engine = Engine::start();
    engine.ok(&["run", "-d", "--name", "quiet", "busybox", "sleep", "1000"]);
    engine.ok(&[
        "run", "-d", "--name", "tt", "--label", "tritium.trace=syscalls", "busybox", "sh", "-c",
        "while [ ! -e /go ]; do sleep 0.05; done; i=0; while [ $i -lt 500 ]; do : < /etc/passwd; i=$((i+1)); done; cat /nope 2>/dev/null; sleep 1000",
    ]);
    let row = |name: &str| {
        let said = engine.tritium(&["syscalls", "tt"]);
        assert_eq!(said.code, 0, "{said:?}");
        said.out
            .lines()
            .find(|line| line.split_whitespace().next() == Some(name))
            .map(str::to_owned)
    };
    engine.ok(&["exec", "tt", "touch", "/go"]);
    wait_for("the last sleep", || engine.ok(&["top", "tt"]).contains("sleep 1000"));
    let opens = row("open").or_else(|| row("openat")).unwrap();
    let calls: u64 = opens.split_whitespace().nth(1).unwrap().parse().unwrap();
    assert!(calls >= 500, "{opens}");
    let top = engine.tritium(&["top"]);
    assert_eq!(top.code, 0, "{top:?}");
}

/// Prometheus in the engine's own network namespace; ended when dropped.
struct Prometheus(Child);

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn every_query_of_the_dashboard_is_answered_by_a_prometheus_that_scraped_the_engine() {
    let engine = Engine::with(&["--metrics", "127.0.0.1:9323", "--address-pool", "10.208.0.0/16"]);
    engine.ok(&[
        "run", "-d", "--name", "tt", "--label", "tritium.trace=syscalls", "busybox", "sh", "-c",
        "while :; do cat /nope 2>/dev/null; arping -c 1 -I lo 127.0.0.1 2>/dev/null; sleep 0.05; done",
    ]);
    let directory = engine.dir.join("prometheus");
    std::fs::create_dir(&directory).unwrap();
    let config = "global: {scrape_interval: 1s}\nscrape_configs: [{job_name: tritium, static_configs: [{targets: ['127.0.0.1:9323']}]}]\n";
    std::fs::write(directory.join("prometheus.yml"), config).unwrap();
    let net = format!("--net=/proc/{}/ns/net", engine.pid());
    let child = Command::new("nsenter")
        .args([net.as_str(), "prometheus"])
        .arg(format!("--config.file={}", directory.join("prometheus.yml").display()))
        .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
        .arg("--web.listen-address=127.0.0.1:9090")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let _prometheus = Prometheus(child);
    for query in dashboards::queries("30s").unwrap() {
        let expression = format!("query={}", query.expression);
        let ask = || {
            let said = engine.on_host(&[
                "curl",
                "-s",
                "--data-urlencode",
                &expression,
                "http://127.0.0.1:9090/api/v1/query",
            ]);
            let answer: serde_json::Value = serde_json::from_str(&said.out).ok()?;
            assert_eq!(answer["status"], "success", "{query:?}: {answer}");
            Some(answer["data"]["result"].as_array()?.len())
        };
        wait_for(&format!("an answer to {query:?}"), || {
            ask().is_some_and(|series| series > 0 || query.may_be_empty)
        });
    }
}
