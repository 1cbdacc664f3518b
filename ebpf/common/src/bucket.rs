//! Duration → bucket of OpenTelemetry's exponential histogram of scale 4, in seconds.
//!
//! Bucket `i` spans `2^(i/16)` to `2^((i+1)/16)` seconds, so any value is
//! within 2.2 % of its bucket's middle. The kernel side has neither floats nor a
//! count-leading-zeros instruction: the logarithm is a shift ladder and one
//! table look-up, exact but within 2e-6 of a boundary. A bucket holds its lower bound
//! where OTLP's holds its upper one; that matters only for exact powers of
//! two, which the specification allows.

/// Buckets in a row; see [`index_of_slot`].
pub const SLOTS: usize = 512;

/// OpenTelemetry's scale: 2^4 buckets per power of two.
pub const SCALE: i32 = 4;

/// Slot 0 holds everything shorter than 2^(-383/16) s (62 ns), in seconds: OTLP's zero bucket here.
pub const ZERO_THRESHOLD: f64 = 6.224356784983955e-08;

/// OTLP index of slot 0, had it one.
const FIRST: i32 = -384;

/// Durations are clamped to this many nanoseconds (2.4 hours).
const MAX_NANOS: u64 = 1 << 43;

/// `ceil(2^20 * 2^(k/16))` for k = 0..=16.
const THRESHOLDS: [u32; 17] = [
    1_048_576, 1_095_001, 1_143_481, 1_194_107, 1_246_975, 1_302_183, 1_359_835, 1_420_040,
    1_482_911, 1_548_565, 1_617_126, 1_688_722, 1_763_488, 1_841_564, 1_923_097, 2_008_240,
    2_097_152,
];

/// For each 32nd of an octave, the bucket it begins in (upper 8 bits) and where the next one starts.
const CELLS: [u32; 32] = cells();

const fn cells() -> [u32; 32] {
    let mut cells = [0; 32];
    let (mut cell, mut start) = (0, 1 << 20);
    while cell < cells.len() {
        let (mut bucket, mut number) = (0, 0);
        while THRESHOLDS[bucket + 1] <= start {
            bucket += 1;
            number += 1;
        }
        cells[cell] = number << 24 | THRESHOLDS[bucket + 1];
        cell += 1;
        start += 1 << 15;
    }
    cells
}

/// The slot of a row that counts a duration of `nanos`.
#[inline(always)]
#[must_use]
pub fn slot_of(nanos: u64) -> usize {
    let nanos = if nanos > MAX_NANOS { MAX_NANOS } else { nanos };
    // In units of 2^-50 s, so that powers of two of a second are powers of two here.
    let scaled = nanos * 1_125_900;
    let log = floor_log2(scaled);
    if log < 26 {
        return 0;
    }
    let mantissa = ((scaled >> ((log - 20) & 63)) & 0x1f_ffff) as u32;
    let cell = CELLS[(mantissa >> 15) as usize & 31];
    let sixteenth = (cell >> 24) + u32::from(mantissa >= cell & 0xff_ffff);
    let slot = (16 * (log - 26) + sixteenth) as usize;
    if slot < SLOTS { slot } else { SLOTS - 1 }
}

/// `floor(log2(value))`, and 0 for 0.
#[inline(always)]
fn floor_log2(mut value: u64) -> u32 {
    let mut log = 0;
    let mut step = 32;
    while step > 0 {
        if value >> step != 0 {
            value >>= step;
            log += step;
        }
        step >>= 1;
    }
    log
}

/// OTLP's bucket index of a slot.
///
/// Slot 0 has none: it is the zero bucket.
#[must_use]
pub fn index_of_slot(slot: usize) -> Option<i32> {
    match i32::try_from(slot) {
        Ok(0) | Err(_) => None,
        Ok(slot) => Some(slot + FIRST),
    }
}

#[cfg(test)]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "of numbers the tests chose"
)]
mod tests {
    extern crate std;
    use super::*;

    #[test]
    fn every_duration_is_in_the_bucket_that_its_logarithm_says() {
        let mut nanos: u64 = 63;
        let mut checked = 0;
        while nanos < 200_000_000_000 {
            let exact = (16.0 * (nanos as f64 * 1e-9).log2()).floor() as i32;
            let got = index_of_slot(slot_of(nanos)).unwrap();
            if got != exact {
                let boundary = (f64::from(exact.max(got)) / 16.0).exp2() * 1e9;
                let off = (nanos as f64 - boundary).abs() / boundary;
                std::assert!(off < 2e-6, "{nanos} ns is in {got}, not in {exact}");
            }
            checked += 1;
            nanos += 1 + nanos / 30_011;
        }
        assert!(checked > 300_000);
    }

    #[test]
    fn slots_grow_with_durations_and_stay_in_the_row() {
        let mut last = 0;
        for bits in 0..64 {
            for nanos in [1_u64 << bits, (1_u64 << bits) + (1 << bits >> 1)] {
                let slot = slot_of(nanos);
                assert!(slot >= last && slot < SLOTS, "{nanos}");
                last = slot;
            }
        }
        assert_eq!(slot_of(0), 0);
        assert_eq!(slot_of((ZERO_THRESHOLD * 1e9) as u64), 0);
        assert_eq!(slot_of((ZERO_THRESHOLD * 1e9) as u64 + 1), 1);
        assert_eq!(slot_of(u64::MAX), SLOTS - 1);
    }
}
