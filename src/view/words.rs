//! Numbers, spans of time and sizes as people read them.

/// A number with a comma before each three digits.
pub fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// So many of something: `1 line`, `3 lines`.
pub fn plural(value: u64, one: &str, many: &str) -> String {
    format!("{} {}", number(value), if value == 1 { one } else { many })
}

/// Seconds as people say them: `35 s`, `12 min`, `2 h 10 min`, `3 d 4 h`.
pub fn span(seconds: u64) -> String {
    let two = |large: u64, unit: &str, small: u64, part: &str| match small {
        0 => format!("{large} {unit}"),
        _ => format!("{large} {unit} {small} {part}"),
    };
    match seconds {
        0..60 => format!("{seconds} s"),
        60..HOUR => format!("{} min", seconds / 60),
        HOUR..DAY => two(seconds / HOUR, "h", seconds % HOUR / 60, "min"),
        DAY.. => two(seconds / DAY, "d", seconds % DAY / HOUR, "h"),
    }
}

/// Bytes as people say them, in powers of ten: `412 bytes`, `1.4 GB`.
pub fn size(bytes: u64) -> String {
    let units = [(1_000_000_000_000, "TB"), (1_000_000_000, "GB"), (1_000_000, "MB"), (1000, "kB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        None => plural(bytes, "byte", "bytes"),
        Some((unit, name)) if bytes / unit >= 100 => format!("{} {name}", bytes / unit),
        Some((unit, name)) => {
            format!("{}.{} {name}", bytes / unit, bytes % unit * 10 / unit)
        }
    }
}

const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;
