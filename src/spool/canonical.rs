//! What a request is known by: one form for everything that asks the same.
//!
//! Members are sorted, blanks left out, strings written in one way, numbers as they stand. A request
//! whose answer depends on what it only names, such as a file or cached content, is known by nothing,
//! and so is one that is unusual in any way: it is sent as it would be without a cache.

use std::ops::Range;

use sha2::{Digest, Sha256};

use super::cache::Key;
use super::scan::Cursor;
use crate::engine::job::{Queue, Task};

/// Makes keys for the requests of one queue. Keeps its buffer, the length of the longest request.
#[derive(Debug)]
pub struct Knower {
    asked: Sha256,
    form: Vec<u8>,
}

impl Knower {
    /// For a queue: the same request to another model, for another task, under another credential
    /// or held to its schema is another one.
    pub fn of(queue: &Queue) -> Knower {
        let task = match queue.task {
            Task::Generate => "generate",
            Task::Embed => "embed",
        };
        let schema = if queue.answers.check_schema { "checked" } else { "" };
        let parts = ["1", &queue.credential, &queue.model, task, schema];
        let asked = Sha256::new_with_prefix(parts.join("\n")).chain_update("\n\n");
        Knower { asked, form: Vec::new() }
    }

    /// The key of a request; `None` if it has none.
    pub fn key(&mut self, request: &[u8]) -> Option<Key> {
        self.form.clear();
        self.form.shrink_to(KEPT_BYTES);
        let mut cursor = Cursor::over(request)?;
        value(request, &mut cursor, &mut self.form, DEPTH_MAX)?;
        cursor.end()?;
        Some(self.asked.clone().chain_update(&self.form).finalize().into())
    }
}

fn value(text: &[u8], cursor: &mut Cursor<'_>, form: &mut Vec<u8>, depth: usize) -> Option<()> {
    match cursor.peek()? {
        b'{' => object(text, cursor, form, depth.checked_sub(1)?),
        b'[' => array(text, cursor, form, depth.checked_sub(1)?),
        b'"' => string(cursor.string()?, form),
        _ => {
            form.extend_from_slice(text.get(cursor.skip()?)?);
            Some(())
        }
    }
}

fn object(text: &[u8], cursor: &mut Cursor<'_>, form: &mut Vec<u8>, depth: usize) -> Option<()> {
    let start = form.len();
    let mut members: Vec<(Vec<u8>, Range<usize>)> = Vec::new();
    cursor.object(|name, cursor| {
        if NAMING.contains(&name) {
            return None;
        }
        let at = form.len();
        value(text, cursor, form, depth)?;
        members.push((name.to_vec(), at - start..form.len() - start));
        Some(())
    })?;
    // Members of one name keep their order: which of them counts is the API's business.
    members.sort_by(|(one, _), (other, _)| one.cmp(other));
    let values = form.split_off(start);
    form.push(b'{');
    for (at, (name, range)) in members.into_iter().enumerate() {
        if at > 0 {
            form.push(b',');
        }
        form.push(b'"');
        form.extend_from_slice(&name);
        form.extend_from_slice(b"\":");
        form.extend_from_slice(&values[range]);
    }
    form.push(b'}');
    Some(())
}

fn array(text: &[u8], cursor: &mut Cursor<'_>, form: &mut Vec<u8>, depth: usize) -> Option<()> {
    form.push(b'[');
    let mut is_first = true;
    cursor.array(|cursor| {
        if !is_first {
            form.push(b',');
        }
        is_first = false;
        value(text, cursor, form, depth)
    })?;
    form.push(b']');
    Some(())
}

/// Writes a string, of which `inside` stands between the quotes, without needless escapes.
fn string(inside: &[u8], form: &mut Vec<u8>) -> Option<()> {
    if !inside.contains(&b'\\') {
        form.push(b'"');
        form.extend_from_slice(inside);
        form.push(b'"');
        return Some(());
    }
    let quoted = [b"\"", inside, b"\""].concat();
    let plain: String = serde_json::from_slice(&quoted).ok()?;
    serde_json::to_writer(form, &plain).ok()
}

/// Members that only name what the answer depends on.
const NAMING: &[&[u8]] = &[b"fileData", b"file_data", b"cachedContent", b"cached_content"];
/// Deeper requests are known by nothing.
const DEPTH_MAX: usize = 60;
/// What is kept of the buffer between two requests, bytes.
const KEPT_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn key(text: &str) -> Option<Key> {
        Knower::of(&Queue::default()).key(text.as_bytes())
    }

    #[test]
    fn what_asks_the_same_has_one_key_however_it_is_written() {
        let plain = key(r#"{"a":[1,{"b":"é/\n","c":null}],"d":1.0}"#).expect("a key");
        for same in [
            " { \"d\" : 1.0 , \"a\" : [ 1 , { \"c\" : null , \"b\" : \"\\u00e9\\/\\n\" } ] } ",
            "{\"a\":[1,{\"b\":\"\\u00E9/\\u000a\",\"c\":null}],\r\n\t\"d\":1.0}",
        ] {
            assert_eq!(key(same), Some(plain), "{same}");
        }
        for other in [
            r#"{"a":[1,{"b":"é/\n","c":null}],"d":1}"#,
            r#"{"a":[{"b":"é/\n","c":null},1],"d":1.0}"#,
            r#"{"a":[1,{"b":"é/\n"}],"d":1.0}"#,
            r#"{"a":[1,{"b":"é/ \n","c":null}],"d":1.0}"#,
            r#"{"a":[1,{"b":"é/\n","c":"null"}],"d":1.0}"#,
        ] {
            assert_ne!(key(other).expect("a key"), plain, "{other}");
        }
    }

    #[test]
    fn what_only_names_a_file_or_is_unusual_has_no_key() {
        for text in [
            r#"{"contents":[{"parts":[{"fileData":{"fileUri":"files/a"}}]}]}"#,
            r#"{"contents":[{"parts":[{"file_data":{"file_uri":"files/a"}}]}]}"#,
            r#"{"contents":[],"cachedContent":"cachedContents/a"}"#,
            r#"{"a\u0062":1}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":1} 2"#,
            "",
            &("[".repeat(100) + &"]".repeat(100)),
        ] {
            assert_eq!(key(text), None, "{text}");
        }
    }

    #[test]
    fn another_model_task_credential_or_check_is_another_question() {
        let mut keys = std::collections::BTreeSet::new();
        let usual = Queue::default();
        let checked = crate::engine::job::Answers { check_schema: true, ..usual.answers };
        for queue in [
            usual.clone(),
            Queue { model: "other".into(), ..usual.clone() },
            Queue { task: Task::Embed, ..usual.clone() },
            Queue { credential: "team".into(), ..usual.clone() },
            Queue { answers: checked, ..usual.clone() },
        ] {
            keys.insert(Knower::of(&queue).key(b"{}").expect("a key"));
        }
        assert_eq!(keys.len(), 5);
        // What changes nothing in the answer changes nothing here.
        let urgent = Queue { priority: 7, lines_per_batch: 3, ..usual };
        assert!(keys.contains(&Knower::of(&urgent).key(b"{}").expect("a key")));
    }
}
