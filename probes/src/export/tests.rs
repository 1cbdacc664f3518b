//! What goes over the wire, against collectors of the test's own.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, UNIX_EPOCH},
};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::{
        ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    metrics::v1::metric::Data,
};
use tokio::sync::mpsc;

use super::*;
use crate::{
    guard::Denial,
    rule::Rule,
    sample::{ContainerLabels, ContainerSample, EngineSample, NetworkSample, Sample},
    trace::{ErrorCount, SyscallStats, TraceSnapshot},
    traffic::{Counts, PeerTraffic, Uncounted},
};

fn labels() -> ContainerLabels {
    ContainerLabels {
        id: "c0ffee".into(),
        name: "we\"b".into(),
        image: "busybox:latest".into(),
        tenant: "default".into(),
    }
}

fn counts() -> Counts {
    Counts {
        received_bytes: 100,
        received_packets: 2,
        sent_bytes: 10,
        sent_packets: 1,
        dropped: 1,
        opened: 1,
        accepted: 1,
        retransmits: 1,
        rtt_nanos: 1000,
        rtt_zero: 0,
        rtt: vec![(-200, 1)],
    }
}

fn snapshot() -> Snapshot {
    let started = UNIX_EPOCH + Duration::from_secs(1000);
    let stats = SyscallStats {
        nr: 0,
        name: "read".into(),
        calls: 6,
        errors: vec![ErrorCount { errno: 11, name: "EAGAIN".into(), count: 2 }],
        // 2^-20 s (954 ns) to 2^-19 s: sixteen buckets from -320 on.
        buckets: vec![(-320, 2), (-305, 3)],
        zero: 1,
        nanos: 7_000,
        in_flight: 1,
        oldest_nanos: 2_000_000_000,
    };
    let trace = TraceSnapshot {
        cgroup: 7,
        since: started,
        syscalls: vec![stats],
        unpaired: 1,
        overflowed: 0,
        lost: 0,
    };
    let container = ContainerSample {
        labels: labels(),
        cgroup: 7,
        started,
        cpu_user: Duration::from_millis(1500),
        cpu_system: Duration::from_millis(500),
        memory_bytes: 4096,
        memory_limit: None,
        processes: 1,
        network: vec![NetworkSample { interface: "eth0".into(), received: 10, sent: 20 }],
    };
    let engine = EngineSample {
        containers: vec![("running".into(), 1)],
        requests: vec![("GET".into(), 200, 5)],
        images: 1,
    };
    Snapshot {
        at: started + Duration::from_secs(60),
        in_force: Arc::new([Rule::Connect]),
        sample: Sample { engine_started: started, engine, containers: vec![container] },
        syscalls: vec![(labels(), trace)],
        denials: vec![Denial { labels: labels(), rule: Rule::Connect, count: 3 }],
        traffic: vec![PeerTraffic { labels: labels(), peer: "db".into(), counts: counts() }],
        uncounted: Uncounted { events: 4, round_trips: 0 },
    }
}

#[test]
fn the_page_has_names_on_each_series_and_buckets_that_add_up() {
    let text = prometheus_text(&snapshot());
    let names = r#"container_id="c0ffee",container_name="we\"b",container_image_name="busybox:latest",tenant="default""#;
    for line in [
        format!("container_uptime_seconds{{{names}}} 60"),
        format!("container_cpu_time_seconds_total{{{names},cpu_mode=\"user\"}} 1.5"),
        format!("container_memory_usage_bytes{{{names}}} 4096"),
        format!("tritium_syscall_errors_total{{{names},syscall_name=\"read\",error_type=\"EAGAIN\"}} 2"),
        format!("tritium_syscall_in_flight_age_seconds{{{names},syscall_name=\"read\"}} 2"),
        format!("tritium_policy_denials_total{{{names},rule=\"connect\"}} 3"),
        format!("tritium_network_io_bytes_total{{{names},peer=\"db\",network_io_direction=\"receive\"}} 100"),
        format!("tritium_network_connections_total{{{names},peer=\"db\",opened_by=\"container\"}} 1"),
        format!("tritium_tcp_rtt_seconds_count{{{names},peer=\"db\"}} 1"),
        "tritium_network_uncounted_total{kind=\"traffic\"} 4".to_owned(),
        "tritium_policy_rules{rule=\"connect\"} 1".to_owned(),
        "tritium_api_requests_total{http_request_method=\"GET\",http_response_status_code=\"200\"} 5".to_owned(),
        "# TYPE tritium_syscall_duration_seconds histogram".to_owned(),
    ] {
        assert!(text.lines().any(|have| have == line), "{line}\n{text}");
    }
    let of = |le: &str| {
        let prefix = format!(
            "tritium_syscall_duration_seconds_bucket{{{names},syscall_name=\"read\",le=\"{le}\"}} "
        );
        text.lines()
            .find_map(|line| line.strip_prefix(&prefix))
            .unwrap_or_else(|| panic!("{le}\n{text}"))
            .to_owned()
    };
    assert_eq!(of("0.00000095367431640625"), "1", "2^-20 s");
    assert_eq!(of("0.0000019073486328125"), "6", "2^-19 s");
    assert_eq!(of("+Inf"), "6");
}

#[test]
fn hostile_names_stay_inside_their_quotes() {
    let mut hostile = snapshot();
    hostile.denials[0].labels.name = "a\"} 1\nevil{x=\"\\".into();
    let text = prometheus_text(&hostile);
    assert!(!text.lines().any(|line| line.starts_with("evil")), "{text}");
}

fn exporter(variables: &[(&str, &str)]) -> Result<Option<Exporter>, BadExport> {
    let variables: HashMap<_, _> = variables.iter().copied().collect();
    Exporter::from_environment("1.2.3", |name| variables.get(name).map(|value| (*value).to_owned()))
}

#[test]
fn the_environment_is_understood_or_refused_by_name() {
    assert_eq!(exporter(&[]), Ok(None));
    let made = exporter(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318/"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc,x=y"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "500"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=other,rack=7"),
    ]);
    let made = made.unwrap().unwrap();
    assert_eq!(
        (made.endpoint.as_str(), made.protocol),
        ("http://localhost:4318/v1/metrics", Protocol::HttpProtobuf)
    );
    assert_eq!(made.headers[0], ("authorization".into(), "Bearer abc".into()));
    assert_eq!(made.interval, Duration::from_millis(500));
    assert!(made.resource.contains(&("service.name".into(), "other".into())));
    assert!(made.resource.contains(&("service.version".into(), "1.2.3".into())));
    for (variable, value) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "0"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "no-equals-sign"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=%zz"),
    ] {
        let refused = exporter(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:4318"),
            (variable, value),
        ]);
        assert_eq!(refused.unwrap_err().variable, variable);
    }
    assert!(exporter(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "localhost:4317")]).is_err());
}

/// What the collectors check of a request.
fn check(request: &ExportMetricsServiceRequest) {
    let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
    let duration = metrics.iter().find(|metric| metric.name == "tritium.syscall.duration").unwrap();
    let Some(Data::ExponentialHistogram(histogram)) = &duration.data else {
        panic!("{duration:?}")
    };
    let point = &histogram.data_points[0];
    let positive = point.positive.as_ref().unwrap();
    assert_eq!((point.scale, point.count, point.zero_count), (4, 6, 1));
    assert_eq!((positive.offset, positive.bucket_counts.len()), (-320, 16));
    assert_eq!(positive.bucket_counts.iter().sum::<u64>() + point.zero_count, point.count);
    assert_eq!(point.start_time_unix_nano, 1_000_000_000_000);
    assert_eq!(point.attributes[0].key, "container.id");
}

#[tokio::test]
async fn a_collector_gets_protobuf_over_http() {
    // The engine does the same at its start.
    drop(rustls::crypto::ring::default_provider().install_default());
    let (tell, mut told) = mpsc::unbounded_channel();
    let collect = move |headers: axum::http::HeaderMap, body: axum::body::Bytes| async move {
        tell.send((headers, body)).unwrap();
    };
    let router = axum::Router::new().route("/v1/metrics", axum::routing::post(collect));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let exporter = exporter(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=7"),
    ]);
    let exporter = exporter.unwrap().unwrap();
    tokio::select! {
        served = axum::serve(listener, router) => panic!("{served:?}"),
        () = exporter.run(|| async { snapshot() }, CancellationToken::new()) => panic!("was not told to stop"),
        received = told.recv() => {
            let (headers, body) = received.unwrap();
            assert_eq!((&headers["content-type"], &headers["x-key"]), (&"application/x-protobuf".parse().unwrap(), &"7".parse().unwrap()));
            check(&ExportMetricsServiceRequest::decode(body).unwrap());
        }
    }
}

struct Collector(mpsc::UnboundedSender<ExportMetricsServiceRequest>);

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, tonic::Status> {
        self.0.send(request.into_inner()).unwrap();
        Ok(tonic::Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tokio::test]
async fn a_collector_gets_the_same_over_grpc_and_the_last_numbers_at_the_end() {
    let (tell, mut told) = mpsc::unbounded_channel();
    let incoming =
        tonic::transport::server::TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let endpoint = format!("http://{}", incoming.local_addr().unwrap());
    let exporter = exporter(&[
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
    ]);
    let exporter = exporter.unwrap().unwrap();
    let server =
        tonic::transport::Server::builder().add_service(MetricsServiceServer::new(Collector(tell)));
    let stop = CancellationToken::new();
    stop.cancel();
    tokio::select! {
        served = server.serve_with_incoming(incoming) => panic!("{served:?}"),
        () = exporter.run(|| async { snapshot() }, stop) => {}
    }
    check(&told.try_recv().unwrap());
}

#[tokio::test]
async fn a_collector_that_is_away_does_not_keep_the_engine_from_stopping() {
    drop(rustls::crypto::ring::default_provider().install_default());
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", nobody.local_addr().unwrap());
    drop(nobody);
    for protocol in ["grpc", "http/protobuf"] {
        let exporter = exporter(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol),
        ]);
        let stop = CancellationToken::new();
        stop.cancel();
        exporter.unwrap().unwrap().run(|| async { snapshot() }, stop).await;
    }
}
