//! An address as Postgres sends and takes it (`tid`): four bytes of page, two of row.

use std::error::Error;

use bytes::{BufMut as _, BytesMut};
use tokio_postgres::types::{FromSql, IsNull, ToSql, Type, accepts, to_sql_checked};

use crate::delivery::Address;

impl<'a> FromSql<'a> for Address {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn Error + Sync + Send>> {
        let halves = raw.split_first_chunk().zip(raw.split_last_chunk());
        let Some(((page, _), (_, row))) = halves.filter(|_| raw.len() == 6) else {
            return Err(format!("a tid of {} bytes, not 6", raw.len()).into());
        };
        Ok(Self {
            page: u32::from_be_bytes(*page),
            row: u16::from_be_bytes(*row),
        })
    }

    accepts!(TID);
}

impl ToSql for Address {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, Box<dyn Error + Sync + Send>> {
        out.put_u32(self.page);
        out.put_u16(self.row);
        Ok(IsNull::No)
    }

    accepts!(TID);
    to_sql_checked!();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_goes_out_as_it_came_in() {
        let came = [0x00, 0x01, 0xe2, 0x40, 0x01, 0x02];
        let address = Address::from_sql(&Type::TID, &came).ok();
        let expected = Address {
            page: 123_456,
            row: 258,
        };
        assert_eq!(address, Some(expected));
        let mut out = BytesMut::new();
        assert!(expected.to_sql(&Type::TID, &mut out).is_ok());
        assert_eq!(out.as_ref(), came);
    }

    #[test]
    fn what_is_no_address_is_refused_by_its_length() {
        let refused = Address::from_sql(&Type::TID, &[1, 2, 3]).err();
        assert_eq!(
            refused.map(|error| error.to_string()).as_deref(),
            Some("a tid of 3 bytes, not 6")
        );
    }
}
