//! Durations and sizes as people write them.

use std::time::Duration;

/// Reads `"5s"`, `"250ms"`, `"2h"`, `"1h30m"`; the text says what is wrong otherwise.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    let mut total_ms: u64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(r#"is empty; write a duration such as "5s", "250ms" or "2h""#.to_owned());
    }
    while !rest.is_empty() {
        let (number, after) = number(rest);
        let unit_len = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_len);
        let unit_ms = DURATIONS.iter().find(|(name, _)| *name == unit).map(|(_, ms)| *ms);
        let (Some(number), Some(unit_ms)) = (number, unit_ms) else {
            return Err(format!(
                r#"is {text:?}, which is no duration; write a number and ms, s, m, h or d, such as "5s""#
            ));
        };
        total_ms = number
            .checked_mul(unit_ms)
            .and_then(|ms| ms.checked_add(total_ms))
            .filter(|ms| *ms <= LONGEST_MS)
            .ok_or_else(|| format!("is {text:?}, which is longer than 100 years"))?;
        rest = after.trim_start();
    }
    Ok(Duration::from_millis(total_ms))
}

/// Reads `"20MB"` (10⁶), `"8MiB"` (2²⁰), `"512"` (bytes); the text says what is wrong otherwise.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let (number, unit) = number(text.trim());
    let factor = SIZES.iter().find(|(name, _)| *name == unit.trim()).map(|(_, bytes)| *bytes);
    let (Some(number), Some(factor)) = (number, factor) else {
        return Err(format!(
            r#"is {text:?}, which is no size; write a whole number and kB, MB, GB (powers of ten) or KiB, MiB, GiB, such as "20MB""#
        ));
    };
    number.checked_mul(factor).ok_or_else(|| format!("is {text:?}, which is too large"))
}

/// A duration in the largest unit that fits evenly, as [`duration`] reads it.
pub fn duration_text(duration: Duration) -> String {
    let ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let fits = |(_, unit): &&(&str, u64)| ms != 0 && ms.is_multiple_of(*unit);
    match DURATIONS.iter().rev().find(fits) {
        Some((name, unit)) => format!("{}{name}", ms / unit),
        None => "0s".to_owned(),
    }
}

/// A size in the largest unit that fits evenly, as [`bytes`] reads it.
pub fn bytes_text(bytes: u64) -> String {
    let fits = |(_, unit): &&(&str, u64)| bytes != 0 && bytes.is_multiple_of(*unit);
    match SIZES.iter().filter(fits).max_by_key(|(_, unit)| *unit) {
        Some((name, unit)) => format!("{}{name}", bytes / unit),
        None => "0B".to_owned(),
    }
}

fn number(text: &str) -> (Option<u64>, &str) {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, rest) = text.split_at(digits);
    (number.parse().ok(), rest)
}

const LONGEST_MS: u64 = 100 * 365 * 86_400_000;

const DURATIONS: &[(&str, u64)] =
    &[("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];

const SIZES: &[(&str, u64)] = &[
    ("", 1),
    ("B", 1),
    ("KB", 1_000),
    ("kB", 1_000),
    ("KiB", 1 << 10),
    ("MB", 1_000_000),
    ("MiB", 1 << 20),
    ("GB", 1_000_000_000),
    ("GiB", 1 << 30),
    ("TB", 1_000_000_000_000),
    ("TiB", 1 << 40),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        for (text, ms) in [
            ("250ms", 250),
            ("5s", 5_000),
            ("2h", 7_200_000),
            ("1h30m", 5_400_000),
            ("7d", 604_800_000),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
    }

    #[test]
    fn a_duration_without_a_unit_is_refused() {
        for text in ["5", "", "s", "5 parsecs", "-5s", "1.5h", "99999999999999999999s", "40000d"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn decimal_and_binary_sizes_differ() {
        assert_eq!(bytes("20MB"), Ok(20_000_000));
        assert_eq!(bytes("8MiB"), Ok(8 * 1024 * 1024));
        assert_eq!(bytes("512"), Ok(512));
        for text in ["", "MB", "2 mb", "1.5GB", "-1B", "99999999999TB"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back_as_the_same() {
        for ms in [0, 1, 250, 5_000, 5_400_000, 604_800_000, 61_001] {
            let span = Duration::from_millis(ms);
            assert_eq!(duration(&duration_text(span)), Ok(span));
        }
        for size in [0, 1, 999, 1_000, 1 << 20, 2_000_000_000, 16 << 20] {
            assert_eq!(bytes(&bytes_text(size)), Ok(size));
        }
        assert_eq!(bytes_text(16 << 20), "16MiB");
        assert_eq!(bytes_text(2_000_000_000), "2GB");
    }
}
