-- How many dead letters of each pipeline there are. A daemon may add them and not read them, and says how many lie there.
CREATE FUNCTION jetcopy.dead_letter_counts()
    RETURNS TABLE (pipeline text, letters bigint)
    LANGUAGE sql STABLE SECURITY DEFINER SET search_path FROM CURRENT
AS $$
    SELECT pipeline, count(*) FROM jetcopy.dead_letters GROUP BY 1
$$;
