//! One request to a worker's telemetry, or to whoever answers HTTP in the clear.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::PATIENCE;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

pub(crate) async fn get(address: SocketAddr, path: &str) -> Answer {
    ask(
        address,
        &format!("GET {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n"),
    )
    .await
}

/// `headers` are whole lines, each with its end.
pub(crate) async fn post(address: SocketAddr, path: &str, headers: &str, body: &str) -> Answer {
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\ncontent-length: {length}\r\n"
    );
    ask(address, &format!("{head}{headers}\r\n{body}")).await
}

async fn ask(address: SocketAddr, request: &str) -> Answer {
    let mut answer = String::new();
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.read_to_string(&mut answer).await.unwrap();
    };
    tokio::time::timeout(PATIENCE, exchange)
        .await
        .expect("no answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("no response head");
    Answer {
        status: head[9..12].parse().unwrap(),
        body: body.to_owned(),
    }
}
