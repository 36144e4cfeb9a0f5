//! Variables that Kubernetes and docker set in every container for each service beside it.
//!
//! A service called `coffer-server` gives `COFFER_SERVER_PORT=tcp://10.0.0.1:7470` and more: the platform's words, not the
//! operator's. Name and value are compared, so that a misspelt setting does not pass for one of them. Kubernetes:
//! "Accessing the Service" in its documentation of Services; docker: "Legacy container links".

use std::net::IpAddr;

/// Transports in the names and values of links.
const TRANSPORTS: [&str; 3] = ["tcp", "udp", "sctp"];

/// Returns true if a link makes a variable of this `name`, without the prefix that it shares with the settings, and
/// `value`. `name` may itself begin with more of a service's name: that of `coffer-server-api` is `API_SERVICE_HOST`.
pub(super) fn is_link(name: &str, value: &str) -> bool {
    let is_part = |part: &str| part.is_empty() || part.ends_with('_');
    let after = |suffix: &str| name.strip_suffix(suffix).is_some_and(is_part);
    after("SERVICE_HOST") && is_host(value)
        || after("SERVICE_PORT") && is_port(value)
        || name.split_once("SERVICE_PORT_").is_some_and(|(before, _)| is_part(before)) && is_port(value)
        || after("PORT") && is_address(value)
        || is_exposed_port(name, value)
        || after("NAME") && value.starts_with('/')
        || name.strip_prefix("ENV_").is_some()
        || name.contains("_ENV_")
}

/// `PORT_80_TCP` with an address, and `_ADDR`, `_PORT` and `_PROTO` of it.
fn is_exposed_port(name: &str, value: &str) -> bool {
    let Some(at) = name.rfind("PORT_").filter(|at| *at == 0 || name[..*at].ends_with('_')) else { return false };
    let mut parts = name[at..].split('_').skip(1);
    let (Some(port), Some(transport)) = (parts.next(), parts.next()) else { return false };
    if !is_port(port) || !is_transport(&transport.to_ascii_lowercase()) {
        return false;
    }
    match (parts.next(), parts.next()) {
        (None, _) => is_address(value),
        (Some("ADDR"), None) => is_host(value),
        (Some("PORT" | "START" | "END"), None) => is_port(value) || is_address(value),
        (Some("PROTO"), None) => is_transport(value),
        _ => false,
    }
}

/// `tcp://10.0.0.1:80`, or `tcp://[::1]:80`.
fn is_address(value: &str) -> bool {
    let Some((transport, rest)) = value.split_once("://") else { return false };
    is_transport(transport) && rest.rsplit_once(':').is_some_and(|(host, port)| is_host(host) && is_port(port))
}

fn is_host(value: &str) -> bool {
    value.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
}

fn is_port(value: &str) -> bool {
    value.parse::<u16>().is_ok()
}

fn is_transport(value: &str) -> bool {
    TRANSPORTS.contains(&value)
}

#[cfg(test)]
mod tests {
    use super::{super::setting::SETTINGS, *};

    #[test]
    fn every_shape_of_a_link_is_known() {
        for before in ["", "API_", "API_PORT_"] {
            for (name, value) in [
                ("SERVICE_HOST", "10.0.0.1"),
                ("SERVICE_HOST", "fd00::1"),
                ("SERVICE_PORT", "7470"),
                ("SERVICE_PORT_GRPC", "7470"),
                ("PORT", "tcp://10.0.0.1:7470"),
                ("PORT", "tcp://[fd00::1]:7470"),
                ("PORT_7470_TCP", "tcp://10.0.0.1:7470"),
                ("PORT_7470_TCP_ADDR", "10.0.0.1"),
                ("PORT_7470_TCP_PORT", "7470"),
                ("PORT_7470_TCP_PROTO", "tcp"),
                ("PORT_53_UDP", "udp://10.0.0.1:53"),
                ("PORT_53_UDP_PROTO", "udp"),
                ("PORT_9_SCTP_ADDR", "10.0.0.1"),
                ("NAME", "/web/coffer-server"),
                ("ENV_PATH", "/bin"),
                ("ENV_KEY_FILE", ""),
            ] {
                assert!(is_link(&format!("{before}{name}"), value), "{before}{name}={value}");
            }
        }
    }

    #[test]
    fn a_mistyped_setting_is_no_link() {
        for (name, value) in [
            ("PORT", "7470"),
            ("PORT", "http://10.0.0.1:7470"),
            ("HOST", "10.0.0.1"),
            ("SERVICE_HOST", "coffer.example"),
            ("PORTS", "tcp://10.0.0.1:7470"),
            ("REPORT", "tcp://10.0.0.1:7470"),
            ("PORT_X_TCP", "tcp://10.0.0.1:7470"),
            ("NAME", "coffer"),
            ("LISTENS", "127.0.0.1:1"),
            ("ENVIRONMENT", "prod"),
            ("", ""),
        ] {
            assert!(!is_link(name, value), "{name}={value}");
        }
    }

    #[test]
    fn no_setting_has_the_name_of_a_link() {
        let values = ["10.0.0.1", "7470", "tcp://10.0.0.1:7470", "tcp", "/web/coffer-server", "x"];
        for variable in SETTINGS.iter().filter_map(|setting| setting.variable) {
            let name = variable.trim_start_matches("COFFER_SERVER_");
            assert!(values.iter().all(|value| !is_link(name, value)), "{variable}");
        }
    }
}
