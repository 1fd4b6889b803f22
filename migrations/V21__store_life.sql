-- How the rows of the store's tables and roll-ups live. `jetcopy migrate` writes the defaults for tables that
-- it creates, and after that only what a [store] section names. `jetcopy maintain` and TimescaleDB's jobs go
-- by what stands here.
CREATE TABLE jetcopy.store_life (
    -- A table or roll-up of the store.
    relation text NOT NULL,
    -- As [store.RELATION] has it: chunk_interval, compress_after, retention, refresh.every, refresh.window,
    -- refresh.lag.
    setting text NOT NULL,
    -- NULL: never.
    age interval,
    -- Whether TimescaleDB's jobs were brought to it. What somebody changes there afterwards is the setting in
    -- force.
    applied boolean NOT NULL DEFAULT false,
    PRIMARY KEY (relation, setting)
);
-- Whoever maintains the store reads it.
GRANT SELECT ON jetcopy.store_life TO PUBLIC;
