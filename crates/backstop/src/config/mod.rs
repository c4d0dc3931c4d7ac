//! What `backstop serve` runs with: defaults, then a file, then the environment, then flags.
//!
//! Parsed whole before anything is opened; every fault is told at once, and an unknown key is one.

mod engine;
mod environment;
#[cfg(test)]
mod fuzz;
mod password;
mod reader;

use anyhow::{Context, bail};
use backstop_engine::Settings;
use backstop_rpc::ServerSettings;
use backstop_rpc::participants::{ParticipantSettings, WINDOW_BYTES_MAX};
use backstop_sql::PostgresSettings;
use config::{Config, Environment, File, FileFormat, Value};
use reader::Reader;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The defaults, and their documentation.
pub(crate) const DEFAULTS: &str = include_str!("default.toml");

/// Flags that override settings.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Flags {
    /// Settings file (TOML); `--print-config` shows every setting
    #[arg(long, value_name = "FILE", env = "BACKSTOP_CONFIG")]
    pub(crate) config: Option<PathBuf>,
    /// Where sagas are kept: sqlite:PATH or postgres://… [default: sqlite:backstop.db]
    #[arg(long, value_name = "URL")]
    pub(crate) store: Option<String>,
    /// Where the gRPC API listens [default: 127.0.0.1:7420]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) listen: Option<String>,
    /// Where /metrics and /healthz are served; empty: nowhere [default: 127.0.0.1:7421]
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) metrics_listen: Option<String>,
}

/// Where sagas are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum StoreUrl {
    Sqlite(PathBuf),
    Postgres(String),
}

/// What is in force.
#[derive(Debug, Clone)]
pub(crate) struct Configuration {
    pub(crate) store: StoreUrl,
    pub(crate) listen: SocketAddr,
    /// Where other coordinators reach it; `None`: where it listens.
    pub(crate) advertise: Option<String>,
    pub(crate) metrics_listen: Option<SocketAddr>,
    pub(crate) drain_time: Duration,
    pub(crate) engine: Settings,
    pub(crate) server: ServerSettings,
    pub(crate) participants: ParticipantSettings,
    pub(crate) postgres: PostgresSettings,
    pub(crate) telemetry: Telemetry,
}

/// Logs, traces and metrics.
#[derive(Debug, Clone)]
pub(crate) struct Telemetry {
    pub(crate) json: bool,
    pub(crate) log_filter: String,
    pub(crate) otlp_endpoint: Option<String>,
    pub(crate) sample_ratio: f64,
    pub(crate) spans: SpansQueue,
    pub(crate) service_name: String,
}

/// How spans wait and go out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SpansQueue {
    pub(crate) queue_max: usize,
    pub(crate) batch_max: usize,
    pub(crate) every: Duration,
    pub(crate) timeout: Duration,
}

/// Reads every layer.
pub(crate) fn load(flags: &Flags) -> anyhow::Result<Configuration> {
    let merged = merged(flags)?;
    let defaults = Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml)).build()?;
    let mut reader = Reader::new(merged);
    reader.refuse_unknown(&defaults, "error_domains");
    let configuration = read(&mut reader);
    match (reader.finish(), configuration) {
        (Ok(()), Some(configuration)) => Ok(configuration),
        (Err(faults), _) => {
            bail!("the configuration has {} fault(s):\n  {}", faults.len(), faults.join("\n  "))
        }
        (Ok(()), None) => bail!("the configuration could not be read"),
    }
}

/// What is in force, as TOML, with a database's password hidden.
pub(crate) fn print(flags: &Flags) -> anyhow::Result<String> {
    load(flags)?;
    let merged = merged(flags)?;
    let mut shown: BTreeMap<String, Value> = merged.cache.into_table()?.into_iter().collect();
    if let Some(store) = shown.get_mut("store") {
        *store = Value::from(without_password(&store.to_string()));
    }
    let (tables, plain): (Vec<_>, Vec<_>) =
        shown.into_iter().partition(|(_, value)| matches!(value.kind, config::ValueKind::Table(_)));
    let mut text = String::new();
    for (key, value) in &plain {
        writeln!(text, "{key} = {}", toml_value(value))?;
    }
    for (name, table) in tables {
        write_table(&mut text, &name, table)?;
    }
    Ok(text)
}

fn write_table(text: &mut String, name: &str, table: Value) -> anyhow::Result<()> {
    let entries: BTreeMap<String, Value> = table.into_table()?.into_iter().collect();
    let (tables, plain): (Vec<_>, Vec<_>) =
        entries.into_iter().partition(|(_, value)| matches!(value.kind, config::ValueKind::Table(_)));
    if !plain.is_empty() {
        writeln!(text, "\n[{name}]")?;
    }
    for (key, value) in &plain {
        writeln!(text, "{} = {}", toml_key(key), toml_value(value))?;
    }
    for (key, inner) in tables {
        write_table(text, &format!("{name}.{}", toml_key(&key)), inner)?;
    }
    Ok(())
}

/// A key as it may stand in a table's name: in quotes unless it is plain.
fn toml_key(key: &str) -> String {
    let plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if plain { key.to_owned() } else { toml_text(key) }
}

/// A text as TOML's basic strings have it; Rust's own way of escaping is another.
fn toml_text(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 2);
    escaped.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => escaped.extend(['\\', c]),
            c if c.is_control() => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => escaped.push(c),
        }
    }
    escaped.push('"');
    escaped
}

fn toml_value(value: &Value) -> String {
    match &value.kind {
        config::ValueKind::String(text) => toml_text(text),
        _ => value.to_string(),
    }
}

/// A store's URL as it may be shown.
pub(crate) fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://").filter(|(scheme, _)| scheme.starts_with("postgres"))
    else {
        return url.to_owned();
    };
    // Parameters may name a password too, and one that is not written as URLs want it may hold a ?, a / or an @. After the
    // last @ comes the place; what stands behind a ? is shown neither way.
    let (shown, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    match shown.rsplit_once('@') {
        _ if parameters.contains('@') => format!("{scheme}://***"),
        Some((user, place)) => {
            let user = user.split([':', '/']).next().unwrap_or_default();
            format!("{scheme}://{user}:***@{place}")
        }
        None => format!("{scheme}://{shown}"),
    }
}

fn merged(flags: &Flags) -> anyhow::Result<Config> {
    let mut builder = Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
    if let Some(path) = &flags.config {
        builder = builder.add_source(File::from(path.as_path()).format(FileFormat::Toml));
    }
    if let Some(name) = environment::unreadable() {
        anyhow::bail!("{name} is not UTF-8");
    }
    let prefixed = Environment::with_prefix("BACKSTOP").prefix_separator("_").separator("__");
    builder = builder.add_source(prefixed.source(Some(environment::settings().collect())));
    builder = builder.set_override_option("store", flags.store.clone())?;
    builder = builder.set_override_option("listen", flags.listen.clone())?;
    builder = builder.set_override_option("metrics_listen", flags.metrics_listen.clone())?;
    builder.build().context("the configuration cannot be read")
}

fn read(reader: &mut Reader) -> Option<Configuration> {
    let store = reader.text("store");
    let mut store = store_url(&store).map_err(|what| reader.fault("store", what)).ok();
    let password_file = reader.text("postgres.password_file");
    if let (Some(StoreUrl::Postgres(url)), false) = (&mut store, password_file.is_empty()) {
        match password::from_file(url, Path::new(&password_file)) {
            Ok(with_password) => *url = with_password,
            Err(what) => reader.fault("postgres.password_file", what),
        }
    }
    let listen = reader.parsed::<SocketAddr>("listen", "an address like 127.0.0.1:7420");
    let advertise = match reader.text("advertise").as_str() {
        "" => None,
        text => Some(text.to_owned()),
    };
    if advertise.as_ref().is_some_and(|text| !is_host_and_port(text)) {
        reader.fault("advertise", "must be an address like coordinator-1:7420");
    }
    let metrics_listen = match reader.text("metrics_listen").as_str() {
        "" => None,
        _ => reader.parsed("metrics_listen", "an address like 127.0.0.1:7421"),
    };
    let drain_time = reader.duration("drain_time");
    let engine = engine::read(reader);
    let server = ServerSettings {
        request_bytes_max: reader.count("limits.request_bytes_max"),
        reflection: reader.flag("reflection"),
        streams_max: reader.count("api.streams_max"),
        keepalive_interval: reader.duration_or_never("api.keepalive_interval"),
        keepalive_timeout: reader.duration("api.keepalive_timeout"),
        tcp_keepalive: reader.duration_or_never("api.tcp_keepalive"),
    };
    let participants = ParticipantSettings {
        connections_per_endpoint: reader.count("participants.connections_per_endpoint"),
        connect_timeout: reader.duration("participants.connect_timeout"),
        keepalive_timeout: reader.duration("participants.keepalive_timeout"),
        reply_bytes_max: reader.count("participants.reply_bytes_max"),
        request_bytes_max: reader.count("participants.request_bytes_max"),
        reply_headers_bytes_max: reader.count("participants.reply_headers_bytes_max"),
        stream_window_bytes: reader.count_within("participants.stream_window_bytes", 1..=WINDOW_BYTES_MAX),
        connection_window_bytes: reader
            .count_within("participants.connection_window_bytes", 1..=WINDOW_BYTES_MAX),
        silent_calls_max: reader.count("participants.silent_calls_max"),
        reflection_timeout: reader.duration("participants.reflection_timeout"),
        ..ParticipantSettings::default()
    };
    let postgres = PostgresSettings {
        connections_max: reader.count("postgres.connections_max"),
        acquire_timeout: reader.duration("postgres.acquire_timeout"),
        statement_timeout: reader.duration("postgres.statement_timeout"),
        partition_width: reader.duration("postgres.partition_width"),
        partitions_ahead: reader.count("postgres.partitions_ahead"),
    };
    let kept = engine.retention.journals_for + postgres.partition_width * 2;
    if matches!(store, Some(StoreUrl::Postgres(_))) && engine.retention.ids_for < kept {
        reader.fault(
            "retention.ids_for",
            "must be longer than retention.journals_for by two of postgres.partition_width: journals go by partitions",
        );
    }
    let telemetry = telemetry(reader);
    Some(Configuration {
        store: store?,
        listen: listen?,
        advertise,
        metrics_listen,
        drain_time,
        engine,
        server,
        participants,
        postgres,
        telemetry,
    })
}

fn is_host_and_port(text: &str) -> bool {
    let parts = text.rsplit_once(':');
    parts.is_some_and(|(host, port)| {
        !host.is_empty() && port.parse::<u16>().is_ok() && !host.contains(['/', '@', ' '])
    })
}

fn telemetry(reader: &mut Reader) -> Telemetry {
    let format = reader.text("telemetry.log_format");
    if !matches!(format.as_str(), "text" | "json") {
        reader.fault("telemetry.log_format", format!("\"{format}\" is neither text nor json"));
    }
    let log_filter = reader.text("telemetry.log_filter");
    if let Err(error) = tracing_subscriber::EnvFilter::try_new(&log_filter) {
        reader.fault("telemetry.log_filter", error);
    }
    let endpoint = reader.text("telemetry.otlp_endpoint");
    Telemetry {
        json: format == "json",
        log_filter,
        otlp_endpoint: (!endpoint.is_empty()).then_some(endpoint),
        sample_ratio: reader.share("telemetry.sample_ratio"),
        spans: SpansQueue {
            queue_max: reader.count("telemetry.spans_queue_max"),
            batch_max: reader.count("telemetry.spans_batch_max"),
            every: reader.duration("telemetry.spans_every"),
            timeout: reader.duration("telemetry.spans_timeout"),
        },
        service_name: reader.text("telemetry.service_name"),
    }
}

fn store_url(text: &str) -> Result<StoreUrl, String> {
    if let Some(path) = text.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
        return Ok(StoreUrl::Sqlite(PathBuf::from(path)));
    }
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return Ok(StoreUrl::Postgres(text.to_owned()));
    }
    Err("must be sqlite:PATH or postgres://…".to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use backstop_core::{Code, Tier, tier};

    fn with_file(text: &str) -> anyhow::Result<Configuration> {
        let file = tempfile::NamedTempFile::new()?;
        std::fs::write(file.path(), text)?;
        load(&Flags { config: Some(file.path().to_owned()), ..Flags::default() })
    }

    #[test]
    fn the_defaults_of_the_file_are_the_defaults_of_the_code() {
        let read = load(&Flags::default()).unwrap();
        assert_eq!(format!("{:?}", read.engine), format!("{:?}", Settings::default()));
        assert_eq!(format!("{:?}", read.server), format!("{:?}", ServerSettings::default()));
        assert_eq!(read.participants, ParticipantSettings::default());
        assert_eq!(read.postgres, PostgresSettings::default());
    }

    #[test]
    fn peer_29_every_fault_is_told_at_once_and_an_unknown_key_is_one() {
        let told = with_file(
            "stor = 'x'\nlisten = 'here'\n[lease]\nttl = '5 parsecs'\n[limits]\nlabels_max = 0\n\
             [error_domains.payment.NOT_FOUND]\ntier = 'L9'\n[error_domains.payment.NOPE]\ntier = 'L1'",
        )
        .unwrap_err()
        .to_string();
        for part in ["stor:", "listen:", "lease.ttl:", "limits.labels_max:", ".tier:", "NOPE"] {
            assert!(told.to_lowercase().contains(&part.to_lowercase()), "{part} in {told}");
        }
    }

    #[test]
    fn zero_switches_off_what_can_be_and_bounds_are_kept() {
        let off = with_file(
            "[doctor]\nevery = '0s'\n[telemetry]\nl1_shown_max = 0\n\
             [api]\nkeepalive_interval = '0s'\ntcp_keepalive = '0s'",
        )
        .unwrap();
        assert_eq!((off.engine.doctor_every, off.engine.l1_shown_max), (Duration::ZERO, 0));
        assert_eq!(
            (off.server.keepalive_interval, off.server.tcp_keepalive),
            (Duration::ZERO, Duration::ZERO)
        );
        let told = with_file(
            "[doctor]\nevery = '-1s'\nsample = 0\nrun_max = '0s'\n\
             [telemetry]\nl1_shown_max = 257\nl1_shown_for = '0s'\n\
             [participants]\nstream_window_bytes = 0\nconnection_window_bytes = 2147483648\n\
             [api]\nstreams_max = 0\nkeepalive_interval = '-1s'\nkeepalive_timeout = '0s'",
        )
        .unwrap_err()
        .to_string();
        for part in [
            "doctor.every:",
            "doctor.sample:",
            "doctor.run_max:",
            "telemetry.l1_shown_max: must be from 0 to 256, not 257",
            "telemetry.l1_shown_for:",
            "participants.stream_window_bytes: must be from 1 to 2147483647, not 0",
            "participants.connection_window_bytes: must be from 1 to 2147483647, not 2147483648",
            "api.streams_max:",
            "api.keepalive_interval:",
            "api.keepalive_timeout:",
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }

    #[test]
    fn a_domain_overrides_only_what_it_says() {
        let read =
            with_file("[error_domains.payment.NOT_FOUND]\ntier = 'L3'\nfin_code = 'FIN-40404'").unwrap();
        let row = tier(&read.engine.error_domains["payment"], Code::NotFound);
        assert_eq!(
            (row.tier, row.fin_code.to_string(), row.http_status),
            (Tier::L3, "FIN-40404".to_owned(), 500)
        );
    }

    #[test]
    fn a_password_is_never_shown() {
        assert_eq!(
            without_password("postgres://bank:secret@db:5432/backstop"),
            "postgres://bank:***@db:5432/backstop"
        );
        for (url, shown) in [
            ("postgres://bank:sec@ret@db/backstop?password=secret", "postgres://bank:***@db/backstop"),
            ("postgres://bank:sec/ret@db/backstop", "postgres://bank:***@db/backstop"),
            ("postgres://bank:sec/r@et@db", "postgres://bank:***@db"),
            ("postgres://bank:sec?ret@db/backstop", "postgres://***"),
            ("postgres://bank:se@cr?et@db/backstop", "postgres://***"),
            ("postgres://db/backstop?user=bank&password=sec@ret", "postgres://***"),
            ("postgres://db/backstop?password=secret", "postgres://db/backstop"),
            ("sqlite:a.db", "sqlite:a.db"),
            ("sqlite:///var/a@b.db", "sqlite:///var/a@b.db"),
        ] {
            assert_eq!(without_password(url), shown, "{url}");
        }
    }
}
