//! Between columns and domain types: how each kind of value is stored, and how it is read back.
//!
//! Times, sizes and generations are 64-bit integers, words are text, digests are bytes, structures are JSON text: what both
//! engines hold in the same way. A value that does not parse is an error that names the table, the row and the column.

use std::error::Error as StdError;
use std::fmt::Display;
use std::str::FromStr;

use proto::ids::{Digest, ReleaseKey, Slot, Version};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::clock::Time;
use crate::db::error::{DbError, Fault, UnknownWord};

/// Reads the columns of one row.
pub(in crate::db) struct Row {
    table: &'static str,
    id: String,
}

impl Row {
    pub(in crate::db) fn new(table: &'static str, id: impl Display) -> Self {
        Self { table, id: id.to_string() }
    }

    pub(in crate::db) fn corrupt(
        &self,
        column: &'static str,
        source: impl StdError + Send + Sync + 'static,
    ) -> Fault {
        Fault::Corrupt(DbError::Corrupt {
            table: self.table,
            id: self.id.clone(),
            column,
            source: Box::new(source),
        })
    }

    pub(in crate::db) fn text<T>(&self, column: &'static str, text: &str) -> Result<T, Fault>
    where
        T: FromStr<Err: StdError + Send + Sync + 'static>,
    {
        text.parse().map_err(|error| self.corrupt(column, error))
    }

    pub(in crate::db) fn word<T>(
        &self,
        column: &'static str,
        word: &str,
        known: fn(&str) -> Option<T>,
    ) -> Result<T, Fault> {
        known(word).ok_or_else(|| self.corrupt(column, UnknownWord(word.to_owned())))
    }

    pub(in crate::db) fn number(&self, column: &'static str, number: i64) -> Result<u64, Fault> {
        u64::try_from(number).map_err(|error| self.corrupt(column, error))
    }

    pub(in crate::db) fn time(&self, column: &'static str, millis: i64) -> Result<Time, Fault> {
        self.number(column, millis).map(Time)
    }

    pub(in crate::db) fn time_or_none(
        &self,
        column: &'static str,
        millis: Option<i64>,
    ) -> Result<Option<Time>, Fault> {
        millis.map(|millis| self.time(column, millis)).transpose()
    }

    pub(in crate::db) fn slot(&self, column: &'static str, number: i32) -> Result<Slot, Fault> {
        let number = u32::try_from(number).map_err(|error| self.corrupt(column, error))?;
        Slot::new(number).map_err(|error| self.corrupt(column, error))
    }

    pub(in crate::db) fn digest(&self, column: &'static str, bytes: &[u8]) -> Result<Digest, Fault> {
        Digest::try_from(bytes).map_err(|error| self.corrupt(column, error))
    }

    pub(in crate::db) fn json<T: DeserializeOwned>(
        &self,
        column: &'static str,
        json: &str,
    ) -> Result<T, Fault> {
        serde_json::from_str(json).map_err(|error| self.corrupt(column, error))
    }

    pub(in crate::db) fn key(&self, version: &str, sha256: &[u8]) -> Result<ReleaseKey, Fault> {
        Ok(ReleaseKey {
            version: self.text::<Version>("version", version)?,
            sha256: self.digest("sha256", sha256)?,
        })
    }

    /// A release that may be absent: both columns are null, or neither is.
    pub(in crate::db) fn key_or_none(
        &self,
        version: Option<&str>,
        sha256: Option<&[u8]>,
    ) -> Result<Option<ReleaseKey>, Fault> {
        match (version, sha256) {
            (None, None) => Ok(None),
            (version, sha256) => self.key(version.unwrap_or_default(), sha256.unwrap_or_default()).map(Some),
        }
    }
}

/// As a column holds it. The engines know signed integers alone; what does not fit is 292 million years away.
pub(in crate::db) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

pub(in crate::db) fn millis(time: Time) -> i64 {
    integer(time.0)
}

pub(in crate::db) fn slot_number(slot: Slot) -> i32 {
    i32::from(slot.number())
}

pub(in crate::db) fn digest_bytes(digest: &Digest) -> Vec<u8> {
    digest.0.to_vec()
}

pub(in crate::db) fn version_of(key: Option<&ReleaseKey>) -> Option<String> {
    key.map(|key| key.version.to_string())
}

pub(in crate::db) fn sha256_of(key: Option<&ReleaseKey>) -> Option<Vec<u8>> {
    key.map(|key| digest_bytes(&key.sha256))
}

/// What is given is ours and always has a JSON form; a failure is handed on all the same.
pub(in crate::db) fn json<T: Serialize + ?Sized>(value: &T) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|error| Fault::Sql(sea_orm::DbErr::Json(error.to_string())))
}
