//! Prices, budgets, and the limits of the API's queue.
//!
//! No price comes with the program: they change, and a wrong one would be worse than none. All of
//! them are plain decimals, and become whole numbers at once.

use std::collections::BTreeMap;

use crate::engine::money::{Amount, Means, Price, decimal, is_decimal};

use super::layers::{Layers, Origin, Value};
use super::settings::PRICE;

/// Reads everything about money, noting what is wrong.
pub(super) fn read(layers: &mut Layers) -> Means {
    let names: Vec<String> = layers.prices().into_iter().collect();
    let prices = names.into_iter().map(|name| (name.clone(), price(layers, &name))).collect();
    Means {
        currency: currency(layers),
        prices,
        night: budget(layers, "budgets", "night"),
        month: budget(layers, "budgets", "month"),
        queues: table(layers, "budgets", "queue", QUEUES, Amount::parse),
        tokens: layers.integer("limits", "enqueued_tokens", 0, i64::MAX),
        tokens_of: table(layers, "limits", "enqueued_tokens_of", TOKENS, |text| text.parse().ok()),
        ..Means::default()
    }
}

/// A budget; `None` if it is not set.
pub(super) fn budget(layers: &mut Layers, section: &str, key: &'static str) -> Option<Amount> {
    let text = layers.text(section, key);
    if text.is_empty() {
        return None;
    }
    let amount = Amount::parse(&text).filter(|amount| *amount > Amount::default());
    if amount.is_none() {
        let origin = layers.get(section, key).origin.clone();
        let why = format!(
            "{section}.{key} is {text:?}; write an amount above 0 and up to 1000000000, such as \
             \"5.00\", or leave it empty for no limit"
        );
        layers.problem(&origin, why);
    }
    amount
}

/// A budget that counts for a queue says nothing without the price of its model.
pub(super) fn check_price(layers: &mut Layers, section: &str, queue: &str, model: &str) {
    if layers.prices().contains(model) {
        return;
    }
    let set = |section: &str, key| {
        (!layers.text(section, key).is_empty()).then(|| layers.get(section, key).origin.clone())
    };
    let of_queue = || {
        let queues = members(&layers.text("budgets", "queue"));
        queues.contains_key(queue).then(|| layers.get("budgets", "queue").origin.clone())
    };
    let budget = set(section, "budget")
        .or_else(|| set("budgets", "night"))
        .or_else(|| set("budgets", "month"))
        .or_else(of_queue);
    let Some(budget) = budget else { return };
    let origin = match layers.get(section, "model").origin.clone() {
        Origin::Default => budget,
        set => set,
    };
    let why = format!(
        "{section}.model is {model:?}, and there is a budget, but no price of that model; look it up \
         and add [price.{model:?}] with input and output"
    );
    layers.problem(&origin, why);
}

fn price(layers: &mut Layers, model: &str) -> Price {
    let section = format!("{PRICE}.{model}");
    let mut one = |key: &'static str, most: u64, missing: Option<u64>| {
        let text = layers.text(&section, key);
        let read = match text.is_empty() {
            true => missing,
            false => decimal(&text, 6).filter(|value| *value <= most),
        };
        read.unwrap_or_else(|| {
            let mut origin = layers.get(&section, key).origin.clone();
            let why = match text.is_empty() {
                true => {
                    origin = layers.origin_of(&section);
                    format!("{section}.{key} is missing; look it up (0 if there is none)")
                }
                false => format!(
                    "{section}.{key} is {text:?}; write a decimal between 0 and {}, with up to six \
                     places",
                    most / MILLION
                ),
            };
            layers.problem(&origin, why);
            0
        })
    };
    let input = one("input", PRICE_MAX, None);
    let output = one("output", PRICE_MAX, None);
    let cached = one("cached", PRICE_MAX, Some(input));
    let image = one("image", PRICE_MAX, Some(0));
    let batch_factor = one("batch_factor", MILLION, None);
    if input == 0 && output == 0 && image == 0 && layers.problems.is_empty() {
        let origin = layers.origin_of(&section);
        layers.problem(&origin, format!("{section} costs nothing; look its price up"));
    }
    Price { input, output, cached, image: (image > 0).then_some(image), batch_factor }
}

fn currency(layers: &mut Layers) -> String {
    let text = layers.text("budgets", "currency");
    let is_word = (1..=8).contains(&text.len()) && text.chars().all(|c| c.is_ascii_alphabetic());
    if !is_word {
        let origin = layers.get("budgets", "currency").origin.clone();
        let why = format!("budgets.currency is {text:?}; write a word such as \"USD\"");
        layers.problem(&origin, why);
    }
    text
}

/// A table of numbers by name. Each is a number, or a text that says one.
fn table<T>(
    layers: &mut Layers,
    section: &str,
    key: &'static str,
    what: &str,
    read: impl Fn(&str) -> Option<T>,
) -> BTreeMap<String, T> {
    let mut all = BTreeMap::new();
    for (name, text) in members(&layers.text(section, key)) {
        let plain = text.bytes().any(|digit| (b'1'..=b'9').contains(&digit));
        match read(&text).filter(|_| plain) {
            Some(value) => {
                all.insert(name, value);
            }
            None => {
                let origin = layers.get(section, key).origin.clone();
                let why = format!("{section}.{key}: {name:?} is {text:?}; write {what}");
                layers.problem(&origin, why);
            }
        }
    }
    all
}

/// The members of a JSON object, each as a bare text; numbers as they were written.
fn members(text: &str) -> BTreeMap<String, String> {
    let raw: BTreeMap<String, Box<serde_json::value::RawValue>> =
        serde_json::from_str(text).unwrap_or_default();
    let bare = |raw: Box<serde_json::value::RawValue>| {
        serde_json::from_str::<String>(raw.get()).unwrap_or_else(|_| raw.get().to_owned())
    };
    raw.into_iter().map(|(name, raw)| (name, bare(raw))).collect()
}

impl Layers {
    /// Where a section begins, as far as anything of it was set.
    fn origin_of(&self, section: &str) -> Origin {
        let keys = ["input", "output", "cached", "image", "batch_factor"];
        let set = keys.iter().map(|key| self.get(section, key).origin.clone());
        set.into_iter().find(|origin| *origin != Origin::Default).unwrap_or(Origin::Default)
    }
}

/// What a value looks like that is a decimal, or why it is none.
pub(super) fn decimal_of(text: &str) -> Result<Value, String> {
    let text = text.trim();
    match text.is_empty() || is_decimal(text) {
        true => Ok(Value::Text(text.to_owned())),
        false => Err(format!("is {text:?}; it must be {WANTED}")),
    }
}

/// A decimal in words.
pub(super) const WANTED: &str = "a plain decimal that is not negative, such as \"0.25\"";
const QUEUES: &str = "an amount above 0 and up to 1000000000, such as \"5.00\"";
const TOKENS: &str = "a whole number of tokens above 0, such as 3000000";
const MILLION: u64 = 1_000_000;
/// A million for a million tokens.
const PRICE_MAX: u64 = MILLION * MILLION;
