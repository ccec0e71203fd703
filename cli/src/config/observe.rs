//! `management`: where the service is seen from.

use std::path::Path;

use portcullis_authz::observe::Options;
use portcullis_policy::document::Node;

use super::read::Reader;

/// Reads `management`; the path of a unix socket is relative to `folder`.
pub fn management(reader: &mut Reader, node: &Node, folder: &Path, options: &mut Options) {
    for (name, node) in reader.fields(node, "management") {
        if name == "address" {
            options.management = reader.endpoint(node, folder);
        }
    }
}
