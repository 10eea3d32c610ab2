//! A report as one HTML file that needs no other: no scripts, nothing fetched, every text escaped.

use jiff::tz::TimeZone;

use crate::view::words::number;

use super::Report;
use super::told::{Item, NightRow};

impl Report {
    /// The report as an HTML page, with its moments in this time zone.
    pub fn html(&self, zone: &TimeZone) -> String {
        let told = self.told(zone);
        let (title, mood) = (plain(&told.title), if told.is_good { "good" } else { "warn" });
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"{POLICY}\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n\
             <style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n<p class=\"{mood}\">{}</p>\n\
             <table>\n",
            plain(&told.headline)
        );
        for (name, fact) in &told.facts {
            page.push_str(&format!("<tr><th>{name}</th><td>{}</td></tr>\n", plain(fact)));
        }
        page.push_str("</table>\n");
        section(&mut page, "Needs you", &told.attention);
        section(&mut page, "Under way", &told.waiting);
        page.push_str("<h2>This night and the seven days before</h2>\n");
        page.push_str(&chart(&told.nights));
        page.push_str(&table(&told.nights));
        page.push_str("</body>\n</html>\n");
        page
    }
}

fn section(page: &mut String, name: &str, items: &[Item]) {
    if items.is_empty() {
        return;
    }
    page.push_str(&format!("<h2>{name}</h2>\n<ul>\n"));
    for item in items {
        let (what, why) = (plain(&item.what), plain(&item.why));
        page.push_str(&format!("<li><strong>{what}</strong>: {why}</li>\n"));
    }
    page.push_str("</ul>\n");
}

/// Lines of each night as bars: answered ones below, failed ones above them.
fn chart(nights: &[NightRow]) -> String {
    let most = nights.iter().map(|night| night.answered.saturating_add(night.failed)).max();
    let most = most.unwrap_or(0).max(1);
    // Counts may be as large as they like; heights are not.
    let height = |lines: u64| (u128::from(lines) * u128::from(HEIGHT) / u128::from(most)) as u64;
    let width = nights.len() as u64 * STEP;
    let mut svg = format!(
        "<svg role=\"img\" aria-label=\"lines answered and failed, by night\" width=\"{width}\" \
         height=\"{}\" viewBox=\"0 0 {width} {}\">\n",
        HEIGHT + FOOT,
        HEIGHT + FOOT
    );
    for (x, night) in (0..).step_by(STEP as usize).zip(nights) {
        let answered = height(night.answered);
        let failed = height(night.failed).max(u64::from(night.failed > 0) * 2);
        let failed = failed.min(HEIGHT - answered.min(HEIGHT));
        let (middle, foot) = (x + STEP / 2, HEIGHT + FOOT - 6);
        svg.push_str(&format!(
            "<rect class=\"a\" x=\"{}\" y=\"{}\" width=\"{BAR}\" height=\"{answered}\"/>\
             <rect class=\"f\" x=\"{}\" y=\"{}\" width=\"{BAR}\" height=\"{failed}\"/>\
             <text x=\"{middle}\" y=\"{foot}\">{}</text>\n",
            x + (STEP - BAR) / 2,
            HEIGHT - answered,
            x + (STEP - BAR) / 2,
            HEIGHT - answered - failed,
            plain(&night.day)
        ));
    }
    svg.push_str("</svg>\n");
    svg
}

fn table(nights: &[NightRow]) -> String {
    let mut table = "<table class=\"n\">\n<tr><th>to</th><th>files</th><th>answered</th>\
                     <th>failed</th><th>tokens</th></tr>\n"
        .to_owned();
    for night in nights {
        let counts = [night.files, night.answered, night.failed, night.tokens].map(number);
        let cells = counts.map(|count| format!("<td>{count}</td>")).concat();
        table.push_str(&format!("<tr><td>{}</td>{cells}</tr>\n", plain(&night.day)));
    }
    table.push_str("</table>\n");
    table
}

/// A text of which nothing means anything to HTML.
fn plain(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            letter if letter.is_control() => escaped.push('\u{FFFD}'),
            // What changes the direction of writing could make a name read as another.
            '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}' => escaped.push('\u{FFFD}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

/// Nothing is loaded or run but the style in the page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'";
const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:50rem;margin:2rem auto;\
    padding:0 1rem;color:#222;background:#fff}h1{font-size:1.3rem}h2{font-size:1.1rem}\
    .good{color:#176b2c;font-weight:600}.warn{color:#9a3b00;font-weight:600}\
    th{text-align:left;padding-right:1rem;vertical-align:top;font-weight:600}\
    .n td,.n th{text-align:right;padding:0 1rem 0 0}\
    svg{max-width:100%;height:auto}.a{fill:#2f8f4e}.f{fill:#c4451c}\
    text{font-size:11px;text-anchor:middle;fill:#555}";
/// Of the bars, pixels.
const HEIGHT: u64 = 120;
/// Below the bars.
const FOOT: u64 = 24;
/// From one bar to the next.
const STEP: u64 = 80;
const BAR: u64 = 44;
