//! `portcullis ca init`: the data folder and the first authorities.

use std::io::Write as _;
use std::sync::Arc;

use portcullis_ca::ca::Ca;
use portcullis_ca::clock::SystemClock;
use portcullis_ca::store::AuthorityKind;

use super::args::InitArgs;
use super::options;
use crate::args::Output;
use crate::authz::serve::runtime;
use crate::config::Config;
use crate::exit::Exit;
use crate::out;

/// Makes what is missing; what is there is left as it is.
///
/// # Errors
/// When it cannot be made, or belongs to another trust domain.
pub fn run(args: &InitArgs, output: Output) -> anyhow::Result<Exit> {
    let config = Config::load(args.config.config.as_deref())?;
    runtime()?.block_on(async {
        let (options, _) = options::options(args, &config).await?;
        let ca = Ca::open(options, Arc::new(SystemClock)).await?;
        let set = ca.authorities();
        let id = |kind| {
            set.active(kind)
                .map_or("none", |authority| authority.row.id.as_str())
        };
        let (x509, jwt) = (id(AuthorityKind::X509), id(AuthorityKind::Jwt));
        let data = ca.options().data.display();
        let mut stdout = out::stdout();
        match output {
            Output::Human => {
                writeln!(stdout, "Trust domain    : {}", ca.trust_domain())?;
                writeln!(stdout, "Data            : {data}")?;
                writeln!(stdout, "X.509 authority : {x509}")?;
                writeln!(stdout, "JWT authority   : {jwt}")?;
            }
            Output::Json => {
                let line = serde_json::json!({
                    "trust_domain": ca.trust_domain().as_str(), "data": data.to_string(),
                    "x509_authority": x509, "jwt_authority": jwt,
                });
                writeln!(stdout, "{line}")?;
            }
        }
        stdout.flush()?;
        anyhow::Ok(())
    })?;
    Ok(Exit::Yes)
}
