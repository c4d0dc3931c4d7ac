//! What a user may write after `--peer`.

use super::http::Template;
use anyhow::{Context, Result, bail};
use std::str::FromStr;

/// A peer that is wished for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    /// `dtmrs`.
    Dtmrs,
    /// `restate`, `restate=PARTITIONS`, and `:sequential` or `:one-step` after either.
    Restate {
        /// How many partitions its log has.
        partitions: u16,
        /// How its sagas go about their branches.
        manner: Manner,
    },
    /// `dtm`: the server that `cargo xtask peers` has built, on the run's Postgres.
    Dtm,
    /// `dtm=grpc://HOST:PORT`: one that runs.
    DtmAt(String),
    /// `http=METHOD URL TEMPLATE`: anything that runs one saga for one request.
    Http(Template),
}

/// How durable SQLite is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Durability {
    /// As Backstop's.
    Full,
    /// As the peer sets it.
    AsItComes,
}

/// How Restate's sagas go about their branches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As the shape has it.
    AsAsked,
    /// One durable step after the other, whatever the shape.
    Sequential,
    /// All three calls in one durable step.
    OneStep,
}

/// What Restate is run with if nobody says otherwise: on few cores few are best, and the report says how many they were.
const PARTITIONS: u16 = 1;

/// The text of `--peer` in `--help`.
pub(in crate::bench) const HELP: &str = "Another orchestrator in the same run; may be given several times:\n  \
    dtmrs                      on SQLite twice: as durable as Backstop, and as it comes\n  \
    restate | restate=PARTITIONS, and :sequential or :one-step after either: its fastest ways\n  \
    dtm                        DTM's server, on the run's Postgres, branch updates synchronous\n  \
    dtm=grpc://HOST:PORT       a DTM that runs (tried with 1.19.0) and reaches this machine's 127.0.0.1\n  \
    http='METHOD URL TEMPLATE' whatever runs one saga for a request and answers 2xx at its end. In URL and TEMPLATE\n                             \
    stand {id} for the saga, {a} {b} {c} for the participants' HOST:PORT; they serve gRPC,\n                             \
    range.v1.Bench/Act. (Temporal: a front of your own that starts a workflow and waits for\n                             \
    its result, and a worker whose activities make the calls; not tried here.)\n\
    `cargo xtask peers` puts dtmrs, restate and dtm ready.";

impl FromStr for Wish {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (name, rest) = text.split_once('=').map_or((text, None), |(name, rest)| (name, Some(rest)));
        Ok(match (name, rest) {
            ("dtmrs", None) => Self::Dtmrs,
            ("restate", rest) => restate(rest.unwrap_or_default())?,
            ("dtm", None) => Self::Dtm,
            ("dtm", Some(address)) => match address.strip_prefix("grpc://") {
                Some(address) if !address.is_empty() => Self::DtmAt(format!("http://{address}")),
                _ => bail!("dtm=grpc://HOST:PORT, not {address}: its branches are gRPC methods"),
            },
            ("http", Some(template)) => Self::Http(template.parse()?),
            _ => bail!("no such peer: {text}"),
        })
    }
}

fn restate(text: &str) -> Result<Wish> {
    let (partitions, manner) = text.split_once(':').unwrap_or((text, ""));
    let manner = match manner {
        "" => Manner::AsAsked,
        "sequential" => Manner::Sequential,
        "one-step" => Manner::OneStep,
        other => bail!("restate's sagas go :sequential or :one-step, not {other}"),
    };
    let partitions =
        match partitions {
            "" => PARTITIONS,
            number => number.parse().ok().filter(|&number| number > 0).with_context(|| {
                format!("restate=PARTITIONS, a number from 1 to {}, not {number}", u16::MAX)
            })?,
        };
    Ok(Wish::Restate { partitions, manner })
}
