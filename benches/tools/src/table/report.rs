//! Rows of the table: what was measured, against what was to be reached.

use std::io::Write;

/// One row.
#[derive(Debug, Clone)]
pub struct Row {
    /// What.
    pub figure: String,
    /// What is to be reached, in words.
    pub goal: String,
    /// What came out, in words.
    pub measured: String,
    /// Whether that is enough; `None` where nothing is to be reached.
    pub enough: Option<bool>,
}

impl Row {
    /// A figure that is to be at most so large.
    pub fn most(figure: &str, goal: f64, measured: f64, unit: &str, more: &str) -> Row {
        let (goal_text, text) = (amount(goal, unit), amount(measured, unit));
        Row {
            figure: figure.to_owned(),
            goal: format!("≤ {goal_text}"),
            measured: beside(&text, more),
            enough: Some(measured <= goal * (1.0 + ROUNDING)),
        }
    }

    /// A figure that is to be at least so large.
    pub fn least(figure: &str, goal: f64, measured: f64, unit: &str, more: &str) -> Row {
        let mut row = Row::most(figure, goal, measured, unit, more);
        row.goal = format!("≥ {}", amount(goal, unit));
        row.enough = Some(measured >= goal * (1.0 - ROUNDING));
        row
    }

    /// A figure without a goal.
    pub fn only(figure: &str, measured: &str) -> Row {
        let (figure, measured) = (figure.to_owned(), measured.to_owned());
        Row { figure, goal: "–".to_owned(), measured, enough: None }
    }

    /// A line of a Markdown table.
    pub fn print(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let word = match self.enough {
            Some(true) => "ok",
            Some(false) => "**SHORT**",
            None => "",
        };
        let Row { figure, goal, measured, .. } = self;
        writeln!(out, "| {figure} | {goal} | {measured} | {word} |")?;
        out.flush()
    }
}

/// The head of the table.
pub const HEAD: &str = "| figure | goal | measured | |\n|---|---|---|---|";

fn beside(text: &str, more: &str) -> String {
    if more.is_empty() { text.to_owned() } else { format!("{text} ({more})") }
}

fn amount(value: f64, unit: &str) -> String {
    let digits = match value.abs() {
        large if large >= 100.0 => 0,
        middle if middle >= 10.0 => 1,
        _ => 2,
    };
    let number = format!("{value:.digits$}");
    let number = match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => number,
    };
    if unit.is_empty() { number } else { format!("{number} {unit}") }
}

/// The value in the middle; 0 for none.
pub fn median(values: &[f64]) -> f64 {
    percentile(values, 50.0)
}

/// The value that so many percent of the others do not exceed; 0 for none.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = (percent / 100.0 * (sorted.len().max(1) - 1) as f64).round() as usize;
    sorted.get(at).copied().unwrap_or(0.0)
}

/// What is lost in the last digit shown does not decide.
const ROUNDING: f64 = 0.002;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_end_of_a_list_are_found() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(percentile(&[1.0, 2.0, 3.0, 4.0, 5.0], 99.0), 5.0);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_row_says_whether_it_is_enough() {
        assert_eq!(Row::most("x", 2.5, 2.504, "", "").enough, Some(true));
        assert_eq!(Row::most("x", 2.5, 2.6, "", "").enough, Some(false));
        assert_eq!(Row::least("x", 200.0, 31.0, "files/s", "").goal, "≥ 200 files/s");
        assert_eq!(Row::most("x", 40.0, 19.84, "MiB", "peak").measured, "19.8 MiB (peak)");
    }
}
