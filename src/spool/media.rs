//! Files that a request names by their path: pictures, sounds, films, documents.
//!
//! A part such as `{"fileData": {"fileUri": "file:pictures/cat.png"}}` names a file on this machine.
//! When its job is prepared, the file is taken into the working folder, under the SHA-256 of its
//! content (`take.rs`), and the place of the URI in the prepared line is noted (`slots.rs`). When
//! the line goes out, the address that the file has at the API by then stands in that place
//! (`addresses.rs`); the line itself keeps the path as the user wrote it, so that it comes out of a
//! failure as it went in. A file that can not be taken fails its line, and no other.

pub mod addresses;
pub mod parts;
pub mod slots;
pub mod take;

/// What kind of file it is, as the API has to be told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind(u8);

/// A kind of file.
struct Known {
    /// Never changes: it stands in files.
    code: u8,
    /// The media type.
    mime: &'static str,
    /// Endings of names, lower case.
    endings: &'static [&'static str],
}

impl Kind {
    /// The kind that the ending of a name tells; upper and lower case are the same.
    pub fn of_name(name: &str) -> Option<Kind> {
        let (_, ending) = name.rsplit_once('.')?;
        let ending = ending.to_ascii_lowercase();
        let known = KNOWN.iter().find(|known| known.endings.contains(&ending.as_str()))?;
        Some(Kind(known.code))
    }

    /// The kind of a media type; parameters such as `; charset=utf-8` do not count.
    pub fn of_mime(mime: &str) -> Option<Kind> {
        let bare = mime.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let bare = SAME.iter().find(|(other, _)| *other == bare).map_or(bare.as_str(), |it| it.1);
        KNOWN.iter().find(|known| known.mime == bare).map(|known| Kind(known.code))
    }

    /// The media type.
    pub fn mime(self) -> &'static str {
        let known = KNOWN.iter().find(|known| known.code == self.0);
        known.map_or("application/octet-stream", |known| known.mime)
    }

    /// The number that stands for it in files.
    pub fn code(self) -> u8 {
        self.0
    }

    /// The kind with that number.
    pub fn from_code(code: u8) -> Option<Kind> {
        KNOWN.iter().any(|known| known.code == code).then_some(Kind(code))
    }
}

/// Whether a file of this name is left lying in the inbox, for requests to name it: it is no
/// input, and no mistake either.
pub fn is_left_in_inbox(name: &str) -> bool {
    let is_matter = |kind: Kind| !kind.mime().starts_with("text/");
    Kind::of_name(name).is_some_and(is_matter)
}

/// What the API takes as a part of a request.
const KNOWN: &[Known] = &[
    Known { code: 1, mime: "image/png", endings: &["png"] },
    Known { code: 2, mime: "image/jpeg", endings: &["jpg", "jpeg"] },
    Known { code: 3, mime: "image/webp", endings: &["webp"] },
    Known { code: 4, mime: "image/heic", endings: &["heic"] },
    Known { code: 5, mime: "image/heif", endings: &["heif"] },
    Known { code: 6, mime: "image/gif", endings: &["gif"] },
    Known { code: 10, mime: "audio/wav", endings: &["wav"] },
    Known { code: 11, mime: "audio/mp3", endings: &["mp3"] },
    Known { code: 12, mime: "audio/aiff", endings: &["aiff", "aif"] },
    Known { code: 13, mime: "audio/aac", endings: &["aac"] },
    Known { code: 14, mime: "audio/ogg", endings: &["ogg", "oga"] },
    Known { code: 15, mime: "audio/flac", endings: &["flac"] },
    Known { code: 16, mime: "audio/m4a", endings: &["m4a"] },
    Known { code: 20, mime: "video/mp4", endings: &["mp4", "m4v"] },
    Known { code: 21, mime: "video/mpeg", endings: &["mpeg", "mpg"] },
    Known { code: 22, mime: "video/quicktime", endings: &["mov"] },
    Known { code: 23, mime: "video/avi", endings: &["avi"] },
    Known { code: 24, mime: "video/x-flv", endings: &["flv"] },
    Known { code: 25, mime: "video/webm", endings: &["webm"] },
    Known { code: 26, mime: "video/wmv", endings: &["wmv"] },
    Known { code: 27, mime: "video/3gpp", endings: &["3gp", "3gpp"] },
    Known { code: 30, mime: "application/pdf", endings: &["pdf"] },
    Known { code: 40, mime: "text/plain", endings: &["txt"] },
    Known { code: 41, mime: "text/html", endings: &["html", "htm"] },
    Known { code: 42, mime: "text/css", endings: &["css"] },
    Known { code: 43, mime: "text/markdown", endings: &["md"] },
    Known { code: 44, mime: "text/csv", endings: &["csv"] },
    Known { code: 45, mime: "text/xml", endings: &["xml"] },
    Known { code: 46, mime: "text/rtf", endings: &["rtf"] },
    Known { code: 47, mime: "text/javascript", endings: &["js"] },
    Known { code: 48, mime: "text/x-python", endings: &["py"] },
];

/// Other names of media types that people and programs use.
const SAME: &[(&str, &str)] = &[
    ("image/jpg", "image/jpeg"),
    ("audio/x-wav", "audio/wav"),
    ("audio/mpeg", "audio/mp3"),
    ("audio/x-aiff", "audio/aiff"),
    ("audio/mp4", "audio/m4a"),
    ("audio/x-m4a", "audio/m4a"),
    ("video/mpg", "video/mpeg"),
    ("video/mov", "video/quicktime"),
    ("video/x-msvideo", "video/avi"),
    ("video/x-ms-wmv", "video/wmv"),
    ("text/md", "text/markdown"),
    ("application/xml", "text/xml"),
    ("application/rtf", "text/rtf"),
    ("application/x-javascript", "text/javascript"),
    ("application/javascript", "text/javascript"),
    ("application/x-python", "text/x-python"),
];

#[cfg(test)]
mod tests;
