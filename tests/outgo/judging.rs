//! Answers that are not taken as they come: cut off and asked for again, or with data in them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;

use gemini_batchd::engine::ids::{Attempt, ChunkNo};
use gemini_batchd::engine::job::{Delivery, Media};
use gemini_batchd::engine::verdict::Verdict;
use gemini_batchd::spool::answers::CollectError;
use gemini_batchd::spool::body::Body;
use gemini_batchd::spool::frame::Frame;
use gemini_batchd::spool::index::{LineFate, Raise};
use gemini_batchd::spool::manifest::manifest;
use gemini_batchd::spool::outbox::{DeliverOutcome, deliver, free_stem};

use crate::world::{Line, World, answer, error, line, lines, tree};

/// Three rows, the middle one with a limit of its own; answers that are cut off are not taken.
fn strict() -> World {
    let limit = "{\"contents\":[],\"generationConfig\":{\"maxOutputTokens\":10}}".to_owned();
    let limited = Line { key: None, request: limit, fate: LineFate::Valid };
    let mut world = World::new(&[line("1"), limited, line("3")]);
    world.job.head.queue.accept.truncated = false;
    world
}

fn cut(row: u64) -> String {
    answer(row).replace("STOP", "MAX_TOKENS")
}

fn body(world: &World, frame: Frame) -> Body {
    let (input, which) = (world.folder().input("a.jsonl"), world.which(9));
    Body::open(&world.folder(), input, which.rows, frame, which.terms.tokens_max).unwrap()
}

fn text(body: &Body, offset: u64) -> String {
    let mut text = String::new();
    body.reader(offset).unwrap().read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_row_that_was_cut_off_goes_out_with_a_higher_limit_wherever_reading_begins() {
    let world = strict();
    world.download(1, [cut(1), cut(2), error(3, 13)].concat());
    let harvest = world.collect(1).unwrap();
    assert_eq!((harvest.answered, harvest.retryable, harvest.rest.rows()), (1, 2, 2));
    // The first sets no limit: it was cut off at the model's own.
    let expected = [Verdict::Truncated, Verdict::Retryable, Verdict::Retryable];
    assert_eq!(world.verdicts(), expected);
    for frame in [Frame::FileLine, Frame::InlineItem] {
        let body = body(&world, frame);
        let whole = text(&body, 0);
        assert!(whole.contains("\"maxOutputTokens\":20}}"), "{whole}");
        assert_eq!((whole.len() as u64, body.rows()), (body.len(), 2));
        for offset in 0..=body.len() {
            assert_eq!(text(&body, offset), whole[offset as usize..], "from {offset}");
        }
    }
}

#[test]
fn a_limit_is_raised_once_for_each_answer_however_often_that_is_read() {
    let world = strict();
    let raise = |world: &World| world.outcomes()[1].raise;
    world.download(1, [answer(1), cut(2), answer(3)].concat());
    world.collect(1).unwrap();
    assert_eq!(raise(&world), Raise { times: 0, due: true });
    world.collect(1).unwrap();
    assert_eq!(raise(&world), Raise { times: 0, due: true });
    // The second attempt comes damaged, and is taken back.
    world.download(2, cut(2) + "{\"key\":");
    assert!(matches!(world.collect(2), Err(CollectError::Torn { .. })));
    assert_eq!(raise(&world).next(), 1);
    assert!(text(&body(&world, Frame::FileLine), 0).contains(":20}"));
    world.download(2, cut(2));
    world.collect(2).unwrap();
    world.collect(2).unwrap();
    assert_eq!(raise(&world), Raise { times: 1, due: true });
    assert!(text(&body(&world, Frame::FileLine), 0).contains(":40}"));
    // An error in between changes nothing of it.
    world.download(3, error(2, 13));
    world.collect(3).unwrap();
    assert!(text(&body(&world, Frame::FileLine), 0).contains(":40}"));
    world.download(4, answer(2));
    assert_eq!(world.collect(4).unwrap().rest.rows(), 0);
    let tally = world.merge();
    assert_eq!((tally.answered, tally.raised, tally.truncated), (3, 1, 0));
}

#[test]
fn without_attempts_left_a_row_that_was_cut_off_says_so() {
    let world = strict();
    world.download(1, [cut(1), cut(2), answer(3)].concat());
    world.collect(1).unwrap();
    let tally = world.merge();
    assert_eq!(tally.failures, BTreeMap::from([("truncated".to_owned(), 2)]));
    assert!(world.errors().contains("MAX_TOKENS"));
}

fn with_data(row: u64, data: &str) -> String {
    let part = format!("{{\"inlineData\":{{\"mimeType\":\"image/png\",\"data\":\"{data}\"}}}}");
    answer(row).replace("{\"text\":", &format!("{part},{{\"text\":"))
}

/// Three answers: two with data, of which one is damaged, and one without.
fn with_media() -> World {
    let mut world = World::new(&lines(3));
    world.job.head.queue.answers.media = Media::Files;
    world.download(1, [with_data(1, "b25l"), with_data(2, "b25l!"), answer(3)].concat());
    world.collect(1).unwrap();
    world
}

#[test]
fn data_is_written_once_and_what_is_damaged_stays() {
    let world = with_media();
    let tally = world.merge();
    assert_eq!((tally.media.files, tally.media.bytes, tally.media.unreadable), (1, 3, 1));
    let out = tree(&world.folder().path.join("out"));
    assert_eq!(out["media/1-1.png"], b"one");
    let results = world.results();
    let first = "{\"fileData\":{\"mimeType\":\"image/png\",\"fileUri\":\"a.media/1-1.png\"}},{\"text\":\"1\"}";
    assert!(results.contains(first), "{results}");
    assert!(results.contains("\"data\":\"b25l!\""), "{results}");
    // What an earlier merge left is gone.
    fs::write(world.folder().merged_media().join("7-1.png"), "torn").unwrap();
    assert_eq!(world.merge(), tally);
    assert_eq!(tree(&world.folder().path.join("out")), out);
    let delivery = world.delivery(tally, "a");
    let told = String::from_utf8(manifest(&world.job, &delivery, "0.1.0")).unwrap();
    assert!(told.contains("inline data in 1 places could not be read"), "{told}");
}

#[test]
fn the_files_are_delivered_for_the_group_and_brought_back_whole() {
    let world = with_media();
    let tally = world.merge();
    let delivery = world.delivery(tally, "a");
    let manifest = manifest(&world.job, &delivery, "0.1.0");
    let out = tree(&world.folder().path.join("out"));
    let sub = world.folders.outbox.join("sub");
    fs::create_dir(&sub).unwrap();
    // Somebody takes a name after the claim was made and the folder was moved.
    fs::write(sub.join(".a.manifest.json.aside"), &manifest).unwrap();
    fs::rename(world.folder().merged_media(), sub.join("a.media")).unwrap();
    fs::write(sub.join("a.manifest.json"), "theirs").unwrap();
    let deliver = |delivery: &Delivery| deliver(&world.folders, &world.job, delivery, &manifest);
    assert_eq!(deliver(&delivery).unwrap(), DeliverOutcome::NameTaken);
    assert_eq!(tree(&world.folder().path.join("out")), out);
    fs::remove_file(sub.join("a.manifest.json")).unwrap();
    fs::create_dir(sub.join("a.media")).unwrap();
    assert_eq!(deliver(&delivery).unwrap(), DeliverOutcome::NameTaken);
    assert_eq!(free_stem(&world.folders, &world.job.head).unwrap(), "a~2");
    let mut inline = world.job.head.clone();
    inline.queue.answers.media = Media::Inline;
    assert_eq!(free_stem(&world.folders, &inline).unwrap(), "a");
    fs::remove_dir(sub.join("a.media")).unwrap();
    assert_eq!(deliver(&delivery).unwrap(), DeliverOutcome::Done);
    assert_eq!(fs::read(sub.join("a.media/1-1.png")).unwrap(), b"one");
    let mode = |name: &str| fs::metadata(sub.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("a.media"), mode("a.media/1-1.png")), (0o750, 0o640));
    assert!(!world.folder().merged_media().exists());
    assert!(world.folder().answers(ChunkNo(1), Attempt(1)).exists());
}
