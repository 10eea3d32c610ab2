//! Google's Gemini Batch API, and an emulator of it. Wire facts name the section of the API
//! contract they come from.

pub mod emulator;
