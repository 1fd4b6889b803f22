//! The daemons as people look at them.
//!
//! Guarantees: it is what the rows of daemons and checkpoints say at one moment.

use tokio_postgres::{Client, Error};

use crate::checkpoint::{self, Place};
use crate::daemons::{self, Daemon, Fellow, Held};
use crate::postgres::simple::ask;

/// All daemons, and the shards that none of them has.
pub(crate) async fn fellows(client: &Client) -> Result<(Vec<Fellow>, Vec<String>), Error> {
    let sql = daemons::look_sql("") + &checkpoint::places_sql();
    let answers = ask(client, &sql).await?;
    let daemons: Vec<Daemon> = answers.rows().filter_map(daemons::read).collect();
    let places: Vec<Place> = answers.rows().filter_map(checkpoint::read_place).collect();
    Ok(of(&daemons, &places))
}

/// The same of rows that were read.
pub(super) fn of(daemons: &[Daemon], places: &[Place]) -> (Vec<Fellow>, Vec<String>) {
    let has = |daemon: &Daemon, place: &Place| place.owner.as_ref() == Some(&daemon.name);
    let fellow = |daemon: &Daemon| Fellow {
        daemon: daemon.name.clone(),
        host: daemon.host.clone(),
        process: daemon.process,
        version: daemon.version.clone(),
        up_seconds: daemon.age,
        silent_seconds: daemon.silent,
        overdue: daemon.overdue,
        messages_per_second: daemon.messages_per_second,
        configured: daemon.shards.len(),
        shards: places
            .iter()
            .filter(|place| has(daemon, place))
            .map(|place| Held { shard: place.shard.clone(), seconds: place.owned_for })
            .collect(),
        unable: daemon.unable.clone(),
        drained_at: daemon.drained.as_ref().map(|drained| drained.at.clone()),
        drained_by: daemon.drained.as_ref().map(|drained| drained.by.clone()),
    };
    let configured = |place: &Place| daemons.iter().any(|daemon| daemon.shards.contains(&place.shard));
    let free = |place: &&Place| configured(place) && !daemons.iter().any(|daemon| has(daemon, place));
    let free = places.iter().filter(free).map(|place| place.shard.clone()).collect();
    (daemons.iter().map(fellow).collect(), free)
}
