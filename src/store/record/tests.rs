//! What is no record is told from what is one.

use super::*;

#[test]
fn a_newer_version_is_named_and_not_called_broken() {
    let reason = read(br#"{"v":2,"headings":[]}"#).expect_err("unknown version");
    assert!(reason.contains("version 2"), "{reason}");
}

#[test]
fn a_field_we_do_not_know_is_an_error() {
    let note = r#"{"v":1,"note":{"name":"a","value":"b"}}"#;
    read(note.as_bytes()).expect("a note");
    let reason = read(note.replace(r#""b""#, r#""b","c":1"#).as_bytes()).expect_err("unknown");
    assert!(reason.contains("unknown field `c`"), "{reason}");
}

#[test]
fn a_record_of_two_kinds_is_no_record() {
    let both = r#"{"v":1,"job":"01JDZZZZZZZZZZZZZZZZZZZZZZ","note":{"name":"a","value":"b"}}"#;
    assert!(read(both.as_bytes()).is_err());
}

#[test]
fn an_id_that_is_no_path_component_is_refused() {
    let stored = String::from("../../../../etc/passwd.....");
    assert!(JobId::restore(stored).is_err());
}
