//! From flags to the admin API's entry.

use anyhow::{Context as _, bail};
use portcullis_ca::admin::convert::to_spiffe_id;
use portcullis_ca::proto::types;
use portcullis_ca::selector::Selector;
use portcullis_ca::spiffe_id::SpiffeId;
use portcullis_ca::trust_domain::TrustDomain;

use crate::ca::args::{CreateArgs, FieldArgs, UpdateArgs};

/// A SPIFFE ID in canonical form: what is registered is what workloads will carry.
///
/// # Errors
/// When it is none.
pub fn spiffe_id(text: &str) -> anyhow::Result<types::Spiffeid> {
    Ok(to_spiffe_id(&SpiffeId::parse(text)?))
}

/// Selectors, `type:value` each.
///
/// # Errors
/// When one of them is none, or one that no caller can have.
pub fn selectors(texts: &[String]) -> anyhow::Result<Vec<types::Selector>> {
    texts
        .iter()
        .map(|text| {
            let selector: Selector = text.parse()?;
            selector.can_be_found()?;
            Ok(types::Selector {
                r#type: selector.kind().to_owned(),
                value: selector.value().to_owned(),
            })
        })
        .collect()
}

/// A trust domain's name, with or without `spiffe://`.
///
/// # Errors
/// When it is none.
pub fn trust_domain(text: &str) -> anyhow::Result<String> {
    Ok(TrustDomain::from_input(text)?.to_string())
}

/// A lifetime in seconds: `3600`, `90s`, `30m`, `2h`, `1d`.
///
/// # Errors
/// When it is none, negative, or too long.
pub fn ttl(text: &str) -> anyhow::Result<i32> {
    let (number, unit) = match text.char_indices().next_back() {
        Some((at, 's')) => (text.get(..at), 1),
        Some((at, 'm')) => (text.get(..at), 60),
        Some((at, 'h')) => (text.get(..at), 3600),
        Some((at, 'd')) => (text.get(..at), 86_400),
        _ => (Some(text), 1),
    };
    let number: i32 = number
        .and_then(|number| number.parse().ok())
        .with_context(|| format!("`{text}` is no lifetime: write `3600`, `90s`, `30m` or `2h`"))?;
    if number < 0 {
        bail!(
            "the lifetime `{text}` is negative: write `3600`, `90s`, `30m` or `2h`, or 0 for the trust domain's"
        );
    }
    number
        .checked_mul(unit)
        .with_context(|| format!("the lifetime `{text}` is too long"))
}

/// A lifetime that is none of the trust domain's: as [`ttl`], and more than nothing.
///
/// # Errors
/// When it is none.
pub fn lifetime(text: &str) -> Result<std::time::Duration, String> {
    match ttl(text).map(u64::try_from) {
        Ok(Ok(seconds)) if seconds > 0 => Ok(std::time::Duration::from_secs(seconds)),
        Ok(_) => Err("a lifetime of nothing".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What `ca entry create` is to create.
///
/// # Errors
/// With the first flag that is unusable.
pub fn new_entry(args: &CreateArgs) -> anyhow::Result<types::Entry> {
    let mut entry = types::Entry {
        id: args.entry_id.clone().unwrap_or_default(),
        selectors: selectors(&args.selector)?,
        ..types::Entry::default()
    };
    if let Some(id) = &args.spiffe_id {
        entry.spiffe_id = Some(spiffe_id(id)?);
    }
    let mut mask = types::EntryMask::default();
    take(&args.fields, &mut entry, &mut mask)?;
    Ok(entry)
}

/// What `ca entry update` is to change.
///
/// # Errors
/// With the first flag that is unusable, or when there is none.
pub fn changes(args: &UpdateArgs) -> anyhow::Result<(types::Entry, types::EntryMask)> {
    let mut entry = types::Entry {
        id: args.id.clone(),
        ..types::Entry::default()
    };
    let mut mask = types::EntryMask::default();
    if let Some(id) = &args.spiffe_id {
        entry.spiffe_id = Some(spiffe_id(id)?);
        mask.spiffe_id = true;
    }
    if !args.selector.is_empty() {
        entry.selectors = selectors(&args.selector)?;
        mask.selectors = true;
    }
    take(&args.fields, &mut entry, &mut mask)?;
    if mask == types::EntryMask::default() {
        bail!("nothing to change: name at least one flag, such as `--x509-ttl 30m`");
    }
    Ok((entry, mask))
}

fn take(
    fields: &FieldArgs,
    entry: &mut types::Entry,
    mask: &mut types::EntryMask,
) -> anyhow::Result<()> {
    if let Some(id) = &fields.parent_id {
        entry.parent_id = Some(spiffe_id(id)?);
        mask.parent_id = true;
    }
    if let Some(hint) = &fields.hint {
        entry.hint = hint.clone();
        mask.hint = true;
    }
    if !fields.federates_with.is_empty() {
        let names = fields.federates_with.iter();
        entry.federates_with = names
            .map(|name| trust_domain(name))
            .collect::<Result<_, _>>()?;
        mask.federates_with = true;
    }
    if !fields.dns.is_empty() {
        entry.dns_names = fields.dns.clone();
        mask.dns_names = true;
    }
    if let Some(text) = &fields.x509_ttl {
        entry.x509_svid_ttl = ttl(text)?;
        mask.x509_svid_ttl = true;
    }
    if let Some(text) = &fields.jwt_ttl {
        entry.jwt_svid_ttl = ttl(text)?;
        mask.jwt_svid_ttl = true;
    }
    if let Some(time) = fields.expires_at {
        entry.expires_at = time;
        mask.expires_at = true;
    }
    if fields.admin {
        entry.admin = true;
        mask.admin = true;
    }
    if fields.downstream {
        entry.downstream = true;
        mask.downstream = true;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_numbers_with_units() {
        for (text, seconds) in [
            ("0", 0),
            ("3600", 3600),
            ("90s", 90),
            ("30m", 1800),
            ("2h", 7200),
            ("1d", 86_400),
        ] {
            assert_eq!(ttl(text).unwrap(), seconds, "{text}");
        }
        for text in ["", "h", "-5", "-5m", "1.5h", "99999999999", "99999d", "1w"] {
            assert!(ttl(text).is_err(), "{text}");
        }
    }
}
