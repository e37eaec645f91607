//! What an event of the benchmark carries: its number and when it was sent, at fixed places, so
//! that reading it costs no allocation. The rest of its size is filled up.

use rustix::time::{ClockId, clock_gettime};
use std::io::Write as _;

/// Digits of a number.
const NUMBER: usize = 10;
/// Digits of a time.
const TIME: usize = 20;
/// Bytes of the smallest payload: number, space, time.
pub const SIZE_MIN: usize = NUMBER + 1 + TIME;

/// Nanoseconds of the machine's monotonic clock: the same for all processes.
#[must_use]
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let part = |part: i64| u64::try_from(part).unwrap_or_default();
    part(time.tv_sec) * 1_000_000_000 + part(time.tv_nsec)
}

/// Appends a payload of `size` bytes, at least [`SIZE_MIN`].
pub fn write(out: &mut Vec<u8>, number: u64, sent: u64, size: usize) {
    let end = out.len() + size;
    // Writing to a Vec cannot fail.
    let _infallible = write!(out, "{number:0NUMBER$} {sent:0TIME$}");
    out.resize(end, b'x');
}

/// The number and the time of a payload; it may be cut after [`SIZE_MIN`] bytes.
#[must_use]
pub fn read(data: &[u8]) -> Option<(u64, u64)> {
    let (number, rest) = data.split_at_checked(NUMBER)?;
    let (time, _) = rest.strip_prefix(b" ")?.split_at_checked(TIME)?;
    Some((decimal(number)?, decimal(time)?))
}

/// A number in decimal digits.
#[must_use]
pub fn decimal(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0_u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let mut out = b"before".to_vec();
        write(&mut out, 42, 1_795_277_751_465, 128);
        assert_eq!(out.len(), 6 + 128);
        assert_eq!(read(&out[6..]), Some((42, 1_795_277_751_465)));
        assert_eq!(read(&out[6..6 + SIZE_MIN]), Some((42, 1_795_277_751_465)));
        for damaged in [&out[6..6 + SIZE_MIN - 1], &out[5..], b""] {
            assert_eq!(read(damaged), None, "{damaged:?}");
        }
    }
}
