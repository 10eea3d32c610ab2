//! Records: what must outlive the process.
