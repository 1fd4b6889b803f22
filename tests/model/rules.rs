//! What is given to the model, and what is broken in it.

/// What the stream holds at sequences 1, 2, 3 and so on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Kind {
    /// Becomes rows.
    Good,
    /// Becomes a dead letter.
    Poison,
    /// Was deleted on purpose: the sequences jump.
    Removed,
}

/// How large the model is.
#[derive(Clone, Copy, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each leaves something out of the search")]
pub(crate) struct Bounds {
    pub(crate) stream: &'static [Kind],
    /// The durable's `max_ack_pending`.
    pub(crate) window: usize,
    /// How often the standby is promoted without what was committed last.
    pub(crate) failovers: u8,
    /// Whether the old primary keeps what it has, and the next failover leads back to it: a fork of the
    /// history, in which each side may have what the other lacks.
    pub(crate) forks: bool,
    /// How many deliveries are lost, late or doubled.
    pub(crate) strays: u8,
    /// Whether those are lost for good.
    pub(crate) for_good: bool,
    /// Whether an ack arrives with the commit that it is for, or never, and a claim places the durable at
    /// once: what comes between is searched in smaller bounds.
    pub(crate) prompt: bool,
    /// Writers of the shard at first: 1, or 2, each with a lane of its own.
    pub(crate) writers: u8,
    /// How often the configuration changes their number.
    pub(crate) resizes: u8,
    /// How many sequences in a row are of the same lane.
    pub(crate) block: u8,
    /// Whether commits are counted and sealed.
    pub(crate) ledger: bool,
}

/// A rule of the protocol that is broken on purpose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mutation {
    None,
    /// The ack is sent when the transaction is opened.
    AckBeforeCommit,
    /// The compare-and-set does not compare the claim.
    NoEpoch,
    /// The compare-and-set compares a number that two claims may have, and not whose claim it is: after a
    /// failover that lost one, another takes the same. In the code each epoch is drawn at random, so that no
    /// two claims share one, and says both.
    NoOwner,
    /// The compare-and-set does not compare the sequence.
    NoSequence,
    /// Rows and dead letters are committed before the checkpoint moves.
    RowsApart,
    /// The next generation reads on after the durable's ack floor instead of the checkpoint.
    ResumeFromFloor,
    /// The durable is not reset: the next generation reads on where the last one stopped.
    NoReset,
    /// A batch whose COMMIT was not answered is written again, whatever became of it.
    RetryInDoubt,
    /// A message that cannot be stored is passed over without a dead letter.
    NoLetter,
    /// Deliveries are taken in whatever order they come.
    NoOrder,
    /// A jump in stream sequences is taken for messages that were deleted on purpose.
    BelieveJumps,
    /// Nobody looks whether deliveries are missing after the last one.
    NoProbe,
    /// Nobody looks whether acks count.
    AcksUnwatched,
    /// The renewal of the lease compares the epoch and not the sequence.
    RenewByEpoch,
    /// The renewal compares the sequence of the first lane and not those of the others.
    RenewOneLane,
    /// A lane's own checkpoint is acknowledged instead of the floor of all.
    AckOwnLane,
    /// The next generation reads on after the greatest checkpoint of a lane instead of the floor of all.
    ResumeFromGreatest,
    /// The compare-and-set of a lane does not look whether the other lanes still are where they were.
    OneLaneAlone,
    /// What a lane has stored already is not left out when it is read once more.
    NoDrop,
    /// A lane's checkpoint moves with rows only.
    NoAdvance,
    /// Another number of writers begins at the greatest checkpoint without what other lanes lack below.
    NoSettle,
    /// Another number of writers begins by what the daemon knows, without a look at what the lanes have.
    BlindResize,
    /// A claim leaves the open seal as it is, though it does not know what was counted.
    ClaimUnsealed,
    /// A claim seals what the first lane has committed, and not what the others have.
    SealFirstLane,
    /// What a commit carries is counted in another transaction, once it is answered.
    CountApart,
    /// A commit that closes a seal still says what that one counts.
    CountOn,
    /// A seal is closed without a compare-and-set.
    SealUnfenced,
    /// Another number of writers begins without a seal of what the lanes have committed.
    ResizeUnsealed,
    /// A lease has run out by the clock alone, whether or not the database has answered anybody meanwhile.
    LeaseByClock,
    /// One renewal less is enough to take over.
    FewRenewals,
    /// A daemon keeps more shards than its share.
    NoLetGo,
    /// A shard that is nobody's is taken by the daemon that is preferred for it alone.
    PreferredOnly,
    /// Sessions that have ended show that a daemon is gone, also to one whose own has just begun.
    Unsettled,
    /// A row is removed though it was renewed since.
    ExpelBlindly,
    /// A daemon that is drained keeps its shards.
    NoDrain,
}
