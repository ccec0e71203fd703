//! The systemd units that are shipped: systemd takes them, and they fit the command line.

use std::fs;
use std::process::Command;
use std::time::Duration;

use portcullis_tests::component::{run_folder, workspace};
use portcullis_tests::process;

use crate::PORTCULLIS;

const UNITS: [&str; 2] = ["portcullis-authz.service", "portcullis-authz.socket"];

fn unit(name: &str) -> String {
    fs::read_to_string(workspace().join("deploy/systemd").join(name)).unwrap()
}

#[test]
fn systemd_takes_the_units() {
    let folder = run_folder("serving-units");
    for name in UNITS {
        // It looks for the executable.
        let text = unit(name).replace("/usr/bin/portcullis ", &format!("{PORTCULLIS} "));
        fs::write(folder.join(name), text).unwrap();
    }
    let mut verify = Command::new("systemd-analyze");
    verify
        .arg("verify")
        .args(UNITS.map(|name| folder.join(name)));
    match process::run(&mut verify, Duration::from_secs(60)) {
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => {
            eprintln!(
                "\n==== SKIPPED, NOT PASSED ====\nthere is no `systemd-analyze` here\n====\n"
            );
        }
        Err(cause) => panic!("{cause}"),
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(
                output.status.success() && !said.contains("portcullis"),
                "{said}"
            );
        }
    }
}

#[test]
fn the_units_fit_the_command_line_and_each_other() {
    let [service, socket] = UNITS.map(unit);
    assert!(service.contains("ExecStart=/usr/bin/portcullis authz serve --config "));
    assert!(service.contains("ExecReload=/bin/kill -HUP $MAINPID\n"));
    assert!(service.contains("Requires=portcullis-authz.socket\n"));
    assert!(socket.contains("Service=portcullis-authz.service\n"));
    let name = socket
        .lines()
        .find_map(|line| line.strip_prefix("FileDescriptorName="));
    let address = format!("systemd:{}", name.unwrap());
    for text in [service, socket] {
        assert!(text.contains(&address), "{address}");
    }
    address
        .parse::<portcullis_authz::endpoint::Endpoint>()
        .unwrap();
}
