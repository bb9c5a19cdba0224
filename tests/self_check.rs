//! What a phone holds is compared with what the server has for it after every sync; what differs heals itself, and is counted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a story that is not as told shall fail")]

mod support;

use support::World;
use sync_core::domain::FactKind;

async fn mismatches(world: &World) -> (u64, f64) {
    let devices = world.get("/devices").await;
    let of_phone = devices["items"][0]["digestMismatches"].as_u64().unwrap_or_else(|| panic!("{devices}"));
    let figures = format!("http://{}/metrics", world.server().admin_address().expect("an operator's listener"));
    let text = world.http.get(figures).send().await.unwrap().text().await.unwrap();
    let counted =
        text.lines().find_map(|line| line.strip_prefix("crm_dispatch_digest_mismatches_total ")?.parse().ok());
    (of_phone, counted.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_visit_that_a_phone_lost_without_a_word_is_back_after_the_next_sync_and_counted() {
    let world = World::start().await;
    let phone = world.phone("TECH-10", "maria");
    let (lost, other) = (world.assigned("SO-1", 1, "TECH-10").await, world.assigned("SO-2", 3, "TECH-10").await);
    phone.until_holding(&lost).await;
    phone.until_holding(&other).await;
    phone.caught_up().await;
    assert_eq!(mismatches(&world).await, (0, 0.0));
    phone.client.stop().await;
    phone.does(&other, FactKind::Accepted { eta: None }).await;
    phone.store().close().unwrap();
    let path = phone.path.clone();
    drop(phone);

    let file = rusqlite::Connection::open(&path).unwrap();
    assert_eq!(file.execute("DELETE FROM visits WHERE dispatch_id = ?1", [lost.as_str()]).unwrap(), 1);
    file.close().unwrap();

    let phone = world.phone("TECH-10", "maria");
    phone.until_holding(&lost).await;
    phone.caught_up().await;
    world.until_status(&other, "CONFIRMED").await;
    assert_eq!(mismatches(&world).await, (1, 1.0), "once, and it is whole again");

    // The next connection finds nothing to mend.
    phone.go_offline();
    phone.until_phase(sync_core::client::Phase::NoNetwork).await;
    phone.go_online();
    phone.until_phase(sync_core::client::Phase::Connected).await;
    phone.caught_up().await;
    assert_eq!(mismatches(&world).await, (1, 1.0));
}
