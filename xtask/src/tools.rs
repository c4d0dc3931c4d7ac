//! The programs that look at `deploy/` and that `cargo xtask stack` runs: found, else installed, else one line that says
//! how to get them.
//!
//! # Invariants
//! * All of it goes into `target/xtask`. Debian's packages are unpacked there and not installed: no service is started,
//!   and nobody has to be root.
//! * Every version is written down here, or in `deploy/observability/collector-build.yaml`.

use crate::prerequisites::{go, python};
use crate::process::{command, on_path, root, run, tools};
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Reads Kubernetes manifests.
const KUBECONFORM: &str = "github.com/yannh/kubeconform/cmd/kubeconform@v0.8.0";
/// The package that has Kubernetes' schemas in it, and which of them we take.
const SCHEMAS: &str = "kubernetes-validate==1.37.0";
const SCHEMAS_OF: &str = "v1.33.0-local-strict";
/// Where the schemas of ServiceMonitor and PrometheusRule come from.
const OPERATOR: &str = "github.com/prometheus-operator/prometheus-operator@v0.85.0";
/// The client's plugin: it reads docker-compose.yml as `docker compose` does, because it is what does.
const COMPOSE: (&str, &str) = ("github.com/docker/compose/v2", "v2.40.3");
/// The version of docker-compose.yml's image.
const ALERTMANAGER: &str = "github.com/prometheus/alertmanager/cmd/alertmanager@v0.28.1";
/// Jaeger 2.13.0: a version 1 and a version 2 are made of each commit, and Go's modules know it by the former.
const JAEGER: (&str, &str) = ("github.com/jaegertracing/jaeger", "v1.76.0");
/// Builds the collector.
const COLLECTOR_BUILDER: &str = "go.opentelemetry.io/collector/cmd/builder@v0.160.0";
pub(crate) const COLLECTOR_PARTS: &str = "deploy/observability/collector-build.yaml";

fn bin(name: &str) -> PathBuf {
    tools().join("bin").join(name)
}

/// One of the programs of Debian's package `prometheus`: `promtool`, `prometheus`.
pub(crate) fn prometheus(program: &str) -> Result<PathBuf> {
    from_debian("prometheus", program)
}

/// Checks Alertmanager's file. Debian's is there in a second.
pub(crate) fn amtool() -> Result<PathBuf> {
    from_debian("prometheus-alertmanager", "amtool")
}

/// Debian's server wants its templates at a place that only an installed package has.
pub(crate) fn alertmanager() -> Result<PathBuf> {
    go_install(ALERTMANAGER, "alertmanager")
}

fn from_debian(package: &str, program: &str) -> Result<PathBuf> {
    let unpacked = tools().join("debian").join(package);
    let own = unpacked.join("usr/bin").join(program);
    if let Some(found) = on_path(program).or_else(|| Some(own.clone()).filter(|file| file.is_file())) {
        return Ok(found);
    }
    let advice = format!("not found; install it (Debian: apt-get install {package})");
    if on_path("apt-get").is_none() || on_path("dpkg-deb").is_none() {
        bail!(advice);
    }
    println!("unpacking Debian's {package} into {}", unpacked.display());
    std::fs::create_dir_all(&unpacked)?;
    let download = || {
        let mut apt = command("apt-get");
        // As root apt would hand the download to a user who may not write here.
        apt.args(["download", "-qq", "-o", "APT::Sandbox::User=root", package]);
        run(apt.current_dir(&unpacked))
    };
    if download().is_err() {
        // Without lists apt knows no package; only root may fetch them.
        run(command("apt-get").args(["update", "-q"])).with_context(|| advice.clone())?;
        download().with_context(|| advice.clone())?;
    }
    for entry in std::fs::read_dir(&unpacked)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            run(command("dpkg-deb").arg("-x").arg(&path).arg(&unpacked))?;
        }
    }
    if own.is_file() { Ok(own) } else { bail!(advice) }
}

/// `go install` into `target/xtask/bin`.
fn go_install(package: &str, name: &str) -> Result<PathBuf> {
    let file = bin(name);
    if let Some(found) = on_path(name).or_else(|| Some(file.clone()).filter(|file| file.is_file())) {
        return Ok(found);
    }
    let go = go().with_context(|| format!("no {name}, and no go to install {package} with"))?;
    println!("installing {package}");
    run(command(go).args(["install", package]).env("GOBIN", tools().join("bin")))?;
    Ok(file)
}

/// Builds a program of a module that `go install` does not take because its go.mod replaces or excludes something: from
/// a module of our own that needs it.
pub(crate) fn go_build((module, version): (&str, &str), package: &str, name: &str) -> Result<PathBuf> {
    let file = bin(name);
    if file.is_file() {
        return Ok(file);
    }
    let go = go().with_context(|| format!("no go to build {package} {version} with"))?;
    println!("building {package} {version}; once, and it takes minutes");
    let began = Instant::now();
    let folder = tools().join(name);
    std::fs::create_dir_all(&folder)?;
    let text = format!("module backstop.invalid/{name}\n\ngo 1.24.9\n\nrequire {module} {version}\n");
    std::fs::write(folder.join("go.mod"), text)?;
    let mut build = command(go);
    build.current_dir(&folder).args([
        "build",
        "-mod=mod",
        "-trimpath",
        "-buildvcs=false",
        "-ldflags=-s -w",
        "-o",
    ]);
    run(build.arg(&file).arg(package))?;
    println!("built in {} s", began.elapsed().as_secs());
    Ok(file)
}

pub(crate) fn kubeconform() -> Result<PathBuf> {
    go_install(KUBECONFORM, "kubeconform")
}

/// `docker compose` without the docker: the plugin is a program of its own.
pub(crate) fn compose() -> Result<PathBuf> {
    match on_path("docker-compose").filter(|file| is_compose_2(file)) {
        Some(found) => Ok(found),
        None => go_build(COMPOSE, &format!("{}/cmd", COMPOSE.0), "docker-compose"),
    }
}

/// The one before it, in Python, reads another language.
fn is_compose_2(file: &Path) -> bool {
    let output = command(file).args(["version", "--short"]).output();
    output.is_ok_and(|output| {
        let version = String::from_utf8_lossy(&output.stdout).trim_start_matches('v').to_owned();
        version.split('.').next().and_then(|major| major.parse::<u32>().ok()).is_some_and(|major| major >= 2)
    })
}

pub(crate) fn jaeger() -> Result<PathBuf> {
    go_build(JAEGER, &format!("{}/cmd/jaeger", JAEGER.0), "jaeger")
}

/// The collector, if it has been built.
pub(crate) fn collector_that_is_there() -> Option<PathBuf> {
    let file = tools().join("collector/_build/otelcol");
    let parts = std::fs::read(root().join(COLLECTOR_PARTS)).ok()?;
    let is_of_these_parts =
        std::fs::read(tools().join("collector/parts.yaml")).is_ok_and(|built| built == parts);
    (file.is_file() && is_of_these_parts).then_some(file)
}

pub(crate) fn collector() -> Result<PathBuf> {
    if let Some(file) = collector_that_is_there() {
        return Ok(file);
    }
    let builder = go_install(COLLECTOR_BUILDER, "builder")?;
    println!("building the collector of {COLLECTOR_PARTS}; once, and it takes minutes");
    let folder = tools().join("collector");
    std::fs::create_dir_all(&folder)?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let go_bin = go().as_deref().and_then(Path::parent).map(Path::to_path_buf);
    let path = std::env::join_paths(std::env::split_paths(&path).chain(go_bin))?;
    let mut build = command(builder);
    build.current_dir(&folder).arg("--config").arg(root().join(COLLECTOR_PARTS)).env("PATH", path);
    run(&mut build)?;
    std::fs::copy(root().join(COLLECTOR_PARTS), folder.join("parts.yaml"))?;
    collector_that_is_there().context("the builder has left no collector")
}

/// A folder of JSON schemas as kubeconform looks for them: Kubernetes' own, strict, and those of the Prometheus operator.
pub(crate) fn kubernetes_schemas() -> Result<PathBuf> {
    let folder = tools().join("schemas").join(SCHEMAS_OF);
    let stamp = folder.join("complete");
    if stamp.is_file() {
        return Ok(folder);
    }
    println!("fetching {SCHEMAS} and {OPERATOR} for their schemas");
    std::fs::create_dir_all(&folder)?;
    kubernetes_own(&folder)?;
    of_the_operator(&folder)?;
    std::fs::write(stamp, "")?;
    Ok(folder)
}

fn kubernetes_own(folder: &Path) -> Result<()> {
    let python = python()?;
    let package = tools().join("schemas/package");
    let mut fetch = command(&python);
    fetch.args(["-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps", "-d"]);
    run(fetch.arg(&package).arg(SCHEMAS))?;
    let wheel = std::fs::read_dir(&package)?.filter_map(|entry| Some(entry.ok()?.path()));
    let wheel = wheel.into_iter().find(|path| path.extension().is_some_and(|e| e == "whl"));
    let unpacked = package.join("unpacked");
    let mut unzip = command(&python);
    unzip.args(["-m", "zipfile", "-e"]).arg(wheel.context("pip has left no wheel")?).arg(&unpacked);
    run(&mut unzip)?;
    for entry in
        std::fs::read_dir(unpacked.join("kubernetes_validate/kubernetes-json-schema").join(SCHEMAS_OF))?
    {
        let path = entry?.path();
        // They lead to each other by addresses on the web; here they lie beside each other.
        let text =
            std::fs::read_to_string(&path)?.replace("\"/api/_definitions.json#", "\"_definitions.json#");
        let mut schema: Value = serde_json::from_str(&text)?;
        if let Some(schema) = schema.as_object_mut() {
            schema.remove("$id");
        }
        std::fs::write(folder.join(path.file_name().unwrap_or_default()), schema.to_string())?;
    }
    std::fs::remove_dir_all(package)?;
    Ok(())
}

fn of_the_operator(folder: &Path) -> Result<()> {
    let go = go().context("no go to fetch it with")?;
    let output = command(go).args(["mod", "download", "-json", OPERATOR]).output()?;
    let module: Value =
        serde_json::from_slice(&output.stdout).with_context(|| format!("{OPERATOR} cannot be had"))?;
    let there = module["Dir"].as_str().with_context(|| format!("{OPERATOR}: {}", module["Error"]))?;
    for kind in ["servicemonitor", "prometheusrule"] {
        let file = Path::new(there).join(format!("jsonnet/prometheus-operator/{kind}s-crd.json"));
        let resource: Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
        let mut schema = resource["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone();
        let fields = schema.pointer("/properties/spec/properties").and_then(Value::as_object);
        fields.with_context(|| format!("the schema of {kind} is not where it was"))?;
        refuse_unknown_fields(&mut schema);
        std::fs::write(folder.join(format!("{kind}-monitoring-v1.json")), schema.to_string())?;
    }
    Ok(())
}

/// What is spelled wrong is no field: an object that lists its fields has no others. `metadata` lists none.
fn refuse_unknown_fields(schema: &mut Value) {
    match schema {
        Value::Object(object) => {
            if object.get("properties").is_some_and(Value::is_object)
                && !object.contains_key("additionalProperties")
            {
                object.insert("additionalProperties".to_owned(), false.into());
            }
            object.values_mut().for_each(refuse_unknown_fields);
        }
        Value::Array(values) => values.iter_mut().for_each(refuse_unknown_fields),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_object_that_lists_its_fields_takes_no_others() {
        let mut schema =
            json!({ "properties": { "a": { "type": "object" }, "properties": { "properties": {} } } });
        refuse_unknown_fields(&mut schema);
        let none = json!(false);
        assert_eq!(schema["additionalProperties"], none);
        assert_eq!(schema["properties"]["properties"]["additionalProperties"], none);
        assert_eq!(schema["properties"]["a"], json!({ "type": "object" }));
    }
}
