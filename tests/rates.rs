//! An endpoint gets no more than was agreed, whoever sends; what is above waits, and is no attempt.

use std::time::{Duration, SystemTime};

use crate::harness::World;

#[tokio::test]
async fn three_workers_together_never_send_more_than_agreed_in_any_period() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    world
        .change("p", r#"{"rates": [{"requests": 8, "period": "1 second"}, {"requests": 24, "period": "4 seconds"}]}"#)
        .await;
    let [_one, _two, _three] = [
        world.worker(&AT_ONCE).await,
        world.worker(&AT_ONCE).await,
        world.worker(&AT_ONCE).await,
    ];
    world.publish_many("a", 48).await;
    let received = partner.wait_for(48).await;
    world.until_all_is_done().await;

    let mut times: Vec<SystemTime> = received.iter().map(|request| request.at).collect();
    times.sort_unstable();
    for (requests, period) in [(8, 1), (24, 4)] {
        let period = Duration::from_secs(period);
        // The first and the last of one too many must lie a period apart, but for the way to the partner.
        let closest = times
            .windows(requests + 1)
            .map(|some| some[requests].duration_since(some[0]).unwrap())
            .min()
            .unwrap();
        assert!(
            closest + Duration::from_millis(50) >= period,
            "{requests} and one more within {closest:?}"
        );
    }
    let workers = "select count(distinct worker_id) from posthaste.attempt";
    assert!(world.count(workers).await > 1);
    let attempts = "select count(*) from posthaste.attempt where number = 1 and verdict = 'done'";
    assert_eq!(world.count(attempts).await, 48);
}

/// More than any rate here: it is the rate that must hold them back.
const AT_ONCE: [(&str, &str); 1] = [("endpoint_concurrency", "64")];

#[tokio::test]
async fn a_burst_is_sent_at_once_and_the_rest_as_time_goes_by() {
    let world = World::new().await;
    let partner = world.partner().await;
    let url = partner.url("/p");
    world
        .agree(&format!(
            r#"propose_subscription('p', '{url}', '{{*}}', unknown_types => true,
               rates => '[{{"requests": 6, "period": "1 hour", "burst": 10}}]')"#
        ))
        .await;
    let _worker = world.worker(&[]).await;
    world.publish_many("a", 30).await;
    partner.wait_for(10).await;
    world
        .until("(select count(*) from posthaste.attempt) = 10 and not exists (select from posthaste.lease)")
        .await;
    assert!(
        world
            .holds("(select rest_until > now() from posthaste.lane)")
            .await
    );
    assert_eq!(
        world
            .count(
                "select count(*) from posthaste.delivery where status = 'PENDING' and attempts = 0"
            )
            .await,
        20
    );
    for (hours, sent) in [(1, 16), (100, 26), (1, 30)] {
        world
            .run(&format!(
                "update posthaste.lane set rest_until = '-infinity',
                 rate_used_until = array(select u - interval '{hours} hours' from unnest(rate_used_until) u)"
            ))
            .await;
        partner.wait_for(sent).await;
        world
            .until(&format!(
                "(select count(*) from posthaste.attempt) = {sent}"
            ))
            .await;
    }
    world.until_all_is_done().await;
    assert_eq!(partner.count(), 30);
}

#[tokio::test]
async fn a_rate_that_is_agreed_later_holds_from_then_on() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    let _worker = world.worker(&[]).await;
    world.publish_many("a", 40).await;
    partner.wait_for(40).await;
    world.until_all_is_done().await;
    world
        .change("p", r#"{"rates": [{"requests": 1, "period": "1 day"}]}"#)
        .await;
    world
        .until("(select rate_capacity = '{1}' from posthaste.lane)")
        .await;
    world.publish_many("a", 5).await;
    world
        .until("(select count(*) from posthaste.queue) = 5")
        .await;
    world.change("p", r#"{"rates": []}"#).await;
    partner.wait_for(45).await;
    world.until_all_is_done().await;
}

#[tokio::test]
async fn what_has_grown_too_old_uses_up_no_rate() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("p", &partner, "1h").await;
    world
        .change("p", r#"{"max_age": "1 hour", "rates": [{"requests": 1, "period": "1 day", "burst": 3, "block": "1 day"}]}"#)
        .await;
    world
        .run("update posthaste.lane set rate_capacity = '{3}', rate_interval = '{86400}', rate_block = '{86400}', rate_used_until = '{-infinity}'")
        .await;
    world.publish_old("a", 100).await;
    world.publish_many("a", 3).await;
    let _worker = world.worker(&[]).await;
    partner.wait_for(3).await;
    world.until_all_is_done().await;
    let over = "select count(*) from posthaste.delivery where status = 'EXPIRED'";
    assert_eq!(world.count(over).await, 100);
}

#[tokio::test]
async fn by_its_numbers_no_rate_lets_through_more_than_it_says() {
    let world = World::new().await;
    // Of `capacity` claims at once and one more in each interval, sent up to a grace later.
    let most = "select count(*) from generate_series(1, 200) n
        cross join unnest('{1 s,10 s,1 min,90 min,1 day}'::interval[]) period
        cross join lateral posthaste.pace(jsonb_build_array(jsonb_build_object('requests', n * n, 'period', period::text))) p
        cross join lateral (select extract(epoch from period)::float8, least(1, extract(epoch from period)::float8 / 10)) t (seconds, grace)
        where p.capacity[1] - 1 + (t.seconds + t.grace) / p.seconds[1] > n * n + 0.000001
           or t.seconds / p.seconds[1] < 0.8 * n * n";
    assert_eq!(world.count(most).await, 0);
}

#[tokio::test]
async fn rates_that_are_none_are_refused() {
    let world = World::new().await;
    for (rates, said) in [
        (
            r#"{"requests": 1, "period": "1 second"}"#,
            "a list of at most 4 rates",
        ),
        (
            r#"[{"requests": 0, "period": "1 second"}]"#,
            "rates: requests '0' is not valid",
        ),
        (
            r#"[{"requests": 1.5, "period": "1 second"}]"#,
            "rates: requests '1.5' is not valid",
        ),
        (r#"[{"requests": 1}]"#, "rates: period 'null' is not valid"),
        (
            r#"[{"requests": 1, "period": "1 ms"}]"#,
            "from 00:00:01 to 1 day",
        ),
        (
            r#"[{"requests": 1, "period": "1 minute", "burst": 0}]"#,
            "rates: burst '0' is not valid",
        ),
        (
            r#"[{"requests": 1, "period": "1 minute", "per": "ip"}]"#,
            "an object of requests, period and perhaps burst",
        ),
        ("[1]", "an object of requests, period and perhaps burst"),
    ] {
        let propose = format!(
            "select posthaste.propose_subscription('p', 'https://127.0.0.1/', '{{*}}', rates => '{rates}')"
        );
        let refused = world.db.query(&propose, &[]).await.unwrap_err();
        let refused = refused.as_db_error().unwrap().message();
        assert!(refused.contains(said), "{rates}: {refused}");
    }
}

/// Claims as fast as a lane with these rates allows, in a time of its own: when each was made, in seconds.
fn claims(rates: &[(i32, f64)], seconds: f64) -> Vec<f64> {
    let mut used: Vec<f64> = rates.iter().map(|_| f64::NEG_INFINITY).collect();
    let mut made = Vec::new();
    let mut now = 0.0_f64;
    while now < seconds {
        let is_allowed = |(used, (_, interval)): (&f64, &(i32, f64))| used + interval <= now;
        if used.iter().zip(rates).all(is_allowed) {
            for (used, (capacity, interval)) in used.iter_mut().zip(rates) {
                *used = used.max(now - f64::from(*capacity) * interval) + interval;
            }
            made.push(now);
        } else {
            now += 0.001;
        }
    }
    made
}

/// The most that lie within so many seconds of each other.
fn most_within(made: &[f64], seconds: f64) -> usize {
    (0..made.len())
        .map(|first| made[first..].partition_point(|at| at - made[first] < seconds))
        .max()
        .unwrap()
}

#[tokio::test]
async fn a_thousand_a_minute_with_a_hundred_in_ten_seconds_and_a_hundred_a_minute_with_a_burst_of_250()
 {
    let world = World::new().await;
    let pace = async |rates: &str| -> Vec<(i32, f64)> {
        let query = format!("select capacity, seconds from posthaste.pace('{rates}')");
        let row = world.db.query_one(&query, &[]).await.unwrap();
        let (capacity, seconds): (Vec<i32>, Vec<f64>) = (row.get(0), row.get(1));
        capacity.into_iter().zip(seconds).collect()
    };
    let both = pace(
        r#"[{"requests": 1000, "period": "1 minute"}, {"requests": 100, "period": "10 seconds"}]"#,
    )
    .await;
    let made = claims(&both, 300.0);
    // What is claimed is sent within a grace of a second.
    let (ten, minute) = (most_within(&made, 11.0), most_within(&made, 61.0));
    assert!(
        (95..=100).contains(&ten) && minute <= 1000,
        "{ten} {minute}"
    );

    let with_burst = pace(r#"[{"requests": 100, "period": "1 minute", "burst": 250}]"#).await;
    let made = claims(&with_burst, 300.0);
    assert_eq!(most_within(&made, 0.001), 250);
    let later: Vec<f64> = made.into_iter().filter(|at| *at > 1.0).collect();
    let minute = most_within(&later, 60.0);
    assert!((100..=101).contains(&minute), "{minute}");
}
