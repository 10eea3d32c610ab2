//! `config example`: a file with every key at its default and a line about each.

use super::queues::DEFAULT;
use super::settings::{CREDENTIAL, PRICE, QUEUE, SECTIONS, of_section};

/// A commented configuration file; read back, it gives the defaults.
pub fn example() -> String {
    let mut text = INTRODUCTION.to_owned();
    for (section, about) in SECTIONS {
        text.push_str(&format!("\n# {about}\n"));
        match *section {
            QUEUE => text.push_str(&format!("[{QUEUE}.{DEFAULT}]\n")),
            CREDENTIAL => text.push_str("# [credential.team]\n"),
            PRICE => text.push_str("# None is given here, since they change: look them up.\n# [price.\"gemini-2.5-flash\"]\n"),
            other => text.push_str(&format!("[{other}]\n")),
        }
        for setting in of_section(section) {
            // There is no such section unless somebody names one, and no price unless somebody
            // looks it up.
            let is_named = [CREDENTIAL, PRICE].contains(section);
            let value = match (*section, setting.key) {
                (PRICE, "input" | "output") => r#""look it up""#,
                _ => setting.default,
            };
            let assignment = format!("{} = {value}", setting.key);
            let mark = if is_named { "# " } else { "" };
            text.push_str(&format!("{mark}{assignment:<34} # {}\n", setting.about));
        }
        if *section == QUEUE {
            text.push_str(ANOTHER_QUEUE);
        }
    }
    text
}

const INTRODUCTION: &str = "\
# gemini-batchd.toml: every key at its default. Keep the lines you change, drop the others.
#
# Looked for, first found wins: --config FILE, ./gemini-batchd.toml,
# $XDG_CONFIG_HOME/gemini-batchd/gemini-batchd.toml, /etc/gemini-batchd/gemini-batchd.toml
# Every key can also be set by the environment: GEMINI_BATCHD__INTAKE__SETTLE=5s,
# GEMINI_BATCHD__QUEUE__DEFAULT__MODEL=gemini-2.5-pro
# Durations: \"250ms\", \"5s\", \"10m\", \"2h\", \"7d\". Sizes: \"20MB\" (powers of ten), \"8MiB\".
# Relative paths count from the folder of this file.
";

const ANOTHER_QUEUE: &str = "
# A queue of its own for inbox/reviews/ and everything below; what it does not say comes from
# [queue.default].
# [queue.\"reviews\"]
# model = \"gemini-2.5-flash-lite\"
# lines_per_batch = 5000

# What its requests lack: the request's own members win, objects are merged. A JSON text does it too.
# [queue.\"reviews\".defaults]
# systemInstruction.parts = [{ text = \"Answer in one sentence.\" }]
# generationConfig = { temperature = 0.2, maxOutputTokens = 500 }

# One for embeddings: lines such as {\"key\": 1, \"request\": {\"content\": {\"parts\": [{\"text\": \"…\"}]}}}.
# [queue.\"embeddings\"]
# task = \"embed\"
# model = \"gemini-embedding-001\"
";
