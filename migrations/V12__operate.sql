-- What `jetcopy pause` sets and `jetcopy resume` clears: while it stands, no daemon claims the shard.
ALTER TABLE jetcopy.checkpoints
    ADD COLUMN paused_at timestamptz,
    ADD COLUMN paused_by text;

-- When the stream stored the message, so that a retry can give columns their `$timestamp`. NULL in letters that are
-- older than this column.
ALTER TABLE jetcopy.dead_letters ADD COLUMN stored_at timestamptz;
