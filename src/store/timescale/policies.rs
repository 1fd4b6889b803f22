//! Policies: TimescaleDB's jobs for one table or roll-up, brought to what the settings say.
//!
//! Guarantees: of a job that is there only what differs is altered; how often it runs, where settings do not
//! name it, and whether it is paused stay an operator's business.
//!
//! Jobs run at fixed times. One that goes by the end of its last run is put off further with each failure, up
//! to five times its interval; one with fixed times never misses its next. That matters where TimescaleDB up
//! to 2.28.3 runs on a PostgreSQL that refuses to drop a portal "while it is being set up" (15.20): there
//! every job, done and committed, counts as failed.

use std::time::Duration;

use tokio_postgres::types::Type;
use tokio_postgres::{Client, Row};

use super::{Change, Error, Run};
use crate::catalog::{After, Refresh, written};
use crate::postgres::interval;

/// The jobs of a procedure for a relation: id, the ages in the keys `$3` and `$4` of its configuration, and
/// how often it runs, all in microseconds. Jobs of a continuous aggregate are listed under its own name or,
/// before 2.16, under that of the hypertable behind it.
const JOBS: &str = "SELECT j.job_id,
        (extract(epoch FROM (j.config ->> $3)::interval) * 1000000::numeric)::bigint,
        (extract(epoch FROM (j.config ->> $4)::interval) * 1000000::numeric)::bigint,
        (extract(epoch FROM j.schedule_interval) * 1000000::numeric)::bigint
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN timescaledb_information.continuous_aggregates a ON a.view_schema = n.nspname
        AND a.view_name = c.relname
    JOIN timescaledb_information.jobs j ON (j.hypertable_schema, j.hypertable_name) IN (
        (n.nspname, c.relname), (a.materialization_hypertable_schema, a.materialization_hypertable_name))
    WHERE c.oid = to_regclass($1)::oid AND j.proc_name = $2
    ORDER BY j.job_id";

/// Jobs of a table or roll-up that jetcopy makes, and that go by the end of their last run.
const DRIFTING: &str = "SELECT j.job_id, j.proc_name::text
    FROM pg_class c
    JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN timescaledb_information.continuous_aggregates a ON a.view_schema = n.nspname
        AND a.view_name = c.relname
    JOIN timescaledb_information.jobs j ON (j.hypertable_schema, j.hypertable_name) IN (
        (n.nspname, c.relname), (a.materialization_hypertable_schema, a.materialization_hypertable_name))
    WHERE c.oid = to_regclass($1) AND NOT j.fixed_schedule AND (
        j.proc_name = 'policy_compression' AND j.config ? 'compress_after'
        OR j.proc_name = 'policy_retention' AND j.config ? 'drop_after'
        OR j.proc_name = 'policy_refresh_continuous_aggregate' AND 1 = (
            SELECT count(*) FROM timescaledb_information.jobs o
            WHERE (o.hypertable_schema, o.hypertable_name) = (j.hypertable_schema, j.hypertable_name)
                AND o.proc_name = j.proc_name))
    ORDER BY j.job_id";

/// A policy that acts on rows of an age.
pub(super) struct Policy {
    /// What it does to rows, in the words of a report.
    what: &'static str,
    /// The procedure of its job.
    procedure: &'static str,
    /// The age, in the job's configuration and as an argument.
    key: &'static str,
    add: &'static str,
    remove: &'static str,
}

/// Compresses chunks.
pub(super) const COMPRESSION: Policy = Policy {
    what: "compressed after",
    procedure: "policy_compression",
    key: "compress_after",
    add: "add_compression_policy",
    remove: "remove_compression_policy",
};

/// Drops chunks.
pub(super) const RETENTION: Policy = Policy {
    what: "dropped after",
    procedure: "policy_retention",
    key: "drop_after",
    add: "add_retention_policy",
    remove: "remove_retention_policy",
};

const REFRESH: &str = "policy_refresh_continuous_aggregate";

/// How far back and up to what age it refreshes, in the job's configuration.
const OFFSETS: [&str; 2] = ["start_offset", "end_offset"];

struct Job {
    id: i32,
    ages: [Option<Duration>; 2],
    every: Option<Duration>,
}

/// A span in microseconds, as the server counts.
pub(super) fn micros(micros: i64) -> Option<Duration> {
    u64::try_from(micros).ok().map(Duration::from_micros)
}

fn shown(refresh: Refresh) -> String {
    let Refresh { every, window, lag } = refresh;
    format!("refreshed every {}, from {} to {} ago", written(every), written(window), written(lag))
}

async fn jobs(
    client: &Client,
    relation: &'static str,
    procedure: &str,
    keys: [&str; 2],
) -> Result<Vec<Job>, Error> {
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 4] =
        [(&relation, Type::TEXT), (&procedure, Type::TEXT), (&keys[0], Type::TEXT), (&keys[1], Type::TEXT)];
    let jobs = client.query_typed(JOBS, &parameters).await.and_then(|rows| {
        let job = |row: &Row| {
            let age = |index| {
                Ok::<_, tokio_postgres::Error>(row.try_get::<_, Option<i64>>(index)?.and_then(micros))
            };
            Ok(Job { id: row.try_get(0)?, ages: [age(1)?, age(2)?], every: age(3)? })
        };
        rows.iter().map(job).collect()
    });
    jobs.map_err(|source| Error::Server { action: "read the jobs", relation, source })
}

/// The age that a policy goes by: never where there is none, `None` where it goes by something else.
pub(super) async fn age(
    client: &Client,
    relation: &'static str,
    policy: &Policy,
) -> Result<Option<After>, Error> {
    let Policy { procedure, key, .. } = *policy;
    let job = jobs(client, relation, procedure, [key, key]).await?.into_iter().next();
    Ok(job.map_or(Some(After::Never), |job| job.ages[0].map(After::Age)))
}

/// How a continuous aggregate is refreshed, where it is by one job within bounds.
pub(super) async fn refreshed(client: &Client, relation: &'static str) -> Result<Option<Refresh>, Error> {
    Ok(match jobs(client, relation, REFRESH, OFFSETS).await?.as_slice() {
        [Job { ages: [Some(window), Some(lag)], every: Some(every), .. }] => {
            Some(Refresh { every: *every, window: *window, lag: *lag })
        }
        _ => None,
    })
}

impl Run<'_> {
    /// Brings a policy by age to what is wanted.
    pub(super) async fn policy(
        &mut self,
        relation: &'static str,
        policy: &Policy,
        wanted: After,
    ) -> Result<(), Error> {
        let Policy { what, procedure, key, add, remove } = *policy;
        // There is one such job at most.
        let job = jobs(self.client, relation, procedure, [key, key]).await?.into_iter().next();
        let text = |age| format!("{what} {}", written(age));
        let change = match (job, wanted) {
            (None, After::Never) => Change::Unchanged(format!("never {}", what.trim_end_matches(" after"))),
            (None, After::Age(age)) => {
                let sql = format!(
                    "SELECT {}.{add}($1::text::regclass, {key} => $2::text::interval, initial_start => \
                     now())::text",
                    self.schema
                );
                self.client
                    .query_typed(&sql, &[(&relation, Type::TEXT), (&interval::of(age), Type::TEXT)])
                    .await
                    .map_err(|source| Error::Server { action: "add the policy", relation, source })?;
                Change::Set(text(age))
            }
            (Some(Job { ages: [None, _], .. }), _) => Change::Left(format!("a custom policy, without {key}")),
            (Some(Job { ages: [Some(found), _], .. }), After::Age(age)) if found == age => {
                Change::Unchanged(text(age))
            }
            (Some(Job { id, ages: [Some(found), _], .. }), After::Age(age)) => {
                self.alter(relation, id, &[(key, age)], None).await?;
                Change::Altered { from: written(found), to: text(age) }
            }
            (Some(Job { ages: [Some(found), _], .. }), After::Never) => {
                let sql = format!("SELECT {}.{remove}($1::text::regclass)::text", self.schema);
                self.client
                    .query_typed(&sql, &[(&relation, Type::TEXT)])
                    .await
                    .map_err(|source| Error::Server { action: "remove the policy", relation, source })?;
                Change::Removed(text(found))
            }
        };
        self.say(relation, change);
        Ok(())
    }

    /// Brings the refresh of a continuous aggregate to what is wanted.
    pub(super) async fn refresh(&mut self, relation: &'static str, wanted: Refresh) -> Result<(), Error> {
        let keys = OFFSETS;
        let jobs = jobs(self.client, relation, REFRESH, keys).await?;
        let as_wanted = |job: &Job| {
            job.ages == [Some(wanted.window), Some(wanted.lag)] && job.every == Some(wanted.every)
        };
        let change = match jobs.as_slice() {
            [] => {
                let sql = format!(
                    "SELECT {}.add_continuous_aggregate_policy($1::text::regclass, \
                       start_offset => $2::text::interval, \
                     end_offset => $3::text::interval, schedule_interval => $4::text::interval, \
                       initial_start => now())",
                    self.schema
                );
                self.client
                    .query_typed(
                        &sql,
                        &[
                            (&relation, Type::TEXT),
                            (&interval::of(wanted.window), Type::TEXT),
                            (&interval::of(wanted.lag), Type::TEXT),
                            (&interval::of(wanted.every), Type::TEXT),
                        ],
                    )
                    .await
                    .map_err(|source| Error::Server { action: "add the refresh", relation, source })?;
                Change::Set(shown(wanted))
            }
            jobs if jobs.iter().any(as_wanted) => Change::Unchanged(shown(wanted)),
            [job] => {
                let ages = [(keys[0], wanted.window), (keys[1], wanted.lag)];
                self.alter(relation, job.id, &ages, Some(wanted.every)).await?;
                let from = match *job {
                    Job { ages: [Some(window), Some(lag)], every: Some(every), .. } => {
                        shown(Refresh { every, window, lag })
                    }
                    // Somebody's own, without a bound at one of its ends.
                    Job { .. } => "refreshed otherwise".into(),
                };
                Change::Altered { from, to: shown(wanted) }
            }
            several => Change::Left(format!("it has {} custom refresh policies", several.len())),
        };
        self.say(relation, change);
        Ok(())
    }

    /// Has the jobs of earlier versions run at fixed times, too.
    pub(super) async fn fix_times(&mut self, relation: &'static str) -> Result<(), Error> {
        let failed = |source| Error::Server { action: "set the schedule", relation, source };
        let rows = self.client.query_typed(DRIFTING, &[(&relation, Type::TEXT)]).await.map_err(failed)?;
        for row in rows {
            let (job, procedure): (i32, String) =
                row.try_get(0).and_then(|job| Ok((job, row.try_get(1)?))).map_err(failed)?;
            let sql = format!(
                "SELECT {}.alter_job($1, fixed_schedule => true, initial_start => now())::text",
                self.schema
            );
            self.client.query_typed(&sql, &[(&job, Type::INT4)]).await.map_err(failed)?;
            let from = "by the end of its last run".to_owned();
            self.say(relation, Change::Altered { from, to: format!("{procedure} runs at fixed times") });
        }
        Ok(())
    }

    /// Alters ages in a job's configuration and, where one is given, how often it runs.
    async fn alter(
        &self,
        relation: &'static str,
        job: i32,
        ages: &[(&str, Duration)],
        every: Option<Duration>,
    ) -> Result<(), Error> {
        let (keys, values): (Vec<&str>, Vec<String>) =
            ages.iter().map(|(key, age)| (*key, interval::of(*age))).unzip();
        let sql = format!(
            "SELECT (altered).job_id
                FROM (SELECT {}.alter_job($1, schedule_interval => $2::text::interval, config => (
                SELECT j.config || pg_catalog.jsonb_object_agg(a.key, a.age::interval::text)
                FROM timescaledb_information.jobs j, unnest($3, $4) AS a (key, age)
                WHERE j.job_id = $1 GROUP BY j.config)) AS altered) AS x",
            self.schema
        );
        self.client
            .query_typed(
                &sql,
                &[
                    (&job, Type::INT4),
                    (&every.map(interval::of), Type::TEXT),
                    (&keys, Type::TEXT_ARRAY),
                    (&values, Type::TEXT_ARRAY),
                ],
            )
            .await
            .map_err(|source| Error::Server { action: "alter a policy", relation, source })?;
        Ok(())
    }
}
