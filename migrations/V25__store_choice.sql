-- Which groups of the store's tables `jetcopy migrate` creates: [store] tables of the last configuration that named it.
CREATE TABLE jetcopy.store_choice (
    one_row boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    -- Of frames, measurements, series and registry; empty: none.
    tables text[] NOT NULL
);
