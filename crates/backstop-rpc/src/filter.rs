//! The filter of ListSagas: a small, strict part of google.aip.dev/160.
//!
//! Terms joined by AND; each says `field op "value"`. Several states may stand in parentheses, joined by OR.
//! What is not understood is refused with its place, never ignored.

use backstop_core::{DefinitionName, Fault, FinCode, SagaState, Timestamp};
use backstop_engine::ports::store::SagaFilter;

/// Longest filter, in bytes.
pub(crate) const FILTER_BYTES_MAX: usize = 4_096;

/// Reads a filter.
pub(crate) fn parse(text: &str) -> Result<SagaFilter, Fault> {
    if text.len() > FILTER_BYTES_MAX {
        return Err(Fault::new("filter", format!("is longer than {FILTER_BYTES_MAX} bytes")));
    }
    let tokens = tokens(text)?;
    let mut parser = Parser { tokens: &tokens, filter: SagaFilter::default() };
    if !tokens.is_empty() {
        parser.conjunction()?;
    }
    Ok(parser.filter)
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Word(String),
    Quoted(String),
    Operator(&'static str),
    Open,
    Close,
}

impl Token {
    fn show(&self) -> String {
        match self {
            Self::Word(word) => word.clone(),
            Self::Quoted(text) => format!("\"{text}\""),
            Self::Operator(operator) => (*operator).to_owned(),
            Self::Open => "(".to_owned(),
            Self::Close => ")".to_owned(),
        }
    }
}

fn fault(what: impl Into<String>) -> Fault {
    Fault::new("filter", what)
}

fn tokens(text: &str) -> Result<Vec<Token>, Fault> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        let operator = [">=", "<=", "!=", "=", "<", ">", ":"].into_iter().find(|op| rest.starts_with(op));
        let taken = if let Some(operator) = operator {
            tokens.push(Token::Operator(operator));
            operator.len()
        } else if first == '(' || first == ')' {
            tokens.push(if first == '(' { Token::Open } else { Token::Close });
            1
        } else if first == '"' {
            let (value, taken) = quoted(rest)?;
            tokens.push(Token::Quoted(value));
            taken
        } else {
            let end = rest.find(|c: char| c.is_whitespace() || "()=<>!:\"".contains(c)).unwrap_or(rest.len());
            if end == 0 {
                return Err(fault(format!("\"{first}\" is not understood")));
            }
            tokens.push(Token::Word(rest[..end].to_owned()));
            end
        };
        rest = rest[taken..].trim_start();
    }
    Ok(tokens)
}

/// A quoted value at the beginning of `rest`, and how many bytes it took; `\` escapes the next character.
fn quoted(rest: &str) -> Result<(String, usize), Fault> {
    let mut value = String::new();
    let mut chars = rest.char_indices().skip(1);
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Ok((value, at + 1)),
            '\\' => match chars.next() {
                Some((_, escaped)) => value.push(escaped),
                None => break,
            },
            _ => value.push(c),
        }
    }
    Err(fault("a quotation mark is not closed"))
}

struct Parser<'a> {
    tokens: &'a [Token],
    filter: SagaFilter,
}

impl<'a> Parser<'a> {
    fn take(&mut self) -> Option<&'a Token> {
        let (first, rest) = self.tokens.split_first()?;
        self.tokens = rest;
        Some(first)
    }

    fn conjunction(&mut self) -> Result<(), Fault> {
        loop {
            if self.tokens.first() == Some(&Token::Open) {
                self.take();
                self.any_state()?;
            } else {
                let (field, operator, value) = self.term()?;
                self.narrow(&field, operator, &value)?;
            }
            match self.take() {
                None => return Ok(()),
                Some(Token::Word(word)) if word == "AND" => {}
                Some(other) => return Err(fault(format!("AND is expected before {}", other.show()))),
            }
        }
    }

    fn term(&mut self) -> Result<(String, &'static str, String), Fault> {
        let field = match self.take() {
            Some(Token::Word(word)) => word.clone(),
            Some(other) => return Err(fault(format!("a field is expected, not {}", other.show()))),
            None => return Err(fault("a field is expected at the end")),
        };
        let operator = match self.take() {
            Some(Token::Operator(operator)) => *operator,
            Some(_) | None => return Err(fault(format!("an operator is expected after {field}"))),
        };
        match self.take() {
            Some(Token::Quoted(value) | Token::Word(value)) => Ok((field, operator, value.clone())),
            Some(_) | None => Err(fault(format!("a value is expected after {field} {operator}"))),
        }
    }

    fn any_state(&mut self) -> Result<(), Fault> {
        let mut states = Vec::new();
        loop {
            let (field, operator, value) = self.term()?;
            if field != "state" || operator != "=" {
                return Err(fault("only states may be joined by OR in parentheses"));
            }
            states.push(state(&value)?);
            match self.take() {
                Some(Token::Close) => break,
                Some(Token::Word(word)) if word == "OR" => {}
                Some(_) | None => return Err(fault("OR or a closing parenthesis is expected after a state")),
            }
        }
        self.set_states(states)
    }

    fn set_states(&mut self, states: Vec<SagaState>) -> Result<(), Fault> {
        if !self.filter.states.is_empty() {
            return Err(fault("a saga has one state: join several by OR in parentheses"));
        }
        self.filter.states = states;
        Ok(())
    }

    fn narrow(&mut self, field: &str, operator: &'static str, value: &str) -> Result<(), Fault> {
        let twice = |field: &str| fault(format!("{field} is named twice"));
        match (field, operator) {
            ("state", "=") => self.set_states(vec![state(value)?]),
            ("definition", "=") => {
                let name = DefinitionName::parse(value).map_err(|error| fault(error.to_string()))?;
                self.filter.definition.replace(name).map_or(Ok(()), |_| Err(twice(field)))
            }
            ("fin_code", "=") => {
                let code = FinCode::parse(value)
                    .ok_or_else(|| fault(format!("\"{value}\" is not of the form FIN-nnnnn")))?;
                self.filter.fin_code.replace(code).map_or(Ok(()), |_| Err(twice(field)))
            }
            ("create_time", ">=" | ">") => {
                let from = instant(value)?;
                let from = if operator == ">" { Timestamp(from.0.saturating_add(1)) } else { from };
                self.filter.created_from.replace(from).map_or(Ok(()), |_| Err(twice(field)))
            }
            ("create_time", "<" | "<=") => {
                let before = instant(value)?;
                let before = if operator == "<=" { Timestamp(before.0.saturating_add(1)) } else { before };
                self.filter.created_before.replace(before).map_or(Ok(()), |_| Err(twice(field)))
            }
            (field, "=") if field.starts_with("labels.") && field != "labels." => {
                let key = field.strip_prefix("labels.").unwrap_or(field).to_owned();
                self.filter.labels.insert(key, value.to_owned()).map_or(Ok(()), |_| Err(twice(field)))
            }
            _ => Err(fault(format!(
                "{field} {operator} is not understood; there are state, definition, fin_code, labels.<key> with =, \
                 and create_time with >=, >, <, <="
            ))),
        }
    }
}

fn state(value: &str) -> Result<SagaState, Fault> {
    let short = value.strip_prefix("SAGA_STATE_").unwrap_or(value);
    SagaState::parse(short).ok_or_else(|| {
        let known = SagaState::ALL.map(SagaState::as_str).join(", ");
        fault(format!("\"{value}\" is no state; there are {known}"))
    })
}

fn instant(value: &str) -> Result<Timestamp, Fault> {
    let parsed: prost_types::Timestamp =
        value.parse().map_err(|_| fault(format!("\"{value}\" is not an RFC 3339 time")))?;
    let micros = parsed.seconds.saturating_mul(1_000_000).saturating_add(i64::from(parsed.nanos) / 1_000);
    Ok(Timestamp(micros))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_term_that_the_contract_names_is_read() {
        let filter = parse(
            r#"(state = "ROLLED_BACK" OR state = SAGA_STATE_RUNNING) AND definition = "transfer" AND
               fin_code = "FIN-40005" AND labels.customer = "a \"quoted\" one" AND
               create_time >= "2026-11-23T00:00:00Z" AND create_time < "2026-11-24T00:00:00Z""#,
        )
        .unwrap();
        assert_eq!(filter.states, vec![SagaState::RolledBack, SagaState::Running]);
        assert_eq!(filter.labels["customer"], "a \"quoted\" one");
        let day = filter.created_before.unwrap().0 - filter.created_from.unwrap().0;
        assert_eq!(day, 86_400_000_000);
        assert_eq!(parse("  ").unwrap(), SagaFilter::default());
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for bad in [
            "state",
            "state =",
            "state = \"UP\"",
            "= \"x\"",
            "state = \"RUNNING\" definition = \"a\"",
            "color = \"red\"",
            "state != \"RUNNING\"",
            "create_time >= \"yesterday\"",
            "fin_code = \"40005\"",
            "(state = \"RUNNING\"",
            "definition = \"transfer",
            "definition = \"a\" AND definition = \"b\"",
            "NOT state = \"RUNNING\"",
            "(definition = \"a\" OR definition = \"b\")",
            "\\",
            "state = \"RUNNING\" AND",
        ] {
            assert_eq!(parse(bad).unwrap_err().path, "filter", "{bad}");
        }
        assert!(parse(&"a".repeat(FILTER_BYTES_MAX + 1)).is_err());
    }
}
