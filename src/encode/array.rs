//! Arrays of one dimension, from arrays of values.
//!
//! An element may be null. An array in an array is refused unless the elements' type takes arrays itself
//! (`json`, `jsonb`, `text`): PostgreSQL wants every dimension to be of one length, which messages do not
//! promise.

use super::time::Times;
use super::types::Type;
use super::{Encoder, Fault, Written, copy_frame};
use crate::payload::Value;

/// Appends `value` as an array of `element`.
pub(super) fn array(
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
    element: &Type,
    element_oid: u32,
    times: Times,
    value: Value<'_>,
) -> Result<(), Fault> {
    let Value::Array(raw) = value else {
        return Err(Fault::ty(&"an array column needs an array"));
    };
    copy_frame::sized(out, |out| {
        let start = out.len();
        let mut count = 0_u32;
        let mut nulls = false;
        // Dimensions, whether there are nulls, type; then length and lower bound of the one dimension.
        out.extend_from_slice(&[0; 20]);
        raw.each_element(|value| {
            if matches!(value, Value::Array(_)) && !matches!(element, Type::Json | Type::Jsonb | Type::Text) {
                return Err(Fault::ty(&"an array column needs one dimension"));
            }
            nulls |= encoder.field(out, element, times, value)? == Written::Null;
            count += 1;
            if out.len() > encoder.bound {
                return Err(Fault::too_large());
            }
            Ok(())
        })?;
        if count == 0 {
            out.truncate(start + 12);
        } else {
            out[start..start + 4].copy_from_slice(&1_u32.to_be_bytes());
            out[start + 12..start + 16].copy_from_slice(&count.to_be_bytes());
            out[start + 16..start + 20].copy_from_slice(&1_u32.to_be_bytes());
        }
        out[start + 4..start + 8].copy_from_slice(&u32::from(nulls).to_be_bytes());
        out[start + 8..start + 12].copy_from_slice(&element_oid.to_be_bytes());
        Ok(())
    })
}
