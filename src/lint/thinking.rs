//! Thinking: which models do it, and what it does to a small number of output tokens.
//!
//! Thoughts count towards `maxOutputTokens`. A model that thinks as much as it likes may have used
//! them up before its first word; the line is answered, paid for, and empty.

use super::Kind;
use super::path::Place;
use super::tree::Node;
use super::walk::Walk;

/// What is known of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thinks {
    /// It can not, and refuses requests that speak of it.
    Never,
    /// Only when asked to.
    WhenAsked,
    /// Unless it is told not to.
    Usually,
    /// It can not be told not to.
    Always,
    /// Nothing.
    Unknown,
}

/// Whether a model thinks; by its name, with or without `models/`.
pub fn thinks(model: &str) -> Thinks {
    let model = model.strip_prefix("models/").unwrap_or(model);
    let starts = |names: &[&str]| names.iter().any(|name| model.starts_with(name));
    let speaks = ["-tts", "-live", "native-audio"].iter().any(|part| model.contains(part));
    if speaks || starts(&["gemini-2.0-flash-thinking"]) {
        Thinks::Unknown
    } else if starts(&["gemini-1.", "gemini-2.0-", "gemini-2.5-flash-image"]) {
        Thinks::Never
    } else if starts(&["gemini-2.5-flash-lite", "gemini-flash-lite-latest"]) {
        Thinks::WhenAsked
    } else if starts(&["gemini-2.5-flash", "gemini-flash-latest"]) {
        Thinks::Usually
    } else if starts(&["gemini-2.5-pro", "gemini-pro-latest", "gemini-3"]) {
        Thinks::Always
    } else {
        Thinks::Unknown
    }
}

/// Looks at a `generationConfig`.
pub fn apply(walk: &mut Walk<'_>, config: &Node<'_>, place: &Place<'_>) {
    let model = walk.asked().model;
    let thinks = thinks(model);
    let model = model.strip_prefix("models/").unwrap_or(model);
    let limits = match config.find("thinkingConfig") {
        Some((written, thinking)) if thinking.is_object() => {
            let place = Place::Member(place, written);
            if let Some((message, remedy)) = refused(thinking, thinks, model) {
                let message = format!("{message}; the API answers the line with an error");
                return walk.add(Kind::Thinking, place.path(), message, remedy, None);
            }
            Limits::of(thinking)
        }
        Some(_) | None => Limits::default(),
    };
    let Some((written, most)) = config.find("maxOutputTokens") else { return };
    let Some(most) = most.as_number().filter(|most| *most >= 1.0) else { return };
    if limits.leave_too_few(thinks, most) {
        let message = format!(
            "{model} thinks before it answers, and thoughts count: all of these {most} tokens may \
             be thought away, and the answer ends early or is empty (MAX_TOKENS)"
        );
        let remedy = match thinks {
            Thinks::Usually | Thinks::WhenAsked => {
                "raise it, or set thinkingConfig.thinkingBudget to 0 or well below it"
            }
            Thinks::Always if model.starts_with("gemini-3") => {
                "raise it, or set thinkingConfig.thinkingLevel to \"LOW\""
            }
            Thinks::Always | Thinks::Never | Thinks::Unknown => {
                "raise it, or set thinkingConfig.thinkingBudget well below it"
            }
        };
        walk.add(Kind::MaxTokens, Place::Member(place, written).path(), message, remedy, None);
    }
}

/// What a model does not accept of a `thinkingConfig`.
fn refused(thinking: &Node<'_>, thinks: Thinks, model: &str) -> Option<(String, &'static str)> {
    let (budget, level) = (thinking.get("thinkingBudget"), thinking.get("thinkingLevel"));
    let second = model.starts_with("gemini-2.");
    if thinks == Thinks::Never {
        return Some((format!("{model} can not think"), "take `thinkingConfig` out"));
    }
    if budget.is_some() && level.is_some() {
        let message = "a budget and a level of thinking can not stand together".to_owned();
        return Some((message, "take one of them out"));
    }
    if level.is_some() && second {
        let message = format!("{model} knows no `thinkingLevel`");
        return Some((message, "use `thinkingBudget`, a number of tokens"));
    }
    let none = budget.and_then(Node::as_number) == Some(0.0);
    (none && thinks == Thinks::Always && second).then(|| {
        let message = format!("{model} can not be kept from thinking");
        (message, "set `thinkingBudget` to 128 or more, or to -1 for as much as it likes")
    })
}

/// How far a request limits thinking.
#[derive(Debug, Clone, Copy, Default)]
struct Limits {
    budget: Option<f64>,
    is_low: bool,
}

impl Limits {
    fn of(thinking: &Node<'_>) -> Limits {
        let level = thinking.get("thinkingLevel").and_then(Node::as_str).unwrap_or_default();
        let is_low = ["minimal", "low"].iter().any(|low| level.eq_ignore_ascii_case(low));
        Limits { budget: thinking.get("thinkingBudget").and_then(Node::as_number), is_low }
    }

    /// Whether thinking may use up so many tokens.
    fn leave_too_few(self, thinks: Thinks, most: f64) -> bool {
        let unasked = match thinks {
            Thinks::Never | Thinks::Unknown => return false,
            Thinks::WhenAsked => false,
            Thinks::Usually | Thinks::Always => true,
        };
        match self.budget {
            Some(budget) if budget >= 0.0 => budget >= most,
            Some(_) => most < ENOUGH_TOKENS,
            None => unasked && !self.is_low && most < ENOUGH_TOKENS,
        }
    }
}

/// Thoughts about an everyday question are 1,000 to 2,000 tokens long.
const ENOUGH_TOKENS: f64 = 2048.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_model_does_is_told_by_the_longest_name_that_fits() {
        for (model, expected) in [
            ("models/gemini-2.5-flash", Thinks::Usually),
            ("gemini-2.5-flash-preview-09-2025", Thinks::Usually),
            ("gemini-2.5-flash-lite", Thinks::WhenAsked),
            ("gemini-2.5-flash-image", Thinks::Never),
            ("gemini-2.5-flash-preview-tts", Thinks::Unknown),
            ("gemini-2.5-pro", Thinks::Always),
            ("gemini-3-pro-preview", Thinks::Always),
            ("gemini-2.0-flash", Thinks::Never),
            ("gemini-1.5-pro", Thinks::Never),
            ("tunedModels/mine", Thinks::Unknown),
        ] {
            assert_eq!(thinks(model), expected, "{model}");
        }
    }
}
