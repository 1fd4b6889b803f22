//! Which table was meant by a name that stands for none.
//!
//! It guesses: the nearest name over all schemas, whatever the case, with the quotes that it needs. A table
//! that the configuration names already was not meant.

use tokio_postgres::{Client, Error};

/// Names less alike than this are no slip of the pen.
const ALIKE: f64 = 0.85;

/// Tables that are compared. Who has more has other ways to look for a name.
const TABLES: &str =
    "SELECT n.nspname::text, c.relname::text, quote_ident(n.nspname::text), quote_ident(c.relname::text),
        pg_table_is_visible(c.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p', 'f', 'v', 'm') AND NOT c.relispartition
        AND n.nspname::text !~ '^(pg_|_timescaledb|timescaledb_|information_schema$)'
    ORDER BY pg_table_is_visible(c.oid) DESC, n.nspname, c.relname
    LIMIT 10000";

/// What would fix that there is no table `name`.
pub(super) async fn remedy(client: &Client, name: &str, used: &[&str]) -> Result<String, Error> {
    let (schema, table) = parts(name);
    let used: Vec<_> = used.iter().map(|name| parts(name)).collect();
    let mut best: Option<(f64, String)> = None;
    for row in client.query_typed(TABLES, &[]).await? {
        let (known_schema, known): (&str, &str) = (row.try_get(0)?, row.try_get(1)?);
        let visible: bool = row.try_get(4)?;
        let is_used = used.iter().any(|(schema, table)| {
            let there = schema.as_ref().map_or(visible, |schema| *schema == known_schema.to_lowercase());
            there && *table == known.to_lowercase()
        });
        if is_used {
            continue;
        }
        let mut likeness = strsim::jaro_winkler(&table, &known.to_lowercase());
        if let Some(schema) = &schema {
            // Of two tables of one name, the one in the schema that was named.
            likeness = likeness * 0.9 + strsim::jaro_winkler(schema, &known_schema.to_lowercase()) * 0.1;
        }
        if likeness >= ALIKE && best.as_ref().is_none_or(|(other, _)| likeness > *other) {
            let (quoted_schema, quoted): (&str, &str) = (row.try_get(2)?, row.try_get(3)?);
            let plain = visible && schema.is_none();
            best =
                Some((likeness, if plain { quoted.to_owned() } else { format!("{quoted_schema}.{quoted}") }));
        }
    }
    Ok(match best {
        Some((_, meant)) if meant.contains('"') => format!(
            "did you mean {meant}? A name with capitals or special characters needs double quotes, as in \
             SQL: name = '{meant}'"
        ),
        Some((_, meant)) => format!("did you mean {meant}?"),
        None => "create the table (`jetcopy migrate` creates jetcopy's own), or correct its name".to_owned(),
    })
}

/// Schema, where it has one, and name, in lower case and without quotes.
fn parts(name: &str) -> (Option<String>, String) {
    let (mut parts, mut quoted) = (vec![String::new()], false);
    for sign in name.chars() {
        match sign {
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            _ => parts.last_mut().into_iter().for_each(|part| part.extend(sign.to_lowercase())),
        }
    }
    let table = parts.pop().unwrap_or_default();
    (parts.pop(), table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_apart_as_the_server_does_it() {
        assert_eq!(parts("Plain"), (None, "plain".to_owned()));
        assert_eq!(parts("a.B"), (Some("a".to_owned()), "b".to_owned()));
        assert_eq!(parts(r#""Odd.Schema"."select""#), (Some("odd.schema".to_owned()), "select".to_owned()));
    }
}
