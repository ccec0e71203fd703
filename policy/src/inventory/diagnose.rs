//! What the author of an inventory should know: which requests will find no destination.

use super::Inventory;
use crate::diagnostic::{Diagnostic, Location, code};
use crate::resource::Workload;

impl Inventory {
    /// Warnings about addresses that several workloads claim and about a default that does not exist.
    #[must_use]
    pub fn diagnose(&self) -> Vec<Diagnostic> {
        let mut found = Vec::new();
        for (address, ids) in self.addresses.shared() {
            let mut workloads = ids.iter().filter_map(|id| self.workload(*id));
            let (Some(first), Some(second)) = (workloads.next(), workloads.next()) else {
                continue;
            };
            let message = format!(
                "`{}` has the address `{address}` of `{}`",
                name(second),
                name(first)
            );
            found.push(
                code::SHARED_ADDRESS
                    .at(second.at.clone(), message)
                    .with_resource(name(second))
                    .with_hint("have the proxies name their workload, `portcullis.workload`"),
            );
        }
        found.sort_by(|a, b| (&a.location, &a.message).cmp(&(&b.location, &b.message)));
        if let Some(default) = &self.default_workload
            && self.named(default).is_empty()
        {
            let message = format!("no workload `{default}`, the configured default");
            found.push(code::UNKNOWN_DEFAULT.at(Location::default(), message));
        }
        found
    }
}

fn name(workload: &Workload) -> String {
    format!(
        "{}/{}/{}",
        workload.kind.as_str(),
        workload.namespace,
        workload.name
    )
}
