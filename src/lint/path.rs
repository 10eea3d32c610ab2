//! Where in a line a value stands.

use std::fmt;

/// A step from a value to one in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// To a member.
    Member(String),
    /// To an element.
    Item(usize),
}

/// The steps from the line to a value; as text `request.contents[0].parts`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Path(pub Vec<Step>);

impl Path {
    /// The path of members `names` in the request that stands at `root`.
    pub fn of(root: Option<&str>, names: &[&str]) -> Path {
        let names = root.iter().chain(names);
        Path(names.map(|name| Step::Member((*name).to_owned())).collect())
    }

    /// The same with `[]` for every element, so that the third part and the fourth are alike.
    pub fn of_kind(&self) -> String {
        self.text(|_| "[]".to_owned())
    }

    fn text(&self, item: impl Fn(usize) -> String) -> String {
        let mut text = String::new();
        for step in &self.0 {
            match step {
                Step::Item(index) => text.push_str(&item(*index)),
                Step::Member(name) if is_plain(name) => {
                    if !text.is_empty() {
                        text.push('.');
                    }
                    text.push_str(name);
                }
                Step::Member(name) => {
                    let name: String = name.chars().take(NAME_CHARS_MAX).collect();
                    text.push_str(&format!("[{name:?}]"));
                }
            }
        }
        text
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text(|index| format!("[{index}]")))
    }
}

/// A place on the way down, which becomes a path only where something is found.
#[derive(Debug, Clone, Copy)]
pub enum Place<'p> {
    /// The line.
    Line,
    /// A member of what stands at the place before.
    Member(&'p Place<'p>, &'p str),
    /// An element of it.
    Item(&'p Place<'p>, usize),
}

impl Place<'_> {
    /// The steps to it.
    pub fn path(&self) -> Path {
        match self {
            Place::Line => Path::default(),
            Place::Member(before, name) => before.and(Step::Member((*name).to_owned())),
            Place::Item(before, index) => before.and(Step::Item(*index)),
        }
    }

    /// The name of a member; empty for what has none.
    pub fn name(&self) -> &str {
        match self {
            Place::Member(_, name) => name,
            Place::Line | Place::Item(_, _) => "",
        }
    }

    fn and(&self, step: Step) -> Path {
        let mut path = self.path();
        path.0.push(step);
        path
    }
}

fn is_plain(name: &str) -> bool {
    let all = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.len() <= NAME_CHARS_MAX && name.chars().all(all)
}

/// Of a name that somebody made up, so much is shown.
const NAME_CHARS_MAX: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_read_as_people_write_them_and_odd_names_stand_in_quotes() {
        let (contents, odd) = (Place::Member(&Place::Line, "contents"), "a.b\n");
        let first = Place::Item(&contents, 12);
        let path = Place::Member(&first, odd).path();
        assert_eq!(path.to_string(), "contents[12][\"a.b\\n\"]");
        assert_eq!(path.of_kind(), "contents[][\"a.b\\n\"]");
        assert_eq!(Path::of(Some("request"), &["a", "b"]).to_string(), "request.a.b");
    }
}
