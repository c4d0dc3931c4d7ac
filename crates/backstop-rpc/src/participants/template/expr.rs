//! An expression, compiled: every name is resolved, every macro is known, and what is left is small.
//!
//! # Not here
//! How text becomes one of these: `super::compile`. What it evaluates to: `super::eval`.

use super::value::Val;
use std::collections::BTreeSet;

/// A compiled expression.
#[derive(Debug)]
pub(super) enum Expr {
    Const(Val<'static>),
    Root(Root),
    /// Variable of an enclosing macro, by its depth.
    Local(usize),
    Select(Box<Expr>, String),
    Has(Box<Expr>, String),
    Index(Box<Expr>, Box<Expr>),
    Not(Box<Expr>),
    Negate(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Condition(Box<[Expr; 3]>),
    Binary(Op, Box<[Expr; 2]>),
    Call(Function, Box<Expr>, Option<Box<Expr>>),
    List(Vec<Expr>),
    Map(Vec<(Expr, Expr)>),
    Each(Box<Each>),
}

/// What an expression starts from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Root {
    Input,
    Saga,
    Cause,
    /// The step's own response, in its compensation.
    Response,
    /// The response of the step with this index.
    Step(usize),
}

/// A macro over a list, or over the keys of a map.
#[derive(Debug)]
pub(super) struct Each {
    pub(super) what: Macro,
    pub(super) range: Expr,
    /// What must hold, or what decides; `map` without a condition has none.
    pub(super) predicate: Option<Expr>,
    /// What `map` makes.
    pub(super) value: Option<Expr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Macro {
    All,
    Exists,
    ExistsOne,
    /// `map`, and `filter`, which makes nothing new.
    Collect,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    In,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Function {
    Size,
    Contains,
    StartsWith,
    EndsWith,
    Int,
    Uint,
    Double,
    Bool,
    String,
    Bytes,
}

impl Expr {
    /// Adds what the expression starts from.
    pub(super) fn roots(&self, roots: &mut BTreeSet<Root>) {
        match self {
            Self::Root(root) => {
                roots.insert(*root);
            }
            Self::Const(_) | Self::Local(_) => {}
            Self::Select(operand, _) | Self::Has(operand, _) | Self::Not(operand) | Self::Negate(operand) => {
                operand.roots(roots);
            }
            Self::Index(a, b) | Self::And(a, b) | Self::Or(a, b) => {
                a.roots(roots);
                b.roots(roots);
            }
            Self::Condition(parts) => parts.iter().for_each(|part| part.roots(roots)),
            Self::Binary(_, operands) => operands.iter().for_each(|operand| operand.roots(roots)),
            Self::Call(_, first, second) => {
                first.roots(roots);
                second.iter().for_each(|second| second.roots(roots));
            }
            Self::List(elements) => elements.iter().for_each(|element| element.roots(roots)),
            Self::Map(entries) => entries.iter().for_each(|(key, value)| {
                key.roots(roots);
                value.roots(roots);
            }),
            Self::Each(each) => {
                each.range.roots(roots);
                each.predicate.iter().chain(&each.value).for_each(|part| part.roots(roots));
            }
        }
    }
}
