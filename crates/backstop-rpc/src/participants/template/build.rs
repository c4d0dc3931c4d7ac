//! Compiles a template's JSON against the request message, and collects every fault on the way.

use super::compile::{self, Scope};
use super::eval::Env;
use super::expr::Expr;
use super::fit::{self, Misfit, path_step};
use super::node::{Dynamic, Fields, Node, Piece};
use super::text::{Part, split};
use super::types::{Shape, Ty, WellKnown, kind_name};
use super::value::{Key, Val, WHOLE_DOUBLE_MAX};
use backstop_core::Fault;
use prost_reflect::{FieldDescriptor, Kind, MapKey, MessageDescriptor};
use serde_json::Value as Json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Deepest nesting of a template.
const TEMPLATE_DEPTH_MAX: usize = 32;

/// Most faults told of one template.
pub(super) const FAULTS_MAX: usize = 100;

/// Collects faults while it compiles.
pub(super) struct Compiler<'a> {
    pub(super) scope: &'a Scope<'a>,
    pub(super) env: &'a Env<'a>,
    pub(super) faults: &'a mut Vec<Fault>,
    pub(super) faults_max: usize,
    pub(super) depth: usize,
}

impl Compiler<'_> {
    /// Adds a fault, up to so many that nobody would read more.
    fn fault(&mut self, path: &str, text: impl Into<String>) {
        if self.faults.len() < self.faults_max {
            self.faults.push(Fault::new(path, text));
        }
    }

    /// The fields of a message from a JSON object.
    pub(super) fn fields(
        &mut self,
        object: &serde_json::Map<String, Json>,
        descriptor: &MessageDescriptor,
        path: &str,
    ) -> Fields {
        let mut fields: Vec<(FieldDescriptor, Node)> = Vec::with_capacity(object.len());
        let mut there = BTreeSet::new();
        let mut oneofs: BTreeMap<String, String> = BTreeMap::new();
        for (name, json) in object {
            let path = format!("{path}{}", path_step(name));
            let Some(field) = fit::named_field(descriptor, name) else {
                self.fault(&path, format!("{} has no such field", descriptor.full_name()));
                continue;
            };
            if there.contains(&field.number()) {
                self.fault(&path, "the field is there under its other name already");
                continue;
            }
            let shape = Shape::of(&field);
            if json.is_null() && !is_value(&shape) {
                continue;
            }
            let oneof = field.containing_oneof();
            if let Some(other) = oneof.and_then(|oneof| oneofs.insert(oneof.name().to_owned(), name.clone()))
            {
                self.fault(&path, format!("only one of \"{other}\" and \"{name}\" can be set"));
            }
            if let Some(node) = self.node(json, &shape, field.supports_presence(), &path) {
                there.insert(field.number());
                fields.push((field, node));
            }
        }
        for field in descriptor.fields().filter(FieldDescriptor::is_required) {
            if !there.contains(&field.number()) {
                self.fault(&format!("{path}{}", path_step(field.name())), "the field is required");
            }
        }
        fields.sort_by_key(|(field, _)| field.number());
        Fields { descriptor: descriptor.clone(), fields }
    }

    fn node(&mut self, json: &Json, shape: &Shape, can_be_unset: bool, path: &str) -> Option<Node> {
        if self.depth >= TEMPLATE_DEPTH_MAX {
            self.fault(path, format!("the template is nested deeper than {TEMPLATE_DEPTH_MAX}"));
            return None;
        }
        self.depth += 1;
        let node = match json {
            Json::String(string) => self.string(string, shape, can_be_unset, path),
            json => self.no_string(json, shape, path),
        };
        self.depth -= 1;
        node
    }

    fn no_string(&mut self, json: &Json, shape: &Shape, path: &str) -> Option<Node> {
        match (json, shape) {
            (_, Shape::Single(Kind::Message(message))) if is_dynamic(message) => {
                let right_form = match WellKnown::of(message) {
                    Some(WellKnown::Struct) => json.is_object(),
                    Some(WellKnown::ListValue) => json.is_array(),
                    _ => true,
                };
                if !right_form {
                    self.fault(path, misfit(json, shape));
                    return None;
                }
                match self.dynamic(json, path)? {
                    Dynamic::Const(val) => self.constant(&val, shape, path),
                    dynamic => Some(Node::Dynamic(dynamic)),
                }
            }
            (Json::Object(object), Shape::Single(Kind::Message(message)))
                if WellKnown::of(message).is_none() =>
            {
                if message.full_name() == "google.protobuf.Any" {
                    self.fault(
                        path,
                        "a template cannot write a google.protobuf.Any; take a whole one from a response",
                    );
                    return None;
                }
                Some(Node::Message(Box::new(self.fields(object, message, path))))
            }
            (Json::Array(items), Shape::List(kind)) => {
                let element = Shape::Single(kind.clone());
                let mut nodes = Vec::with_capacity(items.len());
                for (place, item) in items.iter().enumerate() {
                    nodes.extend(self.node(item, &element, false, &format!("{path}[{place}]")));
                }
                Some(Node::List(nodes))
            }
            (Json::Object(object), Shape::Map { key, value }) => {
                let element = Shape::Single(value.clone());
                let mut nodes: BTreeMap<MapKey, Node> = BTreeMap::new();
                for (name, item) in object {
                    let path = format!("{path}{}", path_step(name));
                    let node = self.node(item, &element, false, &path);
                    match fit::map_key(&Key::Str(name.clone()), key) {
                        Ok(key) if nodes.contains_key(&key) => {
                            self.fault(&path, "the key is there twice");
                        }
                        Ok(key) => nodes.extend(node.map(|node| (key, node))),
                        Err(misfit) => self.fault(&path, misfit.text),
                    }
                }
                Some(Node::Map(nodes.into_iter().collect()))
            }
            (Json::Number(number), _) if !is_exact(number) => {
                self.fault(path, inexact());
                None
            }
            (Json::Null | Json::Bool(_) | Json::Number(_), Shape::Single(_)) => {
                self.constant(&Val::of_json(json), shape, path)
            }
            (_, shape) => {
                self.fault(path, misfit(json, shape));
                None
            }
        }
    }

    fn string(&mut self, string: &str, shape: &Shape, can_be_unset: bool, path: &str) -> Option<Node> {
        let parts = match split(string) {
            Ok(parts) => parts,
            Err(text) => {
                self.fault(path, text);
                return None;
            }
        };
        match parts.as_slice() {
            [Part::Literal(literal)] => self.constant(&Val::Str(literal.as_str().into()), shape, path),
            [Part::Expression(expression)] => {
                let (expr, ty) = self.expr(expression, path)?;
                let fits = match ty {
                    Ty::Null => can_be_unset || is_value(shape),
                    _ => ty.can_fill(shape),
                };
                if !fits {
                    self.fault(path, format!("the expression is {ty}, which cannot go into {shape}"));
                    return None;
                }
                Some(Node::Whole(expr))
            }
            _ => {
                let pieces = self.pieces(&parts, path)?;
                if !Ty::String.can_fill(shape) {
                    self.fault(path, format!("a text cannot go into {shape}"));
                    return None;
                }
                Some(Node::Text(pieces))
            }
        }
    }

    fn expr(&mut self, expression: &str, path: &str) -> Option<(Expr, Ty)> {
        match compile::compile(expression, self.scope) {
            Ok(compiled) => Some(compiled),
            Err(text) => {
                self.fault(path, text);
                None
            }
        }
    }

    fn pieces(&mut self, parts: &[Part], path: &str) -> Option<Vec<Piece>> {
        let mut pieces = Vec::with_capacity(parts.len());
        let mut whole = true;
        for part in parts {
            match part {
                Part::Literal(literal) => pieces.push(Piece::Literal(literal.clone())),
                Part::Expression(expression) => match self.expr(expression, path) {
                    Some((_, ty @ (Ty::Null | Ty::Bytes | Ty::List(_) | Ty::Map(_) | Ty::Message(_)))) => {
                        self.fault(path, format!("the expression is {ty}, which cannot be put into a text"));
                        whole = false;
                    }
                    Some((expr, _)) => pieces.push(Piece::Expr(expr)),
                    None => whole = false,
                },
            }
        }
        whole.then_some(pieces)
    }

    fn constant(&mut self, val: &Val<'_>, shape: &Shape, path: &str) -> Option<Node> {
        let fitted = match shape {
            Shape::Single(kind) => fit::single(self.env, val, kind),
            Shape::List(_) | Shape::Map { .. } => {
                Err(Misfit::new(format!("{} cannot go into {shape}", val.kind())))
            }
        };
        match fitted {
            Ok(value) => Some(Node::Const(value)),
            Err(misfit) => {
                self.fault(&format!("{path}{}", misfit.path), misfit.text);
                None
            }
        }
    }

    fn dynamic(&mut self, json: &Json, path: &str) -> Option<Dynamic> {
        if self.depth >= TEMPLATE_DEPTH_MAX {
            self.fault(path, format!("the template is nested deeper than {TEMPLATE_DEPTH_MAX}"));
            return None;
        }
        self.depth += 1;
        let dynamic = self.dynamic_inner(json, path);
        self.depth -= 1;
        dynamic
    }

    fn dynamic_inner(&mut self, json: &Json, path: &str) -> Option<Dynamic> {
        match json {
            Json::Number(number) if !is_exact(number) => {
                self.fault(path, inexact());
                None
            }
            Json::Null | Json::Bool(_) | Json::Number(_) => {
                Some(Dynamic::Const(Val::of_json(json).into_owned()))
            }
            Json::String(string) => match split(string) {
                Ok(parts) => match parts.as_slice() {
                    [Part::Literal(literal)] => Some(Dynamic::Const(Val::Str(literal.clone().into()))),
                    [Part::Expression(expression)] => {
                        self.expr(expression, path).map(|(expr, _)| Dynamic::Whole(expr))
                    }
                    parts => self.pieces(parts, path).map(Dynamic::Text),
                },
                Err(text) => {
                    self.fault(path, text);
                    None
                }
            },
            Json::Array(items) => {
                let each = items.iter().enumerate();
                let made: Vec<_> =
                    each.map(|(place, item)| self.dynamic(item, &format!("{path}[{place}]"))).collect();
                let made: Vec<Dynamic> = made.into_iter().collect::<Option<_>>()?;
                Some(match constants(made.iter()) {
                    Some(values) => Dynamic::Const(Val::List(Arc::new(values))),
                    None => Dynamic::List(made),
                })
            }
            Json::Object(object) => {
                let each = object.iter();
                let made: Vec<_> = each
                    .map(|(name, item)| {
                        let item = self.dynamic(item, &format!("{path}{}", path_step(name)))?;
                        Some((Key::Str(name.clone()), item))
                    })
                    .collect();
                let made: BTreeMap<Key, Dynamic> = made.into_iter().collect::<Option<_>>()?;
                Some(match constants(made.values()) {
                    Some(values) => {
                        Dynamic::Const(Val::Map(Arc::new(made.keys().cloned().zip(values).collect())))
                    }
                    None => Dynamic::Map(made),
                })
            }
        }
    }
}

fn constants<'d>(made: impl Iterator<Item = &'d Dynamic>) -> Option<Vec<Val<'static>>> {
    made.map(|dynamic| match dynamic {
        Dynamic::Const(val) => Some(val.clone()),
        Dynamic::Whole(_) | Dynamic::Text(_) | Dynamic::List(_) | Dynamic::Map(_) => None,
    })
    .collect()
}

fn is_dynamic(message: &MessageDescriptor) -> bool {
    matches!(WellKnown::of(message), Some(WellKnown::Struct | WellKnown::Value | WellKnown::ListValue))
}

fn is_value(shape: &Shape) -> bool {
    matches!(shape, Shape::Single(Kind::Message(message)) if WellKnown::of(message) == Some(WellKnown::Value))
}

/// Whole numbers of 2^53 and more have been rounded by whoever wrote them, or will be by who reads them.
fn is_exact(number: &serde_json::Number) -> bool {
    #[allow(clippy::cast_precision_loss)] // 2^53 - 1 is exact
    let whole_max = WHOLE_DOUBLE_MAX as f64;
    match (number.as_i64(), number.as_u64(), number.as_f64()) {
        (Some(int), _, _) => int.unsigned_abs() <= WHOLE_DOUBLE_MAX,
        (None, Some(uint), _) => uint <= WHOLE_DOUBLE_MAX,
        // Beyond 2^53 every double is whole; what is written as 1e300 is not meant to be exact.
        (None, None, Some(double)) => double.abs() <= whole_max || number.to_string().contains(['e', 'E']),
        (None, None, None) => false,
    }
}

fn inexact() -> String {
    "whole numbers of 2^53 and more are written as strings: a JSON number may have lost digits".to_owned()
}

fn misfit(json: &Json, shape: &Shape) -> String {
    let shape = match shape {
        Shape::Single(kind) => kind_name(kind).to_owned(),
        other => other.to_string(),
    };
    format!("{} cannot go into {shape}", Val::of_json(json).kind())
}
