//! What a hot statement reads follows what it returns: with nothing waiting or a million rows, with fresh statistics or stale
//! ones, with a plan made long ago, and with vacuum held back.

mod calls;
mod cost;
mod readings;
mod session;
mod stock;

use self::calls::{ADOPT, BATCH, CALLS, CLAIM_WAITING_OF_ONE, Call, RECORD, TAKE};
use self::cost::Cost;
use self::readings::{EARLY, FEW_ROWS, FRESH, LATE, MANY_ROWS, Reading, STALE, reading, readings};
use self::stock::Stock;

#[tokio::test]
async fn every_look_up_goes_by_its_index() {
    let strays = |call: &Call, cost: &Cost| cost.strays(call);
    assert_eq!(complaints(readings().await, strays), NONE);
}

#[tokio::test]
async fn no_part_of_a_plan_sees_more_rows_than_some_batches() {
    let crowds = |_: &Call, cost: &Cost| cost.crowds(SOME_BATCHES);
    assert_eq!(complaints(readings().await, crowds), NONE);
}

#[tokio::test]
async fn a_full_batch_comes_back_whatever_waits() {
    let full = readings().await.iter().filter(|reading| reading.rows > 0);
    let missing = |call: &Call, cost: &Cost| {
        let text = format!("returns {}, not {}", cost.returned, call.returns);
        Vec::from_iter((cost.returned != call.returns).then_some(text))
    };
    assert_eq!(complaints(full, missing), NONE);
}

#[tokio::test]
async fn what_is_read_does_not_follow_what_waits() {
    for plans in [EARLY, STALE, FRESH] {
        let few = reading(FEW_ROWS, plans).await;
        let many = reading(MANY_ROWS, plans).await;
        assert_eq!(growth(few, many), NONE);
    }
}

#[tokio::test]
async fn what_is_read_does_not_follow_what_waited_once() {
    let few = reading(FEW_ROWS, FRESH).await;
    assert_eq!(growth(few, reading(FEW_ROWS, LATE).await), NONE);
}

/// What is wrong with the costs of some readings, each with its statement, its size and its statistics.
fn complaints<'r>(
    readings: impl IntoIterator<Item = &'r Reading>,
    wrong: impl Fn(&Call, &Cost) -> Vec<String>,
) -> Vec<String> {
    let mut complaints = Vec::new();
    for reading in readings {
        for (call, cost) in CALLS.iter().zip(&reading.costs) {
            let wrong = match cost {
                Ok(cost) => wrong(call, cost),
                Err(ended) => vec![ended.clone()],
            };
            let place = format!("{} at {} rows, {}", call.name, reading.rows, reading.plans);
            complaints.extend(wrong.iter().map(|wrong| format!("{place}: {wrong}")));
        }
    }
    complaints
}

/// Where one reading costs more than another, by more than an index with one level more explains.
fn growth(less: &Reading, more: &Reading) -> Vec<String> {
    let before = |call: &Call| {
        let costs = less.costs.iter().flatten();
        costs.clone().find(|cost| cost.call == call.name)
    };
    complaints([more], |call, cost| {
        before(call).map_or_else(Vec::new, |before| cost.growth(before, 1.5))
    })
}

const NONE: [&str; 0] = [];

/// More than any statement needs for one batch, however it goes about it.
const SOME_BATCHES: f64 = 16.0 * BATCH as f64;
