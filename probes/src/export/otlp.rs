//! A snapshot as OTLP's protobuf. By hand: OpenTelemetry's SDK takes no
//! histogram that was aggregated elsewhere.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::{
    collector::metrics::v1::ExportMetricsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value},
    metrics::v1::{
        AggregationTemporality, ExponentialHistogram, ExponentialHistogramDataPoint, Gauge,
        Metric as OtlpMetric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
        exponential_histogram_data_point::Buckets, metric::Data, number_data_point,
    },
    resource::v1::Resource,
};
use tritium_common::bucket;

use crate::{
    metrics::{Family, Kind, Point, Value, families},
    sample::Snapshot,
};

const CUMULATIVE: i32 = AggregationTemporality::Cumulative as i32;

/// The snapshot as one request; `resource` says who is speaking.
pub(crate) fn request(
    snapshot: &Snapshot,
    resource: &[(String, String)],
) -> ExportMetricsServiceRequest {
    let metrics =
        families(snapshot).into_iter().map(|family| metric(family, snapshot.at)).collect();
    let scope = InstrumentationScope {
        name: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let attributes = resource.iter().map(|(key, value)| attribute(key, value.clone())).collect();
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_metrics: vec![ScopeMetrics {
                scope: Some(scope),
                metrics,
                schema_url: String::new(),
            }],
            schema_url: String::new(),
        }],
    }
}

fn metric(family: Family, now: SystemTime) -> OtlpMetric {
    let Family { metric, points } = family;
    let numbers = || points.iter().filter_map(|point| number(point, now)).collect();
    let data = match metric.kind {
        Kind::Gauge => Data::Gauge(Gauge { data_points: numbers() }),
        Kind::Counter => Data::Sum(Sum {
            data_points: numbers(),
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
        }),
        Kind::Histogram => Data::ExponentialHistogram(ExponentialHistogram {
            data_points: points.iter().filter_map(|point| histogram(point, now)).collect(),
            aggregation_temporality: CUMULATIVE,
        }),
    };
    OtlpMetric {
        name: metric.name.to_owned(),
        description: metric.help.to_owned(),
        unit: metric.unit.to_owned(),
        metadata: Vec::new(),
        data: Some(data),
    }
}

fn number(point: &Point, now: SystemTime) -> Option<NumberDataPoint> {
    let value = match &point.value {
        Value::Count(count) => {
            number_data_point::Value::AsInt(i64::try_from(*count).unwrap_or(i64::MAX))
        }
        Value::Seconds(time) => number_data_point::Value::AsDouble(time.as_secs_f64()),
        Value::Durations { .. } => return None,
    };
    Some(NumberDataPoint {
        attributes: attributes(point),
        start_time_unix_nano: point.since.map_or(0, unix_nanos),
        time_unix_nano: unix_nanos(now),
        value: Some(value),
        ..NumberDataPoint::default()
    })
}

fn histogram(point: &Point, now: SystemTime) -> Option<ExponentialHistogramDataPoint> {
    let Value::Durations { zero, buckets, sum } = &point.value else { return None };
    let positive = buckets.first().zip(buckets.last()).map(|((first, _), (last, _))| {
        let mut bucket_counts = vec![0; usize::try_from(last - first + 1).unwrap_or(0)];
        for (index, count) in buckets {
            if let Some(slot) =
                usize::try_from(index - first).ok().and_then(|at| bucket_counts.get_mut(at))
            {
                *slot = *count;
            }
        }
        Buckets { offset: *first, bucket_counts }
    });
    Some(ExponentialHistogramDataPoint {
        attributes: attributes(point),
        start_time_unix_nano: point.since.map_or(0, unix_nanos),
        time_unix_nano: unix_nanos(now),
        count: zero + buckets.iter().map(|(_, count)| count).sum::<u64>(),
        sum: Some(sum.as_secs_f64()),
        scale: bucket::SCALE,
        zero_count: *zero,
        zero_threshold: bucket::ZERO_THRESHOLD,
        positive,
        ..ExponentialHistogramDataPoint::default()
    })
}

fn attributes(point: &Point) -> Vec<KeyValue> {
    point.labels.iter().map(|(key, value)| attribute(key, value.clone())).collect()
}

fn attribute(key: &str, value: String) -> KeyValue {
    let value = AnyValue { value: Some(any_value::Value::StringValue(value)) };
    KeyValue { key: key.to_owned(), value: Some(value), ..KeyValue::default() }
}

fn unix_nanos(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
