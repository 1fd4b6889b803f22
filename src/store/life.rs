//! The life cycle of the store's rows as the database keeps it: `[store]` names settings, `jetcopy migrate`
//! writes them.
//!
//! Guarantees: nothing is deleted by a default. Only tables and roll-ups that jetcopy creates get the
//! catalog's defaults, and get them once; of others the rows stay until a configuration names a retention. A
//! run changes what its configuration names and nothing else. A retention that becomes shorter needs a yes,
//! and whoever is asked is told how many rows it would drop. Only this module and the migrations name
//! `jetcopy.store_life`.
//! With TimescaleDB, its jobs are in force, even if somebody changed them manually.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::Type;

use super::{groups, place, timescale};
use crate::catalog::groups::Group;
use crate::catalog::lives::{
    CHUNK_INTERVAL, COMPRESS_AFTER, DEAD_LETTERS, EVERY, Key, LAG, Lives, RETENTION, WINDOW,
};
use crate::catalog::{self, After, BUCKET, ROLLUPS, TABLES, written};
use crate::config;
use crate::postgres::connect::{self, ConnectError};
use crate::postgres::interval;

/// How the server knows the session.
const APPLICATION_NAME: &str = "jetcopy migrate";

/// How long counting the rows that would be dropped may take: somebody waits for the answer.
const COUNT_PATIENCE: &str = "30s";

const MIGRATED: &str = "SELECT to_regclass('jetcopy.store_life') IS NOT NULL";

const READ: &str = "SELECT relation, setting, (extract(epoch FROM age) * 1000000::numeric)::int8, applied
    FROM jetcopy.store_life";

const WRITE: &str = "INSERT INTO jetcopy.store_life (relation, setting, age, applied)
    SELECT n.relation, n.setting, n.age::interval, n.applied
    FROM unnest($1::text[], $2::text[], $3::text[], $4::bool[]) AS n (relation, setting, age, applied)
    ON CONFLICT (relation, setting) DO UPDATE SET age = excluded.age, applied = excluded.applied";

const FOUND: &str = "SELECT name FROM pg_catalog.unnest($1::text[]) AS name
    WHERE to_regclass(CASE name WHEN 'dead_letters' THEN 'jetcopy.dead_letters' ELSE name END) IS NOT NULL";

/// What a retention drops.
fn dropped(relation: &str) -> &'static str {
    if relation == DEAD_LETTERS { "payloads of letters" } else { "rows" }
}

/// A retention that would become shorter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shortening {
    /// The table or roll-up.
    pub relation: &'static str,
    /// What is in force.
    pub from: After,
    /// What the configuration names.
    pub to: After,
    /// How many rows it would drop now; `None` where they cannot be counted in time.
    pub rows: Option<i64>,
}

impl fmt::Display for Shortening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { relation, from, to, rows } = self;
        write!(f, "store.{relation}.retention: {to}, now {from}: ")?;
        let what = dropped(relation);
        match rows {
            Some(0) => write!(f, "no {what} would be dropped now"),
            Some(rows) => write!(f, "{rows} {what} would be dropped"),
            None => write!(f, "too many {what} would be dropped to count them in {COUNT_PATIENCE}"),
        }
    }
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No session.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Somebody has to agree first.
    #[error(
        "{}\nthis shortens a retention, so nothing of [store] was changed; use `jetcopy migrate --yes` to do \
         it",
        .0.iter().map(Shortening::to_string).collect::<Vec<_>>().join("\n")
    )]
    Shortens(Vec<Shortening>),
    /// What is named does not go with what the database keeps.
    #[error("store settings contradict each other; nothing of [store] was changed: {}",
        .0.iter().map(|(key, text)| format!("{key} {text}")).collect::<Vec<_>>().join("; "))]
    Unfit(Vec<(String, String)>),
    /// The server refused.
    #[error("cannot read or write the settings of the store (jetcopy.store_life); none was changed")]
    Database(#[from] tokio_postgres::Error),
    /// TimescaleDB could not be asked.
    #[error(transparent)]
    Timescale(#[from] timescale::Error),
}

/// What the database keeps; nothing where it is of an earlier version.
pub async fn kept(client: &Client) -> Result<Lives, tokio_postgres::Error> {
    Ok(Lives(read(client).await?.into_iter().map(|(key, (after, _))| (key, after)).collect()))
}

/// What the database keeps, and whether TimescaleDB was brought to it.
async fn read(client: &Client) -> Result<BTreeMap<Key, (After, bool)>, tokio_postgres::Error> {
    let mut kept = BTreeMap::new();
    let migrated: bool = client.query_typed_one(MIGRATED, &[]).await?.try_get(0)?;
    if !migrated {
        return Ok(kept);
    }
    for row in client.query_typed(READ, &[]).await? {
        let (relation, setting): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        let age: Option<i64> = row.try_get(2)?;
        // Of a later version, or nobody's.
        let Some(key) = key(relation, setting) else { continue };
        let after = match age {
            None => After::Never,
            Some(micros) => After::Age(Duration::from_micros(u64::try_from(micros).unwrap_or(0))),
        };
        kept.insert(key, (after, row.try_get(3)?));
    }
    Ok(kept)
}

fn key(relation: &str, setting: &str) -> Option<Key> {
    if (relation, setting) == (DEAD_LETTERS, RETENTION) {
        return Some((DEAD_LETTERS, RETENTION));
    }
    let table = catalog::table(relation).map(|table| table.name);
    let relation = table.or_else(|| catalog::rollup(relation).map(|rollup| rollup.name))?;
    let settings = [CHUNK_INTERVAL, COMPRESS_AFTER, RETENTION, EVERY, WINDOW, LAG];
    settings.into_iter().find(|known| *known == setting).map(|setting| (relation, setting))
}

/// The tables and roll-ups of the catalog that there are.
pub(crate) async fn found(client: &Client) -> Result<BTreeSet<&'static str>, tokio_postgres::Error> {
    let rollups = ROLLUPS.iter().map(|rollup| rollup.name);
    let names: Vec<&str> =
        TABLES.iter().map(|table| table.name).chain(rollups).chain([DEAD_LETTERS]).collect();
    let rows = client.query_typed(FOUND, &[(&names, Type::TEXT_ARRAY)]).await?;
    let found: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    Ok(found.iter().filter_map(|name| key(name, RETENTION)).map(|(relation, _)| relation).collect())
}

async fn write(
    client: &Client,
    settings: impl Iterator<Item = (Key, After, bool)>,
) -> Result<(), tokio_postgres::Error> {
    let (mut relations, mut names, mut ages, mut applied) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for ((relation, name), after, done) in settings {
        relations.push(relation);
        names.push(name);
        ages.push(after.age().map(interval::of));
        applied.push(done);
    }
    if relations.is_empty() {
        // Also for a role that may not write.
        return Ok(());
    }
    let parameters: [(&(dyn tokio_postgres::types::ToSql + Sync), Type); 4] = [
        (&relations, Type::TEXT_ARRAY),
        (&names, Type::TEXT_ARRAY),
        (&ages, Type::TEXT_ARRAY),
        (&applied, Type::BOOL_ARRAY),
    ];
    client.execute_typed(WRITE, &parameters).await.map(|_| ())
}

/// Keeps the first settings of what was just created: those that were kept already, those named, and the
/// defaults. Returns a line for each retention.
pub(crate) async fn begin(
    client: &Client,
    named: &Lives,
    created: &BTreeSet<&'static str>,
) -> Result<Vec<String>, Error> {
    // A table that was dropped and comes back lives as it did.
    let kept = kept(client).await?;
    let lives = kept.over(&named.over(&Lives::defaults())).only(created);
    // What was there before is looked at where its life is changed.
    let problems = lives.problems();
    if !problems.is_empty() {
        return Err(Error::Unfit(problems));
    }
    write(client, lives.iter().map(|(key, after)| (key, after, false))).await?;
    let said = lives.iter().filter(|(key, _)| key.1 == RETENTION);
    Ok(said
        .map(|(key, after)| {
            let whose = match (kept.0.contains_key(&key), named.0.contains_key(&key)) {
                (true, _) => "as before",
                (false, true) => "from [store]",
                (false, false) => "default",
            };
            let what = dropped(key.0);
            match after {
                After::Never => format!("{}: {what} are never dropped ({whose})", key.0),
                After::Age(age) => format!("{}: {what} are dropped after {} ({whose})", key.0, written(age)),
            }
        })
        .collect())
}

/// Has the database keep what is named, and what is in force where nothing is kept yet; a line for each
/// change. A retention becomes shorter only with `yes`.
pub async fn apply(postgres: &config::Postgres, named: &Lives, yes: bool) -> Result<Vec<String>, Error> {
    let session = connect::connect(postgres, APPLICATION_NAME).await?;
    let lines = apply_on(&session.client, named, yes).await;
    // Closing the connection rolls back what was not committed.
    session.close().await;
    lines
}

async fn apply_on(client: &Client, named: &Lives, yes: bool) -> Result<Vec<String>, Error> {
    client.batch_execute(super::BEGIN).await?;
    client.batch_execute(place::ENTER).await?;
    let kept = read(client).await?;
    let groups = groups::before(client, false).await?;
    // Tables of one's own may be named like the store's.
    let known = |relation: &'static str| {
        relation == DEAD_LETTERS
            || groups.contains(&Group::of(relation))
            || kept.keys().chain(named.0.keys()).any(|key| key.0 == relation)
    };
    let there: BTreeSet<_> = found(client).await?.into_iter().filter(|&relation| known(relation)).collect();
    let jobs = timescale::in_force(client).await?;
    // Whoever changed a job has changed the setting, once jetcopy had brought the job to it.
    let by_jobs = jobs
        .iter()
        .filter(|(key, _)| there.contains(key.0) && kept.get(key).is_none_or(|(_, applied)| *applied));
    let mut now = Lives(kept.iter().map(|(key, (after, _))| (*key, *after)).collect());
    now = Lives(by_jobs.map(|(key, after)| (*key, *after)).collect()).over(&now);
    let mut lines = Vec::new();
    for (key, after) in Lives::defaults().only(&there).iter() {
        // What stood here before jetcopy kept its life is not deleted by a default.
        let stays = now.0.get(&key).is_none_or(|is| *is == After::Never);
        if key.1 == RETENTION
            && stays
            && after != After::Never
            && !kept.contains_key(&key)
            && !named.0.contains_key(&key)
        {
            lines.push(format!(
                "{}: it existed before, so its rows are kept; set [store.{0}] retention to drop old ones",
                key.0
            ));
        }
        if !now.0.contains_key(&key) {
            now.set(key, if key.1 == RETENTION { After::Never } else { after });
        }
    }
    let wanted = named.clone().only(&there).over(&now);
    let problems = wanted.problems();
    if named.0.keys().any(|key| there.contains(key.0)) && !problems.is_empty() {
        return Err(Error::Unfit(problems));
    }
    let shortened = shortened(client, &kept, &now, &wanted).await?;
    if !shortened.is_empty() && !yes {
        return Err(Error::Shortens(shortened));
    }
    lines.extend(shortened.iter().map(Shortening::to_string));
    let changed = wanted.iter().filter(|(key, after)| kept.get(key).map(|(is, _)| is) != Some(after));
    write(client, changed.map(|(key, after)| (key, after, jobs.get(&key) == Some(&after)))).await?;
    for (key, after) in wanted.iter() {
        let was = now.0.get(&key).copied();
        if was != Some(after) && !shortened.iter().any(|s| key == (s.relation, RETENTION)) {
            let was = was.map_or_else(|| "not set".to_owned(), |was| was.to_string());
            lines.push(format!("store.{}.{}: {after}, was {was}", key.0, key.1));
        }
    }
    client.batch_execute("COMMIT").await?;
    Ok(lines)
}

/// The retentions that become shorter. One that was never said is shorter where it drops something.
async fn shortened(
    client: &Client,
    kept: &BTreeMap<Key, (After, bool)>,
    now: &Lives,
    wanted: &Lives,
) -> Result<Vec<Shortening>, tokio_postgres::Error> {
    let mut found = Vec::new();
    for (key, to) in wanted.iter().filter(|(key, _)| key.1 == RETENTION) {
        let (relation, from) = (key.0, now.retention(key.0));
        let Some(age) = to.age().filter(|age| from.age().is_none_or(|from| *age < from)) else { continue };
        let rows = older(client, relation, age).await?;
        if rows != Some(0) || kept.contains_key(&key) {
            found.push(Shortening { relation, from, to, rows });
        }
    }
    Ok(found)
}

/// How many rows a retention drops. Of a table those go whose day is over.
async fn older(
    client: &Client,
    relation: &'static str,
    age: Duration,
) -> Result<Option<i64>, tokio_postgres::Error> {
    let age_ago = "now() - $1::text::interval";
    let which = match catalog::table(relation) {
        _ if relation == DEAD_LETTERS => {
            format!("jetcopy.dead_letters WHERE expired_at IS NULL AND failed_at < {age_ago}")
        }
        Some(table) => format!("{relation} WHERE \"{}\" < date_trunc('day', {age_ago}, 'UTC')", table.time),
        None => format!("{relation} WHERE \"{BUCKET}\" < {age_ago}"),
    };
    client
        .batch_execute(&format!("SAVEPOINT counting; SET LOCAL statement_timeout = '{COUNT_PATIENCE}'"))
        .await?;
    let sql = format!("SELECT count(*) FROM {which}");
    let counted = client.query_typed_one(&sql, &[(&interval::of(age), Type::TEXT)]).await;
    client.batch_execute("ROLLBACK TO SAVEPOINT counting").await?;
    Ok(counted.and_then(|row| row.try_get(0)).ok())
}

/// Notes that TimescaleDB's jobs say what is kept.
pub(super) async fn applied(client: &Client) -> Result<(), tokio_postgres::Error> {
    let settings = read(client).await?;
    let open = settings.iter().filter(|(_, (_, applied))| !applied);
    write(client, open.map(|(key, (after, _))| (*key, *after, true))).await
}

/// Where a configuration names something else than what is in force, in words.
#[must_use]
pub fn differences(named: &Lives, kept: &Lives) -> Vec<(Key, String)> {
    let differ = named.iter().filter_map(|(key, after)| {
        // Of letters nothing is kept until somebody named it.
        let is = kept.0.get(&key).copied().or((key.0 == DEAD_LETTERS).then_some(After::Never))?;
        (is != after).then(|| (key, format!("{} is {is}, but the configuration says {after}", key.1)))
    });
    differ.collect()
}
