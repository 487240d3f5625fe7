//! Postgres holds secrets that it cannot read, and hands them out on the record only.

use posthaste::secret::{Keyring, SecretKind, SigningSecret};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::harness::{Login, World, agree};

#[tokio::test]
async fn a_secret_is_revealed_to_whom_a_committed_entry_names() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    let [ada, bob] = &office;
    let [first, second] = [
        filled(&world, &office, "harbour").await,
        filled(&world, &office, "bridge").await,
    ];
    let ask = "select posthaste.ask_to_reveal('harbour', 'they lost it')";
    let entry: i64 = ada.one(ask).await;
    let known = revealed(&world, ada, entry).await;
    assert_eq!(known, [(1, first.reveal().to_string())]);
    assert_ne!(known[0].1, *second.reveal());

    unrevealed(ada, "null").await;
    unrevealed(bob, &entry.to_string()).await;
    world
        .run(&format!("grant {} to {}", ada.name, bob.name))
        .await;
    bob.run(&format!("set role {}", ada.name)).await;
    unrevealed(bob, &entry.to_string()).await;
    // Some other entry of one's own.
    let other = format!(
        "(select max(entry) from posthaste.audit where actor = '{}' and action like 'proposed%')",
        ada.name
    );
    unrevealed(ada, &other).await;
}

#[tokio::test]
async fn what_could_be_taken_back_reveals_nothing() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    filled(&world, &office, "harbour").await;
    let ada = &office[0];
    let ask = "select posthaste.ask_to_reveal('harbour', 'they lost it')";
    for begin in ["begin", "begin; savepoint inner_one"] {
        ada.run(begin).await;
        let entry: i64 = ada.one(ask).await;
        unrevealed(ada, &entry.to_string()).await;
        ada.run("rollback").await;
        unrevealed(ada, &entry.to_string()).await;
    }
    let at_once = "select * from posthaste.reveal((select posthaste.ask_to_reveal('harbour', 'they lost it')))";
    assert!(
        ada.refused(at_once)
            .await
            .message()
            .contains("committed, less than a minute ago")
    );
    let released = format!(
        "begin; savepoint inner_one; {ask}; release inner_one; select * from posthaste.reveal((select max(entry) from posthaste.audit))"
    );
    assert!(
        ada.refused(&released)
            .await
            .message()
            .contains("committed, less than a minute ago")
    );
    ada.run("rollback").await;
    let none = "select count(*) from posthaste.audit where action = 'secret_revealed'";
    assert_eq!(ada.one::<i64>(none).await, 0);

    let entry: i64 = ada.one(ask).await;
    assert_eq!(revealed(&world, ada, entry).await.len(), 1);
    let age = "alter table posthaste.audit_log disable trigger user;
        update posthaste.audit_log set at = at - interval '60 s' where entry = ENTRY";
    world.run(&age.replace("ENTRY", &entry.to_string())).await;
    unrevealed(ada, &entry.to_string()).await;
}

#[tokio::test]
async fn an_entry_reveals_what_it_says_and_nothing_that_came_or_ended_since() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    let first = filled(&world, &office, "harbour").await;
    let ada = &office[0];
    let ask = "select posthaste.ask_to_reveal('harbour', 'they lost it')";
    let entry: i64 = ada.one(ask).await;
    let second = SigningSecret::generate().unwrap();
    import(&world, ada, "harbour", &second).await;
    assert_eq!(
        revealed(&world, ada, entry).await,
        [(1, first.reveal().to_string())]
    );
    let entry: i64 = ada.one(ask).await;
    assert_eq!(revealed(&world, ada, entry).await.len(), 2);
    ada.run("select posthaste.end_secret('harbour', 1::smallint, 'leaked')")
        .await;
    assert_eq!(
        revealed(&world, ada, entry).await,
        [(2, second.reveal().to_string())]
    );
    // Of one that is only asked for there is nothing to hand out.
    ada.run("select posthaste.rotate_secret('harbour', '0')")
        .await;
    let entry: i64 = ada.one(ask).await;
    assert_eq!(revealed(&world, ada, entry).await, []);
}

#[tokio::test]
async fn an_entry_reveals_nothing_of_a_subscription_that_took_the_name_since() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    filled(&world, &office, "harbour").await;
    let [ada, bob] = &office;
    let entry: i64 = ada
        .one("select posthaste.ask_to_reveal('harbour', 'they lost it')")
        .await;
    let removal: i64 = ada
        .one("select posthaste.propose_removal('harbour', 'they left')")
        .await;
    bob.run(&format!("select posthaste.approve({removal})"))
        .await;
    filled(&world, &office, "harbour").await;
    assert_eq!(revealed(&world, ada, entry).await, []);
}

#[tokio::test]
async fn a_ciphertext_that_was_moved_does_not_open() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    filled(&world, &office, "harbour").await;
    filled(&world, &office, "bridge").await;
    import(
        &world,
        &office[0],
        "harbour",
        &SigningSecret::generate().unwrap(),
    )
    .await;
    let keyring = world.config(&[]).keyring().unwrap();
    assert_eq!(opened(&world, &keyring).await, [true, true, true]);
    // By whoever owns the tables: one to another row of its subscription, and one to another subscription.
    for (from, to, expected) in [
        (
            "harbour' and number = 1",
            "harbour' and number = 2",
            [true, false, true],
        ),
        (
            "bridge' and number = 1",
            "harbour' and number = 1",
            [false, true, true],
        ),
    ] {
        let row = |of: &str| {
            format!(
                "(select secret_id from posthaste.signing_secret join posthaste.subscription using (subscription_id) where name = '{of})"
            )
        };
        world
            .run(&format!(
                "begin; update posthaste.signing_secret set ciphertext = (select ciphertext from posthaste.signing_secret where secret_id = {})
                 where secret_id = {}",
                row(from),
                row(to)
            ))
            .await;
        assert_eq!(opened(&world, &keyring).await, expected, "{from} to {to}");
        world.run("rollback").await;
    }
    // A subscription that takes over another's row takes over nothing.
    world.run("begin; update posthaste.signing_secret k set subscription_id = s.subscription_id, number = 9
        from posthaste.subscription s where s.name = 'bridge' and k.number = 2").await;
    assert_eq!(opened(&world, &keyring).await, [true, true, false]);
    world.run("rollback").await;
}

#[tokio::test]
async fn a_rotation_ends_the_older_secrets_and_never_extends_one() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    agree(&office, "harbour", "").await;
    let ada = &office[0];
    for (overlap, ends) in [
        ("1 hour", "1: 60, 2: -"),
        ("10 min", "1: 10, 2: 10, 3: -"),
        ("2 hours", "1: 10, 2: 10, 3: 120, 4: -"),
        ("0", "1: 0, 2: 0, 3: 0, 4: 0, 5: -"),
    ] {
        ada.run(&format!(
            "select posthaste.rotate_secret('harbour', '{overlap}', 'yearly')"
        ))
        .await;
        let minutes = "select string_agg(format('%s: %s', number, case when ends_at is null then '-' else round(greatest(extract(epoch from ends_at - now()), 0) / 60)::text end), ', '
            order by number) from posthaste.signing_secret";
        assert_eq!(world.text(minutes).await, ends);
    }
    assert_eq!(ada.one::<String>("select signing_secrets::text from posthaste.subscription_terms order by revision desc limit 1").await, "{5}");
    let uuid = Uuid::now_v7();
    for (call, rule) in [
        ("'harbour', null".to_owned(), "from 0 to 30 days"),
        ("'harbour', '-1 s'".to_owned(), "from 0 to 30 days"),
        ("'harbour', '31 days'".to_owned(), "from 0 to 30 days"),
        (
            "'harbour', secret_id => gen_random_uuid()".to_owned(),
            "all three, or none",
        ),
        (
            format!("'harbour', secret_id => '{uuid}', ciphertext => ''"),
            "all three, or none",
        ),
        ("'nobody'".to_owned(), "there is none of that name"),
    ] {
        let refused = ada
            .refused(&format!("select posthaste.rotate_secret({call})"))
            .await;
        assert!(
            refused.code() == &SqlState::CHECK_VIOLATION && refused.message().contains(rule),
            "{call}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn a_subscription_has_five_live_secrets_at_most() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    agree(&office, "harbour", "").await;
    let ada = &office[0];
    let rotate = |overlap: &str| format!("select posthaste.rotate_secret('harbour', '{overlap}')");
    let add = "select posthaste.add_secret('harbour', gen_random_uuid(), 'k1', '\\x00', 'theirs')";
    for _ in 2..=5 {
        ada.run(&rotate("1 day")).await;
    }
    for call in [&rotate("1 day"), add] {
        let refused = ada.refused(call).await;
        let rule = "it has five signing secrets that have not ended";
        assert!(
            refused.code() == &SqlState::CHECK_VIOLATION && refused.message().contains(rule),
            "{call}: {refused:?}"
        );
    }
    ada.run("select posthaste.end_secret('harbour', 1::smallint, 'old')")
        .await;
    ada.run(add).await;
    // What leaked can be replaced at once, however many there are.
    ada.run(&rotate("0")).await;
    let live = "select live + asked_for from posthaste.secret_overview";
    assert_eq!(ada.one::<i64>(live).await, 1);
}

#[tokio::test]
async fn a_secret_that_is_ended_early_has_ended() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    filled(&world, &office, "harbour").await;
    let ada = &office[0];
    let state = "select state from posthaste.subscription_overview";
    assert_eq!(ada.one::<String>(state).await, "active");
    ada.run("select posthaste.end_secret('harbour', 1::smallint, 'leaked')")
        .await;
    assert_eq!(ada.one::<String>(state).await, "waits for a signing secret");
    for number in ["1::smallint", "2::smallint", "null"] {
        let refused = ada
            .refused(&format!(
                "select posthaste.end_secret('harbour', {number}, 'leaked')"
            ))
            .await;
        assert!(
            refused
                .message()
                .contains("that secret has ended, or never was"),
            "{refused:?}"
        );
    }
    let overdue = "select format('%s %s', live, is_overdue) from posthaste.secret_overview";
    assert_eq!(ada.one::<String>(overdue).await, "0 f");
}

#[tokio::test]
async fn a_worker_fills_what_was_asked_for_and_does_nothing_else_to_secrets() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    let id = agree(&office, "harbour", "").await;
    let worker = world.login("posthaste_worker").await;
    let secret: Uuid = worker
        .one("select secret_id from posthaste.signing_secret")
        .await;
    let fill = |secret: Uuid, text: &str| {
        format!("select posthaste.fill_secret('{secret}', 'k1', '{text}')")
    };
    assert!(worker.one::<bool>(&fill(secret, "first")).await);
    assert!(!worker.one::<bool>(&fill(secret, "second")).await);
    assert!(!worker.one::<bool>(&fill(Uuid::now_v7(), "third")).await);
    let kept = "select string_agg(encode(ciphertext, 'escape'), ' ') from posthaste.signing_secret";
    assert_eq!(worker.one::<String>(kept).await, "first");
    for call in [
        "posthaste.rotate_secret('harbour')".to_owned(),
        format!("posthaste.add_secret('harbour', '{secret}', 'k1', 'x', 'x')"),
        format!("posthaste.set_credential('harbour', 'X-A', '{secret}', 'k1', 'x', 'x')"),
        "posthaste.end_secret('harbour', 1::smallint, 'x')".to_owned(),
        "posthaste.ask_to_reveal('harbour', 'x')".to_owned(),
        "posthaste.reveal(1)".to_owned(),
        "posthaste.ask_to_reencrypt('x')".to_owned(),
        "posthaste.secrets_to_reencrypt(1, 'k1')".to_owned(),
        format!("posthaste.reencrypt_secret('{secret}', 'first', 'k1', 'x')"),
    ] {
        let refused = worker.refused(&format!("select {call}")).await;
        assert!(
            refused
                .message()
                .starts_with("permission denied for function "),
            "{call}: {refused:?}"
        );
    }
    for change in [
        format!(
            "insert into posthaste.signing_secret (secret_id, subscription_id, number) values ('{}', {id}, 2)",
            Uuid::now_v7()
        ),
        "update posthaste.signing_secret set ciphertext = 'x'".to_owned(),
        "update posthaste.signing_secret set ends_at = null".to_owned(),
        "delete from posthaste.signing_secret".to_owned(),
        "delete from posthaste.credential".to_owned(),
    ] {
        assert!(
            worker
                .refused(&change)
                .await
                .message()
                .starts_with("permission denied for table "),
            "{change}"
        );
    }
}

#[tokio::test]
async fn encrypted_anew_a_secret_is_the_same_and_no_new_revision() {
    let world = World::new().await;
    let office = world.two_administrators().await;
    let secret = filled(&world, &office, "harbour").await;
    let ada = &office[0];
    let revision = "select max(revision) from posthaste.subscription_terms";
    let before: i32 = ada.one(revision).await;
    let take =
        |entry: i64| format!("select count(*) from posthaste.secrets_to_reencrypt({entry}, 'k2')");
    ada.run("begin").await;
    let entry: i64 = ada
        .one("select posthaste.ask_to_reencrypt('new key')")
        .await;
    assert!(
        ada.refused(&take(entry))
            .await
            .message()
            .contains("committed, less than an hour ago")
    );
    ada.run("rollback").await;
    let entry: i64 = ada
        .one("select posthaste.ask_to_reencrypt('new key')")
        .await;
    assert!(
        office[1]
            .refused(&take(entry))
            .await
            .message()
            .contains("made for this login")
    );
    assert_eq!(ada.one::<i64>(&take(entry)).await, 1);

    let row = world
        .db
        .query_one(
            "select subscription_id, secret_id, ciphertext from posthaste.signing_secret",
            &[],
        )
        .await
        .unwrap();
    let (id, secret_id, old): (i32, Uuid, Vec<u8>) = (row.get(0), row.get(1), row.get(2));
    let keyring = Keyring::parse(&Keyring::generate_line("k2").unwrap()).unwrap();
    let anew = keyring.seal(id, secret_id, &secret).unwrap();
    let reencrypt = "select posthaste.reencrypt_secret($1, $2, $3, $4)";
    for (from, done) in [(&b"another".to_vec(), false), (&old, true), (&old, false)] {
        let parameters: &[&(dyn ToSql + Sync)] =
            &[&secret_id, from, &anew.key_id, &anew.ciphertext];
        assert_eq!(
            ada.db
                .query_one(reencrypt, parameters)
                .await
                .unwrap()
                .get::<_, bool>(0),
            done
        );
    }
    assert_eq!(opened(&world, &keyring).await, [true]);
    assert_eq!(ada.one::<i32>(revision).await, before);
    assert_eq!(ada.one::<i64>(&take(entry)).await, 0);
}

#[tokio::test]
async fn no_table_holds_a_secret_that_can_be_read() {
    let world = World::new().await;
    let partner = world.partner().await;
    let id = world
        .subscribe_to("harbour", &partner, &["ship.arrived"], None, "5s")
        .await;
    let canary = SigningSecret::parse(&format!("whsec_{CANARY_IN_BASE64}")).unwrap();
    partner.learn(canary.clone());
    world.add_secret(id, &canary).await;
    world
        .change(
            "harbour",
            r#"{"headers": {"X-Berth": "open-7", "Authorization": {"secret": true}}}"#,
        )
        .await;
    world
        .set_credential("harbour", id, "Authorization", CANARY)
        .await;
    let worker = world.worker(&[]).await;
    world
        .publish("ship.arrived", r#"{"marker": "payload-7"}"#)
        .await;
    let received = partner.wait_for(1).await;
    assert_eq!(received[0].headers["authorization"], CANARY);
    world.until_all_is_done().await;
    worker.stop().await.unwrap();
    world.run("select posthaste.rotate_secret('harbour'), posthaste.ask_to_reveal('harbour', 'x'), posthaste.ask_to_reencrypt('x')").await;

    let tables = "select oid::regclass::text from pg_class where relkind in ('r', 'm') and relnamespace <> 'information_schema'::regnamespace";
    let mut dump = String::new();
    for table in world.db.query(tables, &[]).await.unwrap() {
        let table: String = table.get(0);
        dump += &world
            .text(&format!(
                "select string_agg(t::text, E'\\n') from {table} t"
            ))
            .await;
    }
    // All of it was read.
    for marker in ["payload-7", "open-7", "secret_rotated", "Authorization"] {
        assert!(dump.contains(marker), "{marker}");
    }
    let in_hex = world
        .text(&format!("select encode('{CANARY}', 'hex')"))
        .await;
    for plain in [CANARY, CANARY_IN_BASE64, &in_hex] {
        assert!(!dump.contains(plain), "{plain}");
    }
    assert!(!dump.contains("whsec_"));
}

/// Has a subscription agreed, and a worker's login fill in its secret.
async fn filled(world: &World, office: &[Login; 2], name: &str) -> SigningSecret {
    let id = agree(office, name, "").await;
    let secret = SigningSecret::generate().unwrap();
    let worker = world.login("posthaste_worker").await;
    let asked: Uuid = worker.one(&format!("select secret_id from posthaste.signing_secret where subscription_id = {id} and ciphertext is null")).await;
    let sealed = world
        .config(&[])
        .keyring()
        .unwrap()
        .seal(id, asked, &secret)
        .unwrap();
    let fill = "select posthaste.fill_secret($1, $2, $3)";
    let parameters: &[&(dyn ToSql + Sync)] = &[&asked, &sealed.key_id, &sealed.ciphertext];
    assert!(
        worker
            .db
            .query_one(fill, parameters)
            .await
            .unwrap()
            .get::<_, bool>(0)
    );
    secret
}

/// As `posthaste secret import` does.
async fn import(world: &World, admin: &Login, name: &str, secret: &SigningSecret) {
    let id: i32 = admin
        .one(&format!(
            "select subscription_id from posthaste.consumer where subscription = '{name}'"
        ))
        .await;
    let secret_id = Uuid::now_v7();
    let sealed = world
        .config(&[])
        .keyring()
        .unwrap()
        .seal(id, secret_id, secret)
        .unwrap();
    let add = "select posthaste.add_secret($1, $2, $3, $4, 'theirs')";
    let parameters: &[&(dyn ToSql + Sync)] =
        &[&name, &secret_id, &sealed.key_id, &sealed.ciphertext];
    admin.db.query_one(add, parameters).await.unwrap();
}

/// The numbers and texts of the secrets that an entry hands out.
async fn revealed(world: &World, admin: &Login, entry: i64) -> Vec<(i16, String)> {
    let keyring = world.config(&[]).keyring().unwrap();
    let rows = admin
        .db
        .query("select * from posthaste.reveal($1)", &[&entry])
        .await
        .unwrap();
    let open = |row: &tokio_postgres::Row| {
        let opened = keyring.open(
            row.get("subscription_id"),
            row.get("secret_id"),
            SecretKind::Shared,
            row.get("key_id"),
            row.get("ciphertext"),
        );
        (row.get("number"), opened.unwrap().reveal().to_string())
    };
    rows.iter().map(open).collect()
}

async fn unrevealed(login: &Login, entry: &str) {
    let refused = login
        .refused(&format!("select * from posthaste.reveal({entry})"))
        .await;
    assert_eq!(refused.code(), &SqlState::CHECK_VIOLATION);
    assert!(
        refused
            .message()
            .contains("made for this login, committed, less than a minute ago"),
        "{refused:?}"
    );
}

/// Which of the stored secrets open in the row where they are, by subscription and number.
async fn opened(world: &World, keyring: &Keyring) -> Vec<bool> {
    let rows = "select k.subscription_id, k.secret_id, k.key_id, k.ciphertext from posthaste.signing_secret k
        join posthaste.subscription s using (subscription_id) order by s.subscription_id, k.number";
    let rows = world.db.query(rows, &[]).await.unwrap();
    let opens = |row: &tokio_postgres::Row| {
        keyring
            .open(
                row.get(0),
                row.get(1),
                SecretKind::Shared,
                row.get(2),
                row.get(3),
            )
            .is_ok()
    };
    rows.iter().map(opens).collect()
}

const CANARY: &str = "CANARY-in-the-coal-mine-CANARY-7";
const CANARY_IN_BASE64: &str = "Q0FOQVJZLWluLXRoZS1jb2FsLW1pbmUtQ0FOQVJZLTc=";
