//! What a credential plugin of the kubeconfig (`user.exec`) says: run once, with a limit, as kubectl runs it.
//!
//! Commands of the plugin are short, so what it says is not asked for again when it expires.

use std::process::Stdio;

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use kube::config::{AuthInfo, ExecConfig, ExecInteractiveMode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::{Instant, timeout_at};

/// Longest answer, bytes.
const LONGEST: usize = 1 << 20;

/// An `ExecCredential`, of any of its versions.
#[derive(Deserialize)]
struct ExecCredential {
    kind: String,
    #[serde(default)]
    status: Option<Credentials>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Credentials {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    client_certificate_data: Option<String>,
    #[serde(default)]
    client_key_data: Option<String>,
}

/// Runs the plugin of `user`, where it has one and nothing that goes before it, and puts in its place what it says.
///
/// # Errors
/// When it cannot be run, does not end in time, fails, or says nothing that can be used.
pub async fn fetch(user: &mut AuthInfo, takes_stdin: bool, until: Instant) -> anyhow::Result<()> {
    let has_other = user.token.is_some() || user.token_file.is_some() || user.username.is_some();
    let Some(plugin) = user.exec.take().filter(|_| !has_other) else {
        return Ok(());
    };
    let command = plugin.command.clone().unwrap_or_default();
    if command.is_empty() {
        bail!("the kubeconfig's credential plugin has no `command`");
    }
    let said = run(&plugin, &command, takes_stdin, until).await?;
    let broken = |why: String| {
        anyhow!("the credential plugin `{command}` says nothing that can be used: {why}")
    };
    let said: ExecCredential =
        serde_saphyr::from_slice(&said).map_err(|error| broken(error.to_string()))?;
    if said.kind != "ExecCredential" {
        return Err(broken(format!(
            "its kind is `{}`, not `ExecCredential`",
            said.kind
        )));
    }
    let status = said
        .status
        .ok_or_else(|| broken("it has no `status`".to_owned()))?;
    let mut known = json!({});
    let mut set = |key: &str, value: String| {
        if let Some(fields) = known.as_object_mut() {
            fields.insert(key.to_owned(), Value::String(value));
        }
    };
    match (
        status.token,
        status.client_certificate_data,
        status.client_key_data,
    ) {
        (token, Some(certificate), Some(key)) => {
            set(
                "client-certificate-data",
                BASE64_STANDARD.encode(certificate),
            );
            set("client-key-data", BASE64_STANDARD.encode(key));
            if let Some(token) = token {
                set("token", token);
            }
        }
        (Some(token), None, None) if !token.is_empty() => set("token", token),
        _ => {
            return Err(broken(
                "its `status` has neither a `token` nor both `clientCertificateData` and `clientKeyData`".to_owned(),
            ));
        }
    }
    let known: AuthInfo = serde_json::from_value(known).context("cannot use the credentials")?;
    user.token = known.token;
    if known.client_certificate_data.is_some() {
        user.client_certificate_data = known.client_certificate_data;
        user.client_key_data = known.client_key_data;
    }
    Ok(())
}

/// What it prints.
async fn run(
    plugin: &ExecConfig,
    command: &str,
    takes_stdin: bool,
    until: Instant,
) -> anyhow::Result<Vec<u8>> {
    let mode = plugin.interactive_mode.as_ref();
    if takes_stdin && mode == Some(&ExecInteractiveMode::Always) {
        bail!(
            "the credential plugin `{command}` wants standard input, which holds what is checked: give a file"
        );
    }
    let is_interactive = mode != Some(&ExecInteractiveMode::Never) && !takes_stdin;
    let asked = json!({
        "apiVersion": plugin.api_version, "kind": "ExecCredential",
        "spec": { "interactive": is_interactive, "cluster": plugin.cluster },
    });
    let mut child = Command::new(command);
    child
        .args(plugin.args.iter().flatten())
        .env("KUBERNETES_EXEC_INFO", asked.to_string())
        .stdin(if is_interactive {
            Stdio::inherit()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        // Whoever has to log in is told there.
        .stderr(Stdio::inherit())
        .kill_on_drop(true);
    for variable in plugin.env.iter().flatten() {
        if let (Some(name), Some(value)) = (variable.get("name"), variable.get("value")) {
            child.env(name, value);
        }
    }
    let child = child.spawn().map_err(|error| {
        let hint = plugin.install_hint.as_deref().unwrap_or_default();
        let hint = if hint.is_empty() {
            String::new()
        } else {
            format!("; {}", hint.trim())
        };
        anyhow!("cannot run the credential plugin `{command}` of the kubeconfig: {error}{hint}")
    })?;
    let output = timeout_at(until, child.wait_with_output()).await;
    let output = output
        .map_err(|_| anyhow!("the credential plugin `{command}` of the kubeconfig does not end"))?;
    let output = output.with_context(|| format!("the credential plugin `{command}`"))?;
    if !output.status.success() {
        bail!(
            "the credential plugin `{command}` of the kubeconfig failed: {}",
            output.status
        );
    }
    if output.stdout.len() > LONGEST {
        bail!("the credential plugin `{command}` of the kubeconfig says more than 1 MiB");
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// A user with a plugin that is a shell script.
    fn user(script: &str) -> AuthInfo {
        let user = json!({ "exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script],
            "env": [{ "name": "WHO", "value": "me" }], "interactiveMode": "IfAvailable",
        } });
        serde_json::from_value(user).unwrap()
    }

    async fn fetched(script: &str) -> Result<Value, String> {
        let mut user = user(script);
        let until = Instant::now() + Duration::from_secs(5);
        let fetched = fetch(&mut user, true, until).await;
        fetched.map_err(|error| format!("{error:#}"))?;
        assert!(user.exec.is_none(), "nobody runs it again");
        Ok(serde_json::to_value(user).unwrap())
    }

    #[tokio::test]
    async fn a_token_or_a_certificate_is_taken() {
        let token =
            r#"echo "{\"kind\": \"ExecCredential\", \"status\": {\"token\": \"of-$WHO\"}}""#;
        assert_eq!(fetched(token).await.unwrap()["token"], "of-me");
        let pem = r#"echo '{"kind": "ExecCredential", "status": {"clientCertificateData": "C", "clientKeyData": "K"}}'"#;
        let user = fetched(pem).await.unwrap();
        assert_eq!(user["client-certificate-data"], BASE64_STANDARD.encode("C"));
        assert_eq!(user["client-key-data"], BASE64_STANDARD.encode("K"));
        // What it is asked.
        let asked = r#"case "$KUBERNETES_EXEC_INFO" in *'"interactive":false'*) ;; *) exit 3;; esac
            echo '{"kind": "ExecCredential", "status": {"token": "t"}}'"#;
        assert_eq!(fetched(asked).await.unwrap()["token"], "t");
    }

    #[tokio::test]
    async fn what_is_wrong_with_it_is_told() {
        for (script, told) in [
            ("exit 7", "failed: exit status: 7"),
            ("echo hello", "says nothing that can be used"),
            ("echo '{\"kind\": \"ExecCredential\"}'", "no `status`"),
            (
                "echo '{\"kind\": \"Pod\", \"status\": {}}'",
                "its kind is `Pod`",
            ),
            (
                "echo '{\"kind\": \"ExecCredential\", \"status\": {\"clientKeyData\": \"K\"}}'",
                "neither a `token` nor both",
            ),
        ] {
            let error = fetched(script).await.unwrap_err();
            assert!(error.contains(told), "{script}: {error}");
        }
        let mut none = user("");
        if let Some(plugin) = &mut none.exec {
            plugin.command = Some("portcullis-no-such-plugin".to_owned());
            plugin.install_hint = Some("get it from the platform team\n".to_owned());
        }
        let error = fetch(&mut none, true, Instant::now())
            .await
            .unwrap_err()
            .to_string();
        assert!(
            error.ends_with("; get it from the platform team"),
            "{error}"
        );
        let mut slow = user("sleep 60");
        let until = Instant::now() + Duration::from_millis(200);
        let error = fetch(&mut slow, true, until).await.unwrap_err().to_string();
        assert!(error.contains("does not end"), "{error}");
        let mut asks = user("true");
        if let Some(plugin) = &mut asks.exec {
            plugin.interactive_mode = Some(ExecInteractiveMode::Always);
        }
        let error = fetch(&mut asks, true, until).await.unwrap_err().to_string();
        assert!(error.contains("wants standard input"), "{error}");
    }

    #[tokio::test]
    async fn what_goes_before_it_keeps_it_from_being_run() {
        let mut user = user("exit 1");
        let token: AuthInfo = serde_json::from_value(json!({ "token": "t" })).unwrap();
        user.token = token.token;
        fetch(&mut user, false, Instant::now()).await.unwrap();
        assert_eq!(serde_json::to_value(user).unwrap()["token"], "t");
    }
}
