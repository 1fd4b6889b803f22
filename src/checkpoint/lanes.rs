//! The rows of a shard's lanes.
//!
//! Guarantees: a shard has either no row here, and one writer, or a row for each of its lanes, all of one
//! layout. Whoever moves the shard as a whole removes them: the next claim makes them anew, where the shard
//! stands. A commit of one lane waits for none of another. Who removes or changes rows seals what their lanes
//! have committed: `jetcopy.set_lanes()` does both.

use postgres_protocol::escape::escape_literal;

use super::{Advance, Along, Claim, Error, Position};
use crate::lanes::{Lanes, Layout};
use crate::postgres::interval::timestamp;
use crate::postgres::simple::{self, Answers};

/// The column by which the rows of lanes are known among other answers.
const LANE: &str = "jetcopy_lane";

/// The lanes of a shard, and when the stream stored the message that each stands at.
type Found = (Lanes, Vec<Option<i64>>);

/// SQL for where a shard stands, whose checkpoint's row goes by the name `row`: without lanes, at its
/// checkpoint, which costs no call.
#[must_use]
pub(super) fn floor_sql(row: &str) -> String {
    format!(
        "CASE WHEN EXISTS (SELECT FROM jetcopy.lanes lane WHERE lane.shard = {row}.shard) \
         THEN jetcopy.floor({row}.shard) ELSE {row}.last_sequence END"
    )
}

/// SQL for when the stream stored the message there, where that is known.
#[must_use]
pub(super) fn floor_timestamp_sql(row: &str) -> String {
    format!(
        "CASE WHEN EXISTS (SELECT FROM jetcopy.lanes lane WHERE lane.shard = {row}.shard) \
         THEN (SELECT max(lane.last_timestamp) FROM jetcopy.lanes lane WHERE lane.shard = {row}.shard \
           AND lane.last_sequence = jetcopy.floor({row}.shard)) ELSE {row}.last_timestamp END"
    )
}

/// SQL that locks the lanes of a shard, `name` as a literal, and so waits for their commits.
#[must_use]
pub(super) fn lock_sql(name: &str) -> String {
    format!("SELECT FROM jetcopy.lanes WHERE shard = {name} ORDER BY lane FOR UPDATE; ")
}

/// SQL that takes the lanes of a shard along with a claim whose transaction is open, and whose writers' seals
/// are closed: as `wanted`, once the lanes that there are have nothing left to settle.
#[must_use]
pub(super) fn take_sql(name: &str, wanted: Layout) -> String {
    let fence = fence_sql(name);
    let (lanes, block) = (wanted.lanes, i64::try_from(wanted.block).unwrap_or(i64::MAX));
    let differ = if wanted.lanes > 1 {
        format!(
            "NOT EXISTS (SELECT FROM jetcopy.lanes same WHERE same.shard = c.shard \
               AND same.lanes = {lanes} AND same.block = {block})"
        )
    } else {
        "EXISTS (SELECT FROM jetcopy.lanes other WHERE other.shard = c.shard)".to_owned()
    };
    format!(
        "SELECT jetcopy.set_lanes(c.shard, {lanes}, {block}) FROM jetcopy.checkpoints c \
         WHERE c.shard = {name} AND {differ} AND c.last_sequence >= coalesce(\
           (SELECT max(lane.last_sequence) FROM jetcopy.lanes lane WHERE lane.shard = c.shard), 0); \
         {fence} \
         RETURNING lane.lane AS {LANE}, lane.block, lane.last_sequence, \
           (extract(epoch FROM lane.last_timestamp) * 1000000::numeric)::bigint; "
    )
}

/// SQL that fences the writers of all lanes by the epoch of the shard.
#[must_use]
pub(super) fn fence_sql(name: &str) -> String {
    format!(
        "UPDATE jetcopy.lanes lane SET epoch = c.epoch FROM jetcopy.checkpoints c \
         WHERE c.shard = {name} AND lane.shard = c.shard"
    )
}

/// SQL that removes the lanes of a shard, which stands where its checkpoint says, and seals what they have
/// committed; only for who has fenced them.
#[must_use]
pub(super) fn remove_sql(name: &str) -> String {
    format!("SELECT jetcopy.set_lanes({name}, 1, 1)")
}

/// SQL that moves all lanes to `to` after a loss; not back, where what is above it is `kept`.
#[must_use]
pub(super) fn relocate_sql(name: &str, to: u64, kept: bool) -> String {
    let ahead = if kept { format!(" AND last_sequence < {to}") } else { String::new() };
    format!(
        "UPDATE jetcopy.lanes SET last_sequence = {to}, last_timestamp = NULL, updated_at = now() \
         WHERE shard = {name}{ahead}; "
    )
}

/// The lanes that [`take_sql`] answers, each with when the stream stored the message that it stands at;
/// `None` where there are none.
pub(super) fn read(answers: &Answers) -> Result<Option<Found>, Error> {
    let unreadable = || Error::Unreadable { column: "lane" };
    let rows = answers.rows().filter(|row| row.columns().first().is_some_and(|first| first.name() == LANE));
    let mut lanes = Vec::new();
    for row in rows {
        let number = |column| simple::number::<u64>(row, column).ok_or_else(unreadable);
        lanes.push((number(0)?, number(1)?, number(2)?, simple::number::<i64>(row, 3)));
    }
    lanes.sort_unstable();
    let Some(&(_, block, ..)) = lanes.first() else { return Ok(None) };
    // A row that is missing would shift all those after it.
    let is_whole = (0..).zip(&lanes).all(|(index, &(lane, of, ..))| lane == index && of == block);
    if !is_whole {
        return Err(unreadable());
    }
    let times = lanes.iter().map(|lane| lane.3).collect();
    Ok(Some((Lanes::new(block, lanes.into_iter().map(|lane| lane.2).collect()), times)))
}

impl Claim {
    /// The same claim with the lanes that it took, if there are any.
    pub(super) fn with(self, taken: Option<Found>) -> Self {
        let Some((lanes, times)) = taken else { return self };
        // What follows the floor was stored no earlier than what a lane has committed below.
        let below = lanes.checkpoints().iter().zip(times).filter(|(last, _)| **last <= lanes.floor());
        let since_us = below.filter_map(|(_, time)| time).max();
        Self { last_sequence: lanes.floor(), since_us, lanes, ..self }
    }
}

/// SQL that moves one lane by compare-and-set, as a row that says `moved`, and what a lane changes in the
/// shard's own row.
///
/// It also looks whether the other lanes still are where they are known to be: a failover may have cost one
/// of them what is acknowledged together with this.
#[must_use]
pub(super) fn advance_sql(at: &Position<'_>, to: &Advance, along: &Along, moved: &str) -> String {
    let Along { accepted, set, close, .. } = along;
    let name = escape_literal(&at.shard.name);
    let known: Vec<String> = at.others.iter().map(u64::to_string).collect();
    let stored = match to.last_timestamp_ns {
        0 => "NULL".to_owned(),
        known => timestamp(known),
    };
    // The shard's row is locked before the lane's, as by a claim, and only where it changes: a seal of the
    // lane is closed after that.
    let shard_sql = match accepted {
        0 if at.keeps_flood => String::new(),
        0 => format!(
            "UPDATE jetcopy.checkpoints SET flood = NULL WHERE shard = {name} AND epoch = {} \
               AND flood IS NOT NULL; ",
            at.epoch
        ),
        _ => format!(
            "UPDATE jetcopy.checkpoints SET accepted_letters = accepted_letters - {accepted} \
             WHERE shard = {name} AND epoch = {} AND accepted_letters >= {accepted} \
             RETURNING true AS {USED}; ",
            at.epoch
        ),
    };
    format!(
        "{shard_sql}{close}UPDATE jetcopy.lanes SET last_sequence = {to}, last_timestamp = {stored}, \
           updated_at = now(){set} \
         WHERE shard = {name} AND lane = {lane} AND epoch = {epoch} AND last_sequence = {from} \
           AND NOT EXISTS (SELECT FROM jetcopy.lanes other WHERE other.shard = {name} \
             AND (other.epoch <> {epoch} OR other.last_sequence < \
               ('{{{known}}}'::bigint[])[other.lane + 1])) \
         RETURNING true AS {moved}, {} AS {VERIFIED}; ",
        verified_sql(&name),
        epoch = at.epoch,
        lane = at.lane,
        from = at.from,
        to = to.last_sequence,
        known = known.join(","),
    )
}

/// SQL for up to where an audit has proven the tables, which the shard's row says.
fn verified_sql(name: &str) -> String {
    format!("(SELECT c.verified_sequence FROM jetcopy.checkpoints c WHERE c.shard = {name})")
}

/// The column that says that accepted letters were used up.
pub(super) const USED: &str = "jetcopy_used";

/// The column that says up to where an audit has proven the tables.
pub(super) const VERIFIED: &str = "jetcopy_verified";

/// SQL that finds the row of a lane where it is known to be.
#[must_use]
pub(super) fn confirm_sql(at: &Position<'_>) -> String {
    let name = escape_literal(&at.shard.name);
    format!(
        "SELECT shard, {} AS verified_sequence FROM jetcopy.lanes WHERE shard = {name} AND lane = {} \
         AND epoch = {} AND last_sequence = {}",
        verified_sql(&name),
        at.lane,
        at.epoch,
        at.from,
    )
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tokio_postgres::Client;

    use super::*;
    use crate::config::Postgres;
    use crate::migrate::migrate;
    use crate::postgres::simple::ask;
    use crate::shard::Shard;
    use crate::testbed::{TestPostgres, connect};

    async fn database() -> (Arc<TestPostgres>, Client) {
        let server = TestPostgres::shared().unwrap();
        let url = server.create_database().await.unwrap();
        migrate(&Postgres { url: url.clone(), ..Postgres::default() }).await.unwrap();
        let client = connect(&url).await.unwrap();
        let shard = "INSERT INTO jetcopy.checkpoints (shard, pipeline, stream, last_sequence, epoch) \
                     VALUES ('s', 's', 'S', 7, 3)";
        client.batch_execute(shard).await.unwrap();
        (server, client)
    }

    async fn set(client: &Client, lanes: &Lanes) {
        let Layout { lanes: count, block } = lanes.layout();
        let rows = lanes.checkpoints().iter().enumerate();
        let rows: Vec<_> =
            rows.map(|(lane, last)| format!("('s', {lane}, {count}, {block}, 3, {last})")).collect();
        let sql = format!(
            "DELETE FROM jetcopy.lanes; DELETE FROM jetcopy.seals; \
             UPDATE jetcopy.checkpoints SET seal_number = 0, seal_hash = NULL, seal_after = 0, seal_to = 0; \
             INSERT INTO jetcopy.lanes (shard, lane, lanes, block, epoch, last_sequence) VALUES {}",
            rows.join(", ")
        );
        client.batch_execute(&sql).await.unwrap();
    }

    async fn number(client: &Client, sql: &str) -> i64 {
        client.query_one(sql, &[]).await.unwrap().get(0)
    }

    #[tokio::test]
    async fn the_database_knows_the_floor_and_each_sequence_as_the_code_does() {
        let (_server, client) = database().await;
        assert_eq!(number(&client, "SELECT jetcopy.floor('s')").await, 7, "without lanes");
        // Anything, and the same in each run.
        let mut random = 12_345_u64;
        let mut next = |below: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % below
        };
        for _ in 0..200 {
            let (block, count) = (1 + next(7), 1 + next(5));
            let lanes = Lanes::new(block, (0..count).map(|_| next(80)).collect());
            set(&client, &lanes).await;
            let floor = number(&client, "SELECT jetcopy.floor('s')").await;
            assert_eq!(u64::try_from(floor), Ok(lanes.floor()), "{lanes:?}");
            let held = "SELECT coalesce(array_agg(n ORDER BY n), '{}') \
                        FROM generate_series(1, 100::bigint) n WHERE jetcopy.is_committed('s', n)";
            let held: Vec<i64> = client.query_one(held, &[]).await.unwrap().get(0);
            let expected = (1..=100_u64).filter(|&sequence| lanes.holds(sequence));
            assert_eq!(held, expected.map(|n| i64::try_from(n).unwrap()).collect::<Vec<_>>(), "{lanes:?}");
        }
    }

    #[tokio::test]
    async fn lanes_are_changed_by_a_claim_once_none_is_ahead_of_another() {
        let (_server, client) = database().await;
        let wanted = Layout { lanes: 3, block: 10 };
        let take = format!("BEGIN; {}COMMIT", take_sql("'s'", wanted));
        let taken = async || read(&ask(&client, &take).await.unwrap()).unwrap().unwrap().0;
        assert_eq!(taken().await, wanted.at(7), "there were none");
        let apart = Lanes::new(5, vec![10, 3]);
        set(&client, &apart).await;
        client
            .batch_execute("UPDATE jetcopy.checkpoints SET last_sequence = jetcopy.floor('s')")
            .await
            .unwrap();
        assert_eq!(taken().await, apart, "one is ahead");
        set(&client, &Lanes::new(5, vec![5, 10])).await;
        client
            .batch_execute("UPDATE jetcopy.checkpoints SET last_sequence = jetcopy.floor('s')")
            .await
            .unwrap();
        assert_eq!(taken().await, wanted.at(10));
        let alone = format!("BEGIN; {}COMMIT", take_sql("'s'", Layout::SINGLE));
        ask(&client, &alone).await.unwrap();
        assert_eq!(number(&client, "SELECT count(*) FROM jetcopy.lanes").await, 0);
        assert_eq!(number(&client, "SELECT jetcopy.floor('s')").await, 10);
    }

    #[tokio::test]
    async fn whoever_removes_lanes_seals_what_they_have_committed_and_the_first_chain_goes_on() {
        let (_server, client) = database().await;
        let moved = "SELECT jetcopy.set_lanes('s', 2, 10); \
                     UPDATE jetcopy.lanes SET last_sequence = 10 + 10 * lane, seal_to = 10 + 10 * lane, \
                       seal_messages = lane + 5; \
                     UPDATE jetcopy.checkpoints SET last_sequence = 4, verified_sequence = 6";
        client.batch_execute(moved).await.unwrap();
        ask(&client, &remove_sql("'s'")).await.unwrap();
        let seals = "SELECT string_agg(concat_ws(' ', lane, number, kind, from_sequence, to_sequence, \
                     messages, lanes), ', ' ORDER BY lane, number) FROM jetcopy.seals";
        let seals: String = client.query_one(seals, &[]).await.unwrap().get(0);
        let expected = [
            "0 1 begun 0 7 0",
            "0 2 lanes 7 7 0 2",
            "0 3 committed 8 10 5 2",
            "0 4 lanes 10 4 0",
            "1 1 lanes 0 7 0 2",
            "1 2 committed 8 20 6 2",
            "1 3 lanes 20 4 0",
        ];
        assert_eq!(seals, expected.join(", "));
        let point = "SELECT concat_ws(' ', seal_number, seal_after, seal_to, verified_sequence, \
                     (SELECT count(*) FROM jetcopy.lanes)) FROM jetcopy.checkpoints";
        let point: String = client.query_one(point, &[]).await.unwrap().get(0);
        assert_eq!(point, "4 4 4 4 0");
    }

    #[tokio::test]
    async fn a_lane_moves_only_under_its_claim_from_where_it_stands_and_while_no_other_has_gone_back() {
        let (_server, client) = database().await;
        let shard = Shard::new("s", "s", "S");
        let to = Advance { last_sequence: 20, last_timestamp_ns: 0 };
        let moves = async |epoch, from, others: &[u64]| {
            set(&client, &Lanes::new(10, vec![10, 15])).await;
            let at = Position { shard: &shard, epoch, lane: 1, from, others, keeps_flood: false };
            let sql = advance_sql(&at, &to, &Along::default(), "moved");
            ask(&client, &sql).await.unwrap().named("moved").is_some()
        };
        assert!(moves(3, 15, &[10, 15]).await);
        assert!(moves(3, 15, &[9, 15]).await, "another has come further meanwhile");
        assert!(!moves(2, 15, &[10, 15]).await, "another claim");
        assert!(!moves(3, 14, &[10, 14]).await, "another place");
        assert!(!moves(3, 15, &[11, 15]).await, "another lane has lost a commit");
    }
}
