//! What a query selects, by a parser of Prometheus's language.

use promql_parser::parser::{self, Expr};
use promql_parser::util::{ExprVisitor, walk_expr};

/// Each selector of a query, without its range: `jetcopy_rows_total{table="events"}`.
pub(super) fn selectors(query: &str) -> Vec<String> {
    struct Selectors(Vec<String>);
    impl ExprVisitor for Selectors {
        type Error = String;
        fn pre_visit(&mut self, expr: &Expr) -> Result<bool, String> {
            match expr {
                Expr::VectorSelector(selector) => self.0.push(selector.to_string()),
                Expr::MatrixSelector(selector) => self.0.push(selector.vs.to_string()),
                _ => {}
            }
            Ok(true)
        }
    }
    let expr = parser::parse(query).unwrap_or_else(|error| panic!("{query}: {error}"));
    let mut found = Selectors(Vec::new());
    walk_expr(&mut found, &expr).unwrap();
    found.0.sort();
    found.0.dedup();
    found.0
}

/// The metric that a selector names.
pub(super) fn metric(selector: &str) -> &str {
    selector.split('{').next().unwrap()
}

#[test]
fn selectors_are_found_in_functions_aggregations_and_on_both_sides() {
    let query = "histogram_quantile(0.9, sum by (le) (rate(a_bucket{b=~\"c|d\"}[5m]))) > 1 and on (e) \
        max_over_time(f[1h]) unless g";
    assert_eq!(selectors(query), ["a_bucket{b=~\"c|d\"}", "f", "g"]);
}
