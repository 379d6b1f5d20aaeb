//! A part of a long list, and how to ask for the next.

use serde::{Deserialize, Serialize};

/// Items in the order that the route names. The next part: the same request with `cursor={next}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page<T> {
    pub items: Vec<T>,
    /// Absent: this was the last part. Not to be taken apart.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What one part has where the request does not say.
pub const DEFAULT_LIMIT: u32 = 50;
/// The most that one part may have.
pub const MAX_LIMIT: u32 = 500;
