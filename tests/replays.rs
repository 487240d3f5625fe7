//! What was given up can be delivered again: as a new delivery that names the one it follows, at a rate, on the record, and in nobody's way.

use posthaste::trial::partner::Reply;
use uuid::Uuid;

use crate::harness::{Login, Partner, World, agree, one, refusal};

#[tokio::test]
async fn a_replay_is_a_new_delivery_of_the_same_event_that_names_the_one_it_follows() {
    let world = World::new().await;
    let [ada, _] = world.two_administrators().await;
    let partner = Partner::replying(Reply::Status(500)).await;
    world.subscribe("p", &partner, "").await;
    let _worker = world.worker(&[]).await;
    let event = world.publish("a", r#"{"n" : 1}"#).await;
    world
        .until("exists (select from posthaste.dead_letter)")
        .await;
    let again = |reason: &str| {
        format!("select deliveries from posthaste.replay_delivery('{event}', 'p', '{reason}')")
    };
    assert_eq!(ada.one::<i64>(&again("they are back")).await, 1);
    world
        .until("(select count(*) from posthaste.attempt where verdict = 'exhausted') = 2")
        .await;
    partner.set_reply(Reply::Status(200));
    assert_eq!(ada.one::<i64>(&again("now they are")).await, 1);
    let received = partner.wait_for(3).await;
    world.until_all_is_done().await;

    for request in &received {
        assert_eq!(request.id, event.to_string());
        assert_eq!(request.body, received[0].body);
        assert!(request.headers.get("webhook-test").is_none());
    }
    let deliveries = "select string_agg(concat_ws(' ', replay, status, follows), ', ' order by replay) from posthaste.delivery";
    assert_eq!(
        world.text(deliveries).await,
        "0 RETRY_EXHAUSTED, 1 RETRY_EXHAUSTED 0, 2 SUCCESS 1"
    );
    let dead = "select string_agg(concat_ws(' ', replay, replayed_as, replayed_at is not null), ', ' order by replay) from posthaste.dead_letter";
    assert_eq!(world.text(dead).await, "0 1 t, 1 2 t");
    let story = format!("select string_agg(what, ', ') from posthaste.event_history('{event}')");
    assert_eq!(
        world.text(&story).await,
        "inserted, attempt 1 rejected, replay 1 queued, attempt 1 of replay 1 rejected, \
         replay 2 queued, attempt 1 of replay 2 accepted"
    );
    world
        .until("not exists (select from posthaste.replay where finished_at is null)")
        .await;
    let progress = "select string_agg(concat_ws(' ', state, total, queued, skipped, remaining, asked_by = session_user), ', ') from posthaste.replay_progress";
    assert_eq!(
        ada.one::<String>(progress).await,
        "finished 1 1 0 0 t, finished 1 1 0 0 t"
    );
    let noted = "select string_agg(concat_ws(' ', object, after ->> 'subscription', after ->> 'deliveries', reason), ', ' order by entry)
        from posthaste.audit where action = 'replay_asked_for'";
    assert_eq!(
        ada.one::<String>(noted).await,
        "replay 1 p 1 they are back, replay 2 p 1 now they are"
    );
}

#[tokio::test]
async fn what_was_delivered_may_be_delivered_again_and_what_is_not_finished_may_not() {
    let world = World::new().await;
    let partner = world.partner().await;
    let slow = Partner::replying(Reply::Status(500)).await;
    world.subscribe("p", &partner, "1h").await;
    let _worker = world.worker(&[]).await;
    let event = world.publish("a", "1").await;
    partner.wait_for(1).await;
    world.until_all_is_done().await;
    world.subscribe("slow", &slow, "1h").await;
    let waits = world.publish("a", "2").await;
    world
        .until("exists (select from posthaste.queue where attempts = 1)")
        .await;

    let refused = async |call: &str| {
        refusal(&world.db, &format!("select * from posthaste.{call}"))
            .await
            .message()
            .to_owned()
    };
    let said = refused(&format!("replay_event('{waits}', 'x')")).await;
    assert!(said.contains("slow: it waits"), "{said}");
    let said = refused(&format!("replay_delivery('{waits}', 'slow', 'x')")).await;
    assert!(said.contains("slow: it waits"), "{said}");
    let said = refused(&format!("replay_delivery('{event}', 'slow', 'x')")).await;
    assert!(said.contains("there is no finished delivery"), "{said}");
    let said = refused(&format!("replay_delivery('{event}', 'nobody', 'x')")).await;
    assert!(said.contains("there is none of that name"), "{said}");
    let said = refused(&format!("replay_event('{event}', ' ')")).await;
    assert!(said.contains("1 to 1000 characters that say why"), "{said}");
    let said = refused(&format!("replay_event('{event}', 'x', rate => 0)")).await;
    assert!(said.contains("from 1 to 100000"), "{said}");
    let unknown = Uuid::now_v7();
    let said = refused(&format!("replay_event('{unknown}', 'x')")).await;
    assert!(said.contains("there is no finished delivery"), "{said}");

    // A dry run counts, needs no reason, and changes nothing.
    let dry =
        format!("select deliveries from posthaste.replay_event('{event}', null, dry_run => true)");
    assert_eq!(world.count(&dry).await, 1);
    assert_eq!(
        world.count("select count(*) from posthaste.replay").await,
        0
    );
    let real = format!("select deliveries from posthaste.replay_event('{event}', 'they lost it')");
    world.run("begin").await;
    assert_eq!(world.count(&real).await, 1);
    let said = refused(&format!("replay_event('{event}', 'they lost it')")).await;
    assert!(said.contains("p: replay 1 is to send it"), "{said}");
    world.run("rollback").await;
    assert_eq!(world.count(&real).await, 1);
    assert_eq!(partner.wait_for(3).await.len(), 3);
    world
        .until("exists (select from posthaste.delivery where replay = 1 and status = 'SUCCESS')")
        .await;
}

#[tokio::test]
async fn a_subscription_recovers_what_was_given_up_since_a_time() {
    let world = World::new().await;
    let partner = world.partner().await;
    let id = world.subscribe("p", &partner, "1h").await;
    let other = world.subscribe("other", &partner, "1h").await;
    for (event, subscription, age) in [(1, id, 3), (2, id, 2), (3, id, 1), (4, other, 1)] {
        dead_letter(&world, event, subscription, age).await;
    }
    let since = |dry: bool| {
        format!(
            "select deliveries from posthaste.replay_since('p', now() - interval '150 minutes', 'their incident', dry_run => {dry})"
        )
    };
    assert_eq!(world.count(&since(true)).await, 2);
    assert_eq!(
        world.count("select count(*) from posthaste.replay").await,
        0
    );
    assert_eq!(world.count(&since(false)).await, 2);
    // What is asked for is asked for once.
    assert_eq!(world.count(&since(true)).await, 0);
    assert_eq!(world.count(&since(false)).await, 0);
    let about =
        "select count(*) from posthaste.dead_letter where replayed_as is null and replay_id = 1";
    assert_eq!(world.count(about).await, 2);
    let _worker = world.worker(&[]).await;
    let mut ids: Vec<String> = partner
        .wait_for(2)
        .await
        .iter()
        .map(|r| r.id.clone())
        .collect();
    ids.sort();
    assert_eq!(ids, [event(2), event(3)]);
    world.until_all_is_done().await;
    assert_eq!(world.count(&since(true)).await, 0);
    let left = "select string_agg(right(event_id::text, 1), ' ' order by event_id) from posthaste.dead_letter where replayed_as is null";
    assert_eq!(world.text(left).await, "1 4");
}

#[tokio::test]
async fn a_predicate_chooses_among_the_dead_letters_with_the_callers_own_rights() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    for (place, tenant) in ["north", "south"].iter().enumerate() {
        let id = agree(
            &office,
            tenant,
            &format!(", unknown_types => true, tenant => '{tenant}'"),
        )
        .await;
        for n in 0..3 {
            dead_letter(&world, place * 3 + n, id, 1).await;
        }
    }
    let scoped = world.login("posthaste_admin").await;
    office[0]
        .run(&format!(
            "select posthaste.set_partner_scope('{}', '{{north}}', 'of north')",
            scoped.name
        ))
        .await;
    let count = async |login: &Login, predicate: &str| -> i64 {
        let predicate = predicate.replace('\'', "''");
        login
            .one(&format!(
                "select deliveries from posthaste.replay_where('{predicate}', 'x', dry_run => true)"
            ))
            .await
    };
    assert_eq!(count(&office[0], "true").await, 6);
    assert_eq!(
        count(&office[0], "subscription = 'south' -- theirs").await,
        3
    );
    assert_eq!(
        count(&office[0], "http_status = 500 and event_type = 'a'").await,
        6
    );
    assert_eq!(count(&office[0], "http_status = 501").await, 0);
    assert_eq!(count(&scoped, "true").await, 3);
    // Whoever closes the parenthesis hands in what they like, and it counts for nothing.
    let all = world
        .text(
            "select format('false)) d having false union all select array[%s], array[%s], array[%s] from (select 1 where (true',
                string_agg(quote_literal(event_id) || '::uuid', ','), string_agg(subscription_id::text, ','),
                string_agg(quote_literal(started_at) || '::timestamptz', ',')) from posthaste.attempt",
        )
        .await;
    assert_eq!(count(&office[0], &all).await, 6, "{all}");
    assert_eq!(count(&scoped, &all).await, 3);

    for (predicate, says) in [
        ("", "syntax error"),
        ("true; delete from posthaste.setting", "syntax error"),
        (
            "true)) d; delete from posthaste.partner_scope; select from (select where (true",
            "multi-query",
        ),
        ("exists (select from posthaste.outbox)", "permission denied"),
        ("nonsense = 1", "does not exist"),
    ] {
        let call = format!("select * from posthaste.replay_where('{predicate}', 'x')");
        let refused = scoped.refused(&call).await;
        assert_eq!(refused.code().code(), "23514", "{refused:?}");
        assert!(refused.message().contains(says), "{refused:?}");
    }
    let asked =
        "select deliveries from posthaste.replay_where('error ~ ''no answer''', 'it was us')";
    assert_eq!(scoped.one::<i64>(asked).await, 3);
    let noted = "select after ->> 'predicate' || ' ' || tenant || ' ' || reason from posthaste.audit where action = 'replay_asked_for'";
    assert_eq!(
        scoped.one::<String>(noted).await,
        "error ~ 'no answer' north it was us"
    );
    let sees = "select count(*) from posthaste.replay_progress where remaining = 3 and expected_end > now()";
    assert_eq!(scoped.one::<i64>(sees).await, 1);
    let south = "select deliveries from posthaste.replay_since('south', '-infinity', 'x')";
    assert_eq!(office[0].one::<i64>(south).await, 3);
    assert_eq!(scoped.one::<i64>(sees).await, 1);
    let cancel = scoped
        .refused("select posthaste.cancel_replay(2, 'x')")
        .await;
    assert!(
        cancel.message().contains("there is no such replay"),
        "{cancel:?}"
    );
}

#[tokio::test]
async fn a_rate_is_kept_by_all_workers_together() {
    let world = World::new().await;
    let partner = world.partner().await;
    let id = world.subscribe("p", &partner, "1h").await;
    many_dead_letters(&world, id, 100).await;
    world
        .run("select posthaste.replay_since('p', '-infinity', 'x', rate => 20)")
        .await;
    let queued = "select count(*) from posthaste.queue";
    // Two workers at once: one holds the replay, the other does not wait for it.
    let other = world.session().await;
    world
        .run("begin; select posthaste.queue_replays(500)")
        .await;
    assert!(!one::<bool>(&other, QUEUE).await);
    world.run("commit").await;
    assert_eq!(world.count(queued).await, 20);
    // All of it is used up, and nobody looks before the next one is allowed.
    let rests = "(select used_until + interval '50 ms' < resumes_at from posthaste.replay)";
    assert!(world.holds(rests).await);
    // Half a second's worth at least, as some time passes here, too; and after however long never more than a second's worth.
    for (passed, expected) in [("0.5 s", 10..=20), ("1 hour", 20..=20), ("1 hour", 20..=20)] {
        // What was queued is not due: a lane that is behind would get nothing.
        world
            .run(&format!(
                "delete from posthaste.queue; update posthaste.lane set wake_at = 'infinity';
                 update posthaste.replay set resumes_at = '-infinity', used_until = least(used_until, now()) - interval '{passed}'"
            ))
            .await;
        assert!(one::<bool>(&other, QUEUE).await);
        let count = world.count(queued).await;
        assert!(expected.contains(&count), "{count} after {passed}");
    }
}

#[tokio::test]
async fn a_replay_gives_way_where_an_endpoint_is_behind_and_goes_on_with_the_others() {
    let world = World::new().await;
    let partner = world.partner().await;
    let busy = world.subscribe("busy", &partner, "1h").await;
    let idle = world.subscribe("idle", &partner, "1h").await;
    let paused = world.subscribe("paused", &partner, "1h").await;
    for (n, id) in [(1, busy), (2, idle), (3, paused)] {
        dead_letter(&world, n, id, 1).await;
    }
    world
        .run("select posthaste.deactivate('paused', 'x'); select posthaste.settle_lanes()")
        .await;
    world
        .run(&format!(
            "insert into posthaste.queue (event_id, subscription_id, due_at) values ('{}', {busy}, now() - interval '2 s');
             update posthaste.lane set wake_at = now() - interval '2 s' where subscription_id in ({busy}, {paused})",
            event(9)
        ))
        .await;
    world
        .run("select posthaste.replay_where('true', 'x', rate => null)")
        .await;
    assert!(one::<bool>(&world.db, QUEUE).await);
    let queued = "select string_agg(s.name, ' ' order by s.name) from posthaste.queue q join posthaste.subscription s using (subscription_id) where q.replay = 1";
    assert_eq!(world.text(queued).await, "idle paused");
    // It rests rather than look again and again; then what was behind is done.
    world
        .run("update posthaste.replay set resumes_at = '-infinity'")
        .await;
    assert!(one::<bool>(&world.db, QUEUE).await);
    assert!(!one::<bool>(&world.db, QUEUE).await);
    world.run(&format!("delete from posthaste.queue where event_id = '{}'; update posthaste.lane set wake_at = 'infinity' where subscription_id = {busy}; update posthaste.replay set resumes_at = '-infinity'", event(9))).await;
    assert!(one::<bool>(&world.db, QUEUE).await);
    assert_eq!(world.text(queued).await, "busy idle paused");
    assert_eq!(
        world
            .text("select concat_ws(' ', state, queued, remaining) from posthaste.replay_progress")
            .await,
        "finished 3 0"
    );
    let woken = "select bool_and(l.wake_at <= q.due_at)::text from posthaste.lane l join posthaste.queue q using (subscription_id)";
    assert_eq!(world.text(woken).await, "true");
}

#[tokio::test]
async fn a_replay_that_is_cancelled_leaves_the_rest_as_it_was_and_no_worker_waits_meanwhile() {
    let world = World::new().await;
    let partner = world.partner().await;
    let id = world.subscribe("p", &partner, "1h").await;
    many_dead_letters(&world, id, 30).await;
    let ask = "select deliveries from posthaste.replay_since('p', '-infinity', 'x', rate => 10)";
    assert_eq!(world.count(ask).await, 30);
    assert!(one::<bool>(&world.db, QUEUE).await);
    world
        .run("update posthaste.replay set resumes_at = '-infinity', used_until = '-infinity'")
        .await;
    let person = world.session().await;
    person.batch_execute("begin").await.unwrap();
    assert_eq!(
        one::<i64>(&person, "select posthaste.cancel_replay(1, 'too fast')").await,
        20
    );
    let worker = world.session().await;
    worker
        .batch_execute("set statement_timeout = '2 s'")
        .await
        .unwrap();
    assert!(!one::<bool>(&worker, QUEUE).await);
    person.batch_execute("commit").await.unwrap();
    assert!(!one::<bool>(&worker, QUEUE).await);
    let progress = "select concat_ws(' ', state, queued, remaining, cancel_reason) from posthaste.replay_progress where replay_id = 1";
    assert_eq!(world.text(progress).await, "cancelled 10 20 too fast");
    let refused = refusal(&world.db, "select posthaste.cancel_replay(1, 'x')").await;
    assert!(
        refused.message().contains("it was cancelled by"),
        "{refused:?}"
    );
    assert_eq!(world.count(ask).await, 20);
    assert_eq!(
        world
            .count("select count(*) from posthaste.dead_letter where replayed_as = 1")
            .await,
        10
    );
}

#[tokio::test]
async fn what_a_subscription_was_not_agreed_to_get_is_not_replayed_to_it() {
    let world = World::new().await;
    let partner = world.partner().await;
    let id = world
        .subscribe_to("p", &partner, &["a", "b"], None, "1h")
        .await;
    let gone = world
        .subscribe_to("gone", &partner, &["a"], None, "1h")
        .await;
    for (n, id) in [(1, id), (2, id), (3, gone)] {
        dead_letter(&world, n, id, 1).await;
    }
    world
        .run("select posthaste.replay_where('event_id::text ~ ''[23]$''', 'x')")
        .await;
    world.change("p", r#"{"event_types": ["b"]}"#).await;
    world.agree("propose_removal('gone', 'x')").await;
    let refused = refusal(
        &world.db,
        &format!("select posthaste.replay_delivery('{}', 'p', 'x')", event(1)),
    )
    .await;
    assert!(
        refused.message().contains("gets such an event"),
        "{refused:?}"
    );
    assert!(one::<bool>(&world.db, QUEUE).await);
    assert_eq!(
        world
            .text("select concat_ws(' ', state, queued, skipped) from posthaste.replay_progress")
            .await,
        "finished 0 2"
    );
    let sent = "select count(*) from posthaste.queue";
    assert_eq!(world.count(sent).await, 0);
    let rest = "select deliveries from posthaste.replay_where('is_removed', 'x')";
    assert_eq!(world.count(rest).await, 0);
}

#[tokio::test]
async fn no_worker_waits_for_whoever_asks() {
    let world = World::new().await;
    let partner = world.partner().await;
    let id = world.subscribe("p", &partner, "1h").await;
    many_dead_letters(&world, id, 10).await;
    let _worker = world.worker(&[]).await;
    let person = world.session().await;
    person
        .batch_execute("begin; select posthaste.replay_since('p', '-infinity', 'x', rate => null)")
        .await
        .unwrap();
    world.publish_many("a", 20).await;
    partner.wait_for(20).await;
    world.until_all_is_done().await;
    person.batch_execute("commit").await.unwrap();
    partner.wait_for(30).await;
    world.until_all_is_done().await;
    assert_eq!(partner.count(), 30);
}

#[tokio::test]
async fn what_was_replayed_is_history() {
    let world = World::new().await;
    let partner = world.partner().await;
    let id = world.subscribe("p", &partner, "1h").await;
    dead_letter(&world, 1, id, 1).await;
    world
        .run("select posthaste.replay_where('true', 'x')")
        .await;
    assert!(one::<bool>(&world.db, QUEUE).await);
    for change in [
        "update posthaste.replayed set follows = 0",
        "delete from posthaste.replayed",
        "truncate posthaste.replayed",
    ] {
        let refused = refusal(&world.db, change).await;
        assert!(
            refused.message().contains("append-only history"),
            "{change}"
        );
    }
}

/// An event of type `a`, and its delivery to a subscription, given up so many hours ago.
async fn dead_letter(world: &World, number: usize, subscription_id: i32, hours: i32) {
    let event = event(number);
    world
        .run(&format!(
            "insert into posthaste.outbox (event_id, event_type, payload, tenant)
             select '{event}', 'a', '1', tenant from posthaste.subscription where subscription_id = {subscription_id};
             delete from posthaste.intake where event_id = '{event}';
             insert into posthaste.attempt (started_at, event_id, subscription_id, subscription_revision, worker_id, outcome, verdict, rule, replay, number, http_status, error)
             values (now() - make_interval(hours => {hours}), '{event}', {subscription_id}, 1, 1, 'rejected', 'exhausted', 'no_retries_left', 0, 1, 500, 'no answer that we like')"
        ))
        .await;
}

async fn many_dead_letters(world: &World, subscription_id: i32, count: i32) {
    world
        .run(&format!(
            "insert into posthaste.outbox (event_type, payload) select 'a', '1' from generate_series(1, {count});
             delete from posthaste.intake;
             insert into posthaste.attempt (started_at, event_id, subscription_id, subscription_revision, worker_id, outcome, verdict, rule, replay, number, error)
             select now() - interval '1 hour', event_id, {subscription_id}, 1, 1, 'unreachable', 'exhausted', 'no_retries_left', 0, 1, 'no answer' from posthaste.outbox"
        ))
        .await;
}

fn event(number: usize) -> String {
    format!("01900000-0000-7000-8000-00000000000{number}")
}

const QUEUE: &str = "select is_any from posthaste.queue_replays(500)";
