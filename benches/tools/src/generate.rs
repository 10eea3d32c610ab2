//! Inputs to measure with: seeded, the same bytes for the same arguments, on every machine.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use crate::dice::Dice;
use crate::pool::Pool;

/// What a line is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Prompts of 40 to 28,000 bytes in all accepted forms, every line valid; 4.8 KB on average.
    Text,
    /// The same, but every 97th line is cut off and every 101st has no request.
    Mixed,
    /// As [`Kind::Text`], in the one form that other clients of the API can send as it is.
    Plain,
    /// A picture of 1 MB in base64 and a question.
    Image,
    /// About 90 bytes.
    Tiny,
}

impl Kind {
    /// The kind of this name.
    pub fn named(name: &str) -> Option<Kind> {
        Some(match name {
            "text" => Kind::Text,
            "mixed" => Kind::Mixed,
            "plain" => Kind::Plain,
            "image" => Kind::Image,
            "tiny" => Kind::Tiny,
            _ => return None,
        })
    }
}

/// Where a file ends.
#[derive(Debug, Clone, Copy)]
pub enum Amount {
    /// After the line that reaches so many bytes.
    Bytes(u64),
    /// After so many lines.
    Lines(u64),
}

/// Writes lines of a kind to `path`.
///
/// # Errors
/// If it can not be written.
pub fn write(kind: Kind, amount: Amount, seed: u64, path: &Path) -> io::Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut lines = Lines::new(kind, seed);
    let (mut bytes, mut number, mut line) = (0, 0, Vec::new());
    loop {
        let enough = match amount {
            Amount::Bytes(most) => bytes >= most,
            Amount::Lines(most) => number >= most,
        };
        if enough {
            return out.flush();
        }
        number += 1;
        line.clear();
        lines.append(number, &mut line);
        line.push(b'\n');
        out.write_all(&line)?;
        bytes += line.len() as u64;
    }
}

/// Writes one line of about `bytes` bytes between two short ones.
///
/// # Errors
/// If it can not be written.
pub fn write_long(bytes: u64, seed: u64, path: &Path) -> io::Result<()> {
    let mut dice = Dice::new(seed);
    let mut tiny = Lines::new(Kind::Tiny, seed);
    let mut text = Vec::new();
    tiny.append(1, &mut text);
    text.extend_from_slice(b"\n{\"key\":\"long\",\"request\":");
    contents(&Pool::words(seed), &mut dice, bytes as usize, &mut text);
    text.extend_from_slice(b"}\n");
    tiny.append(3, &mut text);
    text.push(b'\n');
    File::create(path)?.write_all(&text)
}

/// Writes `count` files of `lines` tiny lines each, `f000001.jsonl` and so on, no two alike.
///
/// # Errors
/// If they can not be written.
pub fn write_files(count: u64, lines: u64, seed: u64, folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let mut source = Lines::new(Kind::Tiny, seed);
    let mut text = Vec::new();
    for file in 1..=count {
        text.clear();
        for line in 0..lines {
            source.append(file * lines + line, &mut text);
            text.push(b'\n');
        }
        File::create(folder.join(format!("f{file:06}.jsonl")))?.write_all(&text)?;
    }
    Ok(())
}

/// Makes lines, one after the other.
struct Lines {
    kind: Kind,
    dice: Dice,
    words: Pool,
    letters: Option<Pool>,
}

impl Lines {
    fn new(kind: Kind, seed: u64) -> Lines {
        let letters = (kind == Kind::Image).then(|| Pool::base64(seed));
        Lines { kind, dice: Dice::new(seed), words: Pool::words(seed), letters }
    }

    fn append(&mut self, number: u64, line: &mut Vec<u8>) {
        match self.kind {
            Kind::Tiny => tiny(number, line),
            Kind::Image => self.image(number, line),
            Kind::Plain => {
                line.extend_from_slice(format!("{{\"key\":\"{number}\",\"request\":").as_bytes());
                self.request(line);
                line.push(b'}');
            }
            Kind::Mixed if number.is_multiple_of(97) => {
                let text = format!(r#"{{"key": "broken-{number}", "request": {{"contents": ["#);
                line.extend_from_slice(text.as_bytes());
            }
            Kind::Mixed if number.is_multiple_of(101) => {
                let text = format!(r#"{{"key": "broken-{number}", "wrong": 1}}"#);
                line.extend_from_slice(text.as_bytes());
            }
            Kind::Text | Kind::Mixed => self.text(number, line),
        }
    }

    fn text(&mut self, number: u64, line: &mut Vec<u8>) {
        match number % 5 {
            0 => {
                line.extend_from_slice(format!("{{\"key\": {number}, \"request\": ").as_bytes());
                self.request(line);
                line.push(b'}');
            }
            1 => {
                line.extend_from_slice(format!("{{\"key\":\"r{number}\",\"request\":").as_bytes());
                self.request(line);
                line.push(b'}');
            }
            2 => {
                line.extend_from_slice(b"{\"request\":");
                self.request(line);
                let again = number % 1000;
                let tail = format!(",\"metadata\":{{\"key\":\"again-{again}\"}}}}");
                line.extend_from_slice(tail.as_bytes());
            }
            3 => self.request(line),
            _ => {
                line.extend_from_slice(b"{\"request\": ");
                self.request(line);
                line.extend_from_slice(format!(", \"key\": \"r/{number}\"}}\r").as_bytes());
            }
        }
    }

    fn request(&mut self, line: &mut Vec<u8>) {
        let bytes = self.dice.pick(&TEXT_BYTES);
        contents(&self.words, &mut self.dice, bytes, line);
    }

    fn image(&mut self, number: u64, line: &mut Vec<u8>) {
        let head = format!(
            "{{\"key\":\"{number}\",\"request\":{{\"contents\":[{{\"role\":\"user\",\"parts\":[\
             {{\"text\":\"What is it?\"}},{{\"inlineData\":{{\"mimeType\":\"image/jpeg\",\"data\":\""
        );
        line.extend_from_slice(head.as_bytes());
        if let Some(letters) = &self.letters {
            letters.append(&mut self.dice, IMAGE_BYTES, line);
        }
        line.extend_from_slice(b"\"}}]}]}}");
    }
}

fn tiny(number: u64, line: &mut Vec<u8>) {
    let text = format!(
        "{{\"key\":{number},\"request\":{{\"contents\":[{{\"role\":\"user\",\"parts\":[\
         {{\"text\":\"say {number}\"}}]}}]}}}}"
    );
    line.extend_from_slice(text.as_bytes());
}

fn contents(words: &Pool, dice: &mut Dice, bytes: usize, line: &mut Vec<u8>) {
    line.extend_from_slice(b"{\"contents\":[{\"role\":\"user\",\"parts\":[{\"text\":\"");
    words.append(dice, bytes, line);
    line.extend_from_slice(b"\"}]}],\"generationConfig\":{\"temperature\":0.25}}");
}

/// Sizes of prompts, bytes, one as likely as the other.
const TEXT_BYTES: [usize; 8] = [40, 200, 200, 800, 800, 2000, 6000, 27500];
/// Size of a picture in base64, bytes.
const IMAGE_BYTES: usize = 1_000_000;
