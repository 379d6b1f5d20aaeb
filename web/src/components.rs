//! What pages are made of. Each is shown in all its states by the gallery (feature `gallery`, `/_components`).

pub mod chart;
pub mod dialog;
pub mod event_list;
pub mod evidence;
pub mod fleet_map;
pub mod form;
pub mod icon;
pub mod log_view;
pub mod meter;
pub mod notice;
pub mod state;
pub mod stepper;
pub mod table;
pub mod time;
