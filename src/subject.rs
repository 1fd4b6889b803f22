//! Which subjects a pattern takes: `*` is one token, `>` at the end is one token or more.

/// Whether `outer` takes every subject that `inner` takes.
#[must_use]
pub(crate) fn covers(outer: &str, inner: &str) -> bool {
    let (mut outer, mut inner) = (outer.split('.'), inner.split('.'));
    loop {
        match (outer.next(), inner.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(token)) if token != ">" => {}
            (Some(wanted), Some(token)) if wanted == token => {}
            _ => return false,
        }
    }
}

/// Whether some subject is taken by both.
#[must_use]
pub(crate) fn overlap(a: &str, b: &str) -> bool {
    let (mut a, mut b) = (a.split('.'), b.split('.'));
    loop {
        match (a.next(), b.next()) {
            (Some(">"), Some(_)) | (Some(_), Some(">")) | (None, None) => return true,
            (Some("*"), Some(_)) | (Some(_), Some("*")) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_covers_what_is_narrower_than_it() {
        for (outer, inner) in [("a.b", "a.b"), ("a.*", "a.b"), ("a.>", "a.b.c"), ("a.>", "a.*.>"), (">", "a")]
        {
            assert!(covers(outer, inner), "{outer} covers {inner}");
        }
        for (outer, inner) in [("a.b", "a.*"), ("a.*", "a.>"), ("a.*", "a"), ("a.>", "a"), ("a.*", "a.b.c")] {
            assert!(!covers(outer, inner), "{outer} does not cover {inner}");
        }
    }

    #[test]
    fn patterns_overlap_where_a_subject_fits_both() {
        for (a, b) in [("a.*", "*.b"), ("a.>", "a.b.*"), (">", "a"), ("a.b", "a.b")] {
            assert!(overlap(a, b) && overlap(b, a), "{a} and {b}");
        }
        for (a, b) in [("a.b", "a.c"), ("a.*", "a.b.c"), ("a.>", "a"), ("a.*", "b.>")] {
            assert!(!overlap(a, b) && !overlap(b, a), "{a} and {b}");
        }
    }
}
