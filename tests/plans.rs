//! What a hot statement reads follows what it returns: with nothing waiting or a million rows, with fresh statistics or stale
//! ones, with a plan made long ago, and with vacuum held back.

mod calls;
mod cost;
mod session;
mod stock;

use self::calls::{CALLS, Call};
use self::cost::Cost;
use self::session::Session;
use self::stock::Stock;

#[tokio::test]
async fn look() {
    for rows in [0, 10_000, 1_000_000] {
        let begun = std::time::Instant::now();
        let stock = Stock::empty().await;
        let early = stock.planned_session().await;
        if rows > 0 {
            stock.fill(1, rows).await;
        }
        eprintln!("filled {:?}", begun.elapsed());
        let stale = stock.session().await;
        for (what, session) in [("early", &early), ("stale", &stale)] {
            for call in CALLS {
                let cost = session.cost(call).await;
                eprintln!("{rows} {what} {} {:?} {:?}", cost.account(), cost.strays(call), cost.crowds(2048.0));
            }
        }
        stock.analyze().await;
        let fresh = stock.session().await;
        for call in CALLS {
            let cost = fresh.cost(call).await;
            eprintln!("{rows} fresh {} {:?} {:?}", cost.account(), cost.strays(call), cost.crowds(2048.0));
        }
        eprintln!("looked {:?}", begun.elapsed());
    }
}
