//! Which header a name means.
//!
//! Guarantees: one answer for the same headers, in whatever order a map holds them. JetStream keeps names as
//! they were written, and two may differ in nothing but case. The one that is spelled as asked for is meant,
//! else of those that differ in case the least in byte order; of its values, all in the order in which they
//! were sent.

use async_nats::{HeaderMap, HeaderValue};

/// The first value of a header.
pub(super) fn header<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    header_values(headers, name).next()
}

/// The values of a header.
pub(super) fn header_values<'h>(headers: &'h HeaderMap, name: &str) -> impl Iterator<Item = &'h str> {
    let names = headers.iter().map(|(known, _)| AsRef::<str>::as_ref(known));
    let meant = spelling(names, name).into_iter();
    meant.flat_map(|meant| headers.get_all(meant)).map(HeaderValue::as_str)
}

/// The one of `names` that `name` means.
fn spelling<'n>(names: impl Iterator<Item = &'n str>, name: &str) -> Option<&'n str> {
    // What is equal comes before what is not.
    names.filter(|known| known.eq_ignore_ascii_case(name)).min_by_key(|known| (*known != name, *known))
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
            assert_eq!(spelling(names.into_iter(), asked), meant, "{asked} of {names:?}");
            assert_eq!(spelling(names.into_iter().rev(), asked), meant, "{asked} of {names:?}, reversed");
        }
    }
}
