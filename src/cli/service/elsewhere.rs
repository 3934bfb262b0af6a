//! Systems whose services are programs like any other.

fn refuse() -> Result<String, String> {
    Err(
        "Services of this kind exist on Windows only. Here, let the system's own service manager run \
         'fyrd agent', for example a systemd unit with ExecStart=/usr/bin/fyrd agent -config-dir=/etc/fyrd"
            .to_owned(),
    )
}

pub fn install(_name: &str, _config: Option<&str>) -> Result<String, String> {
    refuse()
}

pub fn uninstall(_name: &str) -> Result<String, String> {
    refuse()
}

pub fn run(_name: &str, _config: Option<&str>) -> Result<String, String> {
    refuse()
}
