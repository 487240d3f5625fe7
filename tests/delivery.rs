//! A committed event reaches every subscription that matches, signed and byte for byte; one that was rolled back reaches none.

use crate::harness::World;

#[tokio::test]
async fn a_committed_event_reaches_its_partner_signed() {
    let world = World::new().await;
    let partner = world.partner().await;
    world.subscribe("harbour", &partner, "5s").await;
    let _worker = world.worker(&[]).await;
    let id = world
        .publish("certificate.issued", r#"{"student": 7}"#)
        .await;
    let received = &partner.wait_for(1).await[0];
    assert_eq!(
        (received.id.clone(), received.verified),
        (id.to_string(), Some(Ok(())))
    );
    world.until_all_is_done().await;
    assert_eq!(world.story(id).await, "1 accepted done");
}
