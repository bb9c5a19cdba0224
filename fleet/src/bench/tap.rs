//! A wire tap: a TCP proxy that counts what passes, so that bytes are those on the wire, frame headers included, and not
//! what either side believes to have sent.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// What passed since the last [`Tap::take`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Counted {
    /// HTTP upgrade, both ways: bytes up to the end of the headers.
    pub(super) upgrade: u64,
    /// After the upgrade, from the phone.
    pub(super) up: u64,
    /// After the upgrade, from the server.
    pub(super) down: u64,
    /// How often the phone began to speak after the server had (the first time included): round trips.
    pub(super) flights: u64,
}

#[derive(Debug, Default)]
struct Counters {
    upgrade: AtomicU64,
    up: AtomicU64,
    down: AtomicU64,
    flights: AtomicU64,
    phone_spoke_last: AtomicBool,
}

/// A running tap; ends when dropped.
#[derive(Debug)]
pub(super) struct Tap {
    address: SocketAddr,
    counters: Arc<Counters>,
    task: JoinHandle<()>,
}

impl Tap {
    /// Taps the server at `target`.
    pub(super) async fn on(target: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let counters = Arc::<Counters>::default();
        let shared = Arc::clone(&counters);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((phone, _)) = listener.accept().await {
                let shared = Arc::clone(&shared);
                connections.spawn(async move {
                    // A connection that breaks is the end of it for both sides, as without a tap.
                    let _ = relay(phone, target, shared).await;
                });
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, counters, task })
    }

    /// Where phones connect.
    pub(super) fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What passed since the last call.
    pub(super) fn take(&self) -> Counted {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::AcqRel);
        self.counters.phone_spoke_last.store(false, Ordering::Release);
        Counted {
            upgrade: take(&self.counters.upgrade),
            up: take(&self.counters.up),
            down: take(&self.counters.down),
            flights: take(&self.counters.flights),
        }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn relay(phone: TcpStream, target: SocketAddr, counters: Arc<Counters>) -> std::io::Result<()> {
    let server = TcpStream::connect(target).await?;
    phone.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (phone_reads, phone_writes) = phone.into_split();
    let (server_reads, server_writes) = server.into_split();
    let up = pump(phone_reads, server_writes, &counters, true);
    let down = pump(server_reads, phone_writes, &counters, false);
    tokio::select! {
        ended = up => ended,
        ended = down => ended,
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    counters: &Counters,
    from_phone: bool,
) -> std::io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut end_of_headers = 0_usize;
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return to.shutdown().await;
        }
        let headers = header_bytes(&buffer[..read], &mut end_of_headers);
        let payload = read - headers;
        counters.upgrade.fetch_add(headers as u64, Ordering::AcqRel);
        if payload > 0 {
            let bytes = if from_phone { &counters.up } else { &counters.down };
            bytes.fetch_add(payload as u64, Ordering::AcqRel);
            let phone_spoke_last = counters.phone_spoke_last.swap(from_phone, Ordering::AcqRel);
            if from_phone && !phone_spoke_last {
                counters.flights.fetch_add(1, Ordering::AcqRel);
            }
        }
        to.write_all(&buffer[..read]).await?;
    }
}

/// How many bytes of the chunk belong to the HTTP headers. `matched` is how much of the blank line was seen, 4 for all.
fn header_bytes(chunk: &[u8], matched: &mut usize) -> usize {
    const END: &[u8; 4] = b"\r\n\r\n";
    for (index, byte) in chunk.iter().enumerate() {
        if *matched == END.len() {
            return index;
        }
        *matched = if *byte == END[*matched] { *matched + 1 } else { usize::from(*byte == END[0]) };
    }
    chunk.len()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn headers_end_at_the_blank_line_wherever_the_chunks_are_cut() {
        let stream = b"GET / HTTP/1.1\r\nA: b\r\n\r\n\x82\x05hello\r\n\r\n";
        for cut in 1..stream.len() {
            let mut matched = 0;
            let headers = header_bytes(&stream[..cut], &mut matched) + header_bytes(&stream[cut..], &mut matched);
            assert_eq!(headers, 24, "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn bytes_and_round_trips_are_counted_on_the_wire() {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let tap = Tap::on(server.local_addr().unwrap()).await.unwrap();
        let mut phone = TcpStream::connect(tap.address).await.unwrap();
        let (mut office, _) = server.accept().await.unwrap();
        let mut answer = [0; 4];
        phone.write_all(b"GET\r\n\r\n").await.unwrap();
        office.read_exact(&mut [0; 7]).await.unwrap();
        for _ in 0..2 {
            phone.write_all(b"abc").await.unwrap();
            office.read_exact(&mut answer[..3]).await.unwrap();
            office.write_all(b"\r\n\r\n").await.unwrap();
            phone.read_exact(&mut answer).await.unwrap();
        }
        let counted = tap.take();
        // The server's first four bytes are its headers here, the second four its payload.
        assert_eq!(counted, Counted { upgrade: 11, up: 6, down: 4, flights: counted.flights });
        assert!((1..=2).contains(&counted.flights));
        assert_eq!(tap.take(), Counted::default());
    }
}
