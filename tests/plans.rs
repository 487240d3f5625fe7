//! What a hot statement reads follows what it returns: with nothing waiting or a million rows, with fresh statistics or stale
//! ones, with a plan made long ago, and with vacuum held back.

mod calls;
mod cost;
mod readings;
mod session;
mod stock;

use self::calls::{
    BATCH, CALLS, CLAIM_WAITING_OF_ONE, Call, INSERT, LOCK_LANES, LOCK_LANES_FROM, RECORD,
    TAKE_FROM_WATERMARK,
};
use self::cost::Cost;
use self::readings::{EARLY, FEW_ROWS, FRESH, LATE, MANY_ROWS, Reading, STALE, reading, readings};
use self::session::Session;
use self::stock::Stock;

#[tokio::test]
async fn every_look_up_goes_by_its_index() {
    let strays = |call: &Call, cost: &Cost| cost.strays(call);
    assert_none(&complaints(readings().await, strays));
}

#[tokio::test]
async fn no_part_of_a_plan_sees_more_rows_than_some_batches() {
    let crowds = |_: &Call, cost: &Cost| cost.crowds(SOME_BATCHES);
    assert_none(&complaints(readings().await, crowds));
}

#[tokio::test]
async fn a_full_batch_comes_back_whatever_waits() {
    let full = readings().await.iter().filter(|reading| reading.rows > 0);
    let missing = |call: &Call, cost: &Cost| {
        let text = format!("returns {}, not {}", cost.returned, call.returns);
        Vec::from_iter(((cost.returned - call.returns).abs() > 0.5).then_some(text))
    };
    assert_none(&complaints(full, missing));
}

#[tokio::test]
async fn what_is_read_does_not_follow_what_waits() {
    for plans in [EARLY, STALE, FRESH] {
        let few = reading(FEW_ROWS, plans).await;
        let many = reading(MANY_ROWS, plans).await;
        assert_none(&growth(few, many));
    }
}

#[tokio::test]
async fn what_is_read_does_not_follow_what_waited_once() {
    let few = reading(FEW_ROWS, FRESH).await;
    assert_none(&growth(few, reading(FEW_ROWS, LATE).await));
}

#[tokio::test]
async fn what_is_read_does_not_follow_what_is_dead() {
    let stock = Stock::in_swing().await;
    let worker = stock.planned_session().await;
    let _long = stock.read_for_long().await;
    let (first, last) = first_and_last_round(&stock, &worker).await;
    assert_none(&growth_between(&first, &last));
}

#[tokio::test]
async fn nor_what_is_dead_behind_a_transaction_that_has_written() {
    let stock = Stock::in_swing().await;
    let worker = stock.planned_session().await;
    let _long = stock.write_for_long().await;
    let (first, last) = first_and_last_round(&stock, &worker).await;
    assert_none(&growth_between(&first, &last));
}

#[tokio::test]
async fn nor_is_what_lanes_were_due_at_once() {
    let stock = Stock::in_swing().await;
    let worker = stock.planned_session().await;
    let _long = stock.read_for_long().await;
    for minute in 1..=60 {
        stock
            .run(&format!("update posthaste.lane set wake_at = now() - interval '2 hours' + interval '{minute} minutes'"))
            .await;
    }
    stock.run("update posthaste.lane set wake_at = now()").await;
    let index = "lane_by_next_claim";
    let from_there = worker.cost_for_good(&LOCK_LANES_FROM).await.rows_of(index);
    let all = worker.cost_for_good(&LOCK_LANES).await.rows_of(index);
    assert!(from_there * 50.0 < all, "{from_there} of {all} entries");
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
    complaints([more], |call, cost| {
        let before = less
            .costs
            .iter()
            .flatten()
            .find(|cost| cost.call == call.name);
        before.map_or_else(Vec::new, |before| cost.growth(before, 1.5))
    })
}

/// Works a few batches through, and tells what the first and the last round cost.
async fn first_and_last_round(stock: &Stock, worker: &Session) -> (Vec<Cost>, Vec<Cost>) {
    let first = round(stock, worker).await;
    for _ in 0..6 {
        round(stock, worker).await;
    }
    (first, round(stock, worker).await)
}

/// A batch comes, is taken, and goes; so does one that waited.
async fn round(stock: &Stock, worker: &Session) -> Vec<Cost> {
    let mut costs = Vec::new();
    for call in [
        &INSERT,
        &TAKE_FROM_WATERMARK,
        &CLAIM_WAITING_OF_ONE,
        &RECORD,
        &RECORD,
    ] {
        costs.push(worker.cost_for_good(call).await);
    }
    stock.note_watermark().await;
    costs
}

fn growth_between(first: &[Cost], last: &[Cost]) -> Vec<String> {
    let both = first.iter().zip(last);
    let growth = both.flat_map(|(first, last)| {
        let growth = last.growth(first, 1.2);
        growth
            .into_iter()
            .map(|grown| format!("{}: {grown}", last.call))
    });
    growth.collect()
}

fn assert_none(complaints: &[String]) {
    assert!(complaints.is_empty(), "{}", complaints.join("\n"));
}

/// More than any statement needs for one batch, however it goes about it.
const SOME_BATCHES: f64 = 16.0 * BATCH;
