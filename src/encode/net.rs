//! `inet` and `cidr`, from text such as `10.0.0.1`, `10.0.0.0/8` or `2001:db8::/32`.

use std::net::IpAddr;

use super::Fault;
use super::copy_frame::{self, TooLong};
use crate::payload::Value;

/// PostgreSQL's own number of an IPv4 address, whatever the platform's `AF_INET` is.
const IPV4: u8 = 2;
/// PostgreSQL's own number of an IPv6 address.
const IPV6: u8 = 3;

/// Appends an `inet`, or a `cidr`, whose bits beyond the prefix must be zero.
pub(super) fn inet(out: &mut Vec<u8>, value: Value<'_>, cidr: bool) -> Result<(), Fault> {
    let expected = || Fault::ty(&"inet and cidr need text such as 10.0.0.0/8 or 2001:db8::1");
    let Value::Str(text) = value else { return Err(expected()) };
    let (address, prefix) =
        text.split_once('/').map_or((text, None), |(address, bits)| (address, Some(bits)));
    let address: IpAddr = address.parse().map_err(|_| expected())?;
    let width = if address.is_ipv4() { 32 } else { 128 };
    let bits = match prefix {
        None => width,
        Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => {
            bits.parse().ok().filter(|bits| *bits <= width).ok_or_else(expected)?
        }
        Some(_) => return Err(expected()),
    };
    let host_bits = match address {
        IpAddr::V4(v4) => v4.to_bits().checked_shl(bits.into()).unwrap_or(0) != 0,
        IpAddr::V6(v6) => v6.to_bits().checked_shl(bits.into()).unwrap_or(0) != 0,
    };
    if cidr && host_bits {
        return Err(Fault::range(&"cidr has no bits set to the right of its prefix"));
    }
    let mut append = |family: u8, length: u8, octets: &[u8]| {
        copy_frame::sized(out, |out| -> Result<(), TooLong> {
            out.extend_from_slice(&[family, bits, u8::from(cidr), length]);
            out.extend_from_slice(octets);
            Ok(())
        })
    };
    match address {
        IpAddr::V4(v4) => append(IPV4, 4, &v4.octets())?,
        IpAddr::V6(v6) => append(IPV6, 16, &v6.octets())?,
    }
    Ok(())
}
