//! Evaluates a compiled expression.
//!
//! # Invariants
//! * The same expression over the same values gives the same value, always: no clock, no random number, no
//!   order that is not the values' own (I9).
//! * One rendering does at most [`EVALUATION_STEPS_MAX`] steps, whatever the data.
//! * Errors tell kinds of values, never values: an error is journaled and shown.

use super::expr::{Each, Expr, Function, Macro, Op, Root};
use super::ops;
use super::value::{Held, Key, Val};
use prost_reflect::{DynamicMessage, ReflectMessage};
use serde_json::Value as Json;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Most steps of one rendering: a step is an expression visited, or 64 bytes put together. Some
/// milliseconds of work.
pub(in crate::participants) const EVALUATION_STEPS_MAX: u64 = 200_000;

/// Most messages within messages that a value may be made into. Protobuf's decoders stop at 100, and a level
/// of JSON in a `Struct` takes three of them, so whoever gets the request could not read more anyway.
const MESSAGE_DEPTH_MAX: usize = 64;

/// Why there is no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum EvalError {
    /// The values are not what the expression needs. `||`, `&&`, `exists` and `all` look past it if the
    /// other side decides.
    Wrong(String),
    /// The work is more than it may be.
    TooMuch,
    /// The values are nested deeper than a request may be.
    TooDeep,
}

impl EvalError {
    pub(super) fn text(self) -> String {
        match self {
            Self::Wrong(text) => text,
            Self::TooMuch => format!("the expressions need more than {EVALUATION_STEPS_MAX} steps"),
            Self::TooDeep => format!("the value is nested deeper than {MESSAGE_DEPTH_MAX} messages"),
        }
    }
}

pub(super) type Evaluated<'a> = Result<Val<'a>, EvalError>;

pub(super) fn wrong<T>(text: impl Into<String>) -> Result<T, EvalError> {
    Err(EvalError::Wrong(text.into()))
}

/// What expressions read, and what they may still do.
pub(super) struct Env<'a> {
    pub(super) input: Option<&'a Json>,
    pub(super) saga: Val<'static>,
    pub(super) cause: Val<'static>,
    pub(super) response: Option<&'a DynamicMessage>,
    pub(super) steps: &'a BTreeMap<usize, Option<DynamicMessage>>,
    steps_left: Cell<u64>,
    depth: Cell<usize>,
}

/// Counts one message around what is being made.
pub(super) struct Nested<'e>(&'e Cell<usize>);

impl Drop for Nested<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get().saturating_sub(1));
    }
}

impl<'a> Env<'a> {
    pub(super) fn new(steps: &'a BTreeMap<usize, Option<DynamicMessage>>) -> Self {
        Self {
            input: None,
            saga: Val::Null,
            cause: Val::Null,
            response: None,
            steps,
            steps_left: Cell::new(EVALUATION_STEPS_MAX),
            depth: Cell::new(0),
        }
    }

    /// Evaluates one expression.
    pub(super) fn eval(&self, expr: &Expr) -> Evaluated<'a> {
        self.expr(expr, &mut Vec::new())
    }

    pub(super) fn spend(&self, steps: u64) -> Result<(), EvalError> {
        let left = self.steps_left.get().checked_sub(steps).ok_or(EvalError::TooMuch);
        self.steps_left.set(left.as_ref().copied().unwrap_or(0));
        left.map(|_| ())
    }

    /// Goes one message deeper, until the guard is dropped.
    pub(super) fn enter(&self) -> Result<Nested<'_>, EvalError> {
        self.depth.set(self.depth.get() + 1);
        let nested = Nested(&self.depth);
        if self.depth.get() > MESSAGE_DEPTH_MAX { Err(EvalError::TooDeep) } else { Ok(nested) }
    }

    pub(super) fn spend_bytes(&self, bytes: usize) -> Result<(), EvalError> {
        self.spend(u64::try_from(bytes / 64).unwrap_or(u64::MAX))
    }

    /// Reading a list or a map through costs a step an element, and the copies of its keys.
    pub(super) fn spend_elements(&self, val: &Val<'_>) -> Result<(), EvalError> {
        self.spend(val.len().and_then(|len| u64::try_from(len).ok()).unwrap_or(0))?;
        self.spend_bytes(val.bytes_of_keys())
    }

    fn expr(&self, expr: &Expr, locals: &mut Vec<Val<'a>>) -> Evaluated<'a> {
        self.spend(1)?;
        match expr {
            Expr::Const(val) => {
                if let Val::Str(text) = val {
                    self.spend_bytes(text.len())?;
                }
                Ok(val.clone())
            }
            Expr::Root(root) => {
                let val = self.root(*root);
                // A response may be a `Struct`, which is read anew each time.
                if matches!(root, Root::Step(_) | Root::Response) {
                    self.spend_bytes(val.bytes_made())?;
                }
                Ok(val)
            }
            Expr::Local(index) => Ok(locals.get(*index).cloned().unwrap_or(Val::Null)),
            Expr::Select(operand, field) => {
                let operand = self.expr(operand, locals)?;
                self.select(&operand, field)
            }
            Expr::Has(operand, field) => has(&self.expr(operand, locals)?, field).map(Val::Bool),
            Expr::Index(operand, index) => {
                let (operand, index) = (self.expr(operand, locals)?, self.expr(index, locals)?);
                self.index(&operand, &index)
            }
            Expr::Not(operand) => Ok(Val::Bool(!truth(&self.expr(operand, locals)?)?)),
            Expr::Negate(operand) => ops::negate(&self.expr(operand, locals)?),
            Expr::And(left, right) => self.either(left, right, false, locals),
            Expr::Or(left, right) => self.either(left, right, true, locals),
            Expr::Condition(parts) => {
                let [condition, yes, no] = &**parts;
                let chosen = if truth(&self.expr(condition, locals)?)? { yes } else { no };
                self.expr(chosen, locals)
            }
            Expr::Binary(op, operands) => {
                let [left, right] = &**operands;
                let (left, right) = (self.expr(left, locals)?, self.expr(right, locals)?);
                self.binary(*op, left, right)
            }
            Expr::Call(function, first, second) => {
                let first = self.expr(first, locals)?;
                let second = second.as_ref().map(|second| self.expr(second, locals)).transpose()?;
                self.call(*function, &first, second.as_ref())
            }
            Expr::List(elements) => {
                let values: Result<Vec<_>, _> =
                    elements.iter().map(|element| self.expr(element, locals)).collect();
                Ok(Val::List(Arc::new(values?)))
            }
            Expr::Map(entries) => self.map(entries, locals),
            Expr::Each(each) => self.each(each, locals),
        }
    }

    fn root(&self, root: Root) -> Val<'a> {
        let message = |message: Option<&'a DynamicMessage>| message.map_or(Val::Null, Val::of_message);
        match root {
            Root::Input => self.input.map_or(Val::Null, Val::of_json),
            Root::Saga => self.saga.clone(),
            Root::Cause => self.cause.clone(),
            Root::Response => message(self.response),
            Root::Step(index) => message(self.steps.get(&index).and_then(Option::as_ref)),
        }
    }

    fn select(&self, operand: &Val<'a>, field: &str) -> Evaluated<'a> {
        match operand {
            Val::Message(message) => {
                let Some(descriptor) = message.descriptor().get_field_by_name(field) else {
                    return wrong(format!("{} has no field \"{field}\"", message.descriptor().full_name()));
                };
                let val = Val::of_field(message, &descriptor);
                self.spend_bytes(val.bytes_made())?;
                Ok(val)
            }
            Val::Json(Json::Object(entries)) => match entries.get(field) {
                Some(value) => Ok(Val::of_json(value)),
                None => wrong(format!("there is no \"{field}\"")),
            },
            Val::Map(entries) => match entries.get(&Key::Str(field.to_owned())) {
                Some(value) => Ok(value.clone()),
                None => wrong(format!("there is no \"{field}\"")),
            },
            Val::Null => {
                wrong(format!("\"{field}\" of null: what should hold it never came; ask has() first"))
            }
            other => wrong(format!("{} has no \"{field}\"", other.kind())),
        }
    }

    fn index(&self, operand: &Val<'a>, index: &Val<'a>) -> Evaluated<'a> {
        if matches!(operand, Val::Json(Json::Array(_))) {
            self.spend_elements(operand)?;
        }
        if let Some(items) = operand.items() {
            let place = match index {
                Val::Int(place) => usize::try_from(*place).ok(),
                Val::Uint(place) => usize::try_from(*place).ok(),
                other => return wrong(format!("{} is no place in a list", other.kind())),
            };
            return match place.and_then(|place| items.get(place)) {
                Some(item) => Ok(item.clone()),
                None => wrong("the list has no such place"),
            };
        }
        self.spend_bytes(index.bytes())?;
        match (operand, Key::of_val(index)) {
            (Val::Json(_), Some(Key::Str(key))) => self.select(operand, &key),
            (Val::Map(entries), Some(key)) => match entries.get(&key) {
                Some(value) => Ok(value.clone()),
                None => wrong("the map has no such key"),
            },
            (Val::Null, _) => wrong("an element of null: what should hold it never came; ask has() first"),
            (operand, Some(_)) => wrong(format!("{} has no such element", operand.kind())),
            (_, None) => wrong(format!("{} is no key", index.kind())),
        }
    }

    /// `&&` (decided by false) and `||` (decided by true): a side that decides makes the other's error
    /// irrelevant.
    fn either(&self, left: &Expr, right: &Expr, decides: bool, locals: &mut Vec<Val<'a>>) -> Evaluated<'a> {
        let left = self.expr(left, locals).and_then(|val| truth(&val));
        if left == Ok(decides) || left == Err(EvalError::TooMuch) {
            return left.map(Val::Bool);
        }
        let right = self.expr(right, locals).and_then(|val| truth(&val));
        match (left, right) {
            (_, Ok(right)) if right == decides => Ok(Val::Bool(decides)),
            (_, Err(error @ (EvalError::TooMuch | EvalError::TooDeep))) => Err(error),
            (Err(error), _) | (Ok(_), Err(error)) => Err(error),
            (Ok(_), Ok(_)) => Ok(Val::Bool(!decides)),
        }
    }

    fn binary(&self, op: Op, left: Val<'a>, right: Val<'a>) -> Evaluated<'a> {
        match op {
            Op::Add => {
                self.spend_bytes(ops::size_of_sum(&left, &right))?;
                ops::add(left, right)
            }
            Op::Subtract | Op::Multiply | Op::Divide | Op::Modulo => ops::arithmetic(op, &left, &right),
            Op::Equal => Ok(Val::Bool(ops::equal(self, &left, &right)?)),
            Op::NotEqual => Ok(Val::Bool(!ops::equal(self, &left, &right)?)),
            Op::Less => ops::compare(self, &left, &right).map(|order| Val::Bool(order.is_lt())),
            Op::LessEqual => ops::compare(self, &left, &right).map(|order| Val::Bool(order.is_le())),
            Op::Greater => ops::compare(self, &left, &right).map(|order| Val::Bool(order.is_gt())),
            Op::GreaterEqual => ops::compare(self, &left, &right).map(|order| Val::Bool(order.is_ge())),
            Op::In => {
                self.spend_elements(&right)?;
                if let Some(items) = right.items() {
                    for item in items.iter() {
                        if ops::equal(self, item, &left)? {
                            return Ok(Val::Bool(true));
                        }
                    }
                    return Ok(Val::Bool(false));
                }
                self.spend_bytes(left.bytes())?;
                match (&right, Key::of_val(&left)) {
                    (Val::Json(Json::Object(entries)), Some(Key::Str(key))) => {
                        Ok(Val::Bool(entries.contains_key(&key)))
                    }
                    (Val::Json(Json::Object(_)), _) => Ok(Val::Bool(false)),
                    (Val::Map(entries), key) => {
                        Ok(Val::Bool(key.is_some_and(|key| entries.contains_key(&key))))
                    }
                    _ => wrong(format!("nothing is in {}", right.kind())),
                }
            }
        }
    }

    fn call(&self, function: Function, first: &Val<'a>, second: Option<&Val<'a>>) -> Evaluated<'a> {
        self.spend_bytes(first.bytes().saturating_add(second.map_or(0, Val::bytes)))?;
        ops::call(function, first, second)
    }

    fn map(&self, entries: &[(Expr, Expr)], locals: &mut Vec<Val<'a>>) -> Evaluated<'a> {
        let mut map = BTreeMap::new();
        for (key, value) in entries {
            let key = self.expr(key, locals)?;
            self.spend_bytes(key.bytes())?;
            let Some(key) = Key::of_val(&key) else {
                return wrong(format!("{} is no key", key.kind()));
            };
            if map.insert(key, self.expr(value, locals)?).is_some() {
                return wrong("a map has one key twice");
            }
        }
        Ok(Val::Map(Arc::new(map)))
    }

    fn each(&self, each: &Each, locals: &mut Vec<Val<'a>>) -> Evaluated<'a> {
        let range = self.expr(&each.range, locals)?;
        self.spend_elements(&range)?;
        let items: Vec<Val<'a>> = match (range.items(), range.entries()) {
            (Some(items), _) => items.into_owned(),
            (None, Some(entries)) => entries.into_iter().map(|(key, _)| key.into_val()).collect(),
            (None, None) => return wrong(format!("{} has no elements", range.kind())),
        };
        let mut collected = Vec::new();
        let mut count = 0_u64;
        let mut passed_over = None;
        for item in items {
            locals.push(item.clone());
            let ended = self.one(each, item, locals);
            locals.pop();
            match ended {
                Ok((false, _)) if each.what == Macro::All => return Ok(Val::Bool(false)),
                Ok((true, _)) if each.what == Macro::Exists => return Ok(Val::Bool(true)),
                Ok((true, val)) => {
                    count += 1;
                    collected.push(val);
                }
                Ok((false, _)) => {}
                Err(EvalError::Wrong(text)) if matches!(each.what, Macro::All | Macro::Exists) => {
                    passed_over = Some(text);
                }
                Err(error) => return Err(error),
            }
        }
        match (each.what, passed_over) {
            (_, Some(text)) => wrong(text),
            (Macro::All, None) => Ok(Val::Bool(true)),
            (Macro::Exists, None) => Ok(Val::Bool(false)),
            (Macro::ExistsOne, None) => Ok(Val::Bool(count == 1)),
            (Macro::Collect, None) => Ok(Val::List(Arc::new(collected))),
        }
    }

    /// Whether an element counts, and what is made of it.
    fn one(
        &self,
        each: &Each,
        item: Val<'a>,
        locals: &mut Vec<Val<'a>>,
    ) -> Result<(bool, Val<'a>), EvalError> {
        let counts = match &each.predicate {
            Some(predicate) => truth(&self.expr(predicate, locals)?)?,
            None => true,
        };
        let val = match &each.value {
            Some(value) if counts => self.expr(value, locals)?,
            Some(_) | None => item,
        };
        Ok((counts, val))
    }
}

fn has(operand: &Val<'_>, field: &str) -> Result<bool, EvalError> {
    match operand {
        Val::Message(message) => match message.descriptor().get_field_by_name(field) {
            Some(descriptor) => Ok(message.has_field(&descriptor)),
            None => wrong(format!("{} has no field \"{field}\"", message.descriptor().full_name())),
        },
        Val::Json(Json::Object(entries)) => Ok(entries.contains_key(field)),
        Val::Map(entries) => Ok(entries.contains_key(&Key::Str(field.to_owned()))),
        // A response that never came has nothing.
        Val::Null => Ok(false),
        other => wrong(format!("{} has no \"{field}\"", other.kind())),
    }
}

fn truth(val: &Val<'_>) -> Result<bool, EvalError> {
    match val {
        Val::Bool(value) => Ok(*value),
        other => wrong(format!("{} is neither true nor false", other.kind())),
    }
}

/// What an expression that puts strings together makes of a value.
pub(super) fn text<'a>(val: Val<'a>) -> Result<Held<'a, str>, EvalError> {
    match val {
        Val::Str(text) => Ok(text),
        Val::Bool(_) | Val::Int(_) | Val::Uint(_) | Val::Double(_) => {
            match ops::call(Function::String, &val, None)? {
                Val::Str(text) => Ok(text),
                other => wrong(format!("{} cannot be put into a text", other.kind())),
            }
        }
        other => wrong(format!("{} cannot be put into a text", other.kind())),
    }
}
