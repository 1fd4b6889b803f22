//! A checkpoint that is brought in line with its stream.
//!
//! Guarantees: only the shard's owner does it; a claim that is no longer ours changes nothing.

use postgres_protocol::escape::escape_literal;

use super::{Advance, Along, Claim, Error, Open, Position, ask, lanes};
use crate::lanes::Lanes;
use crate::milestones;
use crate::postgres::connect::Session;
use crate::postgres::interval::timestamp;
use crate::seal::{self, Moved};
use crate::shard::Shard;

/// Moves the checkpoint by compare-and-set without any rows: to the start of a stream that it has not counted
/// in yet, or past what was lost. Up to `known_sequence` it is no news what the stream lacks; milestones
/// after `forget_after` are of another history, and so is what lanes have committed ahead of it.
pub(crate) async fn relocate(
    session: &Session,
    shard: &Shard,
    claim: &Claim,
    last_sequence: u64,
    stream_created_ns: i64,
    known_sequence: u64,
    forget_after: Option<u64>,
) -> Result<Claim, Error> {
    let to = Advance { last_sequence, last_timestamp_ns: 0 };
    // The claim has left the floor of the lanes in the shard's row, and no writer runs yet.
    let (epoch, from) = (claim.epoch, claim.last_sequence);
    let at = Position { shard, epoch, lane: 0, from, others: &[], keeps_flood: false };
    let open = Open::begin(session, &at, &to, &Along::default()).await?;
    let kind = match claim.stream_created_ns {
        Some(known) if known != stream_created_ns => Moved::Recreated,
        Some(_) => Moved::Lost,
        None => Moved::Begun,
    };
    let (several, keeps) = (claim.lanes.are_several(), forget_after.is_none());
    let move_lanes = || lanes::relocate_sql(&escape_literal(&shard.name), last_sequence, keeps);
    // The time of a message that this daemon did not write is not known.
    let sql = format!(
        "{}{}UPDATE jetcopy.checkpoints SET stream = {}, stream_created = {}, last_timestamp = NULL, \
           known_sequence = {known_sequence} WHERE shard = {}; {}",
        forget_after.map(|sequence| milestones::forget_after(&shard.name, sequence)).unwrap_or_default(),
        if several { move_lanes() } else { String::new() },
        escape_literal(&shard.stream),
        timestamp(stream_created_ns),
        escape_literal(&shard.name),
        seal::close_sql(&shard.name, kind),
    );
    ask(session, "relocate", &sql).await?;
    open.commit().await?;
    let ahead = |&lane: &u64| if keeps { lane.max(last_sequence) } else { last_sequence };
    let block = claim.lanes.layout().block;
    let moved = Lanes::new(block, claim.lanes.checkpoints().iter().map(ahead).collect());
    Ok(Claim {
        epoch: claim.epoch,
        last_sequence: moved.floor(),
        lanes: moved,
        stream_created_ns: Some(stream_created_ns),
        last_timestamp_us: None,
        since_us: None,
        known_sequence,
        accepted: claim.accepted,
    })
}

/// Notes that the stream is the same as before though it was created at another time; [`Error::LostEpoch`]
/// when the shard is no longer ours.
pub(crate) async fn adopt(
    session: &Session,
    shard: &Shard,
    claim: &Claim,
    stream_created_ns: i64,
) -> Result<Claim, Error> {
    let created = format!("stream_created = {}", timestamp(stream_created_ns));
    note(session, shard, claim, &created, "take the stream's new creation time into").await?;
    Ok(Claim { stream_created_ns: Some(stream_created_ns), ..claim.clone() })
}

/// Notes up to where it is no news what the stream lacks, where that was [`UNKNOWN`](super::UNKNOWN).
pub(crate) async fn know(
    session: &Session,
    shard: &Shard,
    claim: &Claim,
    known: u64,
) -> Result<Claim, Error> {
    let set = format!("known_sequence = {known}");
    note(session, shard, claim, &set, "note the gaps of the stream in").await?;
    Ok(Claim { known_sequence: known, ..claim.clone() })
}

async fn note(
    session: &Session,
    shard: &Shard,
    claim: &Claim,
    set: &str,
    action: &'static str,
) -> Result<(), Error> {
    let name = escape_literal(&shard.name);
    let sql =
        format!("UPDATE jetcopy.checkpoints SET {set} WHERE shard = {name} AND epoch = {}", claim.epoch);
    match ask(session, action, &sql).await?.affected() {
        0 => Err(Error::LostEpoch),
        _ => Ok(()),
    }
}
