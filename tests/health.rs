//! What operators and machines are told of how things stand, and that nothing is left out of it.

use crate::harness::World;

#[tokio::test]
async fn every_figure_is_there_while_nothing_happens() {
    let world = World::new().await;
    let store = posthaste::store::Store::open(&world.config(&[])).unwrap();
    let mut said: Vec<String> = Vec::new();
    for figure in store.figures(1000).await.unwrap() {
        said.push(format!(
            "{} {}",
            figure.figure,
            figure.label.unwrap_or_default()
        ));
    }
    assert_eq!(said.len(), 31, "{said:#?}");
    assert_eq!(store.table_figures().await.unwrap().len(), 9 * 4 + 2 * 3);
    assert_eq!(store.subscription_figures(5, &[]).await.unwrap(), []);
    let found = store.findings().await.unwrap();
    assert_eq!(found[0].finding, "no_worker");
}
