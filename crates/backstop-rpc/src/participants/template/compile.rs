//! From an expression's text to `super::expr`: every name is resolved, and every type that can be known is
//! known.
//!
//! CEL's grammar and macros come from the `cel` crate. Its interpreter does not serve us: it walks maps in
//! random order (two attempts could differ, I9), has no bound on its work, and writes values into its
//! errors. So the tree is compiled to a smaller one, which `super::eval` walks.
//!
//! # Not here
//! Of the standard functions only those that make sense in a request are known; there is no clock, no
//! random number and no regular expression.

use super::expr::{Each, Expr, Function, Macro, Op, Root};
use super::types::Ty;
use super::value::Val;
use backstop_core::Phase;
use bytes::Bytes;
use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr as Ast, LiteralValue, SelectExpr, operators,
};
use cel::parser::{Expression, Parser};
use prost_reflect::MessageDescriptor;
use std::collections::BTreeMap;

/// Longest expression, in bytes.
pub(super) const EXPRESSION_BYTES_MAX: usize = 4096;
/// Deepest nesting of an expression.
pub(super) const EXPRESSION_DEPTH_MAX: u16 = 64;

/// Fields of `saga` and `cause`: the only ones there are.
pub(super) const SAGA_FIELDS: [&str; 3] = ["id", "definition", "revision"];
pub(super) const CAUSE_FIELDS: [&str; 5] = ["step", "fin_code", "grpc_code", "tier", "message"];

/// What an expression may read.
pub(in crate::participants) struct Scope<'a> {
    pub(in crate::participants) phase: Phase,
    /// Every step by name.
    pub(in crate::participants) steps: &'a BTreeMap<&'a str, Visible>,
    /// Which of them must have succeeded before this call.
    pub(in crate::participants) ancestors: &'a dyn Fn(usize) -> bool,
    /// Type of the step's own response.
    pub(in crate::participants) response: Option<MessageDescriptor>,
}

/// A step as another step's expressions see it.
pub(in crate::participants) struct Visible {
    pub(in crate::participants) index: usize,
    /// Type of its response; not known if its method is at fault itself.
    pub(in crate::participants) response: Option<MessageDescriptor>,
}

/// Compiles an expression.
///
/// # Errors
/// What is wrong with it.
pub(super) fn compile(text: &str, scope: &Scope<'_>) -> Result<(Expr, Ty), String> {
    if text.len() > EXPRESSION_BYTES_MAX {
        return Err(format!("the expression has {} bytes; the limit is {EXPRESSION_BYTES_MAX}", text.len()));
    }
    let parsed = Parser::new().max_recursion_depth(EXPRESSION_DEPTH_MAX).parse(text);
    let ast = parsed.map_err(|errors| {
        let first = errors.errors.first().map(|error| error.msg.clone()).unwrap_or_default();
        format!("the expression does not parse: {first}")
    })?;
    Compiler { scope, locals: Vec::new(), depth: 0 }.expr(&ast)
}

struct Compiler<'a> {
    scope: &'a Scope<'a>,
    locals: Vec<(String, Ty)>,
    depth: u16,
}

type Compiled = Result<(Expr, Ty), String>;

impl Compiler<'_> {
    fn expr(&mut self, ast: &Expression) -> Compiled {
        if self.depth >= EXPRESSION_DEPTH_MAX {
            return Err(format!("the expression is nested deeper than {EXPRESSION_DEPTH_MAX}"));
        }
        self.depth += 1;
        let compiled = match &ast.expr {
            Ast::Literal(literal) => Ok(constant(literal)),
            Ast::Ident(name) => self.ident(name),
            Ast::Select(select) => self.select(select),
            Ast::Call(call) => self.call(call),
            Ast::List(list) if list.optional_indices.is_empty() => self.list(&list.elements),
            Ast::Map(map) => self.map(map.entries.iter().map(|entry| &entry.expr)),
            Ast::Comprehension(comprehension) => self.each(comprehension),
            Ast::List(_) | Ast::Struct(_) | Ast::Unspecified => {
                Err("this form of CEL is not known here".to_owned())
            }
        };
        self.depth -= 1;
        compiled
    }

    fn boxed(&mut self, ast: &Expression) -> Result<(Box<Expr>, Ty), String> {
        self.expr(ast).map(|(expr, ty)| (Box::new(expr), ty))
    }

    fn ident(&mut self, name: &str) -> Compiled {
        if let Some(index) = self.locals.iter().rposition(|(local, _)| local == name) {
            let ty = self.locals.get(index).map_or(Ty::Dyn, |(_, ty)| ty.clone());
            return Ok((Expr::Local(index), ty));
        }
        let strings = || Ty::Map(Box::new(Ty::String));
        match (name, self.scope.phase) {
            ("input", _) => Ok((Expr::Root(Root::Input), Ty::Dyn)),
            ("saga", _) => Ok((Expr::Root(Root::Saga), Ty::Map(Box::new(Ty::Dyn)))),
            ("cause", Phase::Compensation) => Ok((Expr::Root(Root::Cause), strings())),
            ("response", Phase::Compensation) => {
                let ty = self.scope.response.clone().map_or(Ty::Dyn, Ty::Message);
                Ok((Expr::Root(Root::Response), ty))
            }
            ("cause" | "response", Phase::Action | Phase::Query) => {
                Err(format!("\"{name}\" is there only in compensations"))
            }
            ("steps", _) => Err("steps are read as steps.<name>.response".to_owned()),
            _ => Err(format!(
                "there is no variable \"{name}\"; there are input, saga, steps and, in compensations, \
                              cause and response"
            )),
        }
    }

    fn select(&mut self, select: &SelectExpr) -> Compiled {
        if let Some(step) = self.step_response(select)? {
            return Ok(step);
        }
        let (operand, ty) = self.boxed(&select.operand)?;
        let field = self.field_type(&operand, &ty, &select.field)?;
        if select.test {
            return Ok((Expr::Has(operand, select.field.clone()), Ty::Bool));
        }
        Ok((Expr::Select(operand, select.field.clone()), field))
    }

    /// `steps.<name>.response`, if that is what it is.
    fn step_response(&mut self, select: &SelectExpr) -> Result<Option<(Expr, Ty)>, String> {
        let is_steps = |ast: &Expression| {
            matches!(&ast.expr, Ast::Ident(name) if name == "steps")
                && !self.locals.iter().any(|(l, _)| l == "steps")
        };
        if is_steps(&select.operand) {
            return Err(format!("of a step only its response can be read: steps.{}.response", select.field));
        }
        let Ast::Select(inner) = &select.operand.expr else {
            return Ok(None);
        };
        if !is_steps(&inner.operand) {
            return Ok(None);
        }
        let name = &inner.field;
        let step =
            self.scope.steps.get(name.as_str()).ok_or_else(|| format!("there is no step \"{name}\""))?;
        if select.field != "response" || select.test {
            return Err(format!("of a step only its response can be read: steps.{name}.response"));
        }
        if !(self.scope.ancestors)(step.index) {
            return Err(format!(
                "step \"{name}\" may not have succeeded by then: the step must depend on it, near or far"
            ));
        }
        let ty = step.response.clone().map_or(Ty::Dyn, Ty::Message);
        Ok(Some((Expr::Root(Root::Step(step.index)), ty)))
    }

    fn field_type(&self, operand: &Expr, ty: &Ty, field: &str) -> Result<Ty, String> {
        let fixed: &[&str] = match operand {
            Expr::Root(Root::Saga) => &SAGA_FIELDS,
            Expr::Root(Root::Cause) => &CAUSE_FIELDS,
            _ => &[],
        };
        if !fixed.is_empty() && !fixed.contains(&field) {
            return Err(format!("there is no \"{field}\" here; there are {}", fixed.join(", ")));
        }
        match (operand, ty) {
            (Expr::Root(Root::Saga), _) => Ok(if field == "revision" { Ty::Int } else { Ty::String }),
            (_, Ty::Dyn) => Ok(Ty::Dyn),
            (_, Ty::Map(value)) => Ok((**value).clone()),
            (_, Ty::Message(message)) => match message.get_field_by_name(field) {
                Some(field) => Ok(Ty::of_field(&field)),
                None => Err(format!("{} has no field \"{field}\"", message.full_name())),
            },
            (
                _,
                Ty::Null | Ty::Bool | Ty::Int | Ty::Uint | Ty::Double | Ty::String | Ty::Bytes | Ty::List(_),
            ) => Err(format!("{ty} has no field \"{field}\"")),
        }
    }

    fn call(&mut self, call: &CallExpr) -> Compiled {
        let CallExpr { func_name, target, args } = call;
        match (func_name.as_str(), target, args.as_slice()) {
            (operators::CONDITIONAL, None, [condition, yes, no]) => {
                let (condition, _) = self.expr(condition)?;
                let ((yes, yes_ty), (no, no_ty)) = (self.expr(yes)?, self.expr(no)?);
                let ty = if yes_ty == no_ty { yes_ty } else { Ty::Dyn };
                Ok((Expr::Condition(Box::new([condition, yes, no])), ty))
            }
            (operators::LOGICAL_AND | operators::LOGICAL_OR, None, [left, right]) => {
                let (left, right) = (self.boxed(left)?.0, self.boxed(right)?.0);
                let is_and = func_name == operators::LOGICAL_AND;
                Ok((if is_and { Expr::And(left, right) } else { Expr::Or(left, right) }, Ty::Bool))
            }
            (operators::LOGICAL_NOT, None, [operand]) => Ok((Expr::Not(self.boxed(operand)?.0), Ty::Bool)),
            (operators::NEGATE, None, [operand]) => {
                let (operand, ty) = self.boxed(operand)?;
                Ok((Expr::Negate(operand), ty))
            }
            (operators::INDEX, None, [operand, index]) => {
                let ((operand, ty), (index, _)) = (self.boxed(operand)?, self.boxed(index)?);
                let element = match ty {
                    Ty::Dyn => Ty::Dyn,
                    Ty::List(element) | Ty::Map(element) => *element,
                    other => return Err(format!("{other} has no elements")),
                };
                Ok((Expr::Index(operand, index), element))
            }
            (name, None, [left, right]) if op(name).is_some() => self.binary(name, left, right),
            (name, _, _) => self.function(name, target.as_deref(), args),
        }
    }

    fn binary(&mut self, name: &str, left: &Expression, right: &Expression) -> Compiled {
        let ((left, left_ty), (right, right_ty)) = (self.expr(left)?, self.expr(right)?);
        let op = op(name).ok_or("an unknown operator")?;
        let known = left_ty != Ty::Dyn && right_ty != Ty::Dyn;
        let ty = match op {
            Op::Add | Op::Subtract | Op::Multiply | Op::Divide | Op::Modulo => {
                let same = std::mem::discriminant(&left_ty) == std::mem::discriminant(&right_ty);
                if known && !same {
                    return Err(format!("{left_ty} and {right_ty} cannot be combined; convert one of them"));
                }
                if known { left_ty } else { Ty::Dyn }
            }
            Op::Equal | Op::NotEqual | Op::Less | Op::LessEqual | Op::Greater | Op::GreaterEqual | Op::In => {
                Ty::Bool
            }
        };
        Ok((Expr::Binary(op, Box::new([left, right])), ty))
    }

    fn function(&mut self, name: &str, target: Option<&Expression>, args: &[Expression]) -> Compiled {
        let (function, ty, operands) = match name {
            "size" => (Function::Size, Ty::Int, 1),
            "contains" => (Function::Contains, Ty::Bool, 2),
            "startsWith" => (Function::StartsWith, Ty::Bool, 2),
            "endsWith" => (Function::EndsWith, Ty::Bool, 2),
            "int" => (Function::Int, Ty::Int, 1),
            "uint" => (Function::Uint, Ty::Uint, 1),
            "double" => (Function::Double, Ty::Double, 1),
            "bool" => (Function::Bool, Ty::Bool, 1),
            "string" => (Function::String, Ty::String, 1),
            "bytes" => (Function::Bytes, Ty::Bytes, 1),
            _ => {
                return Err(format!(
                    "there is no function \"{name}\"; there are size, contains, startsWith, endsWith, int, uint, \
                     double, bool, string, bytes and the macros has, all, exists, exists_one, map, filter"
                ));
            }
        };
        let may_be_method = matches!(
            function,
            Function::Size | Function::Contains | Function::StartsWith | Function::EndsWith
        );
        let all: Vec<&Expression> = target.into_iter().chain(args).collect();
        match (all.as_slice(), target.is_some()) {
            ([first], is_method) if operands == 1 && (!is_method || may_be_method) => {
                Ok((Expr::Call(function, self.boxed(first)?.0, None), ty))
            }
            ([first, second], true) if operands == 2 => {
                Ok((Expr::Call(function, self.boxed(first)?.0, Some(self.boxed(second)?.0)), ty))
            }
            _ => Err(format!("\"{name}\" is not called like this")),
        }
    }

    fn list(&mut self, elements: &[Expression]) -> Compiled {
        let mut compiled = Vec::with_capacity(elements.len());
        let mut ty: Option<Ty> = None;
        for element in elements {
            let (expr, element_ty) = self.expr(element)?;
            ty = Some(if ty.as_ref().is_none_or(|ty| *ty == element_ty) { element_ty } else { Ty::Dyn });
            compiled.push(expr);
        }
        Ok((Expr::List(compiled), Ty::List(Box::new(ty.unwrap_or(Ty::Dyn)))))
    }

    fn map<'e>(&mut self, entries: impl Iterator<Item = &'e EntryExpr>) -> Compiled {
        let mut compiled = Vec::new();
        for entry in entries {
            match entry {
                EntryExpr::MapEntry(entry) if !entry.optional => {
                    compiled.push((self.expr(&entry.key)?.0, self.expr(&entry.value)?.0));
                }
                EntryExpr::MapEntry(_) | EntryExpr::StructField(_) => {
                    return Err("this form of CEL is not known here".to_owned());
                }
            }
        }
        Ok((Expr::Map(compiled), Ty::Map(Box::new(Ty::Dyn))))
    }

    /// The parser writes each macro out as a fold; the shape of the fold tells which macro it was.
    fn each(&mut self, fold: &ComprehensionExpr) -> Compiled {
        let (range, range_ty) = self.expr(&fold.iter_range)?;
        let element = match range_ty {
            Ty::List(element) => *element,
            Ty::Dyn | Ty::Map(_) => Ty::Dyn,
            other => return Err(format!("{other} has no elements")),
        };
        let unknown = || "this macro is not known here".to_owned();
        let Ast::Call(step) = &fold.loop_step.expr else {
            return Err(unknown());
        };
        let parts: (Macro, Option<&Expression>, Option<&Expression>) =
            match (&fold.accu_init.expr, step.func_name.as_str(), step.args.as_slice()) {
                (Ast::Literal(LiteralValue::Boolean(_)), operators::LOGICAL_AND, [_, predicate]) => {
                    (Macro::All, Some(predicate), None)
                }
                (Ast::Literal(LiteralValue::Boolean(_)), operators::LOGICAL_OR, [_, predicate]) => {
                    (Macro::Exists, Some(predicate), None)
                }
                (Ast::Literal(LiteralValue::Int(_)), operators::CONDITIONAL, [predicate, ..]) => {
                    (Macro::ExistsOne, Some(predicate), None)
                }
                (Ast::List(_), operators::ADD, [_, value]) => (Macro::Collect, None, Some(value)),
                (Ast::List(_), operators::CONDITIONAL, [predicate, append, _]) => match &append.expr {
                    Ast::Call(append) => (Macro::Collect, Some(predicate), append.args.get(1)),
                    _ => return Err(unknown()),
                },
                _ => return Err(unknown()),
            };
        let (what, predicate, appended) = parts;
        let value = match appended.map(|list| &list.expr) {
            Some(Ast::List(list)) => list.elements.first(),
            Some(_) => return Err(unknown()),
            None => None,
        };
        self.locals.push((fold.iter_var.clone(), element));
        let compiled = predicate.map(|ast| self.expr(ast)).transpose();
        let value = value.map(|ast| self.expr(ast)).transpose();
        self.locals.pop();
        let (predicate, value) = (compiled?, value?);
        let ty = match what {
            Macro::All | Macro::Exists | Macro::ExistsOne => Ty::Bool,
            Macro::Collect => Ty::List(Box::new(value.as_ref().map_or(Ty::Dyn, |(_, ty)| ty.clone()))),
        };
        let each = Each {
            what,
            range,
            predicate: predicate.map(|(expr, _)| expr),
            value: value.map(|(expr, _)| expr),
        };
        Ok((Expr::Each(Box::new(each)), ty))
    }
}

fn constant(literal: &LiteralValue) -> (Expr, Ty) {
    let (val, ty) = match literal {
        LiteralValue::Boolean(value) => (Val::Bool(*value.inner()), Ty::Bool),
        LiteralValue::Bytes(value) => (Val::Bytes(Bytes::copy_from_slice(value.inner())), Ty::Bytes),
        LiteralValue::Double(value) => (Val::Double(*value.inner()), Ty::Double),
        LiteralValue::Int(value) => (Val::Int(*value.inner()), Ty::Int),
        LiteralValue::Null => (Val::Null, Ty::Null),
        LiteralValue::String(value) => (Val::Str(value.inner().to_owned().into()), Ty::String),
        LiteralValue::UInt(value) => (Val::Uint(*value.inner()), Ty::Uint),
    };
    (Expr::Const(val), ty)
}

fn op(name: &str) -> Option<Op> {
    Some(match name {
        operators::ADD => Op::Add,
        operators::SUBSTRACT => Op::Subtract,
        operators::MULTIPLY => Op::Multiply,
        operators::DIVIDE => Op::Divide,
        operators::MODULO => Op::Modulo,
        operators::EQUALS => Op::Equal,
        operators::NOT_EQUALS => Op::NotEqual,
        operators::LESS => Op::Less,
        operators::LESS_EQUALS => Op::LessEqual,
        operators::GREATER => Op::Greater,
        operators::GREATER_EQUALS => Op::GreaterEqual,
        operators::IN => Op::In,
        _ => return None,
    })
}
