#![allow(clippy::unwrap_used)]

use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio_postgres::NoTls;

use super::*;

async fn private() -> Cluster {
    Cluster::obtain(Options::default()).await.unwrap()
}

#[tokio::test]
async fn a_private_cluster_answers_and_leaves_nothing_behind() {
    let cluster = private().await;
    let (pid, data_dir) = (
        cluster.postmaster_pid().unwrap(),
        cluster.data_dir().unwrap(),
    );
    assert!(cluster.is_private() && cluster.bin_dir().unwrap().join("initdb").is_file());
    assert!(
        cluster
            .version()
            .split('.')
            .all(|part| part.parse::<u32>().is_ok())
    );
    assert_eq!(
        std::fs::metadata(data_dir.parent().unwrap())
            .unwrap()
            .mode()
            & 0o777,
        0o700
    );
    cluster.stop().await;
    assert!(!data_dir.parent().unwrap().exists());
    assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
}

#[tokio::test]
async fn databases_come_from_a_template_and_go() {
    let cluster = private().await;
    cluster.create_database("model", None).await.unwrap();
    let model = connect_once(&cluster.url_of("model")).await.unwrap();
    model
        .batch_execute("CREATE TABLE t AS SELECT 7 AS n")
        .await
        .unwrap();
    drop(model);
    let name = "it's \"a\" /copy?";
    cluster.create_database(name, Some("model")).await.unwrap();
    let copy = connect_once(&cluster.url_of(name)).await.unwrap();
    assert_eq!(
        copy.query_one("SELECT n FROM t", &[])
            .await
            .unwrap()
            .get::<_, i32>(0),
        7
    );
    cluster.drop_database(name).await.unwrap();
    cluster.drop_database(name).await.unwrap();
    let gone = connect_once(&cluster.url_of(name)).await.err().unwrap();
    assert!(gone.to_string().contains("does not exist"));
}

#[tokio::test]
async fn a_given_server_is_used_and_left_running() {
    let server = private().await;
    let options = Options {
        database_url: Some(server.url().to_owned()),
        ..Options::default()
    };
    let given = Cluster::obtain(options).await.unwrap();
    assert!(!given.is_private() && given.data_dir().is_none() && given.postmaster_pid().is_none());
    assert_eq!(given.version(), server.version());
    given.create_database("ours", None).await.unwrap();
    given.stop().await;
    connect_once(&server.url_of("ours")).await.unwrap();
}

#[tokio::test]
async fn over_tcp_only_the_password_opens_the_door() {
    let options = Options {
        listen: Listen::Tcp,
        ..Options::default()
    };
    let cluster = Cluster::obtain(options).await.unwrap();
    let mut config: Config = cluster.url().parse().unwrap();
    assert_eq!(config.get_hosts(), [Host::Tcp("127.0.0.1".into())]);
    config.password("guess");
    let refused = config.connect(NoTls).await.err().unwrap();
    assert_eq!(
        refused.code(),
        Some(&tokio_postgres::error::SqlState::INVALID_PASSWORD)
    );
    assert!(!format!("{cluster:?}").contains("postgresql://"));
}

#[tokio::test]
async fn the_printed_command_opens_the_database() {
    let options = Options {
        listen: Listen::Tcp,
        ..Options::default()
    };
    let clusters = [private().await, Cluster::obtain(options).await.unwrap()];
    for cluster in clusters {
        let line = format!("{} -Atc 'SELECT 40 + 2'", cluster.psql("postgres"));
        let output = tokio::process::Command::new("sh")
            .args(["-c", &line])
            .output()
            .await
            .unwrap();
        assert_eq!(
            output.stdout,
            b"42\n",
            "{line}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[tokio::test]
async fn settings_and_durability_reach_the_server() {
    let settings = vec![("work_mem".to_owned(), "5MB".to_owned())];
    let options = Options {
        durability: Durability::Durable,
        settings,
        ..Options::default()
    };
    let clusters = [Cluster::obtain(options).await.unwrap(), private().await];
    let mut found = Vec::new();
    for cluster in &clusters {
        let client = connect_once(cluster.url()).await.unwrap();
        for name in [
            "fsync",
            "synchronous_commit",
            "full_page_writes",
            "work_mem",
        ] {
            let row = client
                .query_one(&format!("SHOW {name}"), &[])
                .await
                .unwrap();
            found.push(row.get::<_, String>(0));
        }
    }
    assert_eq!(found, ["on", "on", "on", "5MB", "off", "off", "off", "4MB"]);
}

#[tokio::test]
async fn a_server_that_does_not_start_says_why() {
    for listen in [Listen::Socket, Listen::Tcp] {
        let settings = vec![("no_such_setting".to_owned(), "1".to_owned())];
        let options = Options {
            listen,
            settings,
            ..Options::default()
        };
        let error = Cluster::obtain(options).await.unwrap_err().to_string();
        assert!(
            error.contains("unrecognized configuration parameter \"no_such_setting\""),
            "{error}"
        );
    }
}

#[tokio::test]
async fn a_connection_string_that_cannot_be_read_is_refused_without_quoting_it() {
    for url in [
        "postgres://u:hush@h:port/db",
        "host=h password=hush sslrootcert=hush",
        "host=h password=hush\\",
    ] {
        let options = Options {
            database_url: Some(url.into()),
            ..Options::default()
        };
        let error = Cluster::obtain(options).await.unwrap_err();
        assert!(matches!(&error, Error::Config(_)), "{url}: {error:?}");
        assert!(!format!("{error:?}{error}").contains("hush"));
    }
}

#[test]
fn without_postgres_the_error_names_every_way_to_one() {
    let error = no_postgres(Some(&Error::Config("npm is not installed".into()))).to_string();
    for way in [
        "apt-get install -y postgresql",
        "brew install postgresql@18",
        "DATABASE_URL",
        "npm is not installed",
    ] {
        assert!(error.contains(way), "{error}");
    }
}

#[test]
fn the_command_for_a_given_server_hides_its_password_and_quotes_its_names() {
    let url = "postgres://u:hush@[::1]:6543,h2/db".to_owned();
    let cluster = Cluster {
        url,
        version: String::new(),
        private: None,
    };
    assert_eq!(
        cluster.psql("it's"),
        r"psql -h ::1,h2 -p 6543,5432 -U u -d 'it'\''s'"
    );
}

#[test]
fn tests_side_by_side_can_share_a_cluster() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Cluster>();
}

#[test]
fn a_socket_fits_whatever_the_process_and_port() {
    let longest = format!(
        "{}/{PREFIX}4194304-ffffff/.s.PGSQL.65535",
        "t".repeat(LONGEST_PARENT)
    );
    assert!(longest.len() <= 100);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_ctrl_c_in_our_terminal_does_not_reach_the_server() {
    let process_group = |process: &str| {
        let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
        let (_, fields) = stat.rsplit_once(") ").unwrap();
        fields.split(' ').nth(2).unwrap().to_owned()
    };
    let cluster = private().await;
    let server = cluster.postmaster_pid().unwrap().to_string();
    assert_ne!(process_group(&server), process_group("self"));
}

/// Not a claim of its own: the program that the next test kills.
#[tokio::test]
async fn helper_a_program_with_a_cluster_waits_to_be_killed() {
    if std::env::var_os(TO_BE_KILLED).is_none() {
        return;
    }
    let cluster = private().await;
    println!("\n{TO_BE_KILLED} {}", cluster.data_dir().unwrap().display());
    // Should the test that started us fail, its end of the pipe closes and we end too.
    let _ = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new())).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_killed_program_leaves_no_server_and_the_next_one_sweeps_its_files() {
    // In a place of its own: the other tests' sweeps would remove its files, and a server without files ends by itself.
    let place = Scratch::create(Path::new("/tmp"), "posthaste-test-h-").unwrap();
    std::fs::set_permissions(place.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let mut program = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--nocapture"])
        .arg("trial::postgres::tests::helper_a_program_with_a_cluster_waits_to_be_killed")
        .env(TO_BE_KILLED, "1")
        .env("TMPDIR", place.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let data_dir = BufReader::new(program.stdout.take().unwrap())
        .lines()
        .find_map(|line| {
            let line = line.unwrap();
            let (_, dir) = line.split_once(TO_BE_KILLED)?;
            Some(PathBuf::from(dir.trim()))
        });
    let data_dir = data_dir.unwrap();
    assert!(
        processes_in(&data_dir) > 1,
        "the postmaster and its helpers run there"
    );

    program.kill().unwrap();
    program.wait().unwrap();
    let killed = Instant::now();
    while processes_in(&data_dir) > 0 {
        assert!(
            killed.elapsed() < Duration::from_secs(20),
            "a server outlived its owner"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(data_dir.exists());
    let _next = Scratch::create(place.path(), PREFIX).unwrap();
    assert!(!data_dir.exists(), "its files were swept");
}

/// Postgres' processes have their data directory as current directory.
fn processes_in(data_dir: &Path) -> usize {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let folders = processes.filter_map(|entry| std::fs::read_link(entry.path().join("cwd")).ok());
    folders.filter(|cwd| cwd == data_dir).count()
}

const TO_BE_KILLED: &str = "POSTHASTE_TEST_TO_BE_KILLED";
