//! The functions of a column, checked against its type.

use crate::config::{DetailedSource, Offset};
use crate::decode::functions::{Case, Functions};
use crate::encode::linear::Linear;
use crate::encode::types::Type;

/// A value of the configuration as a field of the column.
type Literal<'l> = &'l mut dyn FnMut(&figment::value::Value) -> Result<Box<[u8]>, String>;

/// What is done to the values of a column of type `ty`, where anything is.
pub(super) fn functions(
    detail: Option<&DetailedSource>,
    ty: &Type,
    literal: Literal<'_>,
) -> Result<Option<Functions>, String> {
    let Some(detail) = detail.filter(|detail| detail.has_functions()) else { return Ok(None) };
    let no_text = matches!(ty, Type::Json | Type::Jsonb | Type::Bytea | Type::Array { .. });
    if detail.changes_text() && detail.map.is_none() && no_text {
        return Err("`trim`, `substring`, `truncate`, `lower`, `upper` and `empty` are not for columns of \
                    json, jsonb, bytea and arrays: remove them"
            .into());
    }
    if detail.calculates() && !is_number(ty) {
        return Err(
            "`scale` and a numeric `offset` are for columns of numbers; this is not one: remove them \
                    (the offset of times is text, such as \"+02:00\")"
                .into(),
        );
    }
    let mut map = Vec::new();
    for (key, value) in detail.map.iter().flatten() {
        let misfit = |problem| format!("what `map` makes of `{key}` does not fit the column: {problem}");
        map.push((key.clone(), literal(value).map_err(misfit)?));
    }
    let size = |number: u32| usize::try_from(number).unwrap_or(usize::MAX);
    Ok(Some(Functions {
        trim: detail.trim,
        substring: detail.substring.map(|(first, count)| (size(first), size(count))),
        truncate: detail.truncate.map(size),
        case: match (detail.lower, detail.upper) {
            (true, _) => Some(Case::Lower),
            (_, true) => Some(Case::Upper),
            _ => None,
        },
        empty_is_null: detail.empty.is_some(),
        map,
        linear: if detail.calculates() { Some(linear(detail)?) } else { None },
    }))
}

fn linear(detail: &DetailedSource) -> Result<Linear, String> {
    let offset = if let Some(Offset::Number(offset)) = detail.offset { offset } else { 0.0 };
    Linear::new(detail.scale.unwrap_or(1.0), offset)
        .ok_or_else(|| "`scale` or `offset` is a number of more than 38 digits: round it".to_owned())
}

fn is_number(ty: &Type) -> bool {
    matches!(ty, Type::Int2 | Type::Int4 | Type::Int8 | Type::Float4 | Type::Float8 | Type::Numeric)
}
