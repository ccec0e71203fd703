//! Value matchers: the strings of a policy as istiod's Envoy configuration matches them (policy.md 1.4).
//!
//! A constructor per kind of field takes the value as written; [`Pattern::matches`] then answers
//! exactly what Envoy's string matcher or RE2 expression would, without a regex engine and without
//! allocating. In those expressions `.` never matches a newline.

pub mod cidr;

pub use cidr::{Cidr, InvalidCidr};

const SPIFFE: &str = "spiffe://";

/// What a [`Pattern`] compares with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Form {
    /// Anything, the empty string included: a header that is there.
    Any,
    /// Anything but the empty string and strings with a newline (RE2 `.+`).
    Present,
    /// This string.
    Exact(String),
    /// This string, then anything.
    Prefix(String),
    /// Anything, then this string.
    Suffix(String),
    /// These texts in order, from the start to the end of the string, with anything but newlines
    /// between them (texts joined by RE2 `.*`).
    Joined(Vec<String>),
    /// A service account's SPIFFE ID: `spiffe://.+/ns/NS/(.+/|)sa/SA(/.+)?`.
    ServiceAccount {
        /// `/ns/NS/`.
        namespace: String,
        /// `sa/SA`.
        account: String,
    },
    /// A trust domain with a wildcard: `head`, then no slash, then `tail`, then anything but newlines.
    TrustDomain {
        /// `spiffe://`, and what stands before the wildcard.
        head: String,
        /// What stands behind the wildcard, and `/`.
        tail: String,
    },
}

/// One value of a policy field, ready to match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pattern {
    text: String,
    form: Form,
    ignore_case: bool,
}

impl Pattern {
    fn new(text: &str, form: Form) -> Self {
        Self {
            text: text.to_owned(),
            form,
            ignore_case: false,
        }
    }

    /// Paths, ports as text, SNI, claims, metadata: `*`, `*suffix`, `prefix*` or the exact value.
    #[must_use]
    pub fn string(value: &str) -> Self {
        Self::new(value, plain_form(value, Form::Present))
    }

    /// This text, stars included.
    #[must_use]
    pub fn exact(text: &str) -> Self {
        Self::new(text, Form::Exact(text.to_owned()))
    }

    /// This text, stars included, then anything.
    #[must_use]
    pub fn prefix(text: &str) -> Self {
        Self::new(text, Form::Prefix(text.to_owned()))
    }

    /// Header values and methods: as [`Pattern::string`], but `*` matches an empty value too.
    #[must_use]
    pub fn header(value: &str) -> Self {
        Self::new(value, plain_form(value, Form::Any))
    }

    /// Hosts: as [`Pattern::header`], ASCII letters compared without case.
    #[must_use]
    pub fn host(value: &str) -> Self {
        Self {
            ignore_case: true,
            ..Self::header(value)
        }
    }

    /// Principals: `spiffe://` is put before the value; `*` matches every identity.
    #[must_use]
    pub fn principal(value: &str) -> Self {
        let form = if value == "*" {
            Form::Present
        } else if let Some(suffix) = value.strip_prefix('*') {
            Form::Joined(vec![SPIFFE.to_owned(), suffix.to_owned()])
        } else if let Some(prefix) = value.strip_suffix('*') {
            Form::Prefix(format!("{SPIFFE}{prefix}"))
        } else {
            Form::Exact(format!("{SPIFFE}{value}"))
        };
        Self::new(value, form)
    }

    /// Namespaces: `.*/ns/VALUE/.*`, where each `*` of the value matches anything, slashes included.
    #[must_use]
    pub fn namespace(value: &str) -> Self {
        let texts = format!("*/ns/{value}/*");
        Self::new(
            value,
            Form::Joined(texts.split('*').map(str::to_owned).collect()),
        )
    }

    /// Service accounts: `account`, in the policy's own namespace, or `namespace/account`.
    #[must_use]
    pub fn service_account(value: &str, policy_namespace: &str) -> Self {
        let (namespace, account) = value.split_once('/').unwrap_or((policy_namespace, value));
        let form = Form::ServiceAccount {
            namespace: format!("/ns/{namespace}/"),
            account: format!("sa/{account}"),
        };
        Self::new(value, form)
    }

    /// Trust domains: exact, `*`, or with one wildcard that stays within the trust domain.
    #[must_use]
    pub fn trust_domain(value: &str) -> Self {
        let form = match value.split_once('*') {
            _ if value == "*" => Form::Prefix(SPIFFE.to_owned()),
            None => Form::Prefix(format!("{SPIFFE}{value}/")),
            Some((head, tail)) => Form::TrustDomain {
                head: format!("{SPIFFE}{head}"),
                tail: format!("{tail}/"),
            },
        };
        Self::new(value, form)
    }

    /// The value as written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the pattern compares with.
    #[must_use]
    pub fn form(&self) -> &Form {
        &self.form
    }

    /// True when ASCII letters are compared without case.
    #[must_use]
    pub fn ignores_case(&self) -> bool {
        self.ignore_case
    }

    /// True when the pattern matches the whole of `subject`.
    #[must_use]
    pub fn matches(&self, subject: &str) -> bool {
        let same = |a: &[u8], b: &[u8]| {
            if self.ignore_case {
                a.eq_ignore_ascii_case(b)
            } else {
                a == b
            }
        };
        let octets = subject.as_bytes();
        match &self.form {
            Form::Any => true,
            Form::Present => !subject.is_empty() && !subject.contains('\n'),
            Form::Exact(text) => same(octets, text.as_bytes()),
            Form::Prefix(text) => octets
                .split_at_checked(text.len())
                .is_some_and(|(head, _)| same(head, text.as_bytes())),
            Form::Suffix(text) => octets
                .len()
                .checked_sub(text.len())
                .and_then(|at| octets.get(at..))
                .is_some_and(|tail| same(tail, text.as_bytes())),
            Form::Joined(texts) => matches_joined(texts, subject),
            Form::ServiceAccount { namespace, account } => {
                matches_service_account(namespace, account, subject)
            }
            Form::TrustDomain { head, tail } => matches_trust_domain(head, tail, subject),
        }
    }
}

fn plain_form(value: &str, star: Form) -> Form {
    if value == "*" {
        star
    } else if let Some(suffix) = value.strip_prefix('*') {
        Form::Suffix(suffix.to_owned())
    } else if let Some(prefix) = value.strip_suffix('*') {
        Form::Prefix(prefix.to_owned())
    } else {
        Form::Exact(value.to_owned())
    }
}

/// `texts` joined by `.*`, against the whole of `subject`: each text is taken at its first place
/// behind the last one, and the last text at the end.
///
/// Taking the first place is right because only newlines can break a gap, and each newline of the
/// subject has to fall on a newline of a text: where texts hold none, any newline is a mismatch;
/// where they do, there is one place at most.
fn matches_joined(texts: &[String], subject: &str) -> bool {
    let [first, middle @ .., last] = texts else {
        return texts.first().is_some_and(|only| only == subject);
    };
    let Some(rest) = subject.strip_prefix(first.as_str()) else {
        return false;
    };
    let Some(mut rest) = rest.strip_suffix(last.as_str()) else {
        return false;
    };
    for text in middle {
        let Some((gap, behind)) = rest.split_once(text.as_str()) else {
            return false;
        };
        if gap.contains('\n') {
            return false;
        }
        rest = behind;
    }
    !rest.contains('\n')
}

/// `spiffe://.+` `namespace` `(.+/|)` `account` `(/.+)?`, against the whole of `subject`.
fn matches_service_account(namespace: &str, account: &str, subject: &str) -> bool {
    let Some(id) = subject.strip_prefix(SPIFFE) else {
        return false;
    };
    // `.+` takes one character at least, so the namespace is looked for behind the first.
    let mut characters = id.chars();
    let first = characters.next();
    // Its first place is right: from there `(.+/|)` reaches whatever it reaches from a later one.
    let Some((domain, rest)) = characters.as_str().split_once(namespace) else {
        return false;
    };
    if first.is_none_or(|c| c == '\n') || domain.contains('\n') {
        return false;
    }
    let last_newline = rest.rfind('\n');
    let gap_end = rest.find('\n').unwrap_or(rest.len());
    let mut from = 0;
    while let Some(at) = rest
        .get(from..)
        .and_then(|tail| tail.find(account))
        .map(|at| from + at)
    {
        if at > gap_end {
            return false;
        }
        let end = at + account.len();
        let starts_well =
            at == 0 || (at > 1 && rest.get(..at).is_some_and(|gap| gap.ends_with('/')));
        let ends_well = match rest.get(end..) {
            Some("") => true,
            Some(tail) => {
                tail.len() > 1 && tail.starts_with('/') && last_newline.is_none_or(|n| n < end)
            }
            None => false,
        };
        if starts_well && ends_well {
            return true;
        }
        // `account` starts with an `s`, one octet long.
        from = at + 1;
    }
    false
}

/// `head` `[^/]*` `tail` `.*`, against the whole of `subject`; `tail` holds a slash.
fn matches_trust_domain(head: &str, tail: &str, subject: &str) -> bool {
    // The wildcard crosses no slash, so the first slash behind `head` is the first one of `tail`.
    let Some(rest) = subject.strip_prefix(head) else {
        return false;
    };
    let (Some(slash), Some(in_tail)) = (rest.find('/'), tail.find('/')) else {
        return false;
    };
    slash
        .checked_sub(in_tail)
        .and_then(|at| rest.get(at..))
        .and_then(|rest| rest.strip_prefix(tail))
        .is_some_and(|path| !path.contains('\n'))
}
