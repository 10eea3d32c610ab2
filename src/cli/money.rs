//! Money and tokens in words.

use crate::telemetry::escaped;
use crate::view::{BudgetView, CostView, SpendingView};

use super::figures::{Line, Tone, number};

/// What is spent against each budget, and what the API's queues hold, a line for each.
pub fn spending(spending: &SpendingView) -> Vec<Line> {
    let currency = escaped(&spending.currency);
    let budget = |budget: &BudgetView| {
        let BudgetView { period, queue, spent, set_aside, limit } = budget;
        let which = match (period.as_str(), queue) {
            ("month", _) => "this month".to_owned(),
            (_, Some(queue)) => format!("this night for the queue {}", escaped(queue)),
            (_, None) => "this night".to_owned(),
        };
        let of = limit.as_ref().map_or_else(String::new, |limit| format!(" of {}", escaped(limit)));
        let aside = match set_aside.as_str() {
            "0.00" => String::new(),
            aside => format!(", {} set aside", escaped(aside)),
        };
        Line::plain(format!("money  {}{of} {currency} spent {which}{aside}", escaped(spent)))
    };
    let mut lines: Vec<Line> = spending.budgets.iter().map(budget).collect();
    for queue in spending.queues.iter().filter(|queue| queue.limit.is_some()) {
        let (enqueued, limit) = (number(queue.enqueued), number(queue.limit.unwrap_or(0)));
        let model = escaped(&queue.model);
        lines.push(Line::of(
            Tone::Faint,
            format!("tokens about {enqueued} of {limit} in the queue of {model}"),
        ));
    }
    lines
}

/// What a job costs.
pub fn cost(cost: &CostView) -> String {
    let CostView { currency, spent, set_aside, estimated, most, budget, over } = cost;
    let aside = match set_aside.as_str() {
        "0.00" => String::new(),
        aside => format!(", {} set aside", escaped(aside)),
    };
    let budget = match budget {
        Some(budget) => format!(", budget {}", escaped(budget)),
        None => String::new(),
    };
    let over = if *over { ", may go over every budget" } else { "" };
    format!(
        "{} {}{aside} (estimated {} to {}{budget}{over})",
        escaped(spent),
        escaped(currency),
        escaped(estimated),
        escaped(most)
    )
}
