-- Messages that were committed, by the time at which the stream stored them. By these a stream is known again that was
-- restored or moved, and so says of itself that it was created at another time. Some dozens a shard.
CREATE TABLE jetcopy.milestones (
    shard text NOT NULL,
    number bigint NOT NULL,
    sequence bigint NOT NULL,
    stored_at timestamptz NOT NULL,
    PRIMARY KEY (shard, number)
);

INSERT INTO jetcopy.milestones (shard, number, sequence, stored_at)
SELECT shard, 1, last_sequence, last_timestamp FROM jetcopy.checkpoints
WHERE last_sequence > 0 AND last_timestamp IS NOT NULL;

-- After which sequence of the stream somebody wants the pipeline to go on; NULL leaves it to jetcopy.
ALTER TABLE jetcopy.losses ADD COLUMN resume_after bigint CHECK (resume_after >= 0);
