//! Every query of the dashboards, against a real Prometheus that scraped our page.
#![expect(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::{
    io::Write as _,
    process::{Child, Command, Stdio},
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant, SystemTime},
};

use tritium_probes::{
    ContainerLabels, ContainerSample, Counts, Denial, EngineSample, ErrorCount, NetworkSample,
    PeerTraffic, Rule, Sample, Snapshot, SyscallStats, TraceSnapshot, Uncounted, dashboards,
    export::prometheus_text,
};

fn counts(look: u64) -> Counts {
    Counts {
        received_bytes: 100 * look,
        received_packets: 2 * look,
        sent_bytes: 10 * look,
        sent_packets: look,
        dropped: look,
        opened: look,
        accepted: look,
        retransmits: look,
        rtt_nanos: 1000 * look,
        rtt_zero: 0,
        rtt: vec![(-200, look)],
    }
}

/// A page whose counters grow by each look.
fn page(look: u64) -> String {
    let labels = ContainerLabels {
        id: "c0ffee".into(),
        name: "web".into(),
        image: "busybox".into(),
        tenant: "default".into(),
    };
    let started = SystemTime::now() - Duration::from_secs(60);
    let container = ContainerSample {
        labels: labels.clone(),
        cgroup: 7,
        started,
        cpu_user: Duration::from_millis(100 * look),
        cpu_system: Duration::from_millis(50 * look),
        memory_bytes: 1 << 20,
        memory_limit: Some(1 << 24),
        processes: 3,
        network: vec![NetworkSample {
            interface: "eth0".into(),
            received: 100 * look,
            sent: 10 * look,
        }],
    };
    let read = SyscallStats {
        nr: 0,
        name: "read".into(),
        calls: 11 * look,
        errors: vec![ErrorCount { errno: 11, name: "EAGAIN".into(), count: look }],
        buckets: vec![(-320, 10 * look), (-100, look)],
        zero: 0,
        nanos: 1000 * look,
        in_flight: 1,
        oldest_nanos: 1000,
    };
    let trace = TraceSnapshot {
        cgroup: 7,
        since: started,
        syscalls: vec![read],
        unpaired: look,
        overflowed: 0,
        lost: 0,
    };
    let engine = EngineSample {
        containers: vec![("running".into(), 1)],
        requests: vec![("GET".into(), 200, look)],
        images: 1,
    };
    prometheus_text(&Snapshot {
        at: SystemTime::now(),
        in_force: Arc::new([Rule::Connect]),
        sample: Sample { engine_started: started, engine, containers: vec![container] },
        syscalls: vec![(labels.clone(), trace)],
        denials: vec![Denial { labels: labels.clone(), rule: Rule::Connect, count: look }],
        traffic: vec![PeerTraffic { labels, peer: "db".into(), counts: counts(look) }],
        uncounted: Uncounted::default(),
    })
}

struct Prometheus {
    child: Child,
    directory: std::path::PathBuf,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

impl Prometheus {
    fn start(target: &str, listen: &str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("tritium-prometheus-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let config = format!(
            "global: {{scrape_interval: 1s}}\nscrape_configs: [{{job_name: tritium, static_configs: [{{targets: ['{target}']}}]}}]\n"
        );
        let mut file = std::fs::File::create(directory.join("prometheus.yml")).unwrap();
        file.write_all(config.as_bytes()).unwrap();
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", directory.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", directory.join("data").display()))
            .arg(format!("--web.listen-address={listen}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the Debian package prometheus must be installed");
        Self { child, directory }
    }
}

/// What Prometheus answers; an error says which query it refused.
async fn ask(client: &reqwest::Client, base: &str, expression: &str) -> Option<serde_json::Value> {
    let url = format!("{base}/api/v1/query");
    let text =
        client.get(url).query(&[("query", expression)]).send().await.ok()?.text().await.ok()?;
    // Until it is ready, it answers with a line of text.
    let answer: serde_json::Value = serde_json::from_str(&text).ok()?;
    assert_eq!(answer["status"], "success", "{expression}: {answer}");
    Some(answer["data"]["result"].clone())
}

#[tokio::test]
async fn every_query_of_the_dashboards_has_an_answer() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let looks = Arc::new(AtomicU64::new(0));
    let serve = move || async move { page(looks.fetch_add(1, Ordering::Relaxed) + 1) };
    let router = axum::Router::new().route("/metrics", axum::routing::get(serve));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let listen = free.local_addr().unwrap().to_string();
    drop(free);
    let _prometheus = Prometheus::start(&target, &listen);
    let (client, base) = (reqwest::Client::new(), format!("http://{listen}"));
    let asking = async {
        let deadline = Instant::now() + Duration::from_secs(60);
        // Rates need two scrapes; this page has something for every panel.
        for query in dashboards::queries("30s").unwrap() {
            loop {
                let answer = ask(&client, &base, &query.expression).await;
                if answer.is_some_and(|result| {
                    result.as_array().is_some_and(|series| !series.is_empty())
                }) {
                    break;
                }
                assert!(Instant::now() < deadline, "no data for {query:?}");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    };
    tokio::select! {
        served = axum::serve(listener, router) => panic!("{served:?}"),
        () = asking => {}
    }
}
