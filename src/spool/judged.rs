//! Whose a result line is, what it means, and where in it the response stands.
//!
//! Nearly every line has one of two plain forms, and is read in a single checked walk that builds
//! nothing. Whatever is unusual in the least is read by `result_line`, which decides what it means:
//! both give the same verdicts. Lines come from outside.

use std::ops::Range;

use super::index::Within;
use super::result_line::ResultLine;
use super::scan::Cursor;
use crate::engine::ids::Row;
use crate::engine::verdict::{AnswerFacts, Verdict, judge_answer};

/// What is to be known of a result line when it comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Judged {
    /// The row it answers, if its key is one of ours.
    pub row: Option<Row>,
    /// What it means for its row.
    pub verdict: Verdict,
    /// Where its response stands, if it has a plain form.
    pub within: Option<Within>,
}

impl Judged {
    /// Reads a line without its newline. `None` if it is not a JSON object, so that the line
    /// must have been damaged on its way.
    pub fn read(line: &[u8]) -> Option<Judged> {
        plain(line).or_else(|| {
            let line = ResultLine::parse(line)?;
            Some(Judged { row: line.row, verdict: line.verdict(), within: None })
        })
    }
}

/// Reads a line with a response and a key and nothing that needs a second look; `None` otherwise.
fn plain(line: &[u8]) -> Option<Judged> {
    let (mut row, mut has_metadata) = (None, false);
    let mut response: Option<(Range<usize>, Verdict)> = None;
    let mut cursor = Cursor::over(line)?;
    cursor.object(|name, value| match name {
        b"key" if row.is_none() => key(value, &mut row),
        b"metadata" if row.is_none() && !has_metadata => {
            has_metadata = true;
            value.object(|name, value| match name {
                b"key" if row.is_none() => key(value, &mut row),
                b"key" => None,
                _ => value.skip().map(drop),
            })
        }
        b"response" if response.is_none() => {
            value.peek()?;
            let start = value.at();
            let verdict = judge(line, value)?;
            response = Some((start..value.at(), verdict));
            Some(())
        }
        b"key" | b"metadata" | b"response" | b"error" | b"status" => None,
        // Of the OpenAI-compatible layer.
        b"custom_id" | b"customId" => None,
        _ => value.skip().map(drop),
    })?;
    cursor.end()?;
    let (at, verdict) = response?;
    let (before, after) = (u8::try_from(at.start), u8::try_from(line.len() - at.end));
    let within = match (before, after) {
        (Ok(before), Ok(after)) if after < Within::AFTER_END => Some(Within { before, after }),
        (Ok(_) | Err(_), Ok(_) | Err(_)) => None,
    };
    Some(Judged { row, verdict, within })
}

/// Reads the key of a row as we send it.
fn key(value: &mut Cursor<'_>, row: &mut Option<Row>) -> Option<()> {
    let text = value.string()?;
    let canonical = text.first() != Some(&b'0') && text.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(text).ok().filter(|_| canonical)?.parse().ok()?;
    *row = Some(Row(number));
    Some(())
}

/// Walks over a response for what `response::Answer` would say of it.
fn judge(line: &[u8], response: &mut Cursor<'_>) -> Option<Verdict> {
    let mut first: Option<Candidate<'_>> = None;
    let (mut has_content, mut seen) = (false, false);
    response.object(|name, value| match name {
        b"candidates" if !seen => {
            seen = true;
            value.array(|value| {
                let next = candidate(line, value)?;
                has_content |= next.has_content;
                first.get_or_insert(next);
                Some(())
            })
        }
        // Whose names are looked at by the other reader too.
        b"usageMetadata" => value.object(|_, value| value.skip().map(drop)),
        b"embedding" => {
            has_content |= present(line, value)?;
            Some(())
        }
        b"candidates" | b"promptFeedback" => None,
        _ => value.skip().map(drop),
    })?;
    let finish_reason = match first.and_then(|first| first.finish_reason) {
        Some(raw) => Some(std::str::from_utf8(raw).ok()?),
        None => None,
    };
    Some(judge_answer(AnswerFacts { block_reason: None, finish_reason, has_content }))
}

struct Candidate<'a> {
    finish_reason: Option<&'a [u8]>,
    has_content: bool,
}

fn candidate<'a>(line: &[u8], value: &mut Cursor<'a>) -> Option<Candidate<'a>> {
    let mut candidate = Candidate { finish_reason: None, has_content: false };
    value.object(|name, value| match name {
        b"finishReason" if candidate.finish_reason.is_none() => {
            let word = value.string()?;
            if word.contains(&b'\\') || word.len() > WORD_MAX {
                return None;
            }
            candidate.finish_reason = Some(word);
            Some(())
        }
        b"finishReason" => None,
        b"content" => value.object(|name, value| match name {
            b"parts" => value.array(|value| {
                candidate.has_content |= part_counts(line, value)?;
                Some(())
            }),
            _ => value.skip().map(drop),
        }),
        _ => value.skip().map(drop),
    })?;
    Some(candidate)
}

/// Whether a part of a content is more than a mere thought.
fn part_counts(line: &[u8], value: &mut Cursor<'_>) -> Option<bool> {
    let (mut is_thought, mut carries) = (false, false);
    value.object(|name, value| {
        match name {
            b"thought" => is_thought |= line.get(value.skip()?) == Some(&b"true"[..]),
            b"thoughtSignature" | b"videoMetadata" | b"mediaResolution" | b"partMetadata" => {
                value.skip()?;
            }
            _ => carries |= present(line, value)?,
        }
        Some(())
    })?;
    Some(carries && !is_thought)
}

/// Skips a value and tells whether there is anything in it.
fn present(line: &[u8], value: &mut Cursor<'_>) -> Option<bool> {
    let raw = line.get(value.skip()?)?;
    Some(!matches!(raw, b"null" | b"\"\""))
}

/// Longest word of an enum that is looked at here, bytes.
const WORD_MAX: usize = 64;

#[cfg(test)]
mod tests;
