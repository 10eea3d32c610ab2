//! Files: what their calls do to the server's state (API contract, 7.1 and 7.7 to 7.9). How they
//! come to be is in `sessions.rs` for uploads, and in `server.rs` for results.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::batch::LIFETIME;
use super::batches::{page_token, read_token};
use super::clock::Moment;
use super::faults::AfterBytes;
use super::journal::Happened;
use super::reply::{Download, Reply, StoreId};
use super::server::{ProjectNo, Server};

/// A complete file that a client uploaded.
#[derive(Debug, Clone)]
pub struct StoredFile {
    /// Where its bytes are.
    pub store: StoreId,
    /// Files are numbered as they come.
    pub number: u64,
    /// As the client gave it.
    pub display_name: String,
    /// As the client gave it.
    pub mime_type: String,
    /// Its size.
    pub bytes: u64,
    /// When it was complete.
    pub created: Moment,
    /// Of its bytes, lowercase hex.
    pub sha256_hex: String,
    /// When it can be used.
    pub ready: Moment,
    /// Whether it turned out then that it never can.
    pub fails: bool,
}

impl StoredFile {
    /// Whether it has not expired.
    pub fn lives(&self, now: Moment) -> bool {
        self.created.after(LIFETIME) > now
    }

    /// `PROCESSING`, `ACTIVE` or `FAILED`.
    pub fn state(&self, now: Moment) -> &'static str {
        match (self.ready > now, self.fails) {
            (true, _) => "PROCESSING",
            (false, true) => "FAILED",
            (false, false) => "ACTIVE",
        }
    }

    pub(super) fn resource(&self, id: &str, base: &str, now: Moment) -> Value {
        let mut file = json!({
            "name": format!("files/{id}"),
            "mimeType": self.mime_type,
            "sizeBytes": self.bytes.to_string(),
            "createTime": self.created.to_string(),
            "updateTime": self.created.to_string(),
            "expirationTime": self.created.after(LIFETIME).to_string(),
            "sha256Hash": STANDARD.encode(&self.sha256_hex),
            "uri": format!("{base}/v1beta/files/{id}"),
            "state": self.state(now),
            "source": "UPLOADED",
        });
        if self.state(now) == "FAILED" {
            file["error"] = json!({"code": 3, "message": "The file could not be processed."});
        }
        if !self.display_name.is_empty() {
            file["displayName"] = self.display_name.clone().into();
        }
        file
    }
}

impl Server {
    /// Forgets files whose time is over.
    pub(super) fn expire_files(&mut self, now: Moment) {
        let mut expired = Vec::new();
        for project in &mut self.projects {
            project.files.retain(|_, file| {
                let lives = file.lives(now);
                expired.extend((!lives).then_some(file.store));
                lives
            });
        }
        for store in expired {
            self.release(store);
        }
    }

    /// One file, uploaded or generated.
    pub fn file_get(&mut self, who: ProjectNo, id: &str, base: &str, now: Moment) -> Reply {
        if let Some((created, output)) = self.result_file(who, id, now) {
            return Reply::Json(json!({
                "name": format!("files/{id}"),
                "mimeType": "application/jsonl",
                "sizeBytes": output.bytes.to_string(),
                "createTime": created.to_string(),
                "updateTime": created.to_string(),
                "expirationTime": created.after(LIFETIME).to_string(),
                "uri": format!("{base}/v1beta/files/{id}"),
                "downloadUri": format!("{base}/v1beta/files/{id}:download?alt=media"),
                "state": "ACTIVE",
                "source": "GENERATED",
            }));
        }
        match self.projects[who.0].files.get(id).filter(|file| file.lives(now)) {
            Some(file) => Reply::Json(file.resource(id, base, now)),
            None => no_file(id),
        }
    }

    /// A page of uploaded files, newest first.
    pub fn file_list(
        &mut self,
        who: ProjectNo,
        page_size: Option<usize>,
        token: Option<&str>,
        base: &str,
        now: Moment,
    ) -> Reply {
        let before = match token.map(read_token) {
            None => u64::MAX,
            Some(Some(before)) => before,
            Some(None) => return Reply::refused(400, "Invalid page token."),
        };
        let files = self.projects[who.0].files.iter();
        let mut files: Vec<(&String, &StoredFile)> =
            files.filter(|(_, file)| file.lives(now) && file.number < before).collect();
        files.sort_unstable_by_key(|(_, file)| std::cmp::Reverse(file.number));
        let size = page_size.unwrap_or(10).clamp(1, 100);
        let more = files.len() > size;
        files.truncate(size);
        let mut body = json!({});
        if let Some((_, last)) = files.last().filter(|_| more) {
            body["nextPageToken"] = page_token(last.number).into();
        }
        if !files.is_empty() {
            let shown = files.iter().map(|(id, file)| file.resource(id, base, now));
            body["files"] = shown.collect::<Vec<Value>>().into();
        }
        Reply::Json(body)
    }

    /// Deletes an uploaded file. Generated ones go only with their batch.
    pub fn file_delete(&mut self, who: ProjectNo, id: &str, now: Moment) -> Reply {
        if id.len() > FILE_ID_MAX {
            let message =
                format!("* DeleteFileRequest.name: file id longer than {FILE_ID_MAX} characters");
            return Reply::refused(400, message);
        }
        let files = &mut self.projects[who.0].files;
        match files.remove(id) {
            Some(file) => {
                let lived = file.lives(now);
                self.release(file.store);
                if !lived {
                    return no_file(id);
                }
                let file = format!("files/{id}");
                self.journal.note(now, who.0, Happened::FileDeleted { file });
                Reply::Json(json!({}))
            }
            None => no_file(id),
        }
    }

    /// The bytes of a result file, from `range` on if ranges are honoured.
    pub fn download(&mut self, who: ProjectNo, id: &str, range: Option<u64>, now: Moment) -> Reply {
        let Some((_, output)) = self.result_file(who, id, now) else {
            return match self.projects[who.0].files.get(id).filter(|file| file.lives(now)) {
                Some(_) => Reply::refused(400, "Only generated files can be downloaded."),
                None => no_file(id),
            };
        };
        let range = range.filter(|_| self.faults.download_ranges);
        let from = range.unwrap_or(0);
        if from > output.bytes || (range.is_some() && from == output.bytes) {
            return Reply::refused(416, "The requested range is beyond the end of the file.");
        }
        let rest = output.bytes - from;
        let cut = struck_at(&mut self.faults.download_cut, 0, rest);
        let short = struck_at(&mut self.faults.download_short, 0, rest);
        let len = cut.or(short).unwrap_or(rest);
        let file = format!("files/{id}");
        self.journal.note(now, who.0, Happened::Downloaded { file, from, bytes: len });
        Reply::Bytes(Download {
            store: output.store,
            from,
            len,
            range_of: range.map(|_| output.bytes),
            cut: cut.is_some(),
        })
    }

    /// Bytes that a project has stored.
    pub(super) fn stored_bytes(&self, who: ProjectNo, now: Moment) -> u64 {
        let files = self.projects[who.0].files.values();
        let uploaded: u64 = files.filter(|file| file.lives(now)).map(|file| file.bytes).sum();
        uploaded + self.result_bytes(who, now)
    }
}

/// Bytes that still go through, if the fault's point lies in this stretch.
pub(super) fn struck_at(fault: &mut Option<AfterBytes>, from: u64, to: u64) -> Option<u64> {
    let fault = fault.as_mut()?;
    let within = fault.after >= from && fault.after < to;
    (within && fault.times.take()).then(|| fault.after - from)
}

fn no_file(id: &str) -> Reply {
    let id: String = id.chars().take(100).collect();
    let message =
        format!("You do not have permission to access the File {id} or it may not exist.");
    Reply::refused(403, message)
}

/// Characters of a file's id.
pub(super) const FILE_ID_MAX: usize = 40;
