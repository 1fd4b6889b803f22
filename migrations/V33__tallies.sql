-- What a shard has gone through, counted in the transactions in which it happened: losses, dead letters, replays, and messages
-- that were superseded unread. Other tables forget: letters are settled, losses cleared away. A daemon tells from here.
CREATE TABLE jetcopy.tallies (
    shard text NOT NULL REFERENCES jetcopy.checkpoints ON DELETE CASCADE,
    -- dead_letter, loss, replay or superseded
    event text NOT NULL,
    -- Of a dead letter its kind, of a loss its cause.
    kind text NOT NULL DEFAULT '',
    times bigint NOT NULL,
    -- Stream sequences that were lost, replayed or superseded.
    messages bigint NOT NULL,
    newest_at timestamptz NOT NULL,
    PRIMARY KEY (shard, event, kind)
);

-- What is there already.
INSERT INTO jetcopy.tallies (shard, event, kind, times, messages, newest_at)
SELECT shard, 'dead_letter', kind, count(*), 0, max(failed_at)
FROM jetcopy.dead_letters JOIN jetcopy.checkpoints USING (shard) GROUP BY 1, 3;

INSERT INTO jetcopy.tallies (shard, event, kind, times, messages, newest_at)
SELECT shard, 'loss', l.cause, count(*), coalesce(sum(coalesce(l.messages, l.last_sequence + 1 - l.first_sequence)), 0), max(l.detected_at)
FROM jetcopy.losses l JOIN jetcopy.checkpoints USING (shard) GROUP BY 1, 3;

COMMENT ON TABLE jetcopy.tallies IS
    'What a shard has gone through, counted in the transactions in which it happened; a daemon tells from here';
COMMENT ON COLUMN jetcopy.tallies.shard IS 'The shard, as in jetcopy.checkpoints';
COMMENT ON COLUMN jetcopy.tallies.event IS 'dead_letter, loss, replay or superseded';
COMMENT ON COLUMN jetcopy.tallies.kind IS 'Of a dead letter its kind, of a loss its cause; empty where there is but one';
COMMENT ON COLUMN jetcopy.tallies.times IS 'How often';
COMMENT ON COLUMN jetcopy.tallies.messages IS 'Stream sequences that were lost, replayed or superseded';
COMMENT ON COLUMN jetcopy.tallies.newest_at IS 'When the newest was';
