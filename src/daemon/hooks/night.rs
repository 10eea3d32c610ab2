//! Whether a night was good: what of a report says that it was not.

use crate::view::report::Report;

/// What went wrong in the time of a report, or still waits for somebody; in words.
pub fn trouble_in(report: &Report) -> Option<String> {
    let some = |count: u64, what: &str| (count > 0).then(|| format!("{count} {what}"));
    let files = &report.files;
    some(report.lines.failed, "lines failed")
        .or_else(|| some(files.refused, "files were refused"))
        .or_else(|| some(report.deadlines.missed, "deadlines were missed"))
        .or_else(|| some(report.attention_total, "jobs wait for a person"))
        .or_else(|| report.trouble.first().cloned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::History;
    use crate::engine::ids::Millis;
    use crate::view::report::Gathering;

    fn report(trouble: &[&str]) -> Report {
        let trouble = trouble.iter().map(|why| (*why).to_owned()).collect();
        Gathering::new(Millis(0), Millis(1000)).finish(&History::default(), None, trouble)
    }

    #[test]
    fn a_night_is_bad_for_what_failed_in_it_and_for_what_still_waits() {
        assert_eq!(trouble_in(&report(&[])), None, "also when nothing ran");
        assert!(trouble_in(&report(&["no room"])).is_some());
        let spoil: [fn(&mut Report); 4] = [
            |report| report.lines.failed = 1,
            |report| report.files.refused = 1,
            |report| report.deadlines.missed = 1,
            |report| report.attention_total = 1,
        ];
        for spoil in spoil {
            let mut bad = report(&[]);
            spoil(&mut bad);
            assert!(trouble_in(&bad).is_some_and(|why| why.starts_with("1 ")), "{bad:?}");
        }
    }
}
