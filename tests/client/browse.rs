//! What people look at: lists with counts, models, files.

use std::ops::ControlFlow;

use gemini_batchd::engine::event::Failure;
use gemini_batchd::engine::ids::{Attempt, BatchName, ChunkNo, FileName, Stamp};
use gemini_batchd::provider::gemini::{Counts, Described};

use crate::server::{Reply, Server};

#[tokio::test]
async fn counts_and_models_are_told_and_what_is_odd_in_them_hides_nothing() {
    let server = Server::start(|_| {
        Reply::json(
            r#"{"operations":[
                {"name":"batches/a","metadata":{"model":"models/m","state":"BATCH_STATE_RUNNING",
                    "batchStats":{"requestCount":"4","successfulRequestCount":"2","failedRequestCount":1}}},
                {"name":"batches/b","metadata":{"model":{"x":[1]},
                    "batchStats":{"requestCount":"4","successfulRequestCount":"many"}}},
                {"name":7}]}"#,
        )
    })
    .await;
    let mut seen: Vec<Described> = Vec::new();
    let client = server.client();
    let unreadable = client.each_batch(|batch| {
        seen.push(batch);
        ControlFlow::Continue(())
    });
    assert_eq!(unreadable.await, Ok(1));
    let told: Vec<_> = seen.iter().map(|batch| (batch.model.as_str(), batch.counts)).collect();
    let all = Counts { total: Some(4), answered: Some(2), failed: Some(1) };
    assert_eq!(told, [("m", all), ("", Counts { total: Some(4), ..Counts::default() })]);
}

#[tokio::test]
async fn a_list_that_is_broken_off_is_not_read_on() {
    let page = r#"{"operations":[{"name":"batches/a"},{"name":"batches/b"}],"nextPageToken":"x"}"#;
    let server = Server::start(move |_| Reply::json(page)).await;
    let mut count = 0;
    let client = server.client();
    let read = client.each_batch(|_| {
        count += 1;
        ControlFlow::Break(())
    });
    assert_eq!(read.await, Ok(0));
    assert_eq!((count, server.seen().len()), (1, 1));
}

#[tokio::test]
async fn what_is_not_there_is_told_from_what_can_not_be_told() {
    let server = Server::start(|request| match request.target.as_str() {
        "/v1beta/models/m" => Reply::json(r#"{"supportedGenerationMethods":["x"]}"#),
        "/v1beta/batches/odd" => Reply::json(r#"{"name":"batches/other"}"#),
        "/v1beta/files/odd" => Reply::error(503, "UNAVAILABLE", "later"),
        target if target.contains("/files/") => Reply::error(403, "PERMISSION_DENIED", "x"),
        _ => Reply::error(404, "NOT_FOUND", "no such thing"),
    })
    .await;
    let client = server.client();
    assert_eq!(client.model_methods("models/m").await, Ok(Some(vec!["x".to_owned()])));
    assert_eq!(client.model_methods("gone").await, Ok(None));
    let odd = client.model_methods("../files/x").await;
    assert!(matches!(odd, Err(Failure::Rejected(_))), "{odd:?}");
    let batch = |name: &str| BatchName(format!("batches/{name}"));
    assert_eq!(client.describe(&batch("gone")).await, Ok(None));
    let odd = client.describe(&batch("odd")).await;
    assert!(matches!(odd, Err(Failure::Transient(_))), "{odd:?}");
    let file = |name: &str| FileName(format!("files/{name}"));
    assert_eq!(client.describe_file(&file("gone")).await, Ok(None));
    let odd = client.describe_file(&file("odd")).await;
    assert!(matches!(odd, Err(Failure::Transient(_))), "{odd:?}");
}

#[test]
fn a_file_of_ours_is_known_by_its_name_and_no_other_is() {
    let job = "01JD0000000000000000000001".parse().expect("an id");
    let file = Stamp::file(job, ChunkNo(300), Attempt(12));
    assert_eq!(Stamp::parse_file(&file), Some((job, ChunkNo(300), Attempt(12))));
    for odd in ["files/x", "files/01jd0000000000000000000001-0a-1", "files/x-1-1", "", "batches/x"]
    {
        assert_eq!(Stamp::parse_file(&FileName(odd.to_owned())), None, "{odd}");
    }
    let longer = FileName(format!("{}-1", file.0));
    assert_eq!(Stamp::parse_file(&longer), None);
}
