//! Compares a request with the message types of the API, and collects findings.
//!
//! The API refuses a line for a single name or type that it does not know, so this is as strict as
//! it is. It never looks into values whose type is free.

use std::borrow::Cow;

use super::homes;
use super::mend::Mend;
use super::path::{Path, Place};
use super::tree::{Node, is_named};
use super::{Asked, Finding, Kind, rules, shapes};
use crate::engine::job::Task;
use crate::schema::{self, Fields, MESSAGES};

/// A walk over one request.
#[derive(Debug)]
pub struct Walk<'w> {
    request: &'w Node<'w>,
    root: Option<&'static str>,
    asked: Asked<'w>,
    found: Vec<Finding>,
}

impl<'w> Walk<'w> {
    /// Begins at a request, which stands in the member `root` of its line, or is the line itself.
    pub fn of(request: &'w Node<'w>, root: Option<&'static str>, asked: Asked<'w>) -> Walk<'w> {
        Walk { request, root, asked, found: Vec::new() }
    }

    /// Looks at all of it.
    pub fn request(&mut self) {
        let (request, place) = (self.request, self.place());
        if let Node::Object(members) = request {
            self.message(homes::request_type(self.asked.task), members, &place);
            rules::apply(self);
        }
    }

    /// What was found, in the order in which it was.
    pub fn end(mut self) -> Vec<Finding> {
        // Where something stands twice, nobody knows which one a change is about.
        if self.found.iter().any(|finding| finding.kind == Kind::Twice) {
            self.found.iter_mut().for_each(|finding| finding.mend = None);
        }
        self.found
    }

    /// Whether a value is a good message of this type.
    pub fn accepts(&self, message: &str, node: &Node<'_>) -> bool {
        let mut walk = Walk::of(node, None, self.asked);
        walk.value(&schema::Kind::Message(message.to_owned()), node, &Place::Line);
        walk.found.is_empty()
    }

    /// The request.
    pub fn node(&self) -> &'w Node<'w> {
        self.request
    }

    /// What is asked for.
    pub fn asked(&self) -> Asked<'w> {
        self.asked
    }

    /// Where the request stands.
    pub fn place(&self) -> Place<'static> {
        self.root.map_or(Place::Line, |name| Place::Member(&Place::Line, name))
    }

    /// The path of members in the request.
    pub fn path(&self, names: &[&str]) -> Path {
        Path::of(self.root, names)
    }

    /// Puts a finding down. Of a line with very many only the first are kept.
    pub fn add(
        &mut self,
        kind: Kind,
        path: Path,
        message: impl Into<String>,
        remedy: impl Into<String>,
        mend: Option<Mend>,
    ) {
        if self.found.len() < FINDINGS_MAX {
            let (message, remedy) = (message.into(), remedy.into());
            self.found.push(Finding { kind, path, message, remedy, mend });
        }
    }

    fn value(&mut self, kind: &schema::Kind, node: &Node<'_>, place: &Place<'_>) {
        if node.is_null() {
            return;
        }
        match (kind, node) {
            (schema::Kind::Message(name), Node::Object(members)) => {
                self.message(name, members, place);
            }
            (schema::Kind::List(kind), Node::List(items)) => {
                for (index, item) in items.iter().enumerate() {
                    self.value(kind, item, &Place::Item(place, index));
                }
            }
            (schema::Kind::Map(kind), Node::Object(members)) => {
                for (name, value) in members {
                    self.value(kind, value, &Place::Member(place, name));
                }
            }
            (schema::Kind::Any, _) | (schema::Kind::Struct, Node::Object(_)) => {}
            // Nested so deep that it was not taken apart.
            (_, Node::Text(text)) if text.starts_with(['{', '[']) => {}
            (kind, Node::Text(text)) if takes(kind, text) => {}
            (kind, node) => shapes::wrong(self, kind, node, place.path()),
        }
    }

    fn message(&mut self, name: &str, members: &[(Cow<'_, str>, Node<'_>)], place: &Place<'_>) {
        let Some(fields) = MESSAGES.get(name) else { return };
        let mut seen: Vec<&str> = Vec::new();
        for (written, value) in members {
            let here = Place::Member(place, written);
            match fields.get(&**written) {
                Some(field) => {
                    if seen.contains(&field.snake.as_str()) {
                        let name = &field.camel;
                        let said = format!("`{name}` stands twice; nobody says which one counts");
                        self.add(Kind::Twice, here.path(), said, "take one of them out", None);
                    }
                    seen.push(&field.snake);
                    self.value(&field.kind, value, &here);
                }
                None if self.found.len() >= FINDINGS_MAX => return,
                None if homes::misplaced(self, name, written, value, here.path()) => {}
                None => self.unknown(name, fields, members, &here),
            }
        }
    }

    fn unknown(
        &mut self,
        message: &str,
        fields: &Fields,
        members: &[(Cow<'_, str>, Node<'_>)],
        here: &Place<'_>,
    ) {
        let (path, written) = (here.path(), here.name());
        let shown: String = written.chars().take(NAME_CHARS_MAX).collect();
        let said = format!("the API knows no field {shown:?} here and refuses the line");
        let folded = fold(written);
        if let Some(field) = fields.values().find(|field| fold(&field.camel) == folded) {
            let name = field.camel.clone();
            let remedy = format!("write `{name}`");
            let is_free = !members.iter().any(|(other, _)| is_named(other, &name));
            let mend = is_free.then(|| Mend::Rename { path: path.clone(), name });
            return self.add(Kind::UnknownField, path, said, remedy, mend);
        }
        let word = task_of(message).and_then(|_| homes::other_word(&folded));
        let meant =
            word.or_else(|| nearest(&folded, fields.values().map(|field| field.camel.as_str())));
        let remedy = match meant {
            Some(name) => format!("did you mean `{name}`?"),
            None => "take it out".to_owned(),
        };
        self.add(Kind::UnknownField, path, said, remedy, None);
    }
}

/// The name of those known that is most like a folded one, if it is like enough.
pub fn nearest<'n>(folded: &str, known: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    let likeness = |name: &str| strsim::normalized_damerau_levenshtein(folded, &fold(name));
    let like = known.map(|name| (likeness(name), name)).filter(|(like, _)| *like >= LIKE_ENOUGH);
    like.max_by(|(a, one), (b, other)| a.total_cmp(b).then(other.cmp(one))).map(|(_, name)| name)
}

/// A name without what people vary: case, underscores and hyphens.
pub fn fold(name: &str) -> String {
    let letters = name.chars().filter(|letter| !matches!(letter, '_' | '-'));
    letters.take(NAME_CHARS_MAX).map(|letter| letter.to_ascii_lowercase()).collect()
}

/// Whether a scalar may stand in a field.
fn takes(kind: &schema::Kind, text: &str) -> bool {
    match text.as_bytes().first() {
        Some(b'"') if matches!(kind, schema::Kind::Text) => true,
        Some(b'"') => {
            let node = Node::Text(Cow::Borrowed(text));
            node.as_str().is_none_or(|text| kind.takes_text(&text))
        }
        Some(b't' | b'f') => matches!(kind, schema::Kind::Bool),
        Some(_) | None => match text.parse::<i64>() {
            Ok(whole) => kind.takes_whole(whole),
            Err(_) => text.parse().is_ok_and(|number| kind.takes_number(number)),
        },
    }
}

/// The task of a request type, for those that have settings.
pub fn task_of(message: &str) -> Option<Task> {
    match message {
        "GenerateContentRequest" | "GenerationConfig" | "ThinkingConfig" => Some(Task::Generate),
        "EmbedContentRequest" | "EmbedContentConfig" => Some(Task::Embed),
        _ => None,
    }
}

/// Findings of one line.
const FINDINGS_MAX: usize = 100;
/// So much of a name is shown and compared.
const NAME_CHARS_MAX: usize = 60;
/// From 0 to 1: two letters of eight may differ.
const LIKE_ENOUGH: f64 = 0.7;
