//! portcullis.dev PolicyTest: decision cases that must hold.

use super::Metadata;
use super::annotations;
use super::case::{self, DecisionCase};
use super::path::Path;
use super::reader::Reader;
use crate::diagnostic::code;
use crate::document::Node;

/// portcullis.dev PolicyTest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyTest {
    /// Name, namespace.
    pub meta: Metadata,
    /// `spec.cases`, in order.
    pub cases: Vec<DecisionCase>,
}

/// Reads the document; `None` when a case cannot be read, which is reported.
pub(super) fn read(root: &Node, meta: Metadata, reader: &mut Reader<'_>) -> Option<PolicyTest> {
    let parent = Path::Root;
    let path = parent.key("spec");
    annotations::check(&meta, None, reader);
    let Some(spec) = root.get("spec") else {
        reader.report(
            &code::MISSING_FIELD,
            meta.at.clone(),
            &path,
            "a test without `spec`",
            "write its cases under `spec.cases`",
        );
        return None;
    };
    let cases = case::read(spec, &path, &[], reader)?;
    Some(PolicyTest { meta, cases })
}
