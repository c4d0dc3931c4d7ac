//! The parts of the stack, in the order of docker-compose.yml's dependencies.

use super::http::{self, Receiver};
use super::processes::{Processes, free_addresses};
use crate::process::{cargo, command, root, run, target};
use crate::{prerequisites, tools};
use anyhow::{Context, Result, bail};
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

const OBSERVABILITY: &str = "deploy/observability";
/// How long the collector waits for a trace to be whole: longer than a takeover, and less than its own default, so that
/// it is soon over.
const DECISION_WAIT: &str = "10s";
/// The demo's services: name, what else it is told.
const SERVICES: [(&str, &[&str]); 4] = [
    ("ledger_a", &["ledger", "--chaos", "--accounts", "deploy/demo/accounts.csv"]),
    ("ledger_b", &["ledger", "--chaos", "--accounts", "deploy/demo/accounts.csv"]),
    ("risk", &["risk", "--limit-minor", "1000000"]),
    ("audit", &["audit"]),
];
pub(super) const COORDINATORS: [&str; 2] = ["coordinator-1", "coordinator-2"];

/// All that runs, and where.
#[derive(Debug)]
pub(super) struct Stack {
    pub(super) processes: Processes,
    pub(super) backstop: PathBuf,
    pub(super) pager: Receiver,
    folder: PathBuf,
    /// Postgres' own: a user without a way into our target directory has to reach it.
    scratch: PathBuf,
    postgres: SocketAddr,
    collector: SocketAddr,
    pub(super) jaeger: SocketAddr,
    pub(super) prometheus: SocketAddr,
    pub(super) alertmanager: SocketAddr,
    /// The API of each coordinator, and its metrics.
    pub(super) coordinators: [SocketAddr; 2],
    pub(super) metrics: [SocketAddr; 2],
    services: [SocketAddr; 4],
}

impl Stack {
    /// Starts everything, and waits until it is ready.
    pub(super) fn start(folder: &Path) -> Result<Self> {
        let programs = Programs::find()?;
        let [postgres, collector, jaeger, prometheus, alertmanager, c1, c2, m1, m2] = free_addresses()?;
        let mut stack = Self {
            processes: Processes::new(&folder.join("logs"))?,
            backstop: target().join("debug/backstop"),
            pager: Receiver::start()?,
            folder: folder.to_owned(),
            scratch: std::env::temp_dir().join(format!("backstop-stack-{}", std::process::id())),
            postgres,
            collector,
            jaeger,
            prometheus,
            alertmanager,
            coordinators: [c1, c2],
            metrics: [m1, m2],
            services: free_addresses()?,
        };
        stack.start_postgres(&programs.postgres_bin)?;
        stack.start_jaeger_and_collector(&programs)?;
        for name in COORDINATORS {
            stack.start_coordinator(name)?;
        }
        stack.start_services()?;
        stack.register()?;
        stack.start_alertmanager(&programs.alertmanager)?;
        stack.start_prometheus(&programs.prometheus)?;
        Ok(stack)
    }

    fn start_postgres(&mut self, bin: &Path) -> Result<()> {
        let (data, password) = (self.scratch.join("data"), self.password_file());
        std::fs::create_dir_all(&data)?;
        // A secret of this run alone.
        std::fs::write(&password, format!("{:x}\n", std::process::id().wrapping_mul(2_654_435_761)))?;
        // Postgres does not run as root: in a container it is the user of its package.
        let as_root = command("id").arg("-u").output()?.stdout.trim_ascii() == b"0";
        let program = |name: &str| {
            let mut command = command(if as_root { Path::new("setpriv").into() } else { bin.join(name) });
            if as_root {
                command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(bin.join(name));
            }
            command.current_dir("/");
            command
        };
        if as_root {
            run(command("chown").arg("-R").arg("postgres").arg(&self.scratch))?;
        }
        let mut init = program("initdb");
        init.args([
            "--username=backstop",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--no-sync",
            "--pgdata",
        ]);
        init.arg(&data).arg("--pwfile").arg(&password).stdout(std::process::Stdio::null());
        run(&mut init)?;
        let mut server = program("postgres");
        server.arg("-D").arg(&data).arg("-p").arg(self.postgres.port().to_string());
        server.args(["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]);
        self.processes.start("postgres", &mut server)?;
        let address = self.postgres;
        self.processes.ready("postgres", || Ok(std::net::TcpStream::connect(address).map(drop)?))?;
        // It takes connections a little before it answers them.
        let mut tries = 0;
        while let Err(error) =
            run(self.backstop_with_store().arg("migrate").stdout(std::process::Stdio::null()))
        {
            tries += 1;
            if tries > 5 {
                return Err(error);
            }
            std::thread::sleep(std::time::Duration::from_secs(1));
        }
        self.processes.say("the schema is up to date");
        Ok(())
    }

    fn password_file(&self) -> PathBuf {
        self.scratch.join("password")
    }

    /// `backstop`, told of the store as in docker-compose.yml.
    fn backstop_with_store(&self) -> Command {
        let mut command = command(&self.backstop);
        command
            .env("BACKSTOP_STORE", format!("postgres://backstop@{}/postgres", self.postgres))
            .env("BACKSTOP_POSTGRES__PASSWORD_FILE", self.password_file());
        command
    }

    fn start_jaeger_and_collector(&mut self, programs: &Programs) -> Result<()> {
        let [traces, grpc, health, own, collector_health, collector_own] = free_addresses()?;
        let mut jaeger = command(&programs.jaeger);
        jaeger.arg("--config").arg(format!("{OBSERVABILITY}/jaeger.yaml"));
        jaeger
            .env("JAEGER_LISTEN", traces.to_string())
            .env("JAEGER_QUERY", self.jaeger.to_string())
            .env("JAEGER_QUERY_GRPC", grpc.to_string())
            .env("JAEGER_HEALTH", health.to_string());
        self.processes.start("jaeger", with_telemetry(&mut jaeger, own))?;
        self.processes.ready("jaeger", || http::get(health, "/status").map(drop))?;
        let mut collector = command(&programs.collector);
        collector.arg("--config").arg(format!("{OBSERVABILITY}/otel-collector.yaml"));
        collector
            .env("OTLP_LISTEN", self.collector.to_string())
            .env("HEALTH_LISTEN", collector_health.to_string())
            .env("JAEGER_OTLP", traces.to_string())
            .env("DECISION_WAIT", DECISION_WAIT);
        self.processes.start("otel-collector", with_telemetry(&mut collector, collector_own))?;
        self.processes.ready("otel-collector", || http::get(collector_health, "/").map(drop))
    }

    /// Starts a coordinator, for the first time or again.
    pub(super) fn start_coordinator(&mut self, name: &str) -> Result<()> {
        let place = COORDINATORS.iter().position(|known| *known == name).context("no such coordinator")?;
        let (api, metrics) = (self.coordinators[place], self.metrics[place]);
        let mut serve = self.backstop_with_store();
        serve
            .args(["serve", "--stop-at-stdin-end", "--listen", &api.to_string()])
            .args(["--metrics-listen", &metrics.to_string()])
            .env("BACKSTOP_ADVERTISE", api.to_string())
            .env("BACKSTOP_TELEMETRY__LOG_FORMAT", "json")
            .env("BACKSTOP_TELEMETRY__OTLP_ENDPOINT", format!("http://{}", self.collector));
        self.processes.start(name, &mut serve)?;
        self.processes.ready(name, || http::get(metrics, "/healthz").map(drop))
    }

    fn start_services(&mut self) -> Result<()> {
        for ((name, words), address) in SERVICES.into_iter().zip(self.services) {
            let mut service = command(&self.backstop);
            service.arg("demo-service").args(words).args(["--name", name, "--stop-at-stdin-end"]);
            service.args(["--listen", &address.to_string()]);
            if name != "risk" {
                service.arg("--db").arg(self.folder.join(format!("{name}.db")));
            }
            self.processes.start(name, self.exporting(&mut service))?;
            self.processes.ready(name, || Ok(std::net::TcpStream::connect(address).map(drop)?))?;
        }
        Ok(())
    }

    /// Tells a participant or a caller where its spans go, as OpenTelemetry has it.
    pub(super) fn exporting<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", self.collector))
    }

    /// A script of `deploy/demo`, with this `backstop` in its PATH.
    pub(super) fn script(&self, name: &str) -> Result<Command> {
        let mut script = command("sh");
        let path = std::env::var_os("PATH").unwrap_or_default();
        let own = self.backstop.parent().map(Path::to_path_buf);
        let path = std::env::join_paths(own.into_iter().chain(std::env::split_paths(&path)))?;
        script.arg(format!("deploy/demo/{name}")).env("PATH", path);
        Ok(script)
    }

    fn register(&self) -> Result<()> {
        let mut register = self.script("register.sh")?;
        register.env("BACKSTOP_SERVER", format!("http://{}", self.coordinators[0]));
        register.env("DEMO", root().join("examples/transfer"));
        for (variable, address) in ["LEDGER_A", "LEDGER_B", "RISK", "AUDIT"].into_iter().zip(self.services) {
            register.env(variable, format!("http://{address}"));
        }
        let output = register.output()?;
        if !output.status.success() {
            bail!("register.sh: {}", String::from_utf8_lossy(&output.stderr));
        }
        self.processes.say("participants and the definition are registered");
        Ok(())
    }

    fn start_alertmanager(&mut self, program: &Path) -> Result<()> {
        // The one line that an operator changes: where the pager is.
        let text = std::fs::read_to_string(root().join(OBSERVABILITY).join("alertmanager.yml"))?;
        let own = text.replace("http://127.0.0.1:9099", &format!("http://{}", self.pager.address));
        if own == text {
            bail!("alertmanager.yml names another pager than this chore knows");
        }
        let file = self.folder.join("alertmanager.yml");
        std::fs::write(&file, own)?;
        let mut alertmanager = command(program);
        alertmanager.arg(format!("--config.file={}", file.display()));
        alertmanager.arg(format!("--storage.path={}", self.folder.join("alertmanager").display()));
        alertmanager
            .arg(format!("--web.listen-address={}", self.alertmanager))
            .arg("--cluster.listen-address=");
        self.processes.start("alertmanager", &mut alertmanager)?;
        let address = self.alertmanager;
        self.processes.ready("alertmanager", || http::get(address, "/-/ready").map(drop))
    }

    fn start_prometheus(&mut self, program: &Path) -> Result<()> {
        let folder = self.folder.join("prometheus");
        std::fs::create_dir_all(folder.join("targets"))?;
        for file in ["prometheus.yml", "alerts.yml"] {
            std::fs::copy(root().join(OBSERVABILITY).join(file), folder.join(file))?;
        }
        let target = |file: &str, addresses: &[SocketAddr]| {
            let text = serde_json::json!([{ "targets": addresses }]).to_string();
            std::fs::write(folder.join("targets").join(file), text)
        };
        target("backstop.json", &self.metrics)?;
        target("alertmanager.json", &[self.alertmanager])?;
        target("observability.json", &[self.alertmanager, self.prometheus])?;
        let mut prometheus = command(program);
        prometheus.arg(format!("--config.file={}", folder.join("prometheus.yml").display()));
        prometheus.arg(format!("--storage.tsdb.path={}", folder.join("data").display()));
        prometheus.arg(format!("--web.listen-address={}", self.prometheus));
        self.processes.start("prometheus", &mut prometheus)?;
        let address = self.prometheus;
        self.processes.ready("prometheus", || http::get(address, "/-/ready").map(drop))
    }

    /// Where to look, for people.
    pub(super) fn addresses(&self) -> String {
        let mut text = String::new();
        for (what, address) in [
            ("Jaeger", self.jaeger),
            ("Prometheus", self.prometheus),
            ("Alertmanager", self.alertmanager),
            ("coordinator", self.coordinators[1]),
        ] {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{what:<13} http://{address}");
        }
        text
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.processes.end();
        // It is in the temporary directory: whoever sweeps there takes what we could not.
        let _ = std::fs::remove_dir_all(&self.scratch);
    }
}

fn with_telemetry(command: &mut Command, own: SocketAddr) -> &mut Command {
    command.env("TELEMETRY_HOST", own.ip().to_string()).env("TELEMETRY_PORT", own.port().to_string())
}

/// What has to be there.
struct Programs {
    postgres_bin: PathBuf,
    prometheus: PathBuf,
    alertmanager: PathBuf,
    collector: PathBuf,
    jaeger: PathBuf,
}

impl Programs {
    /// Finds or gets each of them, and builds ours.
    fn find() -> Result<Self> {
        let found = Self {
            postgres_bin: prerequisites::postgres().context("Postgres")?,
            prometheus: tools::prometheus("prometheus").context("Prometheus")?,
            alertmanager: tools::alertmanager("alertmanager").context("Alertmanager")?,
            collector: tools::collector().context("the OpenTelemetry collector")?,
            jaeger: tools::jaeger().context("Jaeger")?,
        };
        run(cargo().args(["build", "--quiet", "--package", "backstop"]))?;
        Ok(found)
    }
}
