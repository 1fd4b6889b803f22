//! What happens to rows with age: roll-ups, compression, and what it leaves of their bytes.

use jetcopy::catalog::{ROLLUPS, StoreTable, TABLES};
use jetcopy::config;
use jetcopy::store::maintain;

use super::report::Report;
use super::world::World;

/// Sums up all that there is.
pub(crate) async fn roll_up(world: &World, report: &mut Report) {
    let mut seconds = 0.0;
    if world.timescale() {
        for rollup in &ROLLUPS {
            let name = rollup.name;
            seconds += world.timed(&format!("CALL refresh_continuous_aggregate('{name}', NULL, NULL)")).await;
        }
    } else {
        let started = std::time::Instant::now();
        // Buckets are summed up as far back as rows may come late; here, all that there are.
        for rollup in ROLLUPS.iter().filter(|rollup| rollup.source == rollup.table().name) {
            let (name, time, source) = (rollup.name, rollup.table().time, rollup.source);
            world
                .execute(&format!(
                    "UPDATE jetcopy.rollups SET filled_to = (SELECT min({time}) FROM {source}) \
                     WHERE name = '{name}'"
                ))
                .await;
        }
        let report = maintain::maintain(&world.settings(), &config::Store::default(), true).await.unwrap();
        assert_eq!(report.outcome, maintain::Outcome::Done, "{report:?}");
        seconds += started.elapsed().as_secs_f64();
    }
    report.set("roll-ups: all of them summed up", seconds, "s");
    world.execute("VACUUM ANALYZE").await;
    for rollup in &ROLLUPS {
        let name = rollup.name;
        let rows = world.number(&format!("SELECT count(*) FROM {name}")).await;
        report.set(format!("{name}: rows"), rows, "");
        report.set(format!("{name}: size"), size(world, name).await / rows.max(1.0), "bytes a row");
    }
}

/// The bytes of a table or roll-up with all of its chunks or partitions and indexes.
async fn size(world: &World, name: &str) -> f64 {
    let sql = if world.timescale() {
        format!(
            "SELECT hypertable_size(coalesce((SELECT format('%I.%I', materialization_hypertable_schema,
                materialization_hypertable_name) FROM timescaledb_information.continuous_aggregates \
                    WHERE view_name = '{name}'),
                '{name}')::regclass)"
        )
    } else {
        format!("SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree('{name}')")
    };
    world.number(&sql).await
}

/// Bytes of rows as they came.
pub(crate) async fn sizes(world: &World, report: &mut Report) {
    for table in &TABLES {
        let rows = world.number(&format!("SELECT count(*) FROM {}", table.name)).await;
        report.set(format!("{}: size", table.name), size(world, table.name).await / rows, "bytes a row");
    }
}

/// What it took so far to compress the chunks of each table.
#[derive(Default)]
pub(crate) struct Compression {
    seconds: [f64; TABLES.len()],
    processor_ms: [f64; TABLES.len()],
}

impl Compression {
    /// Compresses what the life cycle has compressed by now, where nobody set another.
    pub(crate) async fn due(&mut self, world: &World) {
        self.compress(world, |table| match table.life.compress_after.age() {
            Some(age) => format!("now() - interval '{} s'", age.as_secs()),
            None => "'-infinity'".to_owned(),
        })
        .await;
    }

    /// Compresses the rest but the newest chunk of each table, and tells what all of it took and left.
    pub(crate) async fn rest(&mut self, world: &World, report: &mut Report) {
        self.compress(world, |table| {
            format!(
                "(SELECT max(range_start) FROM timescaledb_information.chunks WHERE hypertable_name = '{}')",
                table.name
            )
        })
        .await;
        for (index, table) in TABLES.iter().enumerate() {
            let name = table.name;
            let (before, after) = (stats(world, name, "before").await, stats(world, name, "after").await);
            let rows = world
                .number(&format!(
                    "SELECT count(*) FROM {name} WHERE {} < (SELECT max(range_start) \
                     FROM timescaledb_information.chunks
                     WHERE hypertable_name = '{name}')",
                    table.time
                ))
                .await;
            if after == 0.0 {
                continue;
            }
            let (seconds, processor_ms) = (self.seconds[index], self.processor_ms[index]);
            report.set(format!("{name}: compression"), rows / seconds, "rows/s");
            report.set(format!("{name}: processor of compression"), processor_ms * 1e3 / rows, "µs a row");
            report.set(format!("{name}: compressed"), after / rows, "bytes a row");
            report.set(format!("{name}: compression ratio"), before / after, "");
        }
        columns(world, report).await;
    }

    /// Compresses the chunks of each table that end no later than `end` says, in SQL.
    async fn compress(&mut self, world: &World, end: impl Fn(&StoreTable) -> String) {
        for (index, table) in TABLES.iter().enumerate() {
            let ran = world.processor_ms();
            self.seconds[index] += world
                .timed(&format!(
                    "SELECT compress_chunk(format('%I.%I', chunk_schema, chunk_name)::regclass)
                     FROM timescaledb_information.chunks
                     WHERE hypertable_name = '{}' AND NOT is_compressed AND range_end <= {}",
                    table.name,
                    end(table)
                ))
                .await;
            self.processor_ms[index] += world.processor_ms() - ran;
        }
        world.execute("VACUUM ANALYZE").await;
    }
}

async fn stats(world: &World, name: &str, side: &str) -> f64 {
    world
        .number(&format!("SELECT {side}_compression_total_bytes FROM hypertable_compression_stats('{name}')"))
        .await
}

/// What each compressed column of the frames costs.
async fn columns(world: &World, report: &mut Report) {
    let Some(chunk) = world
        .texts(
            "SELECT format('%I.%I', schema_name, table_name) FROM _timescaledb_catalog.chunk WHERE id = (
                SELECT max(c.compressed_chunk_id) FROM _timescaledb_catalog.chunk c
                JOIN _timescaledb_catalog.hypertable h ON h.id = c.hypertable_id \
                    WHERE h.table_name = 'frame_metadata')",
        )
        .await
        .pop()
    else {
        return;
    };
    let names = world
        .texts(&format!(
            "SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = '{chunk}'::regclass \
             AND attnum > 0 AND NOT attisdropped"
        ))
        .await;
    for name in names {
        let sql = format!("SELECT sum(pg_column_size({name}))::float8 / sum(_ts_meta_count) FROM {chunk}");
        report.set(
            format!("frame_metadata: compressed column {name}"),
            world.number(&sql).await,
            "bytes a row",
        );
    }
}
