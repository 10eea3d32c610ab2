//! What two readers make of one result line: the checked walk and the one that bears everything;
//! and what the last bytes of a response tell of its tokens. The fuzz target includes this file
//! too.

use gemini_batchd::spool::judged::Judged;
use gemini_batchd::spool::response::Answer;
use gemini_batchd::spool::result_line::ResultLine;
use gemini_batchd::spool::usage::tokens_of;
use serde::de::IgnoredAny;

/// Holds the readers against each other; tells whether the line was readable.
///
/// # Panics
/// If they do not agree.
pub fn check(line: &[u8]) -> bool {
    let shown = || String::from_utf8_lossy(line).into_owned();
    let (judged, read) = (Judged::read(line), ResultLine::parse(line));
    let is_object = line.trim_ascii_start().first() == Some(&b'{')
        && std::str::from_utf8(line).is_ok()
        && serde_json::from_slice::<IgnoredAny>(line).is_ok();
    assert_eq!(judged.is_some(), is_object, "{}", shown());
    assert_eq!(read.is_some(), is_object, "{}", shown());
    let (Some(judged), Some(read)) = (judged, read) else { return false };
    assert_eq!(judged.row, read.row, "{}", shown());
    assert_eq!(judged.verdict, read.verdict(), "{}", shown());
    assert!(read.response.is_none() || read.error.is_none(), "{}", shown());
    if let Some(within) = judged.within {
        let end = line.len() - usize::from(within.after);
        let response = &line[usize::from(within.before)..end];
        assert_eq!(Some(response), read.response.map(str::as_bytes), "{}", shown());
        let text = std::str::from_utf8(response).expect("as the line");
        assert_eq!(tokens_of(response), Answer::read(text).tokens, "{}", shown());
    }
    true
}
