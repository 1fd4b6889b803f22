//! Mappings made from bytes: whatever the bytes are, a mapping and its tables come of them. The property test
//! fills them at random, and the fuzzer, which shares this file, as coverage tells it.

use std::fmt::Write as _;

use jetcopy::config::Pipeline;
use jetcopy::encode::types::Type;

/// Bytes that decide, one after the other; zeros when they are used up.
pub(crate) struct Choices<'b>(pub(crate) &'b [u8]);

impl Choices<'_> {
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::from(self.byte()) % bound
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    pub(crate) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == times - 1
    }
}

/// A scalar type: in SQL, as introspection finds it, and the SQLSTATE with which the server may refuse a
/// value that the client cannot judge.
pub(crate) type Scalar = (&'static str, Type, Option<&'static str>);

const SCALARS: &[Scalar] = &[
    ("boolean", Type::Bool, None),
    ("smallint", Type::Int2, None),
    ("integer", Type::Int4, None),
    ("bigint", Type::Int8, None),
    ("real", Type::Float4, None),
    ("double precision", Type::Float8, None),
    ("numeric", Type::Numeric, None),
    ("text", Type::Text, None),
    ("bytea", Type::Bytea, None),
    ("uuid", Type::Uuid, None),
    ("timestamptz", Type::Timestamptz, None),
    ("timestamp", Type::Timestamp, None),
    ("date", Type::Date, None),
    ("time", Type::Time, None),
    ("interval", Type::Interval, None),
    ("json", Type::Json, None),
    ("jsonb", Type::Jsonb, None),
    ("inet", Type::Inet { cidr: false }, None),
    ("cidr", Type::Inet { cidr: true }, None),
];

/// Types with lengths, precisions, labels and checks, which the client does not know. They are rarer: a
/// refusal takes the rows of its messages apart.
const JUDGED: &[Scalar] = &[
    ("numeric(6,2)", Type::Numeric, Some("22003")),
    ("varchar(3)", Type::Text, Some("22001")),
    ("mood", Type::Text, Some("22P02")),
    ("positive", Type::Int4, Some("23514")),
];

/// Column names, and the keys that messages have.
pub(crate) const NAMES: &[&str] = &["a", "b", "c", "d"];

const SOURCES: &[&str] = &[
    "a",
    "b",
    "c",
    "d",
    "a.b",
    "b.a.c",
    "c[0]",
    "a[1].b",
    "d[0][1]",
    "^a",
    "^b.c",
    "$subject",
    "$subject[1]",
    "$subject[9]",
    "$sequence",
    "$timestamp",
    "$header.H",
    "$payload",
    "$rest",
    "$element",
];

const WHENS: &[&str] =
    &["{ field = 'a' }", "{ field = 'b.a', equals = [1, 'a', true] }", "{ subject = '*.>', field = 'c' }"];

const UNPIVOTS: &[&str] =
    &["{ rest = true }", "{ map = 'b' }", "{ map = 'a.b' }", "{ fields = ['d', 'a.b', 'c[0]'] }"];

const LITERALS: &[&str] = &[
    "1",
    "-1.5",
    "true",
    "'text'",
    "'2025-01-01T00:00:00Z'",
    "'{}'",
    "'10.0.0.1'",
    "[1, 2]",
    "{ a = 1 }",
    "'00000000-0000-0000-0000-000000000001'",
];

/// What is done to a value.
const FUNCTIONS: &[&str] = &[
    "empty = 'null'",
    "trim = true, lower = true",
    "substring = [1, 3], upper = true",
    "truncate = 2",
    "scale = 0.1, offset = -3.5",
    "scale = 1e20, round = 2",
    "trim = true, empty = 'null', offset = 1",
];

/// A pipeline in TOML and the tables it fills.
#[derive(Debug)]
pub(crate) struct Mapping {
    pub(crate) toml: String,
    pub(crate) tables: Vec<Vec<Column>>,
}

#[derive(Debug)]
pub(crate) struct Column {
    pub(crate) name: &'static str,
    pub(crate) scalar: &'static Scalar,
    pub(crate) array: bool,
    pub(crate) not_null: bool,
}

impl Mapping {
    pub(crate) fn new(choices: &mut Choices<'_>, format: &str) -> Self {
        let non_finite = choices.pick(&["keep", "null", "refuse"]);
        let mut toml =
            format!("name = 'p'\nstream = 'S'\nformat = '{format}'\nnon_finite = '{non_finite}'\n");
        let tables = (0..=choices.below(2)).map(|index| table(choices, index, format, &mut toml)).collect();
        Self { toml, tables }
    }

    pub(crate) fn pipeline(&self) -> Pipeline {
        use figment::Figment;
        use figment::providers::{Format as _, Toml};
        Figment::from(Toml::string(&self.toml)).extract().expect("the generator writes valid settings")
    }
}

fn table(choices: &mut Choices<'_>, index: usize, format: &str, toml: &mut String) -> Vec<Column> {
    let (is_bare, is_list) = (format == "raw", matches!(format, "ndjson" | "influx"));
    write!(toml, "[[table]]\nname = 't{index}'\n").expect("a string takes all");
    // A bare value has no fields.
    if !is_bare && choices.one_in(4) {
        writeln!(toml, "when = {}", choices.pick(WHENS)).expect("a string takes all");
    }
    if is_list || !is_bare && choices.one_in(3) {
        let array = if is_list {
            choices.pick(&["$", "$[*].a", "$[*][*]"])
        } else {
            choices.pick(&["a", "b.c", "d", "c[0]", "a[*].b", "d[*]", "b.c[*][*]"])
        };
        let bad = choices.pick(&["message", "element"]);
        write!(toml, "for_each = '{array}'\nbad_element = '{bad}'\n").expect("a string takes all");
    }
    let unpivots = !is_bare && choices.one_in(4);
    if unpivots {
        writeln!(toml, "unpivot = {}", choices.pick(UNPIVOTS)).expect("a string takes all");
    }
    toml.push_str("[table.columns]\n");
    let count = 1 + choices.below(3);
    NAMES[..count]
        .iter()
        .enumerate()
        .map(|(place, name)| {
            let scalars = if choices.one_in(32) { JUDGED } else { SCALARS };
            let scalar = &scalars[choices.below(scalars.len())];
            let source = match place {
                0 if unpivots => Some("'$value'".to_owned()),
                1 if unpivots => Some("'$name'".to_owned()),
                _ if is_bare => Some(bare_source(choices, &scalar.1)),
                _ => source(choices, name, scalar.1.is_time()),
            };
            if let Some(source) = source {
                writeln!(toml, "{name} = {source}").expect("a string takes all");
            }
            Column { name, scalar, array: !is_bare && choices.one_in(4), not_null: choices.one_in(4) }
        })
        .collect()
}

/// What stands in the mapping for a column of bare values.
fn bare_source(choices: &mut Choices<'_>, ty: &Type) -> String {
    let takes_all = matches!(ty, Type::Json | Type::Jsonb | Type::Text | Type::Bytea);
    let from = if *ty == Type::Bytea || (takes_all && choices.one_in(2)) { "$payload" } else { "$value" };
    if ty.is_time() {
        return format!("{{ from = '{from}', unit = '{}' }}", choices.pick(&["s", "ms", "us", "ns"]));
    }
    match choices.below(4) {
        0 => format!("'{}'", choices.pick(&["$subject[1]", "$sequence", "$header.H"])),
        1 => format!("{{ from = '{from}', default = {} }}", choices.pick(LITERALS)),
        _ => format!("'{from}'"),
    }
}

/// What stands in the mapping for a column; nothing for the field of its own name. Numbers become times only
/// by a unit.
fn source(choices: &mut Choices<'_>, name: &'static str, is_time: bool) -> Option<String> {
    let from = if choices.one_in(2) { name } else { choices.pick(SOURCES) };
    match choices.below(10) {
        0..6 if is_time => {
            Some(format!("{{ from = '{from}', unit = '{}' }}", choices.pick(&["s", "ms", "us", "ns"])))
        }
        0..2 => None,
        2..6 => Some(format!("'{from}'")),
        6 => Some(format!("{{ from = '{from}', default = {} }}", choices.pick(LITERALS))),
        7 => Some(format!("{{ from = ['{from}', 'c'], {} }}", choices.pick(FUNCTIONS))),
        8 => Some(format!("{{ from = '{from}', map = {{ 1 = {0}, a = {0} }} }}", choices.pick(LITERALS))),
        _ => Some(format!("{{ constant = {} }}", choices.pick(LITERALS))),
    }
}
