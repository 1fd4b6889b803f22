-- Where many elements of one message and table are refused, one dead letter is about all of them: their places, from 0, of which
-- `element` is the first. NULL where the letter is about one element, or about the message as a whole.
ALTER TABLE jetcopy.dead_letters ADD COLUMN elements integer[];
