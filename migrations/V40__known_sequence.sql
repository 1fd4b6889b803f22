-- A checkpoint that is older than known_sequence cannot tell which gaps were there before the pipeline began: NULL.
-- The next start takes all that the stream lacks by then for old, as the version before it did.
ALTER TABLE jetcopy.checkpoints ALTER COLUMN known_sequence DROP NOT NULL;

-- Of checkpoints that were made with the column, 0 says that the stream was empty then.
UPDATE jetcopy.checkpoints SET known_sequence = NULL
WHERE EXISTS (SELECT FROM jetcopy.schema_history WHERE version = 22 AND applied_at = now());
