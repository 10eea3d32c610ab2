//! The plain walk against the reader that knows everything.

use super::*;

/// What the reader by serde makes of a line, the place of the response included.
fn slowly(line: &[u8]) -> Option<(Option<Row>, Verdict, Option<Range<usize>>)> {
    let parsed = ResultLine::parse(line)?;
    let place = parsed.response.map(|response| {
        let start = response.as_ptr().addr() - line.as_ptr().addr();
        start..start + response.len()
    });
    Some((parsed.row, parsed.verdict(), place))
}

/// Tells whether the plain walk took the line; what it says must be right then.
fn agrees(line: &[u8]) -> bool {
    let Some(judged) = plain(line) else { return false };
    let text = String::from_utf8_lossy(line);
    let (row, verdict, place) = slowly(line).unwrap_or_else(|| panic!("no object: {text}"));
    assert_eq!((judged.row, judged.verdict), (row, verdict), "{text}");
    if let Some(within) = judged.within {
        let found = usize::from(within.before)..line.len() - usize::from(within.after);
        assert_eq!(Some(&found), place.as_ref(), "{text}");
        let response = std::str::from_utf8(&line[found]).expect("it was read as text");
        let whole = super::super::response::Answer::read(response).tokens;
        assert_eq!(super::super::usage::tokens_of(response.as_bytes()), whole, "{text}");
    }
    true
}

const LINES: [&str; 9] = [
    r#"{"key":"7","response":{"candidates":[{"content":{"parts":[{"text":"hi \"there\" ünder \\ 漢"}],"role":"model"},"finishReason":"STOP","index":0}],"usageMetadata":{"promptTokenCount":5,"candidatesTokenCount":"13","totalTokenCount":18},"modelVersion":"m"}}"#,
    r#"{"response":{"usageMetadata":{"totalTokenCount":1},"candidates":[{"finishReason":"MAX_TOKENS","content":{}},{"content":{"parts":[{"text":"b"}]}}]},"key":"20000000"}"#,
    r#"{"response": {"candidates": [{"finishReason": "SAFETY"}]}, "metadata": {"key": "12", "x": [1.5e3, null]}}"#,
    r#"{"response":{"candidates":[{"content":{"parts":[{"text":"t","thought":true},{"text":""}]}}]},"key":"3"}"#,
    r#"{"response":{"candidates":[{"content":{"parts":[{"thoughtSignature":"x"},{"inlineData":{"data":"AAAA"}}]}}]},"key":"3"}"#,
    r#"{"key":"9","response":{"embedding":{"values":[0.1,-2e-7]},"tokenCount":"4"}}"#,
    r#"{"key":"1","error":{"code":13,"message":"again"}}"#,
    r#"{"key":"2","response":{"promptFeedback":{"blockReason":"OTHER"},"usageMetadata":{"promptTokenCount":2}}}"#,
    r#"{"key":"5","response":null,"error":null,"status":{"code":"3"}}"#,
];

#[test]
fn of_metadata_that_stands_twice_the_first_counts() {
    let line = br#"{"metadata":{},"metadata":{"key":"1"},"response":{}}"#;
    let judged = Judged::read(line).expect("an object");
    assert_eq!(judged.row, ResultLine::parse(line).expect("an object").row);
    assert_eq!(judged.row, None);
}

#[test]
fn usual_lines_are_taken_by_the_plain_walk_and_odd_ones_are_not() {
    for (number, line) in LINES.iter().enumerate() {
        assert_eq!(agrees(line.as_bytes()), number < 6, "{line}");
        let (row, verdict, _) = slowly(line.as_bytes()).expect("an object");
        let judged = Judged::read(line.as_bytes()).expect("an object");
        assert_eq!((judged.row, judged.verdict), (row, verdict));
    }
}

#[test]
fn what_stands_around_the_response_is_measured_only_if_it_is_little() {
    let response = r#"{"candidates":[]}"#;
    let line = format!(r#"{{"key":"1","x":"{}","response":{response}}}"#, "x".repeat(300));
    assert_eq!(Judged::read(line.as_bytes()).expect("an object").within, None);
    let line = format!(r#"{{"key":"1","response":{response},"x":"{}"}}"#, "x".repeat(30));
    assert_eq!(Judged::read(line.as_bytes()).expect("an object").within, None);
    let line = format!("{{\"key\":\"1\",\"response\":{response}}}\r");
    let within = Judged::read(line.as_bytes()).expect("an object").within;
    assert_eq!(within, Some(Within { before: 22, after: 2 }));
}

#[test]
fn lines_damaged_in_any_way_mean_the_same_to_both() {
    let rounds = match std::env::var("DAMAGED_LINES") {
        Ok(count) => count.parse().expect("a number of lines"),
        Err(_) => 60_000,
    };
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut taken = 0;
    for round in 0..rounds {
        let mut line = LINES[dice.below(LINES.len())].as_bytes().to_vec();
        for _ in 0..=dice.below(3) {
            damage(&mut line, &mut dice);
        }
        taken += u64::from(agrees(&line));
        assert_eq!(Judged::read(&line).is_some(), slowly(&line).is_some(), "round {round}");
    }
    assert!(taken > rounds / 20, "only {taken} of {rounds} lines were taken");
}

fn damage(line: &mut Vec<u8>, dice: &mut Dice) {
    const BITS: [&[u8]; 22] = [
        b"\"",
        b"\\",
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b" ",
        b"\n",
        b"0",
        b"-",
        b"1e400",
        b"null",
        b"true",
        b"\xff",
        b"\\u0041",
        b"\\ud800",
        b"\"key\":\"8\",",
        b"\"usageMetadata\":{},",
        b"\"finishReason\":\"STOP\",",
        b"\"response\":{},",
    ];
    if line.is_empty() {
        return;
    }
    let at = dice.below(line.len());
    match dice.below(6) {
        0 => line[at] ^= 1 << dice.below(8),
        1 => drop(line.remove(at)),
        2 => {
            let bit = BITS[dice.below(BITS.len())];
            drop(line.splice(at..at, bit.iter().copied()));
        }
        3 => {
            let other = dice.below(line.len());
            line.swap(at, other);
        }
        4 => line.truncate(at),
        _ => {
            let end = (at + dice.below(40)).min(line.len());
            let piece = line[at..end].to_vec();
            let to = dice.below(line.len());
            drop(line.splice(to..to, piece));
        }
    }
}

/// Numbers that look random and are the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}
