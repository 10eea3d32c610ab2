//! The remote side, one folder for each vendor.

pub mod gemini;
