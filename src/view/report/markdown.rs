//! A report as Markdown. Every text from outside is escaped: it can be neither a link nor a heading.

use jiff::tz::TimeZone;

use crate::view::words::number;

use super::Report;
use super::told::{Item, NightRow};

impl Report {
    /// The report as a Markdown document, with its moments in this time zone.
    pub fn markdown(&self, zone: &TimeZone) -> String {
        let told = self.told(zone);
        let mut text = format!("# {}\n\n**{}**\n\n", told.title, plain(&told.headline));
        for (name, fact) in &told.facts {
            text.push_str(&format!("- {name}: {}\n", plain(fact)));
        }
        section(&mut text, "Needs you", &told.attention);
        section(&mut text, "Under way", &told.waiting);
        text.push_str("\n## This night and the seven days before\n\n");
        text.push_str("| to | files | answered | failed | tokens |\n");
        text.push_str("|---|---:|---:|---:|---:|\n");
        told.nights.iter().for_each(|night| text.push_str(&row(night)));
        text
    }
}

fn section(text: &mut String, name: &str, items: &[Item]) {
    if !items.is_empty() {
        text.push_str(&format!("\n## {name}\n\n"));
    }
    for item in items {
        text.push_str(&format!("- **{}**: {}\n", plain(&item.what), plain(&item.why)));
    }
}

fn row(night: &NightRow) -> String {
    let [files, answered, failed, tokens] =
        [night.files, night.answered, night.failed, night.tokens].map(number);
    format!("| {} | {files} | {answered} | {failed} | {tokens} |\n", night.day)
}

/// A text on one line of which nothing means anything to Markdown.
fn plain(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\u{2028}' | '\u{2029}' => escaped.push('\u{FFFD}'),
            letter if letter.is_control() => escaped.push('\u{FFFD}'),
            letter if "\\`*_[]#|~!$".contains(letter) => escaped.extend(['\\', letter]),
            letter => escaped.push(letter),
        }
    }
    escaped
}
