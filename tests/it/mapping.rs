//! What of a message becomes what, and that nothing of it vanishes without a word.

mod absent;
mod untaken;
mod values;
mod when;
