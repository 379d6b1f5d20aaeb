//! Between a connection and a handler: layers that hold for every request, the table of routes with who may use each,
//! and the reading of input.

pub mod input;
pub mod layers;
pub mod routes;
