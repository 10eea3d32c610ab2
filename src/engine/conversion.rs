//! What a queue says of inputs that are no JSON Lines yet.

/// How inputs are converted that are packed, or texts, or tables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conversion {
    /// Bytes that a packed input may have when it is unpacked.
    pub unpacked_bytes: u64,
    /// Bytes that may come out of each packed one.
    pub unpacked_ratio: u64,
    /// What a line, or the columns of a record, become: a text with `{{names}}` in it.
    pub template: Option<String>,
    /// The column of the keys.
    pub key_column: Option<String>,
    /// What stands between the fields of a table; `None`: what seems to.
    pub csv_delimiter: Option<char>,
    /// The answers to a table are delivered as a table too.
    pub emit_csv: bool,
}

impl Conversion {
    /// Where nothing else is said.
    pub const USUAL: Conversion = Conversion {
        unpacked_bytes: 64_000_000_000,
        unpacked_ratio: 1000,
        template: None,
        key_column: None,
        csv_delimiter: None,
        emit_csv: false,
    };
}

impl Default for Conversion {
    fn default() -> Conversion {
        Conversion::USUAL
    }
}
