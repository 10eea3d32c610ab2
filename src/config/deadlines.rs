//! By when a queue wants its results, and what is done for that.

use std::sync::Arc;

use crate::engine::job::{By, Deadline, Stuck, Tiers};

use super::layers::{Layers, Value};
use super::units;

/// Reads it of one section, noting what is wrong. `None` where nothing is asked for.
pub(super) fn of_queue(layers: &mut Layers, section: &str) -> Option<Arc<Deadline>> {
    let by = by(layers, section);
    let deadline = Deadline {
        // Of a queue without a time of day the zone says nothing here.
        zone: zone(layers, section).filter(|_| matches!(by, Some(By::At(_)))),
        by,
        rescue: rescue(layers, section),
        stuck: match layers.text(section, "stuck").as_str() {
            "resubmit" => Stuck::Resubmit,
            "split" => Stuck::Split,
            _ => Stuck::Report,
        },
        stuck_after: stuck_after(layers, section),
    };
    (deadline != Deadline::USUAL).then(|| Arc::new(deadline))
}

fn by(layers: &mut Layers, section: &str) -> Option<By> {
    let text = layers.text(section, "deliver_by");
    if text.is_empty() {
        return None;
    }
    let read = match text.split_once(':') {
        Some((hour, minute)) => minute_of_day(hour, minute).map(By::At).ok_or_else(|| {
            format!("is {text:?}, which is no time of day; write it like \"06:00\" or \"23:30\"")
        }),
        None => match units::duration(&text) {
            Ok(span) if (SPAN_MIN_MS..=SPAN_MAX_MS).contains(&span.as_millis()) => {
                Ok(By::Within(span.as_millis() as u64))
            }
            Ok(_) => Err(format!(
                "is {text:?}; a span must be a minute at least and 30 days at most, such as \"10h\""
            )),
            Err(_) => Err(format!(
                "is {text:?}; write a time of day such as \"06:00\", or a span such as \"10h\""
            )),
        },
    };
    read.map_err(|why| complain(layers, section, "deliver_by", &why)).ok()
}

fn minute_of_day(hour: &str, minute: &str) -> Option<u16> {
    let number = |text: &str, end: u16| {
        let is_plain = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|number| is_plain && *number < end)
    };
    Some(number(hour, 24)? * 60 + number(minute, 60)?)
}

/// The time zone; that it is one is checked with the window.
fn zone(layers: &Layers, section: &str) -> Option<Arc<str>> {
    let text = layers.text(section, "time_zone");
    if text.is_empty() {
        return None;
    }
    Some(text.into())
}

fn rescue(layers: &mut Layers, section: &str) -> Tiers {
    let Value::List(words) = layers.get(section, "rescue").value.clone() else {
        unreachable!("{section}.rescue is a list by the table")
    };
    let mut tiers = Tiers::default();
    for word in &words {
        let known = match word.as_str() {
            "flex" => Some(&mut tiers.flex),
            "standard" => Some(&mut tiers.standard),
            _ => None,
        };
        match known {
            Some(tier) => *tier = true,
            None => {
                let why = format!("has {word:?}; the tiers are \"flex\" and \"standard\"");
                complain(layers, section, "rescue", &why);
            }
        }
    }
    if words.first().is_some_and(|word| word == "standard") && tiers.flex {
        let why = "has standard before flex; the cheaper one goes first: [\"flex\", \"standard\"]";
        complain(layers, section, "rescue", why);
    }
    tiers
}

fn stuck_after(layers: &mut Layers, section: &str) -> Option<u64> {
    let text = layers.text(section, "stuck_after");
    if text == "auto" {
        return None;
    }
    match units::duration(&text) {
        Ok(span) if span.as_millis() >= SPAN_MIN_MS => Some(span.as_millis() as u64),
        Ok(_) | Err(_) => {
            let why = format!(
                "is {text:?}; write \"auto\", or a span of a minute at least, such as \"12h\""
            );
            complain(layers, section, "stuck_after", &why);
            None
        }
    }
}

fn complain(layers: &mut Layers, section: &str, key: &'static str, why: &str) {
    let origin = layers.get(section, key).origin.clone();
    layers.problem(&origin, format!("{section}.{key} {why}"));
}

/// Nothing is answered in less, milliseconds.
const SPAN_MIN_MS: u128 = 60_000;
/// Longer than any batch lives, milliseconds.
const SPAN_MAX_MS: u128 = 30 * 86_400_000;
