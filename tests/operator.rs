//! What an operator sees: figures, and whether the server can work.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a story that is not as told shall fail")]

mod support;

use reqwest::StatusCode;
use support::World;

/// One sample of the figures; 0 where there is none yet.
fn sample(figures: &str, series: &str) -> f64 {
    figures.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()).unwrap_or_default()
}

async fn figures(world: &World) -> String {
    let address = world.server().admin_address().expect("an operator's listener");
    let answer = world.http.get(format!("http://{address}/metrics")).send().await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(answer.headers()["content-type"].to_str().unwrap().starts_with("text/plain; version=0.0.4"));
    answer.text().await.unwrap()
}

/// The figures are the process's: this file has one story, so that they are this story's.
#[tokio::test(flavor = "multi_thread")]
async fn the_operator_sees_phones_calls_commits_and_how_fast_a_visit_reaches_its_phone() {
    let world = World::start().await;
    let phone = world.phone("TECH-10", "maria");
    phone.caught_up().await;
    let dispatch = world.assigned("SO-1", 1, "TECH-10").await;
    phone.until_holding(&dispatch).await;
    phone.starts_work(&dispatch).await;
    phone.caught_up().await;
    // The receipt of the assignment may still be on its way.
    world.until_status(&dispatch, "IN_PROGRESS").await;
    let (status, _) = world.call(reqwest::Method::GET, "/DSP-404", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(world.http.get(format!("{}/health/ready", world.url())).send().await.unwrap().status(), StatusCode::OK);

    let text = figures(&world).await;
    let is = |series: &str| sample(&text, series);
    let base = "/api/v1/crm/dispatch";
    assert_eq!(is("crm_dispatch_phones_connected"), 1.0, "{text}");
    assert_eq!(is("crm_dispatch_ready"), 1.0, "{text}");
    assert_eq!(
        is(&format!(
            "crm_dispatch_http_requests_total{{method=\"POST\",route=\"{base}/{{dispatchId}}/assign\",status=\"200\"}}"
        )),
        1.0,
        "{text}"
    );
    assert_eq!(
        is(&format!(
            "crm_dispatch_http_requests_total{{method=\"GET\",route=\"{base}/{{dispatchId}}\",status=\"404\"}}"
        )),
        1.0,
        "{text}"
    );
    assert!(is("crm_dispatch_commits_total{result=\"committed\"}") >= 4.0, "{text}");
    assert!(is("crm_dispatch_pushes_total{result=\"stored\"}") >= 1.0, "{text}");
    assert!(is("crm_dispatch_delivery_seconds_count") >= 1.0, "{text}");
    assert!(is("crm_dispatch_sync_frames_total{direction=\"in\"}") >= 3.0, "{text}");
    assert!(!text.contains("SO-1") && !text.contains("DSP-1") && !text.contains("tenant-001"), "ids are no labels");

    phone.go_offline();
    let gone = async {
        while sample(&figures(&world).await, "crm_dispatch_phones_connected") != 0.0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(support::PATIENCE, gone).await.unwrap();
    // The public listener tells a stranger nothing.
    let public = world.http.get(format!("{}/metrics", world.url())).send().await.unwrap();
    assert_eq!(public.status(), StatusCode::NOT_FOUND);
}
