//! The examples of `demo --all`: one for each thing the daemon can do, with how it must end.
//!
//! Their files lie below `examples/features/`, which is laid out like an inbox, and the settings of
//! their queues in `examples/features.toml`. All of them are built into the program, so that the
//! demo needs no source tree. A test walks that folder: no file of it may be missing here.

/// An example.
#[derive(Debug, Clone, Copy)]
pub struct Feature {
    /// What it shows, in half a line.
    pub shows: &'static str,
    /// The file that is dropped.
    pub file: Embedded,
    /// Files that lie in the inbox before it is dropped, such as a sidecar or pictures.
    pub beside: &'static [Embedded],
    /// Lines that must be answered; none here and none in `failed`: the file is refused whole.
    pub answered: u64,
    /// Lines that must fail.
    pub failed: u64,
    /// Files below the outbox that must be there besides results, errors and manifest.
    pub makes: &'static [&'static str],
}

/// A file that is built into the program.
#[derive(Debug, Clone, Copy)]
pub struct Embedded {
    /// Below the inbox.
    pub path: &'static str,
    /// Its content.
    pub content: &'static [u8],
}

/// A file below `examples/features/`.
macro_rules! embedded {
    ($path:literal) => {
        Embedded {
            path: $path,
            content: include_bytes!(concat!("../../../examples/features/", $path)),
        }
    };
}

/// The settings of the queues that the examples are dropped into.
pub const SETTINGS: &str = include_str!("../../../examples/features.toml");

/// All examples, in the order in which they are told.
pub const FEATURES: &[Feature] = &[
    Feature {
        shows: "a queue of embeddings: a vector for every line",
        file: embedded!("embeddings/passages.jsonl"),
        beside: &[],
        answered: 5,
        failed: 0,
        makes: &[],
    },
    Feature {
        shows: "images in answers become files that the results name",
        file: embedded!("images/pictures.jsonl"),
        beside: &[],
        answered: 2,
        failed: 0,
        makes: &["images/pictures.media/1-1.png", "images/pictures.media/2-1.png"],
    },
    Feature {
        shows: "an answer cut off is asked for again with a higher limit; all are held to their schema",
        file: embedded!("judged/reviews.jsonl"),
        beside: &[],
        answered: 2,
        failed: 0,
        makes: &[],
    },
    Feature {
        shows: "all forms a line may have, in one file",
        file: embedded!("forms/mixed.jsonl"),
        beside: &[],
        answered: 4,
        failed: 0,
        makes: &[],
    },
    Feature {
        shows: "a queue's defaults: members under every request that lacks them",
        file: embedded!("settings/proverbs.jsonl"),
        beside: &[],
        answered: 3,
        failed: 0,
        makes: &[],
    },
    Feature {
        shows: "settings for one file, in a file beside it",
        file: embedded!("settings/names.jsonl"),
        beside: &[embedded!("settings/names.job.toml")],
        answered: 2,
        failed: 0,
        makes: &[],
    },
    Feature {
        shows: "a text: each line is a prompt",
        file: embedded!("texts/slogans.txt"),
        beside: &[],
        answered: 3,
        failed: 0,
        makes: &[],
    },
    Feature {
        shows: "a table: a prompt of each record's columns, and the answers as a table",
        file: embedded!("tables/phrases.csv"),
        beside: &[],
        answered: 3,
        failed: 1,
        makes: &["tables/phrases.results.csv"],
    },
    Feature {
        shows: "a file packed with gzip",
        file: embedded!("packed/rivers.jsonl.gz"),
        beside: &[],
        answered: 2,
        failed: 0,
        makes: &[],
    },
    Feature {
        shows: "a text packed with Zstandard",
        file: embedded!("packed/mountains.txt.zst"),
        beside: &[],
        answered: 3,
        failed: 0,
        makes: &[],
    },
    Feature {
        shows: "requests with the habits of SDKs: what goes wrong is told, in the manifest too",
        file: embedded!("lint/sdk-habits.jsonl"),
        beside: &[],
        answered: 4,
        failed: 2,
        makes: &[],
    },
    Feature {
        shows: "a file made for OpenAI's batch API, answered in its format",
        file: embedded!("openai/chat.jsonl"),
        beside: &[],
        answered: 3,
        failed: 0,
        makes: &[],
    },
    Feature {
        shows: "embeddings in OpenAI's format, several texts in a line",
        file: embedded!("openai-vectors/passages.jsonl"),
        beside: &[],
        answered: 2,
        failed: 0,
        makes: &[],
    },
    Feature {
        shows: "the same made native, and a member that has no counterpart",
        file: embedded!("openai-native/translated.jsonl"),
        beside: &[],
        answered: 2,
        failed: 1,
        makes: &[],
    },
    Feature {
        shows: "a queue with an API key of its own, in a project of its own",
        file: embedded!("second-key/greetings.jsonl"),
        beside: &[],
        answered: 2,
        failed: 0,
        makes: &[],
    },
    Feature {
        shows: "bad lines fail alone, each with its number and a reason",
        file: embedded!("mistakes/two-bad-lines.jsonl"),
        beside: &[],
        answered: 2,
        failed: 2,
        makes: &[],
    },
    Feature {
        shows: "a file without one good line is refused whole, with a note",
        file: embedded!("mistakes/nothing-good.jsonl"),
        beside: &[],
        answered: 0,
        failed: 0,
        makes: &[],
    },
    Feature {
        shows: "pictures named by their path, uploaded once for all lines; a lost one fails its line",
        file: embedded!("pictures/look.jsonl"),
        beside: &[embedded!("pictures/shapes/circle.png"), embedded!("pictures/shapes/square.png")],
        answered: 3,
        failed: 1,
        makes: &[],
    },
];
