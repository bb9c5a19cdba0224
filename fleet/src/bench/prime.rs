//! A new phone primes; a phone that knows everything reconnects.

use super::fixture::{World, caught_up, disconnect, technician_id};
use super::row::{Row, median};
use super::tap::{Counted, Tap};
use super::{Bench, BenchError};
use futures_util::{SinkExt, StreamExt};
use std::time::{Duration, Instant};
use sync_core::client::Client;
use sync_core::domain::{DeviceId, TechnicianId};
use sync_core::protocol::limits::{SUBPROTOCOL, SYNC_PATH};
use sync_core::protocol::{Ack, Cursor, Hello, OutboxMark, PhoneMessage, ServerMessage, decode_server, encode_phone};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

/// New phones a figure is the median of.
const NEW_PHONES: usize = 5;
/// Reconnects a figure is the median of.
const RECONNECTS: usize = 21;
/// After a reconnect, receipts may still be under way for this long.
const AFTERMATH: Duration = Duration::from_millis(50);

/// `bootstrap` and `reconnect` at one number of visits, on one server.
pub(super) async fn run(bench: &Bench, visits: usize) -> Result<Vec<Row>, BenchError> {
    let dir = bench.dir("prime")?;
    let world = World::start(&bench.options.server, dir.path(), 1).await?;
    let technician = technician_id(0)?;
    let dispatches = world.orders(visits).await?;
    world.assign_all(dispatches.into_iter().map(|dispatch| (dispatch, technician.clone())).collect()).await?;
    let tap = Tap::on(world.server.address()).await?;
    let mut rows = Vec::new();
    let (mut times, mut wire) = (Vec::new(), Counted::default());
    let mut last = None;
    for number in 0..NEW_PHONES {
        let client = new_phone(&world, dir.path(), &tap, &technician, number).await?;
        tap.take();
        let since = Instant::now();
        client.set_network(true);
        caught_up(&client).await?;
        times.push(since.elapsed().as_secs_f64() * 1_000.0);
        tokio::time::sleep(AFTERMATH).await;
        wire = tap.take();
        if let Some(former) = last.replace(client) {
            let former: Client = former;
            former.stop().await;
        }
    }
    if bench.wants("bootstrap") && visits >= 500 {
        let to_wire = first_answers(bench, &world, &technician).await?;
        let total = median(times);
        let apply = (total - to_wire).max(0.0);
        let detail = format!(
            "server and wire until the last batch {to_wire:.1} ms, phone (decode, one SQLite transaction, fsync) {apply:.1} ms"
        );
        let bytes = (wire.up + wire.down) as f64;
        let (budget_ms, budget_bytes) = (visits as f64 / 10.0, visits as f64 * 160.0);
        let peer = if visits == 500 { ("Syncular 71 ms", "Syncular 43 kB") } else { ("", "") };
        let name = "bootstrap";
        let time = Row::info(name, format!("{visits} visits, connect to durable"), total, "ms").detail(detail);
        let size = Row::info(name, format!("{visits} visits, bytes both ways"), bytes, "B")
            .detail(format!("upgrade {} B more, {} round trips", wire.upgrade, wire.flights));
        // The published budget is for 500 visits; the larger case is printed beside ten times of it.
        rows.push(time.budget(budget_ms, peer.0));
        rows.push(size.budget(budget_bytes, peer.1));
    }
    if let Some(client) = last {
        if bench.wants("reconnect") {
            rows.extend(reconnect(&client, &tap, visits).await?);
        }
        client.stop().await;
    }
    Ok(rows)
}

async fn new_phone(
    world: &World,
    dir: &std::path::Path,
    tap: &Tap,
    technician: &TechnicianId,
    number: usize,
) -> Result<Client, BenchError> {
    let setup = world.setup(technician.clone(), tap.base_url(), 100 + number as u64)?;
    world.phone(&dir.join(format!("phone-{number}.sqlite")), setup).await
}

async fn reconnect(client: &Client, tap: &Tap, visits: usize) -> Result<Vec<Row>, BenchError> {
    let (mut times, mut bytes, mut flights, mut upgrade) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for _ in 0..RECONNECTS {
        disconnect(client).await;
        tokio::time::sleep(AFTERMATH).await;
        tap.take();
        let since = Instant::now();
        client.set_network(true);
        caught_up(client).await?;
        times.push(since.elapsed().as_secs_f64() * 1_000.0);
        tokio::time::sleep(AFTERMATH).await;
        let counted = tap.take();
        bytes.push((counted.up + counted.down) as f64);
        flights.push(counted.flights as f64);
        upgrade = counted.upgrade;
    }
    let name = "reconnect";
    Ok(vec![
        Row::info(name, format!("{visits} visits, nothing changed"), median(times), "ms")
            .budget(3.0, "Syncular 5.7 ms")
            .detail("TCP, WebSocket upgrade, token check, hello, welcome, phone's own reads"),
        Row::info(name, format!("{visits} visits, bytes both ways"), median(bytes), "B")
            .budget(300.0, "Syncular 983 B")
            .detail(format!("frame headers included; upgrade {upgrade} B more")),
        Row::info(name, format!("{visits} visits, round trips"), median(flights), "").budget(1.0, ""),
    ])
}

/// From connecting until the last frame of everything is in memory, nothing stored: what the server and the wire take.
async fn first_answers(bench: &Bench, world: &World, technician: &TechnicianId) -> Result<f64, BenchError> {
    let mut times = Vec::new();
    for number in 0..NEW_PHONES {
        let token = bench.technician_token(technician);
        let device = DeviceId::new(format!("dev-bare-{number}"))?;
        let address = world.server.address();
        let since = Instant::now();
        let mut socket = light_socket(address, &token).await?;
        socket.send(Message::binary(hello(device))).await.map_err(BenchError::socket)?;
        loop {
            let Some(frame) = socket.next().await else {
                return Err(BenchError::World("the server closed during bootstrap".to_owned()));
            };
            let Message::Binary(frame) = frame.map_err(BenchError::socket)? else { continue };
            let Ok(ServerMessage::Batch(batch)) = decode_server(&frame) else { continue };
            if !batch.more {
                break;
            }
            // Without receipts the server stops after a few batches, as for any slow phone.
            let receipt = PhoneMessage::Ack(Ack { cursor: batch.to, digest_matched: true });
            socket.send(Message::binary(encode_phone(&receipt))).await.map_err(BenchError::socket)?;
        }
        times.push(since.elapsed().as_secs_f64() * 1_000.0);
    }
    Ok(median(times))
}

/// A phone's greeting that knows nothing.
pub(super) fn hello(device: DeviceId) -> Vec<u8> {
    let hello = Hello {
        device,
        app: "fleet".to_owned(),
        generation: None,
        cursor: Cursor(0),
        outbox: OutboxMark::default(),
        now: super::fixture::real_time(),
    };
    encode_phone(&PhoneMessage::Hello(hello))
}

/// A WebSocket with small buffers and nothing around it.
pub(super) type LightSocket = tokio_tungstenite::WebSocketStream<tokio::net::TcpStream>;

/// Opens one.
pub(super) async fn light_socket(address: std::net::SocketAddr, token: &str) -> Result<LightSocket, BenchError> {
    let mut request = format!("ws://{address}{SYNC_PATH}").into_client_request().map_err(BenchError::socket)?;
    let header = |text: &str| text.parse().map_err(|_| BenchError::World("the token is no header text".to_owned()));
    request.headers_mut().insert("authorization", header(&format!("Bearer {token}"))?);
    request.headers_mut().insert("sec-websocket-protocol", header(SUBPROTOCOL)?);
    let stream = tokio::net::TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let limits = tokio_tungstenite::tungstenite::protocol::WebSocketConfig::default()
        .read_buffer_size(1024)
        .write_buffer_size(1024);
    let (socket, _) =
        tokio_tungstenite::client_async_with_config(request, stream, Some(limits)).await.map_err(BenchError::socket)?;
    Ok(socket)
}
