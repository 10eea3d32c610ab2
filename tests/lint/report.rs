use gemini_batchd::lint::report::{Report, Sample};

use crate::{FLASH, check, request};

#[test]
fn very_many_lines_with_one_mistake_are_one_entry() {
    let findings = check(&request(r#""temperature": 1"#));
    let mut report = Report::default();
    for line in 1..=50_000 {
        report.note(line, if line == 2 { &[] } else { &findings });
    }
    let entries: Vec<_> = report.entries().collect();
    assert_eq!((entries.len(), entries[0].lines, entries[0].mendable), (1, 49_999, 49_999));
    assert_eq!(entries[0].on_lines(), "lines 1, 3, 4, 5, 6 and 49994 more");
    assert_eq!((report.with_errors(), report.with_warnings()), (49_999, 0));
}

#[test]
fn a_finding_twice_on_a_line_counts_once_and_errors_come_first() {
    let line = r#"{"request": {"contents": [{"parts": [{}, {}]}], "topK": 2}}"#;
    let mut report = Report::default();
    report.note(7, &check(line));
    let entries: Vec<_> = report.entries().map(|it| (it.place.as_str(), it.lines)).collect();
    assert_eq!(entries, [("request.topK", 1), ("request.contents[].parts[]", 1)]);
    assert_eq!((report.with_errors(), report.with_warnings()), (1, 0));
}

#[test]
fn findings_in_very_many_places_are_counted_and_not_kept() {
    let mut report = Report::default();
    for line in 1..=500 {
        report.note(line, &check(&request(&format!("\"no{line}\": 1"))));
    }
    let kept = report.entries().count() as u64;
    assert!(kept < 100);
    assert_eq!(kept + report.more(), 500);
    let warnings = report.warnings(500);
    assert!(warnings.len() < 20 && warnings.iter().all(|text| text.chars().count() <= 600));
    assert!(warnings.last().expect("some").starts_with(&format!("{} more", 500 - 12)));
}

#[test]
fn of_a_large_file_lines_are_looked_at_all_over_it() {
    let good = request("");
    let bad = request(r#""temperature": 1"#);
    let mut sample = Sample::of(FLASH);
    let lines = 100_000;
    for number in 1..=lines {
        // The second half has the mistake.
        let line = if number > lines / 2 { &bad } else { &good };
        sample.show(number, line.as_bytes());
    }
    let report = sample.report();
    assert!(report.lines() > 200 && report.lines() < lines / 50, "{}", report.lines());
    let entry = report.entries().next().expect("found");
    assert!(entry.first_line() > lines / 2 && entry.first_line() < lines / 2 + 2500);
    let warning = report.warnings(lines).remove(0);
    assert!(warning.contains(&format!("(of {} looked at)", report.lines())), "{warning}");
}

#[test]
fn of_a_small_file_all_lines_are_looked_at() {
    let mut sample = Sample::of(FLASH);
    for number in 1..=200 {
        sample.show(number, request("").as_bytes());
    }
    assert_eq!(sample.report().lines(), 200);
}
