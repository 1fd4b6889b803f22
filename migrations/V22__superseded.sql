-- Up to this sequence it is no news that the stream lacks messages: they were gone before the pipeline began, or were committed
-- before it was rewound.
ALTER TABLE jetcopy.checkpoints ADD COLUMN known_sequence bigint NOT NULL DEFAULT 0;

-- How many messages are missing between the first and the last sequence, where it is not all of them.
ALTER TABLE jetcopy.losses ADD COLUMN messages bigint;
