//! Tests of the module above.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use proptest::prelude::*;
use ruzstd::encoding::{CompressionLevel, compress_to_vec};
use serde_json::{Value, json};

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).expect("packed");
    encoder.finish().expect("packed")
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    compress_to_vec(bytes, CompressionLevel::Fastest)
}

fn rules(conversion: &Conversion) -> Rules<'_> {
    Rules { conversion, task: Task::Generate, line_bytes_max: 100_000 }
}

fn converted_with(input: &[u8], name: &str, rules: Rules<'_>) -> io::Result<Vec<u8>> {
    let mut made = Vec::new();
    open(input, name, rules)?.read_to_end(&mut made)?;
    Ok(made)
}

fn converted(input: &[u8], name: &str) -> io::Result<Vec<u8>> {
    converted_with(input, name, rules(&Conversion::default()))
}

/// The refusal of an input.
fn refused(input: &[u8], name: &str, conversion: &Conversion) -> Refusal {
    let error = converted_with(input, name, rules(conversion)).expect_err(name);
    refusal_of(&error).unwrap_or_else(|| panic!("{name}: {error}")).clone()
}

/// Each line with its number: key and text, or the reason of a fault.
fn rows(made: &[u8]) -> Vec<(usize, String, String)> {
    let text = std::str::from_utf8(made).expect("text");
    let lines = (1..).zip(text.split('\n')).filter(|(_, line)| !line.is_empty());
    lines
        .map(|(number, line)| {
            let value: Value = serde_json::from_str(line).expect(line);
            let key = value["key"].as_str().unwrap_or_default().to_owned();
            let said = match value["request"]["contents"][0]["parts"][0]["text"].as_str() {
                Some(text) => text.to_owned(),
                None => value["gemini-batchd:fault"]["reason"].to_string(),
            };
            (number, key, said)
        })
        .collect()
}

fn row(number: usize, key: &str, text: &str) -> (usize, String, String) {
    (number, key.to_owned(), text.to_owned())
}

#[test]
fn a_text_becomes_a_request_for_each_line() {
    let text = b"\xef\xbb\xbfone\r\n\r\n  \ntwo \"quoted\"\n\xff\n\xe2\x80\x83\nnul\0\nlast";
    let expected = [
        row(1, "line-1", "one"),
        row(4, "line-4", "two \"quoted\""),
        row(5, "", "\"invalid_utf8\""),
        row(6, "", "\"invalid_request\""),
        row(7, "", "\"invalid_request\""),
        row(8, "line-8", "last"),
    ];
    assert_eq!(rows(&converted(text, "a.txt").expect("converted")), expected);
    let long = "x".repeat(100_001);
    let made = converted(format!("a\n{long}\nb").as_bytes(), "a.txt").expect("converted");
    assert_eq!(
        rows(&made),
        [row(1, "line-1", "a"), row(2, "", "\"line_too_long\""), row(3, "line-3", "b")]
    );
}

#[test]
fn a_table_becomes_a_request_for_each_record_on_the_line_it_begins_on() {
    let table = "ID,Prompt,x\n7,one,\n\n8,\"two,\ntwo\",y\n,three,\n9,,z\n10,four\n";
    let expected = [
        row(2, "7", "one"),
        row(4, "8", "two,\ntwo"),
        row(6, "line-6", "three"),
        row(7, "9", "\"invalid_request\""),
        row(8, "", "\"invalid_request\""),
    ];
    assert_eq!(rows(&converted(table.as_bytes(), "a.csv").expect("converted")), expected);
    let returns = table.replace('\n', "\r\n");
    let made = rows(&converted(returns.as_bytes(), "a.CSV").expect("converted"));
    assert_eq!(made[1], row(4, "8", "two,\r\ntwo"));
    assert_eq!(made.len(), expected.len());
}

#[test]
fn a_template_puts_the_fields_in_their_places() {
    let conversion = Conversion {
        template: Some("From {{from}} to {{ TO }}: \"{{text}}\"".to_owned()),
        key_column: Some("text".to_owned()),
        csv_delimiter: Some(';'),
        ..Conversion::default()
    };
    let table = b"from;to;text;id\nde;en;Hund;1\n\xff;en;a;2\n;;;3\n";
    let made = converted_with(table, "a.csv", rules(&conversion)).expect("converted");
    let expected = [
        row(2, "Hund", "From de to en: \"Hund\""),
        row(3, "a", "\"invalid_utf8\""),
        row(4, "", "\"invalid_request\""),
    ];
    assert_eq!(rows(&made), expected);
    let conversion =
        Conversion { template: Some("Say {{line}}!".to_owned()), ..Conversion::default() };
    let made = converted_with(b"a\nb", "a.txt", rules(&conversion)).expect("converted");
    assert_eq!(rows(&made), [row(1, "line-1", "Say a!"), row(2, "line-2", "Say b!")]);
}

#[test]
fn an_embed_queue_gets_requests_to_embed() {
    let conversion = Conversion::default();
    let rules = Rules { task: Task::Embed, ..rules(&conversion) };
    let made = converted_with(b"one\n", "a.txt", rules).expect("converted");
    let value: Value = serde_json::from_slice(&made).expect("JSON");
    let expected = json!({"key": "line-1", "request": {"content": {"parts": [{"text": "one"}]}}});
    assert_eq!(value, expected);
}

#[test]
fn a_table_without_the_columns_it_needs_is_refused_with_those_it_has() {
    let with = |template: Option<&str>, key: Option<&str>| Conversion {
        template: template.map(str::to_owned),
        key_column: key.map(str::to_owned),
        ..Conversion::default()
    };
    for (table, conversion, reason, words) in [
        ("a,b\n1,2\n", with(None, None), "unknown_column", "\"prompt\" for the prompts"),
        ("a,b\n1,2\n", with(Some("{{c}}"), None), "unknown_column", "but \"a\", \"b\""),
        ("prompt\n1\n", with(None, Some("id")), "unknown_column", "set as key_column"),
        ("a,A\n1,2\n", with(Some("{{A}}"), Some("a")), "", ""),
        ("a,a\n1,2\n", with(Some("{{a}}"), None), "repeated_column", "two columns"),
        ("a,b\n1,2\n", with(Some("{{a"), None), "invalid_template", "never closed"),
        ("", with(None, None), "empty", "names of the columns"),
        ("\n\r\n", with(None, None), "empty", "names of the columns"),
        ("\u{fffe}", with(None, None), "unknown_column", "no column"),
        ("prompt\n\"x", with(None, None), "open_quote", "never closed"),
    ] {
        if reason.is_empty() {
            converted_with(table.as_bytes(), "a.csv", rules(&conversion)).expect("exact names");
            continue;
        }
        let refusal = refused(table.as_bytes(), "a.csv", &conversion);
        assert_eq!(refusal.reason, reason, "{table:?}: {refusal:?}");
        assert!(refusal.message.contains(words), "{refusal:?}");
    }
    let refusal = refused(b"a", "a.txt", &with(Some("{{text}}"), None));
    assert_eq!(refusal.reason, "unknown_column");
    let refusal = refused(b"\xff\xfea\0", "a.csv", &with(None, None));
    assert_eq!(refusal.reason, "utf16");
}

#[test]
fn blank_lines_without_end_are_numbered_in_constant_memory() {
    let blanks = 40 << 20;
    for (name, begin, end) in [("a.txt", "first\n", "last"), ("a.csv", "prompt\nfirst\n", "last\n")]
    {
        let input = begin.as_bytes().chain(io::repeat(b'\n').take(blanks)).chain(end.as_bytes());
        let conversion = Conversion::default();
        let mut lines = open(input, name, rules(&conversion)).expect("opened");
        let (mut block, mut breaks, mut last) = (vec![0; 1 << 16], 0, Vec::new());
        loop {
            let count = lines.read(&mut block).expect("read");
            if count == 0 {
                break;
            }
            breaks += memchr::memchr_iter(b'\n', &block[..count]).count() as u64;
            last = block[..count].to_vec();
        }
        let expected = blanks + begin.lines().count() as u64 + 1;
        assert_eq!(breaks, expected, "{name}");
        let key = format!("line-{expected}");
        assert!(String::from_utf8_lossy(&last).contains(&key), "{name}");
    }
}

#[test]
fn what_is_packed_comes_out_as_it_was_in_one_piece_or_several() {
    let text = requests_text(300_000);
    for (name, pack) in PACKERS {
        for parts in [1, 2, 5] {
            let size = text.len().div_ceil(parts);
            let packed: Vec<u8> = text.chunks(size).flat_map(pack).collect();
            assert!(converted(&packed, name).expect(name) == text, "{name} in {parts}");
        }
        assert_eq!(converted(&pack(b""), name).expect(name), b"");
    }
    // As other programs write them: a frame to be skipped, one with a checksum, one without.
    let frames = b"\x50\x2a\x4d\x18\x03\0\0\0abc\
        \x28\xb5\x2f\xfd\x04\x58\x41\0\0one\ntwo\n\xe6\xa6\x0e\x40\
        \x28\xb5\x2f\xfd\0\x58\x31\0\0three\n";
    assert_eq!(converted(frames, "a.jsonl.zst").expect("converted"), b"one\ntwo\nthree\n");
    let member = b"\x1f\x8b\x08\0\0\0\0\0\x02\x03\x4b\xcb\x2f\x2d\xe2\x02\0\
        \x74\xca\xf3\x1c\x05\0\0\0";
    assert_eq!(converted(member, "a.jsonl.gz").expect("converted"), b"four\n");
    let made = converted(&gzip(b"prompt\none\n"), "a.csv.gz").expect("converted");
    assert_eq!(rows(&made), [row(2, "line-2", "one")]);
    let made = converted(&zstd(b"one\n"), "a.txt.zst").expect("converted");
    assert_eq!(rows(&made), [row(1, "line-1", "one")]);
}

#[test]
fn what_is_cut_off_is_refused_wherever_it_is_cut() {
    let text = requests_text(1500);
    for (name, pack) in PACKERS {
        let mut packed = pack(&text);
        let first = packed.len();
        packed.extend(pack(b"more"));
        for cut in 0..packed.len() {
            if cut == first {
                continue;
            }
            let refusal = refused(&packed[..cut], name, &Conversion::default());
            let expected = if cut == 0 { "empty" } else { "damaged" };
            assert_eq!(refusal.reason, expected, "{name} cut at {cut}: {refusal:?}");
            if cut > 8 {
                let place = format!("after byte {cut}, the last");
                assert!(refusal.message.contains(&place), "{name} at {cut}: {refusal:?}");
            }
        }
    }
}

#[test]
fn what_is_damaged_is_refused_or_comes_out_as_it_was() {
    let text = requests_text(800);
    for (name, pack) in PACKERS {
        let packed = pack(&text);
        for place in 0..packed.len() {
            for bit in [0, 3, 7] {
                let mut damaged = packed.clone();
                damaged[place] ^= 1 << bit;
                match converted(&damaged, name) {
                    // Such as the time in the head of a gzip file.
                    Ok(made) => assert!(made == text, "{name}: bit {bit} of byte {place}"),
                    Err(error) => assert!(refusal_of(&error).is_some(), "{name}: {error}"),
                }
            }
        }
        let mut trailed = packed.clone();
        trailed.extend_from_slice(b"rubbish");
        assert_eq!(refused(&trailed, name, &Conversion::default()).reason, "damaged");
        let refusal = refused(b"{\"contents\": []}\n", name, &Conversion::default());
        assert!(refusal.message.contains("its content does not"), "{refusal:?}");
    }
}

/// Fault 73.
#[test]
fn a_bomb_is_refused_before_it_goes_off() {
    let conversion = Conversion { unpacked_bytes: 100_000, ..Conversion::default() };
    for (name, pack) in PACKERS {
        let refusal = refused(&pack(&vec![b'\n'; 100_001]), name, &conversion);
        assert_eq!(refusal.reason, "unpacked_too_large", "{name}");
        assert!(converted_with(&pack(&vec![b'\n'; 100_000]), name, rules(&conversion)).is_ok());
    }
    let bomb = gzip(&vec![b'\n'; 30 << 20]);
    let conversion = Conversion { unpacked_ratio: 500, ..Conversion::default() };
    let mut chain = open(&bomb[..], "a.jsonl.gz", rules(&conversion)).expect("opened");
    let mut out = Counted(0);
    let error = io::copy(&mut chain, &mut out).expect_err("refused");
    let refusal = refusal_of(&error).expect("a refusal");
    assert!(refusal.message.contains("500 times"), "{refusal:?}");
    assert!(out.0 < 17 << 20, "{} bytes came out first", out.0);
}

#[test]
fn an_error_of_the_disk_is_no_fault_of_the_input() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::from_raw_os_error(5))
        }
    }
    let text = requests_text(600_000);
    for (name, begin) in [
        ("a.jsonl.gz", gzip(&text)),
        ("a.jsonl.zst", zstd(&text)),
        ("a.txt", b"one\ntwo".to_vec()),
        ("a.csv", b"prompt\none\n".to_vec()),
    ] {
        let half = &begin[..begin.len() / 2];
        let conversion = Conversion::default();
        let read = open(half.chain(Broken), name, rules(&conversion))
            .and_then(|mut chain| io::copy(&mut chain, &mut io::sink()));
        let error = read.expect_err(name);
        assert!(refusal_of(&error).is_none(), "{name}: {error}");
        assert_eq!(error.raw_os_error(), Some(5), "{name}: {error:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn nothing_breaks_a_converter(bytes in proptest::collection::vec(any::<u8>(), 0..600), pick in 0..NAMES.len()) {
        check_any(&bytes, NAMES[pick]);
    }

    #[test]
    fn no_table_breaks_a_converter(text in "[a\",;\n\r ]{0,80}", pick in 0..2_usize) {
        let table = format!("prompt,x\n{text}");
        check_any(table.as_bytes(), ["a.csv", "a.txt"][pick]);
    }

    #[test]
    fn every_record_comes_out_under_a_line_of_its_own(
        prompts in proptest::collection::vec("[a\",\n\r]{0,12}z", 1..20),
    ) {
        let mut table = "prompt,key\n".to_owned();
        for (number, prompt) in prompts.iter().enumerate() {
            table.push_str(&format!("\"{}\",{number}\n", prompt.replace('"', "\"\"")));
        }
        let made = rows(&converted(table.as_bytes(), "a.csv").expect("converted"));
        let texts: Vec<&str> = made.iter().map(|(.., text)| text.as_str()).collect();
        prop_assert_eq!(texts, prompts.iter().map(String::as_str).collect::<Vec<_>>());
    }
}

/// Whatever comes: a refusal, or lines that are requests, faults or blank.
fn check_any(bytes: &[u8], name: &str) {
    match converted(bytes, name) {
        Ok(made) if is_needed(name) && source::ending(name) != Ending::Lines => {
            rows(&made);
        }
        Ok(_) => {}
        Err(error) => {
            let refusal = refusal_of(&error).unwrap_or_else(|| panic!("{name}: {error:?}"));
            assert!(!refusal.message.is_empty() && !refusal.remedy.is_empty(), "{refusal:?}");
            assert!(!refusal.message.contains(char::is_control), "{refusal:?}");
        }
    }
}

/// Some text that does not pack too well.
fn requests_text(bytes: usize) -> Vec<u8> {
    let mut text = Vec::new();
    let mut dice = 1_u64;
    while text.len() < bytes {
        dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        text.extend_from_slice(format!("{{\"contents\": \"{:x}\"}}\n", dice >> 20).as_bytes());
    }
    text
}

struct Counted(u64);

impl Write for Counted {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Packer = fn(&[u8]) -> Vec<u8>;
const PACKERS: [(&str, Packer); 2] = [("a.jsonl.gz", gzip), ("a.jsonl.zst", zstd)];
const NAMES: [&str; 6] = ["a.txt", "a.csv", "a.jsonl.gz", "a.jsonl.zst", "a.csv.zst", "a.txt.gz"];
