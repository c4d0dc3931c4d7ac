//! Which variables of the environment are settings.
//!
//! # Invariants
//! * A variable that begins like a setting and is none of ours is a fault, so that no misspelt one is passed over. But
//!   Kubernetes hands every pod the addresses of its namespace's services: one called `backstop` must not keep its own
//!   pods from starting (`the_links_of_a_service_called_backstop_are_no_settings`).

/// Variables that begin like settings and are none.
const OTHERS: [&str; 2] = ["BACKSTOP_SERVER", "BACKSTOP_CONFIG"];
/// How those begin that the tests use among themselves.
const OF_TESTS: &str = "BACKSTOP_TEST_";

/// The settings among the variables of this process.
pub(super) fn settings() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, value)| is_setting(name, value))
}

/// A variable that would be a setting if its name or value were text.
pub(super) fn unreadable() -> Option<String> {
    std::env::vars_os()
        .filter(|(name, value)| name.to_str().is_none() || value.to_str().is_none())
        .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
        .find(|(name, value)| is_setting(name, value))
        .map(|(name, _)| name)
}

fn is_setting(name: &str, value: &str) -> bool {
    name.starts_with("BACKSTOP_")
        && !OTHERS.contains(&name)
        && !name.starts_with(OF_TESTS)
        && !is_service_link(name, value)
}

/// `…_SERVICE_HOST`, `…_SERVICE_PORT[_NAME]`, `…_PORT` with a URL, and `…_PORT_7420_TCP[_…]`: what Kubernetes makes of a
/// service, after Docker's links. No setting has a name like these.
fn is_service_link(name: &str, value: &str) -> bool {
    let of_a_port = name.split_once("_PORT_").is_some_and(|(_, rest)| {
        let protocol = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        rest.len() > protocol.len() && (protocol.starts_with("_TCP") || protocol.starts_with("_UDP"))
    });
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && value.contains("://"))
        || of_a_port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_links_of_a_service_called_backstop_are_no_settings() {
        for (name, value) in [
            ("BACKSTOP_SERVICE_HOST", "10.96.0.17"),
            ("BACKSTOP_SERVICE_PORT", "7420"),
            ("BACKSTOP_SERVICE_PORT_GRPC", "7420"),
            ("BACKSTOP_PORT", "tcp://10.96.0.17:7420"),
            ("BACKSTOP_PORT_7420_TCP", "tcp://10.96.0.17:7420"),
            ("BACKSTOP_PORT_7420_TCP_ADDR", "10.96.0.17"),
            ("BACKSTOP_METRICS_SERVICE_HOST", "10.96.0.18"),
        ] {
            assert!(!is_setting(name, value), "{name}");
        }
    }

    #[test]
    fn what_is_misspelt_is_still_taken_for_a_setting() {
        for name in
            ["BACKSTOP_LISTEN", "BACKSTOP_TELEMETRY__SERVICE_NAME", "BACKSTOP_PORT", "BACKSTOP_LEASE_TTL"]
        {
            assert!(is_setting(name, "7420"), "{name}");
        }
        assert!(!is_setting("BACKSTOP_SERVER", "http://127.0.0.1:7420"));
    }
}
