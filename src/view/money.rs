//! Money and tokens as an operator sees them: what is spent, of what, and what is in the API's
//! queues. Amounts are decimals in text, so that nobody rounds them.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::engine::Engine;
use crate::engine::budget::{self, Budget, Standing};
use crate::engine::job::Job;
use crate::engine::money::Amount;

/// What a job costs, if its model has a price.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CostView {
    /// The currency.
    pub currency: String,
    /// Spent so far.
    pub spent: String,
    /// Set aside for batches under way.
    pub set_aside: String,
    /// What all of it was thought to cost, probably.
    pub estimated: String,
    /// What it was thought hardly to exceed.
    pub most: String,
    /// What it may cost, if its queue or its sidecar says so.
    pub budget: Option<String>,
    /// Whether a person has said that it may go over every budget.
    pub over: bool,
}

/// Money and tokens of all jobs together.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SpendingView {
    /// The currency.
    pub currency: String,
    /// That of this night, that of this month, then those of queues.
    pub budgets: Vec<BudgetView>,
    /// The API's queues of models in which anything is, or of which a limit is known.
    pub queues: Vec<ModelQueueView>,
}

/// A budget, or what is spent where there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BudgetView {
    /// `night`, `month`, or `queue`.
    pub period: String,
    /// The queue, if it is one's.
    pub queue: Option<String>,
    /// Spent in it.
    pub spent: String,
    /// Set aside for what is under way.
    pub set_aside: String,
    /// All that may be spent, if there is a limit.
    pub limit: Option<String>,
}

/// The API's queue of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ModelQueueView {
    /// The model.
    pub model: String,
    /// Tokens in it by estimate.
    pub enqueued: u64,
    /// Tokens that it lets in, as configured or learned.
    pub limit: Option<u64>,
}

impl CostView {
    /// Of a job.
    pub fn of(job: &Job) -> Option<CostView> {
        let funds = job.head.funds.as_ref()?;
        let (spent, held) = budget::spent_for(job);
        Some(CostView {
            currency: funds.currency.clone(),
            spent: spent.told(),
            set_aside: held.told(),
            estimated: funds.likely.told(),
            most: funds.most.told(),
            budget: job.head.queue.budget.map(Amount::told),
            over: funds.over,
        })
    }
}

impl SpendingView {
    /// Of all jobs; `None` if nobody counts money, and nothing is known of queues.
    pub fn of(engine: &Engine) -> Option<SpendingView> {
        let means = &engine.policy().means;
        let queues: Vec<ModelQueueView> = engine
            .queue_rooms()
            .into_iter()
            .map(|room| ModelQueueView {
                model: room.model,
                enqueued: room.enqueued,
                limit: room.ceiling,
            })
            .collect();
        let is_known = queues.iter().any(|queue| queue.limit.is_some());
        if means.prices.is_empty() && !is_known {
            return None;
        }
        let counted = (!means.prices.is_empty()).then(|| engine.standings());
        let budgets = counted.into_iter().flatten().filter_map(BudgetView::of).collect();
        Some(SpendingView { currency: means.currency.clone(), budgets, queues })
    }
}

impl BudgetView {
    fn of(standing: Standing) -> Option<BudgetView> {
        let (period, queue) = match standing.budget {
            Budget::Job => return None,
            Budget::Queue(name) => ("queue", Some(name)),
            Budget::Night => ("night", None),
            Budget::Month => ("month", None),
        };
        Some(BudgetView {
            period: period.to_owned(),
            queue,
            spent: standing.spent.told(),
            set_aside: standing.held.told(),
            limit: standing.limit.map(Amount::told),
        })
    }
}
