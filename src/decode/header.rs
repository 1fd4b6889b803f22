//! Which header a name means.
//!
//! Guarantees: one answer for the same headers, in whatever order a map holds them. JetStream keeps names as
//! they were written, and two may differ in nothing but case. The one that is spelled as asked for is meant,
//! else of those that differ in case the least in byte order; of its values, all in the order in which they
//! were sent.

use async_nats::{HeaderMap, HeaderValue};

/// The first value of a header.
pub(crate) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    header_values(headers, name).next()
}

/// The values of a header.
pub(super) fn header_values<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    // Not by a look-up, which would allocate a name.
    let entries = headers.iter().map(|(known, values)| (AsRef::<str>::as_ref(known), values));
    let meant = spelling(entries, name);
    meant.into_iter().flat_map(|(_, values)| values).map(HeaderValue::as_str)
}

/// The one of `entries` whose name `name` means.
pub(crate) fn spelling<'n, V>(
    entries: impl Iterator<Item = (&'n str, V)>,
    name: &str,
) -> Option<(&'n str, V)> {
    // What is equal comes before what is not.
    entries
        .filter(|(known, _)| known.eq_ignore_ascii_case(name))
        .min_by_key(|(known, _)| (*known != name, *known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_names_that_differ_in_case_the_exact_one_is_meant_and_else_the_least_in_whatever_order_they_come() {
        for (names, asked, meant) in [
            (["a", "A", "B"], "A", Some("A")),
            (["a", "A", "B"], "a", Some("a")),
            (["ab", "aB", "Ab"], "AB", Some("Ab")),
            (["aB", "ab", "b"], "AB", Some("aB")),
            (["aB", "ab", "b"], "c", None),
        ] {
            let meant = meant.map(|name| (name, ()));
            let entries = names.map(|name| (name, ()));
            assert_eq!(spelling(entries.into_iter(), asked), meant, "{asked} of {names:?}");
            assert_eq!(spelling(entries.into_iter().rev(), asked), meant, "{asked} of {names:?}, reversed");
        }
    }
}
