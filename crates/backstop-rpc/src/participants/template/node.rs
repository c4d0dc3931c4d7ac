//! A compiled request template: a tree in the shape of the request message, and how it is rendered.
//!
//! What holds no expression is a constant already; the rest is evaluated when a call is rendered.
//!
//! # Not here
//! How JSON becomes such a tree: `super::build`.

use super::eval::{Env, text};
use super::expr::{Expr, Root};
use super::fit::{self, Misfit, path_step};
use super::types::Shape;
use super::value::{Key, Val};
use prost_reflect::{DynamicMessage, FieldDescriptor, MapKey, MessageDescriptor, Value};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

/// What fills one field, element or map value.
#[derive(Debug)]
pub(super) enum Node {
    Const(Value),
    /// A string that is one whole expression: it keeps its type.
    Whole(Expr),
    /// A string with expressions in it.
    Text(Vec<Piece>),
    Message(Box<Fields>),
    List(Vec<Node>),
    Map(Vec<(MapKey, Node)>),
    /// JSON with expressions, for a `Struct`, `Value` or `ListValue`.
    Dynamic(Dynamic),
}

/// The fields of a message, by number.
#[derive(Debug)]
pub(super) struct Fields {
    pub(super) descriptor: MessageDescriptor,
    pub(super) fields: Vec<(FieldDescriptor, Node)>,
}

#[derive(Debug)]
pub(super) enum Piece {
    Literal(String),
    Expr(Expr),
}

/// JSON that has no descriptor.
#[derive(Debug)]
pub(super) enum Dynamic {
    Const(Val<'static>),
    Whole(Expr),
    Text(Vec<Piece>),
    List(Vec<Dynamic>),
    Map(BTreeMap<Key, Dynamic>),
}

impl Fields {
    /// The message, with its expressions evaluated.
    pub(super) fn render(&self, env: &Env<'_>) -> Result<DynamicMessage, Misfit> {
        let mut message = DynamicMessage::new(self.descriptor.clone());
        for (field, node) in &self.fields {
            let value = match node {
                Node::Whole(expr) => env
                    .eval(expr)
                    .map_err(|e| Misfit::new(e.text()))
                    .and_then(|val| fit::field(env, &val, field)),
                node => node.render(env, &Shape::of(field)).map(Some),
            };
            if let Some(value) = value.map_err(|misfit| misfit.under(&path_step(field.name())))? {
                message.set_field(field, value);
            }
        }
        Ok(message)
    }
}

impl Node {
    fn render(&self, env: &Env<'_>, shape: &Shape) -> Result<Value, Misfit> {
        match (self, shape) {
            (Self::Const(value), _) => Ok(value.clone()),
            (Self::Message(fields), _) => fields.render(env).map(Value::Message),
            (Self::List(nodes), Shape::List(kind)) => {
                let element = Shape::Single(kind.clone());
                let rendered = nodes.iter().enumerate();
                let rendered = rendered.map(|(place, node)| {
                    node.render(env, &element).map_err(|misfit| misfit.under(&format!("[{place}]")))
                });
                rendered.collect::<Result<_, _>>().map(Value::List)
            }
            (Self::Map(nodes), Shape::Map { value, .. }) => {
                let element = Shape::Single(value.clone());
                let mut map = HashMap::with_capacity(nodes.len());
                for (key, node) in nodes {
                    let step = || path_step(&super::ops::key_text(&Key::of(key)));
                    map.insert(
                        key.clone(),
                        node.render(env, &element).map_err(|misfit| misfit.under(&step()))?,
                    );
                }
                Ok(Value::Map(map))
            }
            (Self::Whole(expr), Shape::Single(kind)) => {
                let val = env.eval(expr).map_err(|error| Misfit::new(error.text()))?;
                fit::single(env, &val, kind)
            }
            (Self::Text(pieces), Shape::Single(kind)) => fit::single(env, &put_together(pieces, env)?, kind),
            (Self::Dynamic(dynamic), Shape::Single(kind)) => fit::single(env, &dynamic.render(env)?, kind),
            (
                Self::List(_) | Self::Map(_) | Self::Whole(_) | Self::Text(_) | Self::Dynamic(_),
                Shape::Single(_) | Shape::List(_) | Shape::Map { .. },
            ) => Err(Misfit::new("the template does not have the shape of its message")),
        }
    }
}

impl Dynamic {
    fn render<'a>(&self, env: &Env<'a>) -> Result<Val<'a>, Misfit> {
        match self {
            Self::Const(val) => Ok(val.clone()),
            Self::Whole(expr) => env.eval(expr).map_err(|error| Misfit::new(error.text())),
            Self::Text(pieces) => put_together(pieces, env),
            Self::List(items) => {
                let rendered = items.iter().enumerate();
                let rendered = rendered.map(|(place, item)| {
                    item.render(env).map_err(|misfit| misfit.under(&format!("[{place}]")))
                });
                rendered.collect::<Result<_, _>>().map(|items| Val::List(Arc::new(items)))
            }
            Self::Map(entries) => {
                let rendered = entries.iter().map(|(key, item)| {
                    let step = || path_step(&super::ops::key_text(key));
                    Ok((key.clone(), item.render(env).map_err(|misfit: Misfit| misfit.under(&step()))?))
                });
                rendered.collect::<Result<_, Misfit>>().map(|entries| Val::Map(Arc::new(entries)))
            }
        }
    }
}

fn put_together<'a>(pieces: &[Piece], env: &Env<'a>) -> Result<Val<'a>, Misfit> {
    let mut whole = String::new();
    for piece in pieces {
        match piece {
            Piece::Literal(literal) => whole.push_str(literal),
            Piece::Expr(expr) => {
                let piece = env.eval(expr).and_then(text).map_err(|error| Misfit::new(error.text()))?;
                env.spend_bytes(piece.len()).map_err(|error| Misfit::new(error.text()))?;
                whole.push_str(&piece);
            }
        }
    }
    Ok(Val::Str(whole.into()))
}

impl Fields {
    /// Adds what the expressions start from.
    pub(super) fn roots(&self, roots: &mut BTreeSet<Root>) {
        for (_, node) in &self.fields {
            node.roots(roots);
        }
    }
}

impl Node {
    fn roots(&self, roots: &mut BTreeSet<Root>) {
        match self {
            Self::Const(_) => {}
            Self::Whole(expr) => expr.roots(roots),
            Self::Text(pieces) => roots_of(pieces, roots),
            Self::Message(fields) => fields.roots(roots),
            Self::List(nodes) => nodes.iter().for_each(|node| node.roots(roots)),
            Self::Map(nodes) => nodes.iter().for_each(|(_, node)| node.roots(roots)),
            Self::Dynamic(dynamic) => dynamic.roots(roots),
        }
    }
}

impl Dynamic {
    fn roots(&self, roots: &mut BTreeSet<Root>) {
        match self {
            Self::Const(_) => {}
            Self::Whole(expr) => expr.roots(roots),
            Self::Text(pieces) => roots_of(pieces, roots),
            Self::List(items) => items.iter().for_each(|item| item.roots(roots)),
            Self::Map(entries) => entries.values().for_each(|item| item.roots(roots)),
        }
    }
}

fn roots_of(pieces: &[Piece], roots: &mut BTreeSet<Root>) {
    for piece in pieces {
        match piece {
            Piece::Literal(_) => {}
            Piece::Expr(expr) => expr.roots(roots),
        }
    }
}
