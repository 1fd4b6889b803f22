//! Rows that a trigger of the table leaves out: no error for the server, and no row.

use super::in_state;
use crate::support::{Daemon, EVENTS, TABLE, World, event, eventually};

const EVEN_ONLY: &str = "CREATE FUNCTION even_only() RETURNS trigger LANGUAGE plpgsql AS
        $$BEGIN IF new.id % 2 = 1 THEN RETURN NULL; END IF; RETURN new; END$$;
    CREATE TRIGGER even_only BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION even_only()";

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_trigger_leaves_out_are_counted_told_once_and_not_counted_as_stored() {
    let world = World::new().await;
    world.database.batch_execute(&format!("{TABLE}; {EVEN_ONLY}")).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    world.publish("a", (1..=500).map(event)).await;
    world.drained("events", &daemon).await;
    world.publish("a", (501..=1000).map(event)).await;
    world.drained("events", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM events").await, 500);
    let left_out = || daemon.metric("jetcopy_rows_left_out_total", "table=\"events\"");
    eventually("the rows to be counted", async || left_out() == 500).await;
    assert_eq!(daemon.metric("jetcopy_rows_total", "table=\"events\""), 500);
    daemon.says_times("a trigger of the table leaves rows out", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_a_trigger_left_out_is_no_proof_that_the_table_takes_rows() {
    let world = World::new().await;
    world.database.batch_execute(&format!("{TABLE}; {EVEN_ONLY}")).await.unwrap();
    let config = world.config(EVENTS);
    let daemon = Daemon::start(&config);
    world.publish("a", [event(1)]).await;
    world.drained("events", &daemon).await;
    // The table refuses every row that the trigger lets through, and no message is to blame.
    world.database.batch_execute("ALTER TABLE events ADD CHECK (false) NOT VALID").await.unwrap();
    world.publish("a", [event(3), event(2), event(5), event(4)]).await;
    in_state(&daemon, "backing_off", "no message is at fault").await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
    world.database.batch_execute("ALTER TABLE events DROP CONSTRAINT events_check").await.unwrap();
    world.drained("events", &daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM events").await, 2);
}
