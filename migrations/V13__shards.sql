-- Several shards of a pipeline.

-- By shard: each reports its own, and nobody adds up what belongs to another.
DROP FUNCTION jetcopy.dead_letter_counts();
CREATE FUNCTION jetcopy.dead_letter_counts()
    RETURNS TABLE (pipeline text, shard text, letters bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
    SELECT pipeline, shard, count(*) FROM jetcopy.dead_letters GROUP BY 1, 2
$$;
COMMENT ON FUNCTION jetcopy.dead_letter_counts IS 'How many dead letters of each shard there are';

COMMENT ON COLUMN jetcopy.checkpoints.shard IS
    'The shard: frames-0, frames-1 and so on of the pipeline frames, or frames where it has only one stream';
