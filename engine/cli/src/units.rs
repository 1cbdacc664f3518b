//! Numbers for people.

/// Nanoseconds with three digits that count: `870ns`, `12.3µs`, `1.20s`.
pub(crate) fn duration(nanos: u64) -> String {
    let (unit, size) = match nanos {
        0..1_000 => return format!("{nanos}ns"),
        1_000..1_000_000 => ("µs", 1e3),
        1_000_000..1_000_000_000 => ("ms", 1e6),
        _ => ("s", 1e9),
    };
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let value = nanos as f64 / size;
    three_digits(value, unit)
}

/// Bytes with three digits that count, in powers of ten as Docker has them: `870B`, `12.3kB`.
pub(crate) fn bytes(count: u64) -> String {
    let (unit, size) = match count {
        0..1_000 => return format!("{count}B"),
        1_000..1_000_000 => ("kB", 1e3),
        1_000_000..1_000_000_000 => ("MB", 1e6),
        1_000_000_000..1_000_000_000_000 => ("GB", 1e9),
        _ => ("TB", 1e12),
    };
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let value = count as f64 / size;
    three_digits(value, unit)
}

fn three_digits(value: f64, unit: &str) -> String {
    if value < 9.995 {
        format!("{value:.2}{unit}")
    } else if value < 99.95 {
        format!("{value:.1}{unit}")
    } else {
        format!("{value:.0}{unit}")
    }
}

/// `count` in `nanos`, as how many in a second.
pub(crate) fn rate(count: u64, nanos: u64) -> String {
    if count == 0 {
        return "0".into();
    }
    if nanos == 0 {
        return "-".into();
    }
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let rate = count as f64 * 1e9 / nanos as f64;
    if rate < 0.01 { "<0.01".into() } else { three_digits(rate, "") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_three_digits_and_a_unit() {
        for (nanos, said) in [
            (0, "0ns"),
            (999, "999ns"),
            (1_234, "1.23µs"),
            (12_345, "12.3µs"),
            (123_456, "123µs"),
            (1_500_000, "1.50ms"),
            (62_000_000_000, "62.0s"),
        ] {
            assert_eq!(duration(nanos), said);
        }
    }

    #[test]
    fn bytes_have_three_digits_and_a_unit() {
        for (count, said) in [
            (0, "0B"),
            (999, "999B"),
            (1_500, "1.50kB"),
            (20_000_000, "20.0MB"),
            (3 << 40, "3.30TB"),
        ] {
            assert_eq!(bytes(count), said);
        }
    }

    #[test]
    fn rates_are_per_second() {
        assert_eq!(rate(0, 0), "0");
        assert_eq!(rate(3, 0), "-");
        assert_eq!(rate(10, 2_000_000_000), "5.00");
        assert_eq!(rate(1, 1_000_000_000_000), "<0.01");
    }
}
