//! Schemas for answers: the form that works in batches, and how the other becomes it.
//!
//! A JSON Schema is rewritten only if every word of it can be said in the API's own form: types,
//! members, lists, choices and limits can; conditions, patterns of names and open objects can not.
//! References into the schema itself are put in their place.

use std::borrow::Cow;

use super::Kind;
use super::mend::Mend;
use super::path::Place;
use super::tree::{Members, Node};
use super::walk::Walk;

/// Looks at a `generationConfig`.
pub fn apply(walk: &mut Walk<'_>, config: &Node<'_>, place: &Place<'_>) {
    let own = config.find("responseSchema");
    let other = ["responseJsonSchema", "_responseJsonSchema"].iter().find_map(|it| config.find(it));
    if let Some((written, schema)) = other {
        let path = Place::Member(place, written).path();
        let rewritten = own.is_none().then(|| Rewriting::of(schema).whole(schema));
        let (remedy, mend) = match rewritten {
            None => ("take it out: `responseSchema` is there too".to_owned(), None),
            Some(Ok(schema)) if walk.accepts("Schema", &schema) => {
                let (name, text) = (Some("responseSchema".to_owned()), schema.to_string());
                let mend = Mend::Replace { path: path.clone(), name, text };
                ("write it as `responseSchema`".to_owned(), Some(mend))
            }
            Some(Ok(_)) => ("write it as `responseSchema`".to_owned(), None),
            Some(Err(word)) => {
                let remedy = format!("write it as `responseSchema`, which can not say {word}");
                (remedy, None)
            }
        };
        let message = "in batches `responseJsonSchema` is known to give JSON that nobody can use, \
                       although it works in single calls";
        walk.add(Kind::ResponseJsonSchema, path, message, remedy, mend);
    }
    if let Some((_, schema)) = own.or(other) {
        media_type(walk, config, schema, place);
    }
}

fn media_type(walk: &mut Walk<'_>, config: &Node<'_>, schema: &Node<'_>, place: &Place<'_>) {
    let written = config.find("responseMimeType");
    let path = Place::Member(place, written.map_or("responseMimeType", |(name, _)| name)).path();
    let message = "a schema for the answer needs a media type that it fits; without it the API \
                   answers the line with an error";
    let (remedy, mend) = match written.map(|(_, value)| value.as_str().unwrap_or_default()) {
        Some(word) if ["application/json", "text/x.enum"].contains(&&*word) => return,
        Some(_) => ("write \"application/json\"", None),
        None if schema.get("enum").is_some() => {
            ("write \"text/x.enum\" for the bare word, or \"application/json\"", None)
        }
        None => {
            let text = "\"application/json\"".to_owned();
            ("write \"application/json\"", Some(Mend::Put { path: path.clone(), text }))
        }
    };
    walk.add(Kind::ResponseMimeType, path, message, remedy, mend);
}

/// A JSON Schema on its way into the API's form.
struct Rewriting<'s, 'a> {
    definitions: &'s [(Cow<'a, str>, Node<'a>)],
    /// Schemas that may still be written: references can make very many of few.
    left: usize,
}

type Rewritten<'a> = Result<Node<'a>, String>;

impl<'s, 'a> Rewriting<'s, 'a> {
    fn of(schema: &'s Node<'a>) -> Rewriting<'s, 'a> {
        let known = ["$defs", "definitions"].iter().find_map(|name| schema.get(name));
        Rewriting { definitions: known.map(Node::members).unwrap_or_default(), left: SCHEMAS_MAX }
    }

    /// The whole schema; otherwise the word that the other form does not have.
    fn whole(mut self, schema: &'s Node<'a>) -> Rewritten<'a> {
        self.schema(schema, DEPTH_MAX)
    }

    fn schema(&mut self, schema: &'s Node<'a>, depth: usize) -> Rewritten<'a> {
        let Node::Object(members) = schema else {
            return Err("anything but an object".to_owned());
        };
        if depth == 0 || self.left == 0 {
            return Err("a schema within itself".to_owned());
        }
        self.left -= 1;
        let mut written: Members<'a> = Vec::new();
        for (name, value) in members {
            for member in self.member(name, value, depth)? {
                // What stands beside a reference counts more than what it refers to.
                written.retain(|(before, _)| *before != member.0);
                written.push(member);
            }
        }
        Ok(Node::Object(written))
    }

    /// What one word becomes.
    fn member(
        &mut self,
        name: &str,
        value: &'s Node<'a>,
        depth: usize,
    ) -> Result<Members<'a>, String> {
        let one = |name: &'static str, value| Ok(vec![(Cow::Borrowed(name), value)]);
        let unsaid = || Err(format!("`{}`", name.chars().take(40).collect::<String>()));
        match name {
            "$schema" | "$id" | "$comment" | "$defs" | "definitions" => Ok(Vec::new()),
            "additionalProperties" if value.to_string() == "false" => Ok(Vec::new()),
            "$ref" => {
                let path = value.as_str().unwrap_or_default();
                let name = path.rsplit('/').next().unwrap_or_default();
                let found = self.definitions.iter().find(|(known, _)| known == name);
                let Some((_, found)) = found else { return unsaid() };
                match self.schema(found, depth - 1)? {
                    Node::Object(members) => Ok(members),
                    Node::List(_) | Node::Text(_) => unsaid(),
                }
            }
            "type" => types(value).ok_or_else(|| "a choice of types".to_owned()),
            "format" => match value.as_str().as_deref() {
                Some("date-time" | "enum" | "float" | "double" | "int32" | "int64") => {
                    one("format", value.clone())
                }
                Some(_) | None => Err(format!("the format {value}")),
            },
            "const" if value.as_str().is_some() => one("enum", Node::List(vec![value.clone()])),
            "enum"
                if !value.items().is_empty()
                    && value.items().iter().all(|item| item.as_str().is_some()) =>
            {
                one("enum", value.clone())
            }
            "items" => one("items", self.schema(value, depth - 1)?),
            "properties" if value.is_object() => {
                let mut properties = Vec::new();
                for (name, schema) in value.members() {
                    properties.push((name.clone(), self.schema(schema, depth - 1)?));
                }
                one("properties", Node::Object(properties))
            }
            "anyOf" | "oneOf" => self.choice(value.items(), depth),
            kept => match KEPT.iter().find(|name| **name == kept) {
                Some(name) => one(name, value.clone()),
                None => unsaid(),
            },
        }
    }

    /// One of some schemas; a single one or nothing is not a choice there.
    fn choice(&mut self, schemas: &'s [Node<'a>], depth: usize) -> Result<Members<'a>, String> {
        let is_nothing = |schema: &&Node<'_>| {
            schema.get("type").and_then(Node::as_str).is_some_and(|word| word == "null")
        };
        let (nothing, real): (Vec<_>, Vec<_>) = schemas.iter().partition(is_nothing);
        let mut written = Vec::new();
        match real.as_slice() {
            [only] => match self.schema(only, depth - 1)? {
                Node::Object(members) => written.extend(members),
                Node::List(_) | Node::Text(_) => return Err("`anyOf`".to_owned()),
            },
            several => {
                let schemas = several.iter().map(|schema| self.schema(schema, depth - 1));
                let schemas = schemas.collect::<Result<_, _>>()?;
                written.push((Cow::Borrowed("anyOf"), Node::List(schemas)));
            }
        }
        if !nothing.is_empty() {
            written.push(nullable());
        }
        Ok(written)
    }
}

/// `"string"`, or `["string", "null"]`.
fn types<'a>(value: &Node<'_>) -> Option<Members<'a>> {
    let upper = |word: &str| (Cow::Borrowed("type"), Node::string(&word.to_ascii_uppercase()));
    if let Some(word) = value.as_str() {
        return Some(vec![upper(&word)]);
    }
    let words: Option<Vec<_>> = value.items().iter().map(Node::as_str).collect();
    let words = words?;
    let real: Vec<_> = words.iter().filter(|word| *word != "null").collect();
    match real.as_slice() {
        [only] if words.len() > 1 => Some(vec![upper(only), nullable()]),
        [only] => Some(vec![upper(only)]),
        _ => None,
    }
}

fn nullable<'a>() -> (Cow<'a, str>, Node<'a>) {
    (Cow::Borrowed("nullable"), Node::Text(Cow::Borrowed("true")))
}

/// Words that both forms have, with one meaning.
const KEPT: [&str; 16] = [
    "default",
    "description",
    "example",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "nullable",
    "pattern",
    "propertyOrdering",
    "required",
    "title",
];

const DEPTH_MAX: usize = 24;
const SCHEMAS_MAX: usize = 2000;
