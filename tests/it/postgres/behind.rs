//! What stands behind the target table fails, or all its rows are refused: no message is at fault, and none
//! is blamed.

use jetcopy::testbed::{PostgresOptions, Stop, TestPostgres};

use super::{in_state, own_server};
use crate::support::{Daemon, EVENTS, Load, World, event, eventually, oracle};

/// Checks that the fault made no dead letters, and judges the rest.
async fn nobody_blamed(world: World, daemon: Daemon, load: Load) {
    world.commits(&daemon).await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0, "{}", daemon.log());
    world.judge(&daemon, load).await;
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);
}

/// Another server, which rows are sent to as well.
fn remote() -> TestPostgres {
    TestPostgres::start(&PostgresOptions::plain()).unwrap()
}

/// Lets a trigger do `what` for one row in forty; false where the server lacks the extension that it needs.
async fn trigger(world: &World, extension: &str, what: &str) -> bool {
    if let Err(error) = world.database.batch_execute(&format!("CREATE EXTENSION {extension}")).await {
        eprintln!("SKIPPED: {error}");
        return false;
    }
    let sql = format!(
        "CREATE FUNCTION behind() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF NEW.id % 40 = 0 THEN {what}; END IF;
             RETURN NEW;
         END $$;
         CREATE TRIGGER behind BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION behind()"
    );
    world.database.batch_execute(&sql).await.unwrap();
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_away_that_dblink_asks_in_a_trigger_is_waited_for() {
    let (_postgres, world) = own_server(&[]).await;
    let mut other = remote();
    let address = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", other.port());
    if !trigger(&world, "dblink", &format!("PERFORM * FROM dblink('{address}', 'SELECT 1') AS t (n int)"))
        .await
    {
        return;
    }
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;

    other.stop(Stop::Immediate);
    let status = in_state(&daemon, "backing_off", "could not establish connection").await;
    assert!(status["reason"].as_str().unwrap().contains("table events"), "{status}");
    assert_eq!(daemon.metric("jetcopy_database_up", ""), 1, "the server is there");
    other.start_again().unwrap();
    nobody_blamed(world, daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_table_behind_a_trigger_may_lose_its_server_and_its_sessions() {
    let (_postgres, world) = own_server(&[]).await;
    let mut other = remote();
    let far = jetcopy::testbed::connect(&other.url()).await.unwrap();
    far.batch_execute("CREATE TABLE seen (id bigint)").await.unwrap();
    if !trigger(&world, "postgres_fdw", "INSERT INTO seen VALUES (NEW.id)").await {
        return;
    }
    let foreign = format!(
        "CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw OPTIONS (host '127.0.0.1', port '{}', \
         dbname 'postgres');
         CREATE USER MAPPING FOR postgres SERVER far OPTIONS (user 'postgres');
         CREATE FOREIGN TABLE seen (id bigint) SERVER far",
        other.port()
    );
    world.database.batch_execute(&foreign).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    world.commits(&daemon).await;

    for _ in 0..3 {
        let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
            WHERE application_name = 'postgres_fdw' AND pid <> pg_backend_pid()";
        far.batch_execute(end).await.unwrap();
        world.commits(&daemon).await;
    }
    other.stop(Stop::Immediate);
    in_state(&daemon, "backing_off", "table events").await;
    other.start_again().unwrap();
    nobody_blamed(world, daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn classes_of_outages_are_never_a_rows_fault_whoever_raises_them() {
    let (_postgres, world) = own_server(&[]).await;
    // As Citus, columnar tables and other extensions raise them; here a trigger does, for some rows.
    let outage = "CREATE TABLE outage (code text);
        CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE found text; BEGIN
            SELECT code INTO found FROM outage;
            IF found IS NOT NULL AND NEW.id % 40 = 0 THEN RAISE 'a worker is away' USING ERRCODE = found; \
                END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER fail BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION fail()";
    world.database.batch_execute(outage).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    for code in ["08006", "08P01", "XX000", "57P01", "57P03", "HV00N", "53200", "58030", "58000"] {
        world.commits(&daemon).await;
        world.database.execute("INSERT INTO outage VALUES ($1)", &[&code]).await.unwrap();
        in_state(&daemon, "backing_off", "a worker is away").await;
        world.database.batch_execute("DELETE FROM outage").await.unwrap();
    }
    nobody_blamed(world, daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_exhausted_sequence_pauses_until_it_has_numbers_again() {
    let (_postgres, world) = own_server(&[]).await;
    let limited = "CREATE SEQUENCE numbers MAXVALUE 3000;
        ALTER TABLE events ADD COLUMN number integer DEFAULT nextval('numbers')";
    world.database.batch_execute(limited).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    let status = in_state(&daemon, "paused", "reached maximum value of sequence").await;
    assert!(status["remedy"].as_str().unwrap().contains("ALTER SEQUENCE"), "{status}");
    world.database.batch_execute("ALTER SEQUENCE numbers MAXVALUE 2147483647").await.unwrap();
    nobody_blamed(world, daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_a_trigger_writes_to_is_at_fault_itself_whatever_it_refuses() {
    let (_postgres, world) = own_server(&[]).await;
    // Errors about the target have the same codes: no partition, a check, NOT NULL, a key.
    let audit = "CREATE TABLE trail (id bigint PRIMARY KEY, note text) PARTITION BY HASH (id);
        CREATE TABLE trail_0 PARTITION OF trail FOR VALUES WITH (MODULUS 2, REMAINDER 0);
        CREATE TABLE trail_1 PARTITION OF trail FOR VALUES WITH (MODULUS 2, REMAINDER 1);
        CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            INSERT INTO trail VALUES (NEW.id, CASE WHEN NEW.id % 2 = 0 THEN 'even' END);
            RETURN NULL;
        END $$;
        CREATE TRIGGER audit AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION audit()";
    world.database.batch_execute(audit).await.unwrap();
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    let faults = [
        (
            "ALTER TABLE trail DETACH PARTITION trail_1",
            "ALTER TABLE trail ATTACH PARTITION trail_1 FOR VALUES WITH (MODULUS 2, REMAINDER 1)",
            "trail",
        ),
        (
            "ALTER TABLE trail ADD CONSTRAINT odd CHECK (id % 2 = 0) NOT VALID",
            "ALTER TABLE trail DROP CONSTRAINT odd",
            "trail_",
        ),
        (
            "BEGIN; LOCK TABLE trail IN ACCESS EXCLUSIVE MODE; DELETE FROM trail;
             ALTER TABLE trail ALTER note SET NOT NULL; COMMIT",
            "ALTER TABLE trail ALTER note DROP NOT NULL",
            "trail_",
        ),
    ];
    for (fault, cure, names) in faults {
        world.commits(&daemon).await;
        world.database.batch_execute(fault).await.unwrap();
        let status = in_state(&daemon, "backing_off", "another relation").await;
        assert!(status["reason"].as_str().unwrap().contains(&format!("public.{names}")), "{status}");
        world.database.batch_execute(cure).await.unwrap();
    }
    nobody_blamed(world, daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_that_refuses_every_row_is_waited_for_and_no_message_blamed() {
    let (_postgres, world) = own_server(&[]).await;
    let daemon = Daemon::start(&world.config(EVENTS));
    let load = Load::start(&world);
    let no =
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no rows today'; END $$";
    world.database.batch_execute(no).await.unwrap();
    let faults = [
        (
            "ALTER TABLE events ADD CONSTRAINT no CHECK (id < 0) NOT VALID",
            "ALTER TABLE events DROP CONSTRAINT no",
        ),
        (
            "ALTER TABLE events ADD COLUMN more text; ALTER TABLE events ADD CONSTRAINT more \
             CHECK (more IS NOT NULL) NOT VALID",
            "ALTER TABLE events DROP COLUMN more",
        ),
        (
            "CREATE TRIGGER no BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION no()",
            "DROP TRIGGER no ON events",
        ),
        (
            "CREATE TRIGGER no AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION no()",
            "DROP TRIGGER no ON events",
        ),
        (
            "CREATE TRIGGER no AFTER INSERT ON events FOR EACH STATEMENT EXECUTE FUNCTION no()",
            "DROP TRIGGER no ON events",
        ),
        (
            "CREATE CONSTRAINT TRIGGER no AFTER INSERT ON events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW \
             EXECUTE FUNCTION no()",
            "DROP TRIGGER no ON events",
        ),
    ];
    for (fault, cure) in faults {
        world.commits(&daemon).await;
        world.database.batch_execute(fault).await.unwrap();
        in_state(&daemon, "backing_off", "no message is at fault").await;
        world.database.batch_execute(cure).await.unwrap();
    }
    nobody_blamed(world, daemon, load).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_alone_meets_an_error_of_an_outage_is_told_to_a_person_and_can_be_deleted() {
    let (_postgres, world) = own_server(&[]).await;
    let fail = "CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.id = 13 THEN RAISE 'thirteen' USING ERRCODE = '08006'; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER fail BEFORE INSERT ON events FOR EACH ROW EXECUTE FUNCTION fail()";
    world.database.batch_execute(fail).await.unwrap();
    world.publish("a", (1..=20).map(event)).await;
    let daemon = Daemon::start(&world.config(EVENTS));
    in_state(&daemon, "backing_off", "thirteen").await;
    let status = in_state(&daemon, "paused", "thirteen").await;
    assert!(status["remedy"].as_str().unwrap().contains("sequence 13"), "{status}");
    assert_eq!(world.count("SELECT count(*) FROM jetcopy.dead_letters").await, 0);

    world.jetstream.get_stream(&world.stream).await.unwrap().delete_message(13).await.unwrap();
    eventually("the pipeline to go on", || async { world.checkpoint("events").await == 20 }).await;
    oracle(&world, &daemon, "events", "events", event(21)).await;
}
