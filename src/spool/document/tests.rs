//! Tests of the module above.

use super::*;

type Elements = Vec<(u64, u64, Option<String>)>;

fn take_apart(text: &str, block: usize, limit: usize) -> Result<(Whole, Elements), Broken> {
    let mut elements = Vec::new();
    let mut sink = |piece: Piece<'_>| {
        let bytes = piece.bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        elements.push((piece.number, piece.start, bytes));
        Ok::<(), Broken>(())
    };
    let mut document = Document::new(0, limit);
    for part in text.as_bytes().chunks(block) {
        document.feed(part, &mut sink)?;
    }
    Ok((document.finish()?, elements))
}

#[test]
fn the_elements_of_a_list_come_out_the_same_whatever_the_blocks() {
    let list = " [\n {\"a\": \"]}\\\\\\\"\"},\r\n[1, {\"b\": []}] , 17,\"x\"\n]\n";
    let elements = ["{\"a\": \"]}\\\\\\\"\"}", "[1, {\"b\": []}]", "17", "\"x\""];
    let body = format!(
        "{{\"batch\": {{\"input_config\": {{\"requests\": {{\"requests\": {list}}}}},\n\
         \"display_name\": \"[\", \"model\": \"models/m\"}}}}"
    );
    for text in [list, &body] {
        for block in 1..=text.len() {
            let (whole, found) = take_apart(text, block, 1000).expect(text);
            assert!(matches!(whole, Whole::List { .. }));
            assert_eq!(found.len(), 4);
            for (n, (number, start, bytes)) in found.iter().enumerate() {
                assert_eq!(*number, n as u64 + 1);
                assert_eq!(bytes.as_deref(), Some(elements[n]));
                assert!(text[*start as usize..].starts_with(elements[n]));
            }
        }
    }
    let (whole, _) = take_apart(&body, 7, 1000).expect("a body");
    assert_eq!(
        whole,
        Whole::List { model: Some("models/m".to_owned()), unused: vec!["displayName"] }
    );
}

#[test]
fn an_element_beyond_the_limit_is_passed_over() {
    let text = format!("[{{\"a\": \"{}\"}}, {{}}]", "x".repeat(500));
    for block in [1, 7, 100, 1000] {
        let (_, found) = take_apart(&text, block, 100).expect("a list");
        assert_eq!(found[0], (1, 1, None));
        assert_eq!(found[1].2.as_deref(), Some("{}"));
    }
}

#[test]
fn a_single_object_over_several_lines_is_kept_whole() {
    let text = "\n {\n \"request\": {\"contents\": [{}]}\n}\n\n";
    for block in 1..=text.len() {
        let (whole, found) = take_apart(text, block, 1000).expect("one object");
        assert_eq!(whole, Whole::Single(2, text.trim().as_bytes().to_vec()));
        assert!(found.is_empty());
    }
}

#[test]
fn every_break_has_its_place_and_its_words() {
    let body = "{\"batch\": {\"inputConfig\": {\"requests\": {\"requests\": [";
    let table = [
        ("[{}, {}".to_owned(), 1, 8, "ends in the middle of the list, after 2"),
        ("[{},\n{\"a\": ".to_owned(), 2, 7, "after 1 requests"),
        ("[{}\n {}]".to_owned(), 2, 2, "comma is missing"),
        ("[{},\n]".to_owned(), 2, 1, "after the comma"),
        ("[,]".to_owned(), 1, 2, "expected"),
        ("[{\"a\": [}]".to_owned(), 1, 9, "closes nothing"),
        ("[{}]\n\nrest".to_owned(), 3, 1, "trailing"),
        ("[{},\n{}\n]\n]".to_owned(), 4, 1, "trailing"),
        (format!("{body}\n{{}}\n]}}}}}}"), 3, 4, "ends too early"),
        ("{\n\"a\": tru}".to_owned(), 2, 9, "not valid JSON"),
    ];
    for (text, line, column, words) in table {
        let broken = take_apart(&text, 3, 1000).expect_err(&text);
        assert!(broken.message.contains(words), "{text}: {broken:?}");
        assert_eq!((broken.line, broken.column), (line, column), "{text}: {broken:?}");
    }
}

#[test]
fn hostile_nesting_is_refused_in_bounded_memory() {
    for text in ["[".repeat(1_000_000), "{\"a\":".repeat(200_000)] {
        let broken = take_apart(&text, 4096, 10_000_000).expect_err("too deep");
        assert!(broken.message.contains("deep"), "{broken:?}");
    }
}
