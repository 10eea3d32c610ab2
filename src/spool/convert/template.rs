//! Templates: a text with `{{names}}` in it, which become the fields of a record.

use std::borrow::Cow;

/// A text with places for fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Text(String),
    Field(String),
}

impl Template {
    /// Reads a template. `{{name}}` is a place, `{{{{` stands for two braces; single ones and
    /// `}}` by itself are text.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Template, String> {
        let mut parts = Vec::new();
        let (mut plain, mut rest) = (String::new(), text);
        while let Some(at) = rest.find("{{") {
            plain.push_str(&rest[..at]);
            rest = &rest[at + 2..];
            if let Some(behind) = rest.strip_prefix("{{") {
                plain.push_str("{{");
                rest = behind;
                continue;
            }
            let shown: String = rest.chars().take(20).collect();
            let Some(end) = rest.find("}}") else {
                return Err(format!(
                    "`{{{{{shown}` in the template is never closed; write `{{{{{{{{` for two braces"
                ));
            };
            let name = rest[..end].trim();
            if name.is_empty() {
                return Err("`{{}}` in the template names no column".to_owned());
            }
            if !plain.is_empty() {
                parts.push(Part::Text(std::mem::take(&mut plain)));
            }
            parts.push(Part::Field(name.to_owned()));
            rest = &rest[end + 2..];
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain));
        }
        let template = Template { parts };
        if template.names().next().is_none() {
            return Err(
                "the template has no place such as `{{text}}`, so all prompts would be the same"
                    .to_owned(),
            );
        }
        Ok(template)
    }

    /// The names in it, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.parts.iter().filter_map(|part| match part {
            Part::Field(name) => Some(name.as_str()),
            Part::Text(_) => None,
        })
    }

    /// Its parts in order, with the fields in their places: `field` is asked by the position of a
    /// name among [`Template::names`].
    pub fn fill<'t>(
        &'t self,
        field: impl Fn(usize) -> &'t str,
    ) -> impl Iterator<Item = Cow<'t, str>> {
        let mut next = 0;
        self.parts.iter().map(move |part| match part {
            Part::Text(text) => Cow::Borrowed(text.as_str()),
            Part::Field(_) => {
                next += 1;
                Cow::Borrowed(field(next - 1))
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(template: &str) -> Result<String, String> {
        let template = Template::parse(template)?;
        let names: Vec<String> = template.names().map(str::to_uppercase).collect();
        Ok(template.fill(|at| &names[at]).collect())
    }

    #[test]
    fn names_in_braces_become_fields_and_all_else_stays() {
        for (template, expected) in [
            ("{{a}}", "A"),
            ("Translate: {{ text }}!", "Translate: TEXT!"),
            ("{{a}}{{b}} {{a}}", "AB A"),
            ("{\"x\": {{a}}}", "{\"x\": A}"),
            ("{{{{a}} {{b}}", "{{a}} B"),
            ("é{{名}}", "é名"),
        ] {
            assert_eq!(filled(template).as_deref(), Ok(expected), "{template}");
        }
    }

    #[test]
    fn a_template_that_can_not_be_meant_says_why() {
        for (template, why) in [
            ("{{a", "never closed"),
            ("{{}} {{a}}", "names no column"),
            ("{{  }}", "names no column"),
            ("Hello", "no place"),
            ("{{{{a}}", "no place"),
            ("", "no place"),
        ] {
            let said = Template::parse(template).expect_err(template);
            assert!(said.contains(why), "{template}: {said}");
        }
    }
}
