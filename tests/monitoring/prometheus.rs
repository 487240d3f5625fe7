//! A real Prometheus with its own data folder, on a free port, that ends with the test; and promtool.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::process::Command;
use uuid::Uuid;

use crate::grafana::dashboards::{list, text};
use crate::harness::PATIENCE;

pub(crate) struct Prometheus {
    address: SocketAddr,
    home: PathBuf,
    /// A shell that ends Prometheus as soon as nobody holds its input any more: also when this process is killed.
    keeper: Child,
}

/// One series of an answer.
#[derive(Debug)]
pub(crate) struct Series {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

impl Prometheus {
    /// Scrapes these targets, and evaluates these rules, every second.
    pub(crate) async fn start(rules: &str, targets: &[String]) -> Self {
        let home =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("prometheus-{}", Uuid::now_v7()));
        std::fs::create_dir_all(&home).unwrap();
        let targets = targets
            .iter()
            .map(|target| format!("'{target}'"))
            .collect::<Vec<_>>();
        std::fs::write(home.join("rules.yaml"), rules).unwrap();
        let config = CONFIG.replace("TARGETS", &targets.join(", "));
        std::fs::write(home.join("prometheus.yaml"), config).unwrap();
        let log = std::fs::File::create(home.join("log")).unwrap();
        let keeper = std::process::Command::new("sh")
            .args(["-c", KEEPER, "prometheus"])
            .args(["--config.file=prometheus.yaml", "--storage.tsdb.path=data"])
            .args([
                "--web.listen-address=127.0.0.1:0",
                "--storage.tsdb.retention.time=1h",
            ])
            .current_dir(&home)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let address = listening(&home.join("log")).await;
        Self {
            address,
            home,
            keeper,
        }
    }

    /// What an instant query returns; nothing while it is still starting.
    pub(crate) async fn query(&self, query: &str) -> Vec<Series> {
        let answer = self
            .get(&format!("/api/v1/query?query={}", percent_encoded(query)))
            .await;
        if answer.is_null() {
            return Vec::new();
        }
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        assert_eq!(answer["warnings"], Value::Null, "{query}: {answer}");
        let data = &answer["data"];
        match text(&data["resultType"]) {
            "vector" => list(&data["result"]).iter().map(series).collect(),
            other => panic!("{query} gives a {other}"),
        }
    }

    /// Holds where it has as many rules as there are, and none of them failed.
    pub(crate) async fn evaluates_every_rule(&self, count: usize) {
        let answer = self.get("/api/v1/rules").await;
        let groups = list(&answer["data"]["groups"]).iter();
        let rules: Vec<&Value> = groups.flat_map(|group| list(&group["rules"])).collect();
        assert_eq!(rules.len(), count);
        for rule in rules {
            assert_eq!(rule["health"], "ok", "{rule}");
        }
    }

    /// JSON from its API; null while it does not answer yet.
    async fn get(&self, path: &str) -> Value {
        let exchange = async {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            // HTTP/1.0 answers are whole, never in chunks.
            let request = format!("GET {path} HTTP/1.0\r\nhost: test\r\n\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            answer
        };
        let answer = tokio::time::timeout(PATIENCE, exchange)
            .await
            .expect("Prometheus does not answer");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        if head.contains(" 503 ") {
            return Value::Null;
        }
        serde_json::from_str(body).unwrap_or_else(|_| panic!("{path}: {answer}"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.home.join("log")).unwrap_or_default();
            eprintln!("Prometheus said:\n{log}");
        }
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
        let _ = std::fs::remove_dir_all(&self.home);
    }
}

/// Whether Prometheus and promtool are here. Says so where people see it if not; fails where they must be.
pub(crate) async fn tools() -> bool {
    for tool in ["prometheus", "promtool"] {
        let version = Command::new(tool)
            .arg("--version")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status();
        if !version.await.is_ok_and(|status| status.success()) {
            let all = std::env::var_os("POSTHASTE_MONITORING").is_some_and(|which| which == "all");
            assert!(!all, "{tool} must be here, but is not");
            // Unlike what `eprintln!` writes, this is not kept back.
            let _ = writeln!(
                std::io::stderr(),
                "not run: what needs {tool}, which is not here"
            );
            return false;
        }
    }
    true
}

/// Runs promtool in a folder; it must have nothing to complain about.
pub(crate) async fn promtool(folder: &str, arguments: &[&str], stdin: &str) {
    let mut child = Command::new("promtool")
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(stdin.as_bytes()).await.unwrap();
    drop(input);
    let output = tokio::time::timeout(PATIENCE, child.wait_with_output()).await;
    let output = output.expect("promtool does not end").unwrap();
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(
        output.status.success() && (arguments[1] != "metrics" || output.stderr.is_empty()),
        "promtool {arguments:?}: {}{}",
        said(&output.stdout),
        said(&output.stderr)
    );
}

/// Its address, once its log tells.
async fn listening(log: &Path) -> SocketAddr {
    let begun = Instant::now();
    loop {
        let said = std::fs::read_to_string(log).unwrap_or_default();
        let line = said
            .lines()
            .find(|line| line.contains("msg=\"Listening on\""));
        if let Some((_, address)) = line.and_then(|line| line.split_once("address="))
            && let Ok(address) = address.trim().parse()
        {
            return address;
        }
        assert!(
            begun.elapsed() < PATIENCE,
            "Prometheus does not listen: {said}"
        );
        tokio::time::sleep(LOG_PAUSE).await;
    }
}

fn series(result: &Value) -> Series {
    let labels = result["metric"].as_object().unwrap().iter();
    Series {
        labels: labels
            .map(|(name, value)| (name.clone(), text(value).to_owned()))
            .collect(),
        // `NaN` and `+Inf` are read, too.
        value: text(&result["value"][1]).parse().unwrap(),
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' => encoded.push(char::from(byte)),
            // Writing to a String cannot fail.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
        encoded
    })
}

const KEEPER: &str = "prometheus \"$@\" & server=$!; read -r _; kill -9 \"$server\"; wait";

/// `dead` is a target at which nobody listens.
const CONFIG: &str = "
global:
  scrape_interval: 1s
  evaluation_interval: 1s
rule_files: [rules.yaml]
scrape_configs:
  - job_name: posthaste
    static_configs:
      - targets: [TARGETS]
";

const LOG_PAUSE: Duration = Duration::from_millis(20);
